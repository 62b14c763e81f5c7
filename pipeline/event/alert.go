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
	from   string   // what that was made of
	untold int64    // since then
}

// Tell counts a dead letter, given as what an operator event says of it, and adds
// that event to the output if it is time for one.
//
// from names what the dead letter was made of, where that may be made into one
// again, since a transaction was aborted; then the same event is told again. Others
// of that transaction are counted twice.
func (a *Alerts) Tell(names pipeline.Names, o Operator, from string, out *pipeline.Output) {
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
	if from == "" || of.from != from {
		of.untold++
		if o.At.Sub(of.last.At) < AlertPause {
			return
		}
		o.Type, o.Count = pipeline.DestinationDeadLetters, of.untold
		of.last, of.from, of.untold = o, from, 0
	}
	out.Send(of.last.Record(names))
}
