package sink

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/millrace-io/millrace/pipeline"
	"github.com/millrace-io/millrace/pipeline/definition"
	"github.com/millrace-io/millrace/pipeline/stream"
	"github.com/millrace-io/millrace/pipeline/telemetry"
)

// call is one delivery on its way to a destination.
type call struct {
	ctx      context.Context // ends when the partition goes to another sink
	record   *pipeline.Record
	ticket   ticket
	delivery pipeline.Delivery
	back     bool                // it comes from the redeliveries
	webhook  *definition.Webhook // as it was when last looked at; nil before that
	span     *telemetry.Span     // from Take to the end of the ticket
	status   int                 // of the answer to the call; 0: none
	entered  bool                // see destination.entered
}

// ticket is an open record of a partition: a *stream.Ticket.
type ticket interface {
	AwaitCommits(context.Context) (waited bool, err error)
	End(pipeline.Output)
	Release()
}

func (c *call) weight() int64 { return waitWeight + int64(len(c.record.Value)) }

// expiry is when the delivery is too old.
func (c *call) expiry() time.Time {
	return c.delivery.MatchedAt.Add(time.Duration(c.webhook.MaxAge))
}

// Take decides what becomes of a delivery: sent, put off, or ended.
func (s *sink) Take(ctx context.Context, k *stream.Ticket) error {
	return s.take(ctx, &k.Record, k)
}

func (s *sink) take(ctx context.Context, r *pipeline.Record, t ticket) error {
	c := &call{ctx: ctx, record: r, ticket: t}
	s.trace(c)
	header, _ := r.Header(pipeline.EnvelopeHeader)
	var err error
	c.delivery, err = pipeline.ParseDelivery(header)
	if dead, permanent := pipeline.IsPermanent(err); permanent {
		c.delivery = pipeline.Delivery{} // half of one is in no ledger
		c.ticket.End(pipeline.Output{Records: []pipeline.Record{s.deadLetter(c, dead)}})
		return nil
	}
	if err != nil {
		return err
	}
	describe(c.span, &c.delivery)
	c.back = r.Topic == s.names.Redeliveries(c.delivery.Lane)
	if _, err := s.defs.At(ctx, c.delivery.Definitions); err != nil {
		return err
	}
	if r.Topic == s.names.Waiting(c.delivery.Lane) {
		return s.reconsider(c)
	}
	if !s.check(c, s.newest()) {
		return nil
	}
	if _, far := tierFor(time.Until(c.delivery.Due)); far {
		s.hold(c, c.delivery.Due, whyEarly)
		return nil
	}
	// Less than the shortest delay: what comes behind in the partition was not
	// written before this one, so it is not due much earlier.
	if err := waitUntil(ctx, c.delivery.Due); err != nil {
		return err
	}
	return s.admit(c)
}

// admit queues a call. Where its destination does not keep up or must not be
// called, it waits for a place if the lane is the destination's own; otherwise
// it is put off, or it waits where it holds up nobody.
func (s *sink) admit(c *call) error {
	s.watch(c.ctx)
	d := s.destination(c.delivery.Destination)
	if d == nil { // it has gone since it was checked
		d = s.callee(c)
	}
	for ; d != nil; d = s.callee(c) {
		room, why := d.enqueue(c)
		if room == nil {
			return nil
		}
		if err := c.ctx.Err(); err != nil {
			return err
		}
		switch alone := s.alone(d); {
		case !alone && why != "":
			s.wait(c, c.delivery, why, nil)
			return nil
		case !alone:
			d.putOff(c, time.Now(), whyBusy)
			return nil
		}
		if err := s.stand(c, room); err != nil {
			return err
		}
	}
	return nil
}

// callee is whom a delivery goes to; nil if it has been ended or put off, as the
// definitions say.
func (s *sink) callee(c *call) *destination {
	for s.check(c, s.newest()) {
		if d := s.destination(c.delivery.Destination); d != nil {
			return d
		} // else it has gone since it was checked
	}
	return nil
}

// stand waits until there may be room for a call, or it expires.
func (s *sink) stand(c *call, room <-chan struct{}) error {
	tooOld := time.NewTimer(time.Until(c.expiry()))
	defer tooOld.Stop()
	select {
	case <-room:
	case <-tooOld.C:
	case <-c.ctx.Done():
	}
	return c.ctx.Err()
}

// check says whether a delivery may be sent, as far as the definitions go. If
// not, it has been ended or put off. It is asked again just before the call,
// since a delivery may have been queued for a while.
func (s *sink) check(c *call, defs *definition.Snapshot) bool {
	v := &c.delivery
	hook := defs.Webhooks[v.Webhook]
	if hook == nil {
		if defs.Broken[definition.Key{Kind: definition.KindWebhook, Name: v.Webhook}] != nil {
			s.wait(c, *v, whyUnusable, nil)
		} else {
			s.end(c, pipeline.Removed, pipeline.Output{})
		}
		return false
	}
	c.webhook = hook.Webhook
	if now := time.Now(); !now.Before(c.expiry()) {
		s.expire(c, fmt.Sprintf("matched %v ago", now.Sub(v.MatchedAt).Round(time.Second)), pipeline.Output{})
		return false
	}
	return s.checkDestination(c, defs)
}

func (s *sink) checkDestination(c *call, defs *definition.Snapshot) bool {
	v := &c.delivery
	def := defs.Destinations[v.Destination]
	switch {
	case def == nil && defs.Broken[definition.Key{Kind: definition.KindDestination, Name: v.Destination}] != nil:
		s.wait(c, *v, whyUnusable, nil)
	case def == nil: // the webhook goes to another one now
		s.bury(c, pipeline.UnusableDefinition, fmt.Errorf("destination %q is no longer there", v.Destination), pipeline.Output{})
	case def.Lane != v.Lane:
		s.forward(c, def.Lane, defs.Offset)
	case (def.Request.Method == http.MethodGet) != isQuery(c.record.Value):
		s.bury(c, pipeline.InvalidRequest, fmt.Errorf("destination %q is called with %s now, for which the delivery was not made",
			def.Name, def.Request.Method), pipeline.Output{})
	default:
		return true
	}
	return false
}

// isQuery tells the two things apart that transform makes: a query, in which
// brackets are escaped, and JSON, which begins with one.
func isQuery(value []byte) bool {
	return len(value) == 0 || value[0] != '{' && value[0] != '['
}
