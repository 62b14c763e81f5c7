package sink

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/sony/gobreaker/v2"
	"golang.org/x/time/rate"

	"github.com/millrace-io/millrace/pipeline/definition"
	"github.com/millrace-io/millrace/pipeline/httpsend"
	"github.com/millrace-io/millrace/pipeline/telemetry"
)

// Times that a destination's deliveries wait where nobody knows for how long.
const (
	pausedTime = 10 * time.Minute // paused, refused (401, 403, 410), a secret missing
	probeTime  = time.Second      // another delivery is the breaker's probe
	maxLimit   = time.Second      // the longest a call waits for its turn under the rate
)

// drainTime is how long calls may be open when their partition goes: the
// longest timeout of a call, and a little.
const drainTime = 45 * time.Second

// destination is one destination at run time: what is queued for it, how many
// calls are open, its rate, and the two things that hold calls back: the gate,
// which opens at a known time, and behind it the breaker, which counts.
type destination struct {
	*sink
	name   string
	lane   string
	def    *definition.Destination
	sender *httpsend.Sender

	limiter *rate.Limiter
	breaker *gobreaker.TwoStepCircuitBreaker[struct{}]

	mu      sync.Mutex
	queue   []*call
	open    int           // workers, each with a call
	most    int           // of those: our share of limits.concurrency
	room    chan struct{} // closed and made anew when the queue gets shorter
	gate    time.Time     // no call before
	why     string        // the gate is shut
	slot    time.Time     // the last given to a delivery that was put off
	latency time.Duration // of calls, smoothed
	tripped bool          // counted as open in the metrics
}

// errNeutral is an outcome that says nothing about a destination's health.
var errNeutral = errors.New("neither success nor failure")

func (s *sink) newDestination(def *definition.Destination) (*destination, error) {
	sender, err := s.Client.Target(target(def))
	if err != nil {
		return nil, fmt.Errorf("preparing calls to destination %q: %w", def.Name, err)
	}
	d := &destination{
		sink: s, name: def.Name, lane: def.Lane, def: def, sender: sender,
		limiter: rate.NewLimiter(rate.Inf, 0), room: make(chan struct{}),
	}
	d.breaker = gobreaker.NewTwoStepCircuitBreaker[struct{}](gobreaker.Settings{
		Name:          def.Name,
		MaxRequests:   1,
		Interval:      time.Duration(def.Breaker.Window),
		BucketPeriod:  time.Duration(def.Breaker.Window) / 10,
		Timeout:       time.Duration(def.Breaker.Open),
		ReadyToTrip:   d.trips,
		OnStateChange: d.changed,
		IsExcluded:    func(err error) bool { return errors.Is(err, errNeutral) },
	})
	return d, nil
}

func target(def *definition.Destination) httpsend.Target {
	t := httpsend.Target{
		Method: def.Request.Method, URL: def.Request.URL,
		Timeout:        time.Duration(def.Limits.Timeout),
		ConnectTimeout: time.Duration(def.Limits.ConnectTimeout),
		MaxBody:        int(def.Limits.MaxBody), MaxResponse: int(def.Limits.MaxResponse),
	}
	for name, value := range def.Request.Headers {
		t.Headers = append(t.Headers, httpsend.Header{Name: name, Value: value.String()})
	}
	switch def.Auth.Type {
	case definition.AuthBearer:
		t.Auth = httpsend.Bearer{Token: def.Auth.Token.Reference}
	case definition.AuthBasic:
		t.Auth = httpsend.Basic{Username: def.Auth.Username.Reference, Password: def.Auth.Password.Reference}
	}
	return t
}

// minSample is how many calls it takes before their failure share counts.
const minSample = 20

func (d *destination) trips(n gobreaker.Counts) bool {
	if int(n.ConsecutiveFailures) >= d.def.Breaker.Failures {
		return true
	}
	done := n.TotalSuccesses + n.TotalFailures
	return done >= minSample && float64(n.TotalFailures) >= float64(d.def.Breaker.Share)*float64(done)
}

// changed is called when the breaker changes its state, with the breaker locked.
func (d *destination) changed(_ string, from, to gobreaker.State) {
	d.Log.Info("breaker", telemetry.KeyDestination, d.name, "from", from.String(), "to", to.String())
	d.mu.Lock()
	defer d.mu.Unlock()
	if to == gobreaker.StateOpen {
		d.shut(time.Now().Add(time.Duration(d.def.Breaker.Open)), "breaker open")
	}
	d.gauge(to != gobreaker.StateClosed)
}

func (d *destination) gauge(tripped bool) {
	if tripped == d.tripped {
		return
	}
	d.tripped = tripped
	n := int64(-1)
	if tripped {
		n = 1
	}
	d.Metrics.BreakersOpen.Add(n, d.name)
}

// retire takes a destination out of the metrics; what is queued is still sent.
func (d *destination) retire() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.gauge(false)
}

// shut holds calls back until then, or longer if that was said already. Called
// with mu held.
func (d *destination) shut(until time.Time, why string) {
	if until.After(d.gate) {
		d.gate, d.why = until, why
	}
}

func (d *destination) shutUntil(until time.Time, why string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.shut(until, why)
}

// setShare sets the part of the limits that this sink may use.
func (d *destination) setShare(share float64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	l := d.def.Limits
	d.most = max(1, int(float64(l.Concurrency)*share))
	if l.Rate > 0 {
		d.limiter.SetLimit(rate.Limit(l.Rate * share))
		d.limiter.SetBurst(max(1, int(float64(l.Burst)*share)))
	}
}

// admission asks gate and breaker. It returns how to tell the breaker what came
// of the call, or until when the call has to wait, and why.
func (d *destination) admission(now time.Time) (done func(error), until time.Time, why string) {
	d.mu.Lock()
	gate, reason := d.gate, d.why
	d.mu.Unlock()
	if now.Before(gate) {
		return nil, spread(gate), reason
	}
	done, err := d.breaker.Allow()
	switch {
	case errors.Is(err, gobreaker.ErrOpenState):
		return nil, spread(now.Add(time.Duration(d.def.Breaker.Open))), "breaker open"
	case err != nil:
		return nil, spread(now.Add(probeTime)), "breaker probing"
	}
	return done, time.Time{}, ""
}

// spread adds up to two seconds, so that not all that waited comes at once.
func spread(t time.Time) time.Time { return t.Add(rand.N(2 * time.Second)) }

// nextSlot is when a delivery that found the queue full may come back: each one
// gets its own, at the pace at which the destination takes them.
func (d *destination) nextSlot(now time.Time) time.Time {
	d.mu.Lock()
	defer d.mu.Unlock()
	each := d.latency / time.Duration(d.most)
	if limit := d.limiter.Limit(); limit != rate.Inf {
		each = max(each, time.Duration(float64(time.Second)/float64(limit)))
	}
	first := now.Add(time.Second)
	if d.slot.Before(first) {
		d.slot = first
	}
	d.slot = d.slot.Add(each)
	return d.slot
}
