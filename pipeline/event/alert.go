package event

import (
	"sync"
	"time"

	"github.com/millrace-io/millrace/pipeline"
)

// AlertPause is the least time between two operator events about the dead
// letters of a destination.
const AlertPause = time.Minute

// Alerts tells of the dead letters of destinations: of the first at once, of
// those of the minute after it with the next one. The zero value is ready. It
// may be used by several goroutines.
type Alerts struct {
	mu sync.Mutex
	of map[string]*alert // by destination
}

// alert is what was told of a destination's dead letters.
type alert struct {
	last   Operator // that was told; of the year 1 before there was one
	untold int64    // since then
}

// Add counts a dead letter, given as what an operator event says of it. If it is
// time for that event, Add says so and fills in Type and Count. For the dead
// letter that was told of last it says the same again: a stage whose transaction
// was aborted makes it once more.
func (a *Alerts) Add(o *Operator) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.of == nil {
		a.of = map[string]*alert{}
	}
	of := a.of[o.Destination]
	if of == nil {
		of = new(alert)
		a.of[o.Destination] = of
	}
	if of.last.Delivery == o.Delivery && of.last.Count > 0 {
		*o = of.last
		return true
	}
	of.untold++
	if o.At.Sub(of.last.At) < AlertPause {
		return false
	}
	o.Type, o.Count = pipeline.DestinationDeadLetters, of.untold
	of.last, of.untold = *o, 0
	return true
}
