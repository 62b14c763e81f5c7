package sink

import (
	"fmt"
	"time"

	"github.com/millrace-io/millrace/pipeline"
	"github.com/millrace-io/millrace/pipeline/definition"
	"github.com/millrace-io/millrace/pipeline/telemetry"
)

// Why deliveries are put off: the values of a label.
const (
	whyRetry     = "retry"     // the call failed
	whyBusy      = "busy"      // the destination does not keep up
	whyBreaker   = "breaker"   // it is down
	whyTurn      = "turn"      // it has waited, and comes back when it is its turn
	whyThrottled = "throttled" // the destination said 429
	whyRefused   = "refused"   // it said 401 or 403
	whyGone      = "gone"      // it said 410
	whyPaused    = "paused"    // its definition says so, or its state
	whySecret    = "secret"    // one is missing
	whyToken     = "token"     // the token endpoint gives none
	whyProxy     = "proxy"     // the egress proxy takes no login, or there is none
	whyUnusable  = "unusable"  // this version can't use a definition
	whyEarly     = "early"     // it came before its time: clocks differ
)

// hold puts a delivery off, without using up an attempt.
func (s *sink) hold(c *call, due time.Time, why string) {
	var out pipeline.Output
	s.later(c, c.delivery, due, why, &out)
	c.ticket.End(out)
}

// later writes the record that brings a delivery back when it is due, or when it
// expires, if that is before.
func (s *sink) later(c *call, v pipeline.Delivery, due time.Time, why string, out *pipeline.Output) {
	if c.webhook != nil && due.After(c.expiry()) {
		due = c.expiry()
	}
	v.Due = wholeMilli(due)
	topic, key, tier := route(s.names, &v, time.Now())
	s.Metrics.DeliveriesDelayed.Add(1, tier, why)
	c.putOff(due, tier, why)
	out.Send(record(topic, key, c, &v))
}

// wholeMilli is a time in whole milliseconds, which is all that an envelope has,
// not before t: the gate or the breaker that opens at t would turn away what comes
// a moment earlier.
func wholeMilli(t time.Time) time.Time {
	if over := t.Nanosecond() % int(time.Millisecond); over > 0 {
		return t.Add(time.Millisecond - time.Duration(over))
	}
	return t
}

// forward hands a delivery to the lane that its destination is on by the
// definitions of an offset. Whoever serves that lane has to know as much, or it
// would send it back.
func (s *sink) forward(c *call, lane string, offset int64) {
	v := c.delivery
	v.Lane, v.Definitions = lane, offset
	c.span.Event("forwarded", telemetry.AttrLane, lane)
	c.ticket.End(pipeline.Output{Records: []pipeline.Record{record(s.names.Deliveries(lane), v.Key(), c, &v)}})
}

// record is a delivery as a record for another topic.
func record(topic string, key []byte, c *call, v *pipeline.Delivery) pipeline.Record {
	return pipeline.Record{
		Topic: topic, Key: key, Value: c.record.Value,
		Headers: pipeline.WithEnvelope(c.record.Headers, v.AppendTo(nil)),
	}
}

// end settles a delivery for good.
func (s *sink) end(c *call, e pipeline.Ending, out pipeline.Output) {
	v := &c.delivery
	out.Count(pipeline.One(v.Webhook, v.MatchedAt, e, v.ID))
	s.Metrics.DeliveriesEnded.Add(1, v.Destination, string(e))
	c.span.Set(telemetry.AttrEnding, string(e))
	c.ticket.End(out)
}

// expire ends a delivery for which there is no time left, as its webhook says.
func (s *sink) expire(c *call, why string, out pipeline.Output) {
	if c.webhook.ExpireTo == definition.ExpireToDrop {
		s.end(c, pipeline.Expired, out)
		return
	}
	s.bury(c, pipeline.ExpiredDelivery, fmt.Errorf("%s, max_age of webhook %q is %v", why, c.webhook.Name, c.webhook.MaxAge), out)
}

// bury ends a delivery as a dead letter.
func (s *sink) bury(c *call, reason pipeline.Reason, err error, out pipeline.Output) {
	dead := &pipeline.PermanentError{Reason: reason, Err: err}
	out.Send(s.deadLetter(c, dead))
	s.alert(&c.delivery, dead, c.status, &out)
	s.end(c, pipeline.DeadLettered, out)
}

func (s *sink) deadLetter(c *call, dead *pipeline.PermanentError) pipeline.Record {
	s.Metrics.DeadLetters.Add(1, Role, string(dead.Reason))
	c.span.Err(dead)
	return pipeline.NewDeadLetter(s.names.DeadLetters(), c.record, pipeline.DeadLetter{
		Stage: Role, Reason: dead.Reason, Error: dead.Err.Error(), At: time.Now(),
		Webhook: c.delivery.Webhook, Delivery: c.delivery.ID,
	})
}

// givenUp adds to a dead letter that the runner itself makes of a delivery what
// bury adds to its own.
func (s *sink) givenUp(in *pipeline.Record, dead *pipeline.PermanentError, out *pipeline.Output) {
	header, _ := in.Header(pipeline.EnvelopeHeader)
	v, err := pipeline.ParseDelivery(header)
	if err != nil {
		return
	}
	s.newest() // it may be the first that is seen of that destination
	s.alert(&v, dead, 0, out)
	out.Count(pipeline.One(v.Webhook, v.MatchedAt, pipeline.DeadLettered, v.ID))
}
