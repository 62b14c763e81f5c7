// Package state has the states of destinations: whether somebody or something
// has paused or disabled one, and what its breaker knows. They are apart from
// the definitions, so that applying a definition never resumes what a 401
// paused, and they outlive the sinks that write them.
//
// A state is a record of a compacted topic: key is the destination's name, value
// is JSON. A destination without one is active.
package state

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// Status says whether a destination may be called, as far as its state goes: its
// definition has a word in it too.
type Status string

// The statuses.
const (
	Active   Status = "active"
	Paused   Status = "paused"   // deliveries wait until it is resumed
	Disabled Status = "disabled" // likewise: the destination says that it is gone
)

// Reason says why a destination is paused or disabled.
type Reason string

// The reasons.
const (
	Refused        Reason = "refused"         // 401 or 403, to five deliveries in a row
	FinalResponses Reason = "final_responses" // 20 in a row with no success: the fault is the definition
	Response       Reason = "response"        // the destination's `responses` say so
	Blocked        Reason = "blocked_address" // private, and egress.allow does not open it
	Proxy          Reason = "proxy"           // the egress proxy forbids calls to it
	Gone           Reason = "gone"            // 410
	Operator       Reason = "operator"        // somebody paused it
)

// BySink is State.By where no person did it.
const BySink = "sink"

// State is the state of one destination.
type State struct {
	Destination string    `json:"destination"`
	Status      Status    `json:"status"`
	By          string    `json:"by,omitempty"`     // who set the status: BySink, or a person
	Reason      Reason    `json:"reason,omitempty"` // unless active
	Detail      string    `json:"detail,omitempty"` // in one line, without secrets
	Since       time.Time `json:"since,omitzero"`   // when the status was set

	Rate      float64   `json:"rate,omitempty"`      // calls a second that the destination answered before this
	OpenUntil time.Time `json:"open_until,omitzero"` // the breaker lets no call through before; zero: it is closed
	Instance  string    `json:"instance,omitempty"`  // sink whose breaker that is
	Back      time.Time `json:"back,omitzero"`       // when it could be called again last: it was resumed, or its breaker closed
	Revision  int64     `json:"revision,omitempty"`  // of the destination's definition when something was written last

	// What the delivery of an operator event brought about is told to nobody: who
	// changes the status, or opens the breaker, says so here. It is not written.
	QuietStatus, QuietBreaker bool `json:"-"`
	// Closed says that a change has closed the breaker. Where a later one, which is
	// written with it, opens it again, that is another outage. It is not written.
	Closed bool `json:"-"`
}

// Callable says whether calls may be made, as far as the status goes.
func (s State) Callable() bool { return s.Status != Paused && s.Status != Disabled }

// Of is the state of a destination that came into being at a revision. One that
// was written before that is another's, which had its name.
func (s State) Of(created int64) State {
	if s.Revision < created {
		return (*Snapshot)(nil).State(s.Destination)
	}
	return s
}

// format is the version of a record that this binary writes.
const format = 1

// ErrNewerFormat means that a newer Millrace wrote a state. A sink that meets
// one stops: it would not know what it must not call.
var ErrNewerFormat = errors.New("it was written by a newer version of Millrace; upgrade the sinks first")

type record struct {
	Format int `json:"format"`
	State
}

func encode(s State) ([]byte, error) { return json.Marshal(record{format, s}) }

func decode(key string, value []byte) (State, error) {
	var r record
	err := json.Unmarshal(value, &r)
	switch {
	case err != nil:
	case r.Format > format:
		err = ErrNewerFormat
	case r.Destination != key:
		err = fmt.Errorf("it says that it is that of %q", r.Destination)
	case r.Status != Active && r.Status != Paused && r.Status != Disabled:
		err = fmt.Errorf("%q is no status", r.Status)
	}
	if err != nil {
		return State{}, fmt.Errorf("reading the state of destination %q: %w", key, err)
	}
	return r.State, nil
}
