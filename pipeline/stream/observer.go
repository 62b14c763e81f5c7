package stream

import (
	"errors"
	"sync"

	"github.com/millrace-io/millrace/pipeline"
)

// Observer is told what a runner does, to count it. Any field may be nil. The
// functions are called from several goroutines.
type Observer struct {
	// Transaction is called after each one: how many records it took in, and
	// whether it was committed.
	Transaction func(role string, committed bool, records int)
	// Rebuilt is called when a session or a producer broke and is made anew.
	Rebuilt func(role string)
	// DeadLetter is called for each dead letter that the runner itself makes.
	DeadLetter func(role string, reason pipeline.Reason)
	// Ready is called with nil once the runner reads, with what is wrong while
	// it can't go on, and with nil again once it does. It is never called
	// concurrently, nor with nil twice in a row.
	Ready func(error)
}

func (o *Observer) transaction(role string, committed bool, records int) {
	if o.Transaction != nil {
		o.Transaction(role, committed, records)
	}
}

func (o *Observer) rebuilt(role string) {
	if o.Rebuilt != nil {
		o.Rebuilt(role)
	}
}

func (o *Observer) deadLetter(role string, reason pipeline.Reason) {
	if o.DeadLetter != nil {
		o.DeadLetter(role, reason)
	}
}

// health joins what the parts of a runner say about themselves into what
// Observer.Ready is told: each part mends its own trouble only.
type health struct {
	ready func(error) // may be nil

	mu      sync.Mutex
	trouble map[string]error // by part
	well    bool             // what ready was told last
}

// The parts of a runner that can be in trouble.
const (
	assigning  = "assigning"
	reading    = "reading"
	processing = "processing"
	writing    = "writing"
)

// set says how a part is; nil means well.
func (h *health) set(part string, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.trouble == nil {
		h.trouble = map[string]error{}
	}
	h.trouble[part] = err
	now := errors.Join(h.trouble[assigning], h.trouble[reading], h.trouble[processing], h.trouble[writing])
	if h.ready != nil && (now != nil || !h.well) {
		h.ready(now)
	}
	h.well = now == nil
}
