package sink

import (
	"context"
	"iter"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/millrace-io/millrace/pipeline/definition"
	"github.com/millrace-io/millrace/pipeline/state"
	"github.com/millrace-io/millrace/pipeline/telemetry"
)

// changes are changes of destinations' states that are not written yet.
type changes struct {
	wake chan struct{}
	mu   sync.Mutex
	all  map[string][]change // by destination
}

// change is one of them, with the runtime that wants it; nil if that is gone.
type change struct {
	state.Change
	by *destination
}

func newChanges() *changes { return &changes{wake: make(chan struct{}, 1), all: map[string][]change{}} }

func (c *changes) add(destination string, ch change) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all[destination] = append(c.all[destination], ch)
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// take returns what there is to write, and who is to be told when it is.
func (c *changes) take() (merged map[string]state.Change, by []*destination) {
	c.mu.Lock()
	defer c.mu.Unlock()
	merged = map[string]state.Change{}
	for name, list := range c.all {
		merged[name] = inTurn(name, list)
		for _, ch := range list {
			if ch.by != nil {
				by = append(by, ch.by)
			}
		}
	}
	c.all = map[string][]change{}
	return merged, by
}

// inTurn makes one change of several.
func inTurn(name string, list []change) state.Change {
	return func(s state.State) (state.State, bool) {
		changed := false
		for _, c := range list {
			now := s
			if s == (state.State{}) { // it has just been forgotten
				now = (*state.Snapshot)(nil).State(name)
			}
			if next, change := c.Change(now); change {
				s, changed = next, true
			}
		}
		return s, changed
	}
}

// resourceOf is the definition in force of the destination of a name, as it was
// written; nil if there is none.
func resourceOf(defs *definition.Snapshot, name string) *definition.Resource {
	return defs.Resources[definition.Key{Kind: definition.KindDestination, Name: name}]
}

// created is the revision at which the destination of a name came into being; 0
// if there is none, or nobody noted that.
func created(defs *definition.Snapshot, name string) int64 {
	if r := resourceOf(defs, name); r != nil {
		return r.Created
	}
	return 0
}

// lastOfOthers is the last revision that belongs to destinations which had a name
// before, and have been removed; -1 if nobody knows of any. One that this version
// can't read may be the same as ever.
func lastOfOthers(defs *definition.Snapshot, name string) int64 {
	key := definition.Key{Kind: definition.KindDestination, Name: name}
	if defs.Resources[key] != nil || defs.Broken[key] != nil {
		return created(defs, name) - 1
	}
	return defs.Offset - 1
}

// forgetOthers forgets the states of destinations that were removed while no sink
// ran.
func (s *sink) forgetOthers(defs *definition.Snapshot, all iter.Seq[state.State]) {
	for st := range all {
		if upTo := lastOfOthers(defs, st.Destination); st.Revision <= upTo {
			s.states.add(st.Destination, change{Change: forget(upTo)})
		}
	}
}

// forget removes the state of a destination that was removed, unless one that got
// its name after a revision wrote it.
func forget(revision int64) state.Change {
	return func(now state.State) (state.State, bool) {
		if now.Revision > revision || now == (*state.Snapshot)(nil).State(now.Destination) {
			return now, false
		}
		return state.State{}, true
	}
}

// writeStates writes changes of states until ctx ends. What is not written by
// then, another sink will find out again.
func (s *sink) writeStates(ctx context.Context, write func(context.Context, map[string]state.Change) error) {
	for {
		select {
		case <-s.states.wake:
		case <-ctx.Done():
			return
		}
		merged, by := s.states.take()
		if len(merged) == 0 { // who was woken before has taken it
			continue
		}
		for err := write(ctx, merged); err != nil; err = write(ctx, merged) {
			if waitUntil(ctx, time.Now().Add(statesRetry)) != nil {
				return
			}
			s.Log.Warn("states of destinations have to be written again",
				"destinations", slices.Sorted(maps.Keys(merged)), telemetry.KeyError, err)
		}
		for _, d := range by {
			d.saved()
		}
	}
}

const (
	// statesRetry is the pause after states could not be written.
	statesRetry = time.Second

	// statesTime is how long what was written may take to be read again: a crash of
	// Kafka may keep it back until it is written anew.
	statesTime = 15 * time.Second
)

// countStopped counts the destinations that somebody has to resume.
func (s *sink) countStopped(all iter.Seq[state.State]) {
	defs, n := s.newest(), map[state.Status]int64{}
	for st := range all {
		if r := resourceOf(defs, st.Destination); r != nil {
			n[st.Of(r.Created).Status]++
		}
	}
	for _, status := range []state.Status{state.Paused, state.Disabled} {
		s.Metrics.DestinationsStopped.Set(n[status], string(status))
	}
}

// followStates hands states on to destinations as they are written, until ctx
// ends.
func (s *sink) followStates(ctx context.Context, live *state.Live) {
	for {
		changed := live.Changed()
		for _, d := range s.all() {
			d.follow(s.stateOf(d.name))
		}
		s.countStopped(live.Snapshot().All())
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}
