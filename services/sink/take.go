package sink

import (
	"context"
	"fmt"
	"time"

	"github.com/millrace-io/millrace/pipeline"
	"github.com/millrace-io/millrace/pipeline/definition"
	"github.com/millrace-io/millrace/pipeline/stream"
)

// call is one delivery on its way to a destination.
type call struct {
	ctx      context.Context // ends when the partition goes to another sink
	ticket   *stream.Ticket
	delivery pipeline.Delivery
	webhook  *definition.Webhook
}

// Take decides what becomes of a delivery: sent, put off, or ended.
func (s *sink) Take(ctx context.Context, k *stream.Ticket) error {
	c := &call{ctx: ctx, ticket: k}
	header, _ := k.Record.Header(pipeline.EnvelopeHeader)
	var err error
	if c.delivery, err = pipeline.ParseDelivery(header); err != nil {
		return s.bury(c, err)
	}
	defs, err := s.Definitions.At(ctx, c.delivery.Definitions)
	if err != nil {
		return err
	}
	d, err := s.resolve(c, defs)
	if d == nil || err != nil {
		return s.bury(c, err)
	}
	if wait := time.Until(c.delivery.Due); wait > 0 { // less than the shortest delay
		time.AfterFunc(wait, func() { s.submit(d, c) })
		return nil
	}
	return s.admit(d, c)
}

// resolve finds the destination of a delivery that is to be sent now. Without
// one, and without an error, the delivery has ended.
func (s *sink) resolve(c *call, defs *definition.Snapshot) (*destination, error) {
	v := &c.delivery
	hook := defs.Webhooks[v.Webhook]
	if hook == nil {
		if err := defs.Broken[definition.Key{Kind: definition.KindWebhook, Name: v.Webhook}]; err != nil {
			return nil, pipeline.Permanent(pipeline.UnusableDefinition, err)
		}
		s.end(c, pipeline.Removed, pipeline.Output{})
		return nil, nil
	}
	c.webhook = hook.Webhook
	if age := time.Since(v.MatchedAt); age > time.Duration(c.webhook.MaxAge) {
		return nil, s.expire(c, age)
	}
	def := defs.Destinations[v.Destination]
	switch {
	case def == nil: // the webhook goes to another one now
		return nil, pipeline.Permanent(pipeline.UnusableDefinition, fmt.Errorf("destination %q is no longer there", v.Destination))
	case def.Lane != v.Lane:
		s.forward(c, def.Lane)
		return nil, nil
	case def.Status == definition.Paused:
		s.hold(c, time.Now().Add(pausedTime), "paused")
		return nil, nil
	}
	d, err := s.destination(def)
	if err != nil {
		return nil, pipeline.Permanent(pipeline.UnusableDefinition, err)
	}
	return d, nil
}

// expire ends a delivery that is too old, as its webhook says.
func (s *sink) expire(c *call, age time.Duration) error {
	if c.webhook.ExpireTo == definition.ExpireToDrop {
		s.end(c, pipeline.Expired, pipeline.Output{})
		return nil
	}
	return pipeline.Permanent(pipeline.ExpiredDelivery, fmt.Errorf(
		"matched %v ago, max_age of webhook %q is %v", age.Round(time.Second), c.webhook.Name, c.webhook.MaxAge))
}

// forward hands a delivery to the lane that its destination is on now.
func (s *sink) forward(c *call, lane string) {
	v := c.delivery
	v.Lane = lane
	c.ticket.End(pipeline.Output{Records: []pipeline.Record{s.record(s.names.Deliveries(lane), v.Key(), c, &v)}})
}

// record is a delivery as a record for another topic.
func (s *sink) record(topic string, key []byte, c *call, v *pipeline.Delivery) pipeline.Record {
	in := &c.ticket.Record
	return pipeline.Record{Topic: topic, Key: key, Value: in.Value, Headers: pipeline.WithEnvelope(in.Headers, v.AppendTo(nil))}
}

// hold puts a delivery off, without using up an attempt.
func (s *sink) hold(c *call, due time.Time, why string) {
	c.ticket.End(pipeline.Output{Records: []pipeline.Record{s.later(c, c.delivery, due, why)}})
}

// later is the record that brings a delivery back when it is due.
func (s *sink) later(c *call, v pipeline.Delivery, due time.Time, why string) pipeline.Record {
	v.Due = due
	topic, key, tier := route(s.names, &v, time.Now())
	s.Metrics.DeliveriesDelayed.Add(1, tier, why)
	return s.record(topic, key, c, &v)
}

// end settles a delivery for good.
func (s *sink) end(c *call, e pipeline.Ending, out pipeline.Output) {
	v := &c.delivery
	out.Count(pipeline.One(v.Webhook, v.MatchedAt, e, v.ID))
	s.Metrics.DeliveriesEnded.Add(1, v.Destination, string(e))
	c.ticket.End(out)
}

// bury ends a delivery as a dead letter if err is permanent, and hands on any
// other error.
func (s *sink) bury(c *call, err error) error {
	dead, permanent := pipeline.IsPermanent(err)
	if !permanent {
		return err
	}
	s.end(c, pipeline.DeadLettered, pipeline.Output{Records: []pipeline.Record{s.deadLetter(c, dead)}})
	return nil
}

func (s *sink) deadLetter(c *call, dead *pipeline.PermanentError) pipeline.Record {
	s.Metrics.DeadLetters.Add(1, Role, string(dead.Reason))
	return pipeline.NewDeadLetter(s.names.DeadLetters(), &c.ticket.Record, pipeline.DeadLetter{
		Stage: Role, Reason: dead.Reason, Error: dead.Err.Error(), At: time.Now(),
		Webhook: c.delivery.Webhook, Delivery: c.delivery.ID,
	})
}

// deadDelivery is what the ledger says when the runner itself gives a delivery up.
func deadDelivery(in *pipeline.Record) []pipeline.Count {
	header, _ := in.Header(pipeline.EnvelopeHeader)
	v, err := pipeline.ParseDelivery(header)
	if err != nil {
		return nil
	}
	return []pipeline.Count{pipeline.One(v.Webhook, v.MatchedAt, pipeline.DeadLettered, v.ID)}
}

// admit queues a call. Where its destination does not keep up, it waits for a
// place if nobody else is behind it in the partition, and is put off otherwise.
func (s *sink) admit(d *destination, c *call) error {
	mixed := s.mixed.see(&c.ticket.Record, d.name, time.Now())
	if d.enqueue(c) {
		return nil
	}
	if mixed {
		s.hold(c, d.nextSlot(time.Now()), "busy")
		return nil
	}
	return d.wait(c)
}

// submit is admit for a call whose time has come after its feed moved on.
func (s *sink) submit(d *destination, c *call) {
	if c.ctx.Err() != nil {
		c.ticket.Release()
		return
	}
	if !d.enqueue(c) {
		s.hold(c, d.nextSlot(time.Now()), "busy")
	}
}
