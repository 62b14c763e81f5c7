package sink

import (
	"bytes"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace-io/millrace/pipeline"
	"github.com/millrace-io/millrace/pipeline/httpsend"
	"github.com/millrace-io/millrace/pipeline/stream"
)

// gauge counts calls under way and keeps the most there were at once.
type gauge struct{ now, most, all atomic.Int64 }

func (g *gauge) during(e endpoint) endpoint {
	return func(c httpsend.Call) httpsend.Result {
		g.all.Add(1)
		n := g.now.Add(1)
		for m := g.most.Load(); n > m && !g.most.CompareAndSwap(m, n); m = g.most.Load() {
		}
		defer g.now.Add(-1)
		return e(c)
	}
}

func TestConcurrencyIsKeptAndUsed(t *testing.T) {
	test(t, hooked("crm", "limits: {concurrency: 5}"), func(t *testing.T, h *house) {
		var g gauge
		h.answer("crm", g.during(always(ok(), time.Second)))
		start := time.Now()
		for _, s := range h.backlog(t.Context(), "crm", 100) {
			if got := h.became(s); got.ending != pipeline.Delivered {
				t.Fatalf("became %+v", got)
			}
		}
		if took := time.Since(start); g.most.Load() != 5 || took != 20*time.Second {
			t.Errorf("%d calls at once, %v for 100 calls of a second", g.most.Load(), took)
		}
	})
}

func TestRateIsKeptAndUsed(t *testing.T) {
	t.Parallel()
	for limits, want := range map[string]time.Duration{
		"limits: {rate: 10, burst: 1}":                  199 * 100 * time.Millisecond,
		"limits: {rate: 0.5, burst: 1, concurrency: 1}": 199 * 2 * time.Second,
		"limits: {rate: 0.05, burst: 1}":                199 * 20 * time.Second, // longer than may be queued
		"limits: {rate: 100, burst: 50}":                1500 * time.Millisecond,
	} {
		t.Run(limits, func(t *testing.T) {
			test(t, hooked("crm", limits), func(t *testing.T, h *house) {
				h.became(h.takes(t.Context(), h.slipOf(h.delivery("crm"))))
				time.Sleep(20 * time.Second) // the bucket is full
				start := time.Now()
				for _, s := range h.backlog(t.Context(), "crm", 200) {
					if got := h.became(s); got.ending != pipeline.Delivered {
						t.Fatalf("became %+v", got)
					}
				}
				took := time.Since(start)
				if took < want-time.Second/50 || took > want+want/50 {
					t.Errorf("200 calls took %v, expected %v", took, want)
				}
			})
		})
	}
}

// firstOf is the first n partitions of a topic.
func firstOf(n, of int) stream.Owned {
	o := stream.Owned{Of: of}
	for i := range n {
		o.Partitions = append(o.Partitions, int32(i))
	}
	return o
}

// TestConcurrencyOverAllSinks has sinks share a lane's partitions: together they
// make as many calls at once as there may be, or, where that is fewer than there
// are partitions, no more than that or one each.
func TestConcurrencyOverAllSinks(t *testing.T) {
	t.Parallel()
	for _, partitions := range []int{1, 4, 24} {
		for sinks := 1; sinks <= partitions; sinks++ {
			for _, most := range []int{1, 2, 3, 5, 10, 24, 30, 64, 1000} {
				parts := make([]part, sinks)
				for i := range partitions {
					p := &parts[i%sinks]
					p.Of, p.Partitions = partitions, append(p.Partitions, int32(i))
				}
				sum := 0
				for _, p := range parts {
					n := p.calls(most)
					if n < 1 {
						t.Errorf("of %d calls, one of %d sinks may make %d", most, sinks, n)
					}
					sum += n
				}
				if most >= partitions && sum != most || sum > max(most, sinks) {
					t.Errorf("%d sinks make %d calls, with %d partitions and a limit of %d", sinks, sum, partitions, most)
				}
			}
		}
	}
}

// TestShareOfLimits has what a sink may do that owns a part of a lane.
func TestShareOfLimits(t *testing.T) {
	test(t, hooked("own", "lane: own\nlimits: {rate: 90, burst: 30, concurrency: 10}")+hooked("shared", "limits: {rate: 90, concurrency: 10}"), func(t *testing.T, h *house) {
		h.newest()
		for _, c := range []struct {
			owned, of   int     // partitions of the lane own
			rate        float64 // and so on, of what is on it
			burst, most int
		}{{3, 3, 90, 30, 10}, {1, 3, 30, 10, 3}, {1, 100, 0.9, 1, 1}, {0, 3, 90, 30, 10}, {2, 4, 45, 15, 5}} {
			owned := map[string]stream.Owned{
				"millrace.deliveries.default": firstOf(1, 4), "millrace.redeliveries.own": firstOf(9, 10), "millrace.deliveries.own": firstOf(c.owned, c.of),
			}
			if c.owned == 0 {
				delete(owned, "millrace.deliveries.own")
			}
			h.owns(owned)
			d := h.destination("own")
			if got := float64(d.limiter.Limit()); got < c.rate*0.999 || got > c.rate*1.001 || d.limiter.Burst() != c.burst || d.most != c.most {
				t.Errorf("rate %v, burst %d, %d at once; expected %+v", got, d.limiter.Burst(), d.most, c)
			}
		}
		if d := h.destination("shared"); d.limiter.Limit() != 90 || d.most != 10 {
			t.Errorf("in the lane default: rate %v, %d at once, expected all of it", d.limiter.Limit(), d.most)
		}
	})
}

func TestShareHoldsForDestinationsMadeLater(t *testing.T) {
	test(t, hooked("own", "lane: own\nlimits: {concurrency: 10}"), func(t *testing.T, h *house) {
		h.owns(map[string]stream.Owned{"millrace.deliveries.own": firstOf(1, 5)})
		var g gauge
		h.answer("own", g.during(always(ok(), time.Second)))
		for _, s := range h.backlog(t.Context(), "own", 10) {
			h.became(s)
		}
		if g.most.Load() != 2 {
			t.Errorf("%d calls at once, expected a fifth of 10", g.most.Load())
		}
	})
}

// TestMemoryIsBounded has destinations that all hang, with large bodies: what is
// held stays within bounds, and each destination goes on with a call at a time.
func TestMemoryIsBounded(t *testing.T) {
	const destinations, each, size = 30, 30, 1 << 20
	text := strings.Builder{}
	for i := range destinations {
		text.WriteString(hooked(fmt.Sprint("d", i), "limits: {concurrency: 10, timeout: 55s}"))
	}
	test(t, text.String(), func(t *testing.T, h *house) {
		body := bytes.Repeat([]byte("["), size)
		var g gauge
		var slips []*slip
		for i := range destinations {
			h.answer(fmt.Sprint("d", i), g.during(always(ok(), 50*time.Second)))
			for range each {
				s := h.slipOf(h.delivery(fmt.Sprint("d", i)))
				s.record.Value = body
				slips = append(slips, h.takes(t.Context(), s))
			}
			if held := h.held.Load(); held > maxHeld+destinations*(size+waitWeight+openWeight) {
				t.Fatalf("%d MiB are held", held>>20)
			}
		}
		synctest.Wait()
		if n := g.now.Load(); n < destinations {
			t.Errorf("%d calls are under way for %d destinations", n, destinations)
		}
		back := 0
		for _, s := range slips {
			if h.became(s).again != nil {
				back++
			}
		}
		if back == 0 {
			t.Error("nothing was put off: the test proves nothing")
		}
	})
}

// TestMemoryIsFreeAgain has a destination that may have one call at a time while
// others take all memory, and all of its calls again when they don't.
func TestMemoryIsFreeAgain(t *testing.T) {
	test(t, hooked("crm", "limits: {concurrency: 10}")+hooked("another", ""), func(t *testing.T, h *house) {
		var g gauge
		h.answer("crm", g.during(always(ok(), time.Second)))
		slips := h.backlog(t.Context(), "crm", 100)
		h.held.Add(maxHeld)
		time.Sleep(5*time.Second + time.Millisecond)
		if n := g.now.Load(); n != 1 {
			t.Errorf("%d calls are under way without memory", n)
		}
		if got := h.became(h.takes(t.Context(), h.slipOf(h.delivery("another")))); got.ending != pipeline.Delivered {
			t.Errorf("a destination with nothing under way could not send: %+v", got)
		}
		if got := h.one(); got.again == nil || got.called() {
			t.Errorf("one more became %+v", got)
		}
		h.held.Add(-maxHeld)
		time.Sleep(2 * time.Second)
		if n := g.now.Load(); n != 10 {
			t.Errorf("%d calls are under way with memory", n)
		}
		for _, s := range slips {
			h.became(s)
		}
	})
}

func TestNextSlot(t *testing.T) {
	test(t, hooked("crm", "limits: {rate: 10}"), func(t *testing.T, h *house) {
		h.newest()
		d, now := h.destination("crm"), time.Now()
		for i := range 5 {
			if got, want := d.nextSlot(now).Sub(now), time.Second+time.Duration(i)*100*time.Millisecond; got != want {
				t.Errorf("slot %d is in %v, expected %v", i, got, want)
			}
		}
		gate := now.Add(time.Minute)
		for i := range 5 {
			if got, want := d.nextSlot(gate).Sub(gate), time.Duration(i)*100*time.Millisecond; got != want {
				t.Errorf("slot %d behind the gate is %v after it, expected %v", i, got, want)
			}
		}
		for range 40_000 { // more than an hour's worth
			if got := d.nextSlot(gate).Sub(gate); got > maxLine {
				t.Fatalf("a slot is %v away", got)
			}
		}
		if got := d.nextSlot(gate).Sub(gate); got < maxLine/2 {
			t.Errorf("at the end of the line, a slot is only %v away", got)
		}
		d.slot = time.Time{}
		queued := h.backlog(t.Context(), "crm", 61) // one is sent, six seconds' worth wait
		if got := d.nextSlot(now).Sub(now); got != 3*time.Second {
			t.Errorf("behind a queue of six seconds, the line begins in %v", got)
		}
		for _, s := range queued {
			h.became(s)
		}
		now = time.Now()
		h.live.apply(t, hooked("crm", "limits: {rate: 1000}"))
		h.newest()
		if got := d.nextSlot(now).Sub(now); got != time.Second {
			t.Errorf("under a new definition the line begins in %v", got)
		}
	})
}
