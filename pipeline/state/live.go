package state

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"

	"github.com/millrace-io/millrace/pipeline"
	"github.com/millrace-io/millrace/pipeline/stream"
)

// Snapshot is the states of all destinations at some time. It never changes; nil
// has none.
type Snapshot struct {
	Offset int64 // it is complete up to here
	states map[string]State
}

// State returns the state of a destination: an active one where there is none.
func (s *Snapshot) State(destination string) State {
	if s != nil {
		if st, ok := s.states[destination]; ok {
			return st
		}
	}
	return State{Destination: destination, Status: Active}
}

// All yields the states that there are, by name.
func (s *Snapshot) All() iter.Seq[State] {
	return func(yield func(State) bool) {
		if s == nil {
			return
		}
		for _, name := range slices.Sorted(maps.Keys(s.states)) {
			if !yield(s.states[name]) {
				return
			}
		}
	}
}

// with is the snapshot after some records. A record that can't be read changes
// nothing: whoever wrote it by hand is told by the log.
func (s *Snapshot) with(records []pipeline.Record, offset int64, unreadable func(error)) (*Snapshot, error) {
	next := &Snapshot{offset, map[string]State{}}
	if s != nil {
		maps.Copy(next.states, s.states)
	}
	for _, r := range records {
		if r.Value == nil {
			delete(next.states, string(r.Key))
			continue
		}
		st, err := decode(string(r.Key), r.Value)
		switch {
		case errors.Is(err, ErrNewerFormat):
			return nil, err
		case err != nil:
			unreadable(err)
		default:
			next.states[string(r.Key)] = st
		}
	}
	return next, nil
}

// Live has the states as they are now. It is safe for concurrent use.
type Live struct {
	cfg    stream.Config
	newest stream.Newest[Snapshot]
}

// NewLive returns a Live that has nothing until Run has read the topic.
func NewLive(cfg stream.Config) *Live { return &Live{cfg: cfg} }

// Run follows the topic of states until ctx ends or the topic can't be read any
// more.
func (l *Live) Run(ctx context.Context) error {
	unreadable := func(err error) { l.cfg.Log.Error("state can't be used", "error", err) }
	err := l.newest.Follow(ctx, l.cfg, l.cfg.Names.States(), func(now *Snapshot, records []pipeline.Record, offset int64) (*Snapshot, error) {
		return now.with(records, offset, unreadable)
	})
	if err != nil {
		return fmt.Errorf("following the states of destinations: %w", err)
	}
	return nil
}

// Snapshot returns the newest snapshot; nil until the topic has been read to
// what was its end when Run began.
func (l *Live) Snapshot() *Snapshot { return l.newest.Value() }

// Changed returns a channel that is closed when there is a newer snapshot than
// the one that Snapshot returns from now on. Ask for it before the snapshot.
func (l *Live) Changed() <-chan struct{} { return l.newest.Changed() }

// At waits for a snapshot that is complete up to the offset at least, and
// returns the newest. Offset 0 waits for the first one. The error is ctx's.
func (l *Live) At(ctx context.Context, offset int64) (*Snapshot, error) {
	return l.newest.Await(ctx, func(s *Snapshot) bool { return s.Offset >= offset })
}
