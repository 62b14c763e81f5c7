package sink

import (
	"time"

	"github.com/millrace-io/millrace/pipeline"
	"github.com/millrace-io/millrace/pipeline/event"
)

// quiet says that nobody is to be told of what the delivery brings about, since
// it is that of an operator event: one that can't be told would raise the next.
func quiet(v *pipeline.Delivery) bool { return pipeline.IsOperator(v.EventType) }

// alert adds the operator event, if it is time for one, to the output that has
// the dead letter. status is that of the last response; 0 if there was none.
func (s *sink) alert(v *pipeline.Delivery, dead *pipeline.PermanentError, status int, out *pipeline.Output) {
	if quiet(v) || s.destination(v.Destination) == nil { // nobody asks about one that is gone
		return
	}
	s.alerts.Tell(s.names, event.Operator{
		At: time.Now(), Destination: v.Destination, Lane: v.Lane, Webhook: v.Webhook, Delivery: v.ID,
		Reason: string(dead.Reason), Detail: dead.Err.Error(), Status: status,
	}, "", out)
}
