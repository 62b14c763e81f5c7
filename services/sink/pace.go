package sink

import (
	"math"
	"time"
)

// pace bounds the rate of calls to a destination that comes back, so that what
// has waited for it does not bring it down again: from 5% of the rate before,
// doubling every 5 s as long as fewer than a tenth of the calls fail. From the
// rate before on it feels its way, a quarter more each time, and when calls
// fail it halves: TCP's slow start and congestion avoidance (RFC 5681). A rate
// that was not made use of says nothing, and does not grow (RFC 2861). It ends
// when it has held nothing back for a while.
//
// The zero pace bounds nothing.
type pace struct {
	line   float64   // calls a second; 0: no bound
	known  float64   // up to here it doubles
	used   time.Time // when a step ended that made use of the rate
	step   time.Time
	calls  int // since step
	failed int // of those
	row    int // failed in a row
}

// The shape of a slow start.
const (
	paceStep  = 5 * time.Second
	paceShare = 0.05
	paceFails = 0.1
	paceMore  = 1.25
	paceIdle  = 10 * time.Minute // without use, after which it ends
	paceLeast = 1.0              // calls a second, however few there were before
	paceRow   = 3                // failures in a row that end a step: the breaker must not hear of many more
)

// start begins a slow start to the rate before, in calls a second; 0 if nobody
// knows it.
func (p *pace) start(now time.Time, before float64) {
	*p = pace{line: max(before*paceShare, paceLeast), known: before, used: now, step: now}
	if before <= 0 {
		p.known = math.Inf(1)
	}
}

func (p *pace) active() bool { return p.line > 0 }

// told takes note of a call that ended, and says whether the destination needs a
// rest.
func (p *pace) told(now time.Time, failed bool) (rest bool) {
	if !p.active() {
		return false
	}
	p.calls++
	if !failed {
		p.row = 0
		return false
	}
	p.failed++
	p.row++
	if p.row < paceRow {
		return false
	}
	p.back(now)
	return true
}

func (p *pace) failing() bool { return float64(p.failed) >= paceFails*float64(p.calls) && p.failed > 0 }

// back halves the rate. From there on it grows slowly.
func (p *pace) back(now time.Time) {
	p.line = max(p.line/2, paceLeast)
	p.known = p.line
	p.begin(now)
}

func (p *pace) begin(now time.Time) { p.step, p.calls, p.failed, p.row = now, 0, 0, 0 }

// next ends a step that is over, and says whether it was. One in which the
// destination asked for patience does not count.
func (p *pace) next(now time.Time, shut bool) bool {
	if !p.active() || now.Before(p.step.Add(paceStep)) {
		return false
	}
	used := float64(p.calls) >= p.line*paceStep.Seconds()/2
	switch {
	case p.failing():
		p.back(now)
	case shut:
	case used:
		p.line, p.used = p.after(p.line), now
	case now.Sub(p.used) >= paceIdle:
		*p = pace{}
		return true
	}
	p.begin(now)
	return true
}

// scale makes it the pace of another part of the destination's calls.
func (p *pace) scale(by float64) {
	p.line *= by
	p.known *= by
}

// after is the rate of the step that follows one that went well.
func (p *pace) after(line float64) float64 {
	if line < p.known {
		return min(line*2, p.known)
	}
	return line * paceMore
}

// at is what the rate will be at some time, if all goes well.
func (p *pace) at(t time.Time) float64 {
	if !p.active() {
		return math.Inf(1)
	}
	line := p.line
	for end := p.step.Add(paceStep); !t.Before(end) && end.Sub(p.step) < paceFar; end = end.Add(paceStep) {
		line = p.after(line)
	}
	return line
}

// paceFar is how far ahead at looks.
const paceFar = 2 * time.Minute

// meter measures how many calls a second a destination answers: the most there
// were, over five seconds, within the last minute. It is looked at when the
// destination fails, which may be known only after a while. A call counts for
// those of other sinks too, by the share that is ours when it is made: a minute
// later that may be another.
type meter struct {
	seconds [64]struct {
		at int64
		n  float64
	}
}

func (m *meter) add(now time.Time, n float64) {
	at := now.Unix()
	s := &m.seconds[at%int64(len(m.seconds))]
	if s.at != at {
		s.at, s.n = at, 0
	}
	s.n += n
}

func (m *meter) in(at int64) float64 {
	if s := m.seconds[at%int64(len(m.seconds))]; s.at == at {
		return s.n
	}
	return 0
}

func (m *meter) rate(now time.Time) float64 {
	const span, back = 5, 60
	most, sum, last := 0.0, 0.0, now.Unix()
	for at := last - back; at <= last; at++ {
		sum += m.in(at)
		if at-span >= last-back {
			sum -= m.in(at - span)
		}
		most = max(most, sum)
	}
	return most / span
}
