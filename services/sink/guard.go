package sink

import (
	"errors"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/sony/gobreaker/v2"

	"github.com/millrace-io/millrace/pipeline/definition"
	"github.com/millrace-io/millrace/pipeline/telemetry"
)

// guard says whether a destination may be called now, as far as its answers go.
// It has two parts: the gate, which opens at a time that the destination named,
// and behind it the breaker, which counts failures. When the breaker's time is
// over, one call is let through, the probe: it closes the breaker or not.
//
// gobreaker counts and trips; how long it stays open is told here, since its
// state can't be set, and a breaker that another sink had opened has to be
// restored. The failures in a row are counted here too: those of gobreaker are
// forgotten with its window.
//
// gobreaker tells of changes with its own lock held, so that lock comes before
// mu: it is never asked with mu held.
type guard struct {
	def     *definition.Destination
	log     *slog.Logger
	metrics *telemetry.Metrics
	breaker *gobreaker.TwoStepCircuitBreaker[struct{}]

	mu        sync.Mutex
	gate      time.Time // no call before: the destination said so
	openUntil time.Time // the breaker lets no call through before; zero: it is closed
	row       int       // calls that failed, with no success between
	period    int       // how often the breaker has opened or closed
	probing   bool      // the probe is under way
	offered   time.Time // when the delivery comes that is to be the probe
	turned    turn      // what nobody has been told yet
	refusals  []string  // ids of deliveries refused in a row
	refused   int       // how often in a row, also the same ones
	finals    int       // final responses in a row
	tripped   bool      // counted as open in the metrics
	retired   bool
}

// turn is a change of the breaker, for whoever made the call that brought it.
type turn int

const (
	steady turn = iota
	opened
	recovered
)

// probeTime is how long the delivery that is to be the probe may take to come
// back before another one is taken for it.
const probeTime = 5 * time.Second

// How many answers in a row, with no success between, say that it is not the
// delivery that is wrong.
const (
	mostRefusals = 5  // 401 or 403, to different deliveries
	mostFinals   = 20 // final responses
)

// errNeutral is an outcome that says nothing about a destination's health.
var errNeutral = errors.New("neither success nor failure")

func newGuard(def *definition.Destination, log *slog.Logger, metrics *telemetry.Metrics) *guard {
	g := &guard{def: def, log: log, metrics: metrics}
	// The breaker counts a call by when it began. With the window alone, calls
	// that last as long as that before they time out would not count at all.
	window := time.Duration(def.Breaker.Window) + time.Duration(def.Limits.Timeout)
	g.breaker = gobreaker.NewTwoStepCircuitBreaker[struct{}](gobreaker.Settings{
		Name:          def.Name,
		MaxRequests:   1,
		Interval:      window,
		BucketPeriod:  window / 10,
		Timeout:       time.Duration(def.Breaker.Open),
		ReadyToTrip:   g.trips,
		OnStateChange: g.changed,
		IsExcluded:    func(err error) bool { return errors.Is(err, errNeutral) },
	})
	return g
}

// minSample is how many calls it takes before their failure share counts.
const minSample = 20

// trips is called when a call has failed, with gobreaker locked.
func (g *guard) trips(n gobreaker.Counts) bool {
	g.mu.Lock()
	row := g.row
	g.mu.Unlock()
	if row >= g.def.Breaker.Failures {
		return true
	}
	done := n.TotalSuccesses + n.TotalFailures
	return done >= minSample && float64(n.TotalFailures) >= float64(g.def.Breaker.Share)*float64(done)
}

// changed is called when gobreaker changes its state, with gobreaker locked.
func (g *guard) changed(_ string, _, to gobreaker.State) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.retired || to != gobreaker.StateOpen {
		return
	}
	already := !g.openUntil.IsZero() // its probe failed, or another sink had opened it
	g.open(time.Now())
	if !already {
		g.turned = opened
		g.log.Warn("breaker opened", telemetry.KeyDestination, g.def.Name, "until", g.openUntil)
	}
}

// open lets no call through for as long as the definition says, and up to a
// tenth more: breakers that opened together do not probe together. gobreaker's
// own time is over by then. Called with mu held.
func (g *guard) open(now time.Time) {
	d := time.Duration(g.def.Breaker.Open) + time.Millisecond
	g.openUntil = now.Add(d + rand.N(longestOpen(g.def)-d+1))
	g.turns(true)
}

// longestOpen is for how long a breaker may be open at a time, unless the
// destination wants more.
func longestOpen(def *definition.Destination) time.Duration {
	return time.Duration(def.Breaker.Open)*11/10 + time.Millisecond
}

// staysOpen has an open breaker be open until then at least: the destination has
// said when it wants to be called again. It says whether that is longer than before.
func (g *guard) staysOpen(until time.Time) (longer bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.openUntil.IsZero() || !until.After(g.openUntil) {
		return false
	}
	g.openUntil = until
	return true
}

// restore opens a breaker as another sink had it.
func (g *guard) restore(until time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.openUntil = until
	g.turns(true)
}

// turns begins a period in which the breaker is open, or closed, with a new row.
// Called with mu held.
func (g *guard) turns(open bool) {
	g.row = 0
	g.period++
	g.show(open)
}

// show counts the breaker in the metrics. Called with mu held.
func (g *guard) show(tripped bool) {
	if tripped == g.tripped || g.retired {
		return
	}
	g.tripped = tripped
	n := int64(-1)
	if tripped {
		n = 1
	}
	g.metrics.BreakersOpen.Add(n, g.def.Name)
}

// retire takes the guard out of the metrics, for good.
func (g *guard) retire() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.show(false)
	g.retired = true
}

// shut holds calls back until then, or longer if that was said already.
func (g *guard) shut(until time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if until.After(g.gate) {
		g.gate = until
	}
}

// opensAt says until when the breaker lets no call through; false if it is
// closed.
func (g *guard) opensAt() (until time.Time, open bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.openUntil, !g.openUntil.IsZero()
}

// holds says whether the breaker holds a call back for which there are others
// before it, or none: then it may be the probe.
func (g *guard) holds(now time.Time, others bool) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return !g.openUntil.IsZero() && (now.Before(g.openUntil) || g.probing || others)
}

// allow asks gate and breaker. It returns how to tell what came of the call,
// which has to be done exactly once; or until when the call has to wait, zero if
// nobody knows, and why.
func (g *guard) allow(now time.Time) (done func(error) turn, until time.Time, why string) {
	probe, period, until, why := g.enter(now)
	if why != "" {
		return nil, until, why
	}
	told, err := g.breaker.Allow()
	if err != nil { // it has been opened in this instant
		g.leave(probe)
		return nil, time.Time{}, whyBreaker
	}
	return func(err error) turn {
		g.count(period, err)
		told(err)
		return g.told(probe, err)
	}, time.Time{}, ""
}

func (g *guard) enter(now time.Time) (probe bool, period int, until time.Time, why string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case now.Before(g.gate):
		return false, 0, g.gate, whyThrottled
	case g.openUntil.IsZero():
		return false, g.period, time.Time{}, ""
	case g.probing || now.Before(g.openUntil):
		return false, 0, time.Time{}, whyBreaker
	}
	g.probing = true
	return true, g.period, time.Time{}, ""
}

// count brings the row up to date. A failure counts in the period in which its
// call began: those that hung until the destination was back say nothing of it.
func (g *guard) count(period int, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case err == nil:
		g.row = 0
	case !errors.Is(err, errNeutral) && period == g.period:
		g.row++
	}
}

// leave takes back what enter has done.
func (g *guard) leave(probe bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if probe {
		g.probing = false
	}
}

// told takes note of a call that ended. What the breaker has turned to is said
// once.
func (g *guard) told(probe bool, err error) turn {
	g.mu.Lock()
	defer g.mu.Unlock()
	if probe {
		g.probing = false
		switch {
		case err == nil:
			g.openUntil, g.turned = time.Time{}, recovered
			g.turns(false)
			g.log.Info("breaker closed", telemetry.KeyDestination, g.def.Name)
		case !errors.Is(err, errNeutral):
			g.open(time.Now())
		}
	}
	t := g.turned
	g.turned = steady
	return t
}

// offerProbe says whether a delivery is to come back as the probe, and when:
// one for each time that the breaker is open, another if that one does not come.
func (g *guard) offerProbe(now time.Time) (at time.Time, ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.openUntil.IsZero() || g.probing {
		return time.Time{}, false
	}
	if !g.offered.Before(g.openUntil) && now.Before(g.offered.Add(probeTime)) {
		return time.Time{}, false
	}
	g.offered = g.openUntil
	if now.After(g.offered) {
		g.offered = now
	}
	return g.offered, true
}

// lacksProbe says whether the probe that the breaker was to get has not come.
func (g *guard) lacksProbe(now time.Time) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return !g.openUntil.IsZero() && !g.probing && now.After(g.openUntil.Add(probeTime)) && now.After(g.offered.Add(probeTime))
}

// isShut says whether the gate is.
func (g *guard) isShut(now time.Time) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return now.Before(g.gate)
}

// isOpen says whether the breaker is open.
func (g *guard) isOpen() bool {
	_, open := g.opensAt()
	return open
}

// success ends every row.
func (g *guard) success() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.refusals, g.refused, g.finals = nil, 0, 0
}

// refusal takes note of a 401 or 403. It says how many there were in a row, and
// whether so many deliveries got one that it is none of theirs.
func (g *guard) refusal(delivery string) (row int, enough bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.refused++
	if !slices.Contains(g.refusals, delivery) && len(g.refusals) < mostRefusals {
		g.refusals = append(g.refusals, delivery)
	}
	return g.refused, len(g.refusals) == mostRefusals
}

// final takes note of a final response, and says whether there were so many in a
// row that it is none of the deliveries'.
func (g *guard) final() (enough bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.finals++
	return g.finals >= mostFinals
}
