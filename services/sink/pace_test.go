package sink

import (
	"fmt"
	"math"
	"testing"
	"time"
)

// steps lets a pace go through steps in which so many of the calls that it
// allows fail, one in so many, and returns its lines.
func steps(p *pace, now *time.Time, n, oneIn int) (lines []string) {
	for range n {
		calls := int(p.line * paceStep.Seconds())
		for i := range calls {
			p.told(*now, oneIn > 0 && i%oneIn == 0)
		}
		*now = now.Add(paceStep)
		p.next(*now, false)
		lines = append(lines, fmt.Sprintf("%.0f", p.line))
	}
	return lines
}

func TestPace(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		before float64
		oneIn  int // fails; 0: none
		want   string
	}{
		"doubles, then feels its way":    {100, 0, "[10 20 40 80 100 125 156 195]"},
		"under a tenth fail":             {100, 20, "[10 20 40 80 100 125 156 195]"},
		"a tenth fail":                   {100, 10, "[2 1 1 1 1 1 1 1]"},
		"nobody knows the rate before":   {0, 0, "[2 4 8 16 32 64 128 256]"},
		"there was next to nothing":      {2, 0, "[2 2 3 4 5 6 8 10]"},
		"the rate before is a large one": {20_000, 0, "[2000 4000 8000 16000 20000 25000 31250 39062]"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var p pace
			now := time.Now()
			p.start(now, c.before)
			if got := fmt.Sprint(steps(&p, &now, 8, c.oneIn)); got != c.want {
				t.Errorf("the lines are %s, expected %s", got, c.want)
			}
		})
	}
}

func TestPaceStepsBackAtOnce(t *testing.T) {
	t.Parallel()
	var p pace
	now := time.Now()
	if p.told(now, true) || p.at(now) != math.Inf(1) {
		t.Error("without a slow start, something is bounded")
	}
	p.start(now, 100)
	steps(&p, &now, 4, 0)
	for i := range 100 {
		if p.told(now, i%3 != 0) { // never three in a row
			t.Fatal("it steps back before its step ends")
		}
	}
	p.told(now, false)
	for i := range paceRow {
		if got := p.told(now, true); got != (i == paceRow-1) {
			t.Fatalf("after %d failures in a row, a rest: %v", i+1, got)
		}
	}
	if p.line != 40 {
		t.Errorf("of 80/s, %v are left", p.line)
	}
	if got := fmt.Sprint(steps(&p, &now, 3, 0)); got != "[50 62 78]" {
		t.Errorf("from there, it goes on as %s", got)
	}
}

// A rate that was not made use of does not grow; one that holds back nothing for
// a while ends.
func TestPaceWithoutUse(t *testing.T) {
	t.Parallel()
	var p pace
	now := time.Now()
	p.start(now, 100)
	steps(&p, &now, 2, 0)
	begun := now
	for p.active() {
		now = now.Add(paceStep)
		if p.line != 20 {
			t.Fatalf("without a call the rate became %v", p.line)
		}
		p.next(now, false)
		if now.Sub(begun) > time.Hour {
			t.Fatal("it goes on for ever")
		}
	}
	if now.Sub(begun) != paceIdle {
		t.Errorf("it ended after %v, expected %v", now.Sub(begun), paceIdle)
	}
	p.start(now, 100)
	steps(&p, &now, 30, 0)
	for range 1000 { // the destination asks for patience
		now = now.Add(paceStep)
		p.next(now, true)
	}
	if !p.active() {
		t.Error("it ended while nobody could make use of it")
	}
}

// What the pace is expected to be is what it becomes, if all goes well.
func TestPaceAhead(t *testing.T) {
	t.Parallel()
	var p pace
	now := time.Now()
	p.start(now, 100)
	start := p
	for range 10 {
		if got := start.at(now); got != p.line {
			t.Errorf("%v after the start, %v/s are expected, %v/s are allowed", now.Sub(start.used), got, p.line)
		}
		steps(&p, &now, 1, 0)
	}
}

func TestMeter(t *testing.T) {
	t.Parallel()
	var m meter
	start := time.Unix(1_800_000_000, 0)
	at := func(second int) time.Time { return start.Add(time.Duration(second) * time.Second) }
	calls := func(from, to, each int) {
		for s := from; s < to; s++ {
			for range each {
				m.add(at(s), 1)
			}
		}
	}
	expect := func(second int, want float64) {
		t.Helper()
		if got := m.rate(at(second)); got != want {
			t.Errorf("at second %d the rate is %v, expected %v", second, got, want)
		}
	}
	expect(0, 0)
	calls(0, 30, 100)
	expect(30, 100)
	calls(30, 40, 20)
	expect(40, 100) // as it was before it got less
	expect(70, 100)
	expect(90, 20) // which is more than a minute ago
	expect(99, 4)
	expect(200, 0)
	calls(1000, 1001, 50)
	expect(1000, 10)
}
