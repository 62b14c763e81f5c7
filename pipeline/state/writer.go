package state

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/millrace-io/millrace/pipeline"
	"github.com/millrace-io/millrace/pipeline/stream"
)

// Change says what becomes of a state. It may be asked several times, each time
// with what is written at that moment, and returns false to leave that as it is.
// The zero State stands for none: that of a destination that was removed.
type Change func(now State) (next State, change bool)

// Writer changes states. It is safe for concurrent use, also by several
// processes: each change is decided upon the newest state.
type Writer struct {
	cfg stream.Config
	log *stream.LogWriter
}

// OpenWriter opens the topic of states to write.
func OpenWriter(ctx context.Context, cfg stream.Config) (*Writer, error) {
	log, err := stream.OpenLogWriter(ctx, cfg, "states", cfg.Names.States())
	if err != nil {
		return nil, err
	}
	return &Writer{cfg, log}, nil
}

// Close ends the writer's connections.
func (w *Writer) Close() { w.log.Close() }

// Change changes the states of some destinations, by name: all of them or none,
// and writes the operator events of what has changed.
// An error that is stream.ErrFenced means that others write so much that this
// did not get its turn. It returns the offset that a Live has to reach to know of
// the changes.
func (w *Writer) Change(ctx context.Context, changes map[string]Change) (offset int64, err error) {
	offset, err = w.log.WriteAmong(ctx, func(current map[string]pipeline.Record, _ int64) ([]pipeline.Record, error) {
		return w.decide(current, changes)
	})
	if err != nil {
		return 0, fmt.Errorf("changing the states of destinations: %w", err)
	}
	return offset, nil
}

func (w *Writer) decide(current map[string]pipeline.Record, changes map[string]Change) (out []pipeline.Record, err error) {
	for _, name := range slices.Sorted(maps.Keys(changes)) {
		now, err := stateIn(current, name)
		if err != nil {
			return nil, err
		}
		next, change := changes[name](now)
		if !change {
			continue
		}
		r := pipeline.Record{Topic: w.cfg.Names.States(), Key: []byte(name)}
		if next != (State{}) {
			if r.Value, err = encode(next); err != nil {
				return nil, fmt.Errorf("writing the state of destination %q: %w", name, err)
			}
		}
		out = append(out, r)
		for _, o := range tell(now, next) {
			out = append(out, o.Record(w.cfg.Names))
		}
	}
	return out, nil
}

// stateIn is the state that a change goes out from. One that can't be read is
// overwritten, unless a newer version wrote it.
func stateIn(current map[string]pipeline.Record, name string) (State, error) {
	r, ok := current[name]
	if !ok {
		return (*Snapshot)(nil).State(name), nil
	}
	s, err := (*Snapshot)(nil).with([]pipeline.Record{r}, 0, func(error) {})
	return s.State(name), err
}
