package sink

import (
	"time"

	"github.com/millrace-io/millrace/pipeline"
	"github.com/millrace-io/millrace/pipeline/httpsend"
	"github.com/millrace-io/millrace/pipeline/telemetry"
)

// trace begins the span of a delivery, if it is sampled: it ends with the
// ticket, whoever ends that.
func (s *sink) trace(c *call) {
	c.span = s.Tracer.Continue(Role, c.record)
	if c.span != nil {
		c.ticket = traced{c.ticket, c.span}
	}
}

// traced is a ticket whose span ends with it.
type traced struct {
	ticket
	span *telemetry.Span
}

// End ends the span, then the ticket: with that, the delivery may be elsewhere.
func (t traced) End(out pipeline.Output) {
	t.span.End()
	t.ticket.End(out)
}

// Release ends the span of a delivery that another sink will take.
func (t traced) Release() {
	t.span.Event("released")
	t.span.End()
	t.ticket.Release()
}

// describe says which delivery a span is about.
func describe(span *telemetry.Span, v *pipeline.Delivery) {
	span.Set(telemetry.AttrDelivery, v.ID, telemetry.AttrWebhook, v.Webhook, telemetry.AttrDestination, v.Destination,
		telemetry.AttrLane, v.Lane, telemetry.AttrEventType, v.EventType)
}

// putOff says that the delivery comes back, when if that is known, and why.
func (c *call) putOff(due time.Time, tier, why string) {
	switch {
	case c.span == nil:
	case due.IsZero():
		c.span.Event("put off", telemetry.AttrWhy, why, telemetry.AttrTier, tier)
	default:
		c.span.Event("put off", telemetry.AttrWhy, why, telemetry.AttrTier, tier,
			telemetry.AttrDue, due.UTC().Format(time.RFC3339Nano))
	}
}

// trace says what came of a call. Its error stays in the attempt: there may be
// words of the destination in it.
func (a *attempt) trace(span *telemetry.Span) {
	span.SetNumber(telemetry.AttrAttempt, a.call.delivery.Attempts+1)
	span.Set(telemetry.AttrDestination, a.name, telemetry.AttrOutcome, a.Outcome.String())
	if a.Status != 0 {
		span.SetNumber(telemetry.AttrStatus, a.Status)
	}
	if a.Outcome == httpsend.Success {
		return
	}
	if a.Class != "" {
		span.Set(telemetry.AttrErrorClass, string(a.Class))
	}
	span.Fail(a.Outcome.String())
}
