package sink

import (
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/sony/gobreaker/v2"

	"github.com/millrace-io/millrace/pipeline/definition"
	"github.com/millrace-io/millrace/pipeline/telemetry"
)

// guard says whether a destination may be called now. It has two parts: the
// gate, which opens at a known time, and behind it the breaker, which counts.
//
// The breaker tells of changes with its own lock held, so that lock comes before
// mu: the breaker is never asked with mu held.
type guard struct {
	def     *definition.Destination
	log     *slog.Logger
	metrics *telemetry.Metrics
	breaker *gobreaker.TwoStepCircuitBreaker[struct{}]

	mu      sync.Mutex
	gate    time.Time // no call before
	why     string    // the gate is shut
	tripped bool      // counted as open in the metrics
	retired bool
}

// probeTime is how long others wait for the call that is the breaker's probe.
const probeTime = time.Second

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

func (g *guard) trips(n gobreaker.Counts) bool {
	if int(n.ConsecutiveFailures) >= g.def.Breaker.Failures {
		return true
	}
	done := n.TotalSuccesses + n.TotalFailures
	return done >= minSample && float64(n.TotalFailures) >= float64(g.def.Breaker.Share)*float64(done)
}

// changed is called when the breaker changes its state, with the breaker locked.
func (g *guard) changed(_ string, from, to gobreaker.State) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.retired {
		return
	}
	g.log.Info("breaker", telemetry.KeyDestination, g.def.Name, "from", from.String(), "to", to.String())
	if to == gobreaker.StateOpen {
		g.shutLocked(time.Now().Add(time.Duration(g.def.Breaker.Open)), whyBreaker)
	}
	g.show(to != gobreaker.StateClosed)
}

// show counts the breaker in the metrics. Called with mu held.
func (g *guard) show(tripped bool) {
	if tripped == g.tripped {
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
func (g *guard) shut(until time.Time, why string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.shutLocked(until, why)
}

func (g *guard) shutLocked(until time.Time, why string) {
	if until.After(g.gate) {
		g.gate, g.why = until, why
	}
}

// allow asks gate and breaker. It returns how to tell the breaker what came of
// the call, which has to be done exactly once, or until when the call has to
// wait, and why.
func (g *guard) allow(now time.Time) (done func(error), until time.Time, why string) {
	g.mu.Lock()
	gate, reason := g.gate, g.why
	g.mu.Unlock()
	if now.Before(gate) {
		return nil, gate, reason
	}
	done, err := g.breaker.Allow()
	if err != nil { // open for another instant, or another call is the probe
		return nil, now.Add(probeTime), whyBreaker
	}
	return done, time.Time{}, ""
}
