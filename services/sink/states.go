package sink

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/millrace-io/millrace/pipeline/state"
	"github.com/millrace-io/millrace/pipeline/telemetry"
)

// changes are changes of destinations' states that are not written yet.
type changes struct {
	wake chan struct{}
	mu   sync.Mutex
	all  map[string][]state.Change // by destination
}

func newChanges() *changes {
	return &changes{wake: make(chan struct{}, 1), all: map[string][]state.Change{}}
}

func (c *changes) change(destination string, change state.Change) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all[destination] = append(c.all[destination], change)
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// take returns what there is to write, and how many changes of each destination
// that is.
func (c *changes) take() (merged map[string]state.Change, counts map[string]int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	merged, counts = map[string]state.Change{}, map[string]int{}
	for name, list := range c.all {
		merged[name], counts[name] = inTurn(list), len(list)
	}
	c.all = map[string][]state.Change{}
	return merged, counts
}

// inTurn makes one change of several.
func inTurn(list []state.Change) state.Change {
	return func(s state.State) (state.State, bool) {
		changed := false
		for _, c := range list {
			next, change := c(s)
			if change {
				s, changed = next, true
			}
		}
		return s, changed
	}
}

// forget removes the state of a destination that was removed: one that gets its
// name later is another.
func forget(now state.State) (state.State, bool) {
	return state.State{}, now != (*state.Snapshot)(nil).State(now.Destination)
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
		merged, counts := s.states.take()
		for err := write(ctx, merged); err != nil; err = write(ctx, merged) {
			if waitUntil(ctx, time.Now().Add(statesRetry)) != nil {
				return
			}
			s.Log.Warn("states of destinations have to be written again",
				"destinations", slices.Sorted(maps.Keys(merged)), telemetry.KeyError, err)
		}
		for name, n := range counts {
			if d := s.runtime(name); d != nil {
				d.saved(n)
			}
		}
	}
}

// statesRetry is the pause after states could not be written.
const statesRetry = time.Second

// followStates hands states on to destinations as they are written, until ctx
// ends.
func (s *sink) followStates(ctx context.Context, live *state.Live) {
	for {
		changed := live.Changed()
		for _, d := range s.all() {
			d.follow(s.stateOf(d.name))
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}
