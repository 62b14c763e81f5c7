package sink

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/millrace-io/millrace/pipeline"
	"github.com/millrace-io/millrace/pipeline/definition"
	"github.com/millrace-io/millrace/pipeline/telemetry"
)

// waiting is what this sink knows of the waiting topics. What can't be sent for
// a time that nobody knows is there, in the partition that its deliveries have
// too. A partition is read up to its end and no further, until somebody wants it
// to be gone over: that is a pass, from where the last one ended to where the
// log ends now. What may go then goes, what has to wait on is written again,
// behind the end of the pass.
type waiting struct {
	wake chan struct{} // a pass is wanted

	mu    sync.Mutex
	parts map[spot]*waitingPart
	where map[string]map[spot]bool // by destination: what of it waits, and in which partition
}

// spot is one partition of a lane.
type spot struct {
	lane      string
	partition int32
}

// waitingPart is one partition of a waiting topic, as long as it is ours.
type waitingPart struct {
	end    int64         // the pass goes up to here
	begun  chan struct{} // closed when it begins
	wanted time.Time     // when the next pass is to begin; zero: nobody wants one
	start  time.Time     // of the last pass
	last   time.Time     // when it took its last record
}

// Passes are far enough apart that they take only a part of the time, however
// often destinations come and go: what waits for another one is written again
// by each.
const (
	passRest  = time.Second
	passShare = 4                // rests, for the time that a pass took
	passMost  = time.Minute      // at most
	passEvery = time.Hour        // for max_age, where nothing happens
	passRetry = 5 * time.Second  // where Kafka does not say where topics end
	passAsk   = 30 * time.Second // how long it has for that
)

func newWaiting() *waiting {
	return &waiting{wake: make(chan struct{}, 1), parts: map[spot]*waitingPart{}, where: map[string]map[spot]bool{}}
}

// note says that a delivery waits in a partition.
func (w *waiting) note(destination string, at spot) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.where[destination] == nil {
		w.where[destination] = map[spot]bool{}
	}
	w.where[destination][at] = true
}

// want wants a pass over whatever waits for a destination, from a time on. What
// waits on after it is noted again; until that time, somebody may want it sooner.
func (w *waiting) want(destination string, from time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for at := range w.where[destination] {
		if p := w.parts[at]; p != nil {
			p.want(from)
		}
	}
	if !from.After(time.Now()) {
		delete(w.where, destination)
	}
	w.awake()
}

// wantAll wants a pass over everything.
func (w *waiting) wantAll(from time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, p := range w.parts {
		p.want(from)
	}
	w.awake()
}

func (p *waitingPart) want(from time.Time) {
	if p.wanted.IsZero() || from.Before(p.wanted) {
		p.wanted = from
	}
}

func (w *waiting) awake() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// await waits until a pass goes over a record. The error is ctx's, which is the
// partition's: when that ends, what was known of it is forgotten.
func (w *waiting) await(ctx context.Context, at spot, offset int64) error {
	for ctx.Err() == nil {
		begun := w.reach(ctx, at, offset)
		if begun == nil {
			break
		}
		select {
		case <-begun:
		case <-ctx.Done():
		}
	}
	return ctx.Err()
}

// reach says whether the pass goes over a record, or returns what is closed when
// the next one begins.
func (w *waiting) reach(ctx context.Context, at spot, offset int64) (begun <-chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	p := w.parts[at]
	if p == nil { // nobody knows what the sink before us had in mind
		p = &waitingPart{begun: make(chan struct{}), wanted: time.Now()}
		w.parts[at] = p
		context.AfterFunc(ctx, func() { w.forget(at, p) })
		w.awake()
	}
	if offset >= p.end {
		return p.begun
	}
	p.last = time.Now()
	return nil
}

func (w *waiting) forget(at spot, p *waitingPart) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.parts[at] == p {
		delete(w.parts, at)
		close(p.begun) // somebody may have it back already, and has to ask for the new one
	}
}

// due returns the partitions whose pass is to begin now, and when to ask again.
func (w *waiting) due(now time.Time) (due []spot, next time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	next = now.Add(passEvery)
	for at, p := range w.parts {
		if p.wanted.IsZero() {
			continue
		}
		if from := p.ready(); from.After(now) {
			next = earlier(next, from)
		} else {
			due = append(due, at)
			p.wanted = time.Time{} // what is wanted from now on may not be within the end that is asked for
		}
	}
	return due, next
}

// again wants passes that could not begin.
func (w *waiting) again(due []spot, from time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, at := range due {
		if p := w.parts[at]; p != nil {
			p.want(from)
		}
	}
}

// ready is when the wanted pass may begin.
func (p *waitingPart) ready() time.Time {
	if p.last.IsZero() {
		return p.wanted
	}
	rested := p.last.Add(min(max(passRest, passShare*p.last.Sub(p.start)), passMost))
	if rested.After(p.wanted) {
		return rested
	}
	return p.wanted
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// begin begins a pass up to the end of the topic.
func (w *waiting) begin(now time.Time, at spot, end int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	p := w.parts[at]
	if p == nil {
		return
	}
	p.end = max(p.end, end)
	p.start, p.last = now, now
	close(p.begun)
	p.begun = make(chan struct{})
}

// ends says where topics end, behind everything that was ended before it was
// asked, as far as they know: (*stream.Tracked).Ends.
type ends func(ctx context.Context, topics ...string) (map[string]map[int32]int64, error)

// passes begins the passes that are wanted, and one over everything every hour,
// until ctx ends.
func (s *sink) passes(ctx context.Context, ends ends) {
	hourly := time.NewTicker(passEvery)
	defer hourly.Stop()
	for ctx.Err() == nil {
		next := s.pass(ctx, ends)
		timer := time.NewTimer(time.Until(next))
		select {
		case <-s.waiting.wake:
		case <-timer.C:
		case <-hourly.C:
			s.waiting.wantAll(time.Now())
		case <-ctx.Done():
		}
		timer.Stop()
	}
}

// pass begins what is due and says when to ask again.
func (s *sink) pass(ctx context.Context, ends ends) (next time.Time) {
	due, next := s.waiting.due(time.Now())
	if len(due) == 0 {
		return next
	}
	topics := map[string]bool{}
	for _, at := range due {
		topics[s.names.Waiting(at.lane)] = true
	}
	limited, cancel := context.WithTimeout(ctx, passAsk)
	defer cancel()
	found, err := ends(limited, slices.Collect(maps.Keys(topics))...)
	if err != nil {
		if ctx.Err() == nil {
			s.Log.Warn("waiting deliveries have to wait for Kafka", telemetry.KeyError, err)
		}
		s.waiting.again(due, time.Now().Add(passRetry))
		return time.Now().Add(passRetry)
	}
	now := time.Now()
	lost := slices.DeleteFunc(due, func(at spot) bool {
		end, ok := found[s.names.Waiting(at.lane)][at.partition]
		if ok {
			s.waiting.begin(now, at, end)
		}
		return ok
	})
	if len(lost) == 0 {
		return next
	}
	s.waiting.again(lost, now.Add(passRetry))
	return earlier(next, now.Add(passRetry))
}

// wait keeps a delivery until what keeps it has changed, with what else is to be
// written.
func (s *sink) wait(c *call, v pipeline.Delivery, why string, out *pipeline.Output) {
	v.Due = time.Time{}
	if out == nil {
		out = &pipeline.Output{}
	}
	s.waiting.note(v.Destination, spot{v.Lane, c.record.Partition})
	s.Metrics.DeliveriesDelayed.Add(1, tierWaiting, why)
	c.putOff(time.Time{}, tierWaiting, why)
	out.Send(record(s.names.Waiting(v.Lane), v.Key(), c, &v))
	c.ticket.End(*out)
	switch d := s.destination(v.Destination); {
	case d == nil:
	case why == whyTurn:
		s.waiting.want(v.Destination, time.Now().Add(comebackTime/2))
	case d.standing() == "" && s.known.Load().Broken[definition.Key{Kind: definition.KindWebhook, Name: v.Webhook}] == nil:
		// It may go since it was decided that it may not: whoever wanted the pass
		// for that did not see this one.
		s.waiting.want(v.Destination, time.Now())
	}
}

// tierWaiting is where deliveries are that wait for an unknown time: the value
// of a label beside the delay tiers.
const tierWaiting = "waiting"

// reconsider takes a delivery that has waited, once a pass goes over it.
func (s *sink) reconsider(c *call) error {
	if err := s.waiting.await(c.ctx, spot{c.delivery.Lane, c.record.Partition}, c.record.Offset); err != nil {
		return err
	}
	d := s.callee(c)
	if d == nil {
		return nil
	}
	due, ok, why := d.comeback(time.Now())
	if !ok {
		s.wait(c, c.delivery, why, nil)
		return nil
	}
	s.hold(c, due, why)
	return nil
}
