package sink

import (
	"sync"
	"time"

	"github.com/millrace-io/millrace/pipeline"
	"github.com/millrace-io/millrace/pipeline/event"
)

// alertPause is the least time between two operator events about the dead
// letters of a destination.
const alertPause = time.Minute

// buried counts the dead letters of a destination that nobody was told of.
type buried struct {
	mu     sync.Mutex
	told   time.Time // when somebody was last
	untold int64
}

// add counts one more. It returns how many to tell of now; none if somebody was
// told just before, and then they are part of the next number.
func (b *buried) add(now time.Time) int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.untold++
	if now.Sub(b.told) < alertPause {
		return 0
	}
	n := b.untold
	b.told, b.untold = now, 0
	return n
}

// quiet says that nobody is to be told of what the delivery brings about, since
// it is that of an operator event: one that can't be told would raise the next.
func (c *call) quiet() bool { return pipeline.IsOperator(c.delivery.EventType) }

// alert adds the operator event, if it is time for one, to the output that has
// the dead letter.
func (s *sink) alert(c *call, dead *pipeline.PermanentError, out *pipeline.Output) {
	v := &c.delivery
	d := s.destination(v.Destination)
	if d == nil || c.quiet() { // nobody asks about one that is gone
		return
	}
	now := time.Now()
	n := d.buried.add(now)
	if n == 0 {
		return
	}
	o := event.Operator{
		Type: pipeline.DestinationDeadLetters, At: now, Destination: v.Destination, Lane: v.Lane, Count: n,
		Webhook: v.Webhook, Delivery: v.ID, Reason: string(dead.Reason), Detail: dead.Err.Error(), Status: c.status,
	}
	out.Send(o.Record(s.names))
}
