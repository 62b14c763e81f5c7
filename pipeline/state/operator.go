package state

import (
	"time"

	"github.com/millrace-io/millrace/pipeline"
	"github.com/millrace-io/millrace/pipeline/event"
)

// tell returns the operator events of a change. They are written with the state,
// in one transaction, so that each is told once, however many sinks find out. A
// breaker that opens again since its probe failed is still the same outage.
func tell(now, next State) (out []event.Operator) {
	if typ := eventTypes[next.Status]; typ != "" && next.Status != now.Status && !next.QuietStatus {
		out = append(out, event.Operator{
			Type: typ, At: next.Since, Destination: next.Destination,
			Reason: string(next.Reason), Detail: next.Detail, By: next.By,
		})
	}
	if (now.OpenUntil.IsZero() || next.Closed) && !next.OpenUntil.IsZero() && !next.QuietBreaker {
		out = append(out, event.Operator{
			Type: pipeline.DestinationBreakerOpened, At: time.Now(), Destination: next.Destination, OpenUntil: next.OpenUntil,
		})
	}
	return out
}

// eventTypes are what is told of a destination that comes to a status.
var eventTypes = map[Status]string{Paused: pipeline.DestinationPaused, Disabled: pipeline.DestinationDisabled}
