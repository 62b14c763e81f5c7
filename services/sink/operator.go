package sink

import (
	"time"

	"github.com/millrace-io/millrace/pipeline"
	"github.com/millrace-io/millrace/pipeline/event"
)

// quiet says that nobody is to be told of what the delivery brings about, since
// it is that of an operator event: one that can't be told would raise the next.
func (c *call) quiet() bool { return pipeline.IsOperator(c.delivery.EventType) }

// alert adds the operator event, if it is time for one, to the output that has
// the dead letter.
func (s *sink) alert(c *call, dead *pipeline.PermanentError, out *pipeline.Output) {
	v := &c.delivery
	if c.quiet() || s.destination(v.Destination) == nil { // nobody asks about one that is gone
		return
	}
	s.alerts.Tell(s.names, event.Operator{
		At: time.Now(), Destination: v.Destination, Lane: v.Lane, Webhook: v.Webhook, Delivery: v.ID,
		Reason: string(dead.Reason), Detail: dead.Err.Error(), Status: c.status,
	}, "", out)
}
