package definition

import (
	"context"
	"fmt"

	"github.com/millrace-io/millrace/pipeline"
	"github.com/millrace-io/millrace/pipeline/event"
	"github.com/millrace-io/millrace/pipeline/stream"
)

// Live has the definitions in force. It is safe for concurrent use.
type Live struct {
	cfg     stream.Config
	builtin *event.Catalog

	newest stream.Newest[Snapshot]
}

// NewLive returns a Live that has nothing until Run has read the topic.
func NewLive(cfg stream.Config, builtin *event.Catalog) *Live {
	return &Live{cfg: cfg, builtin: builtin}
}

// Run follows the definitions topic until ctx ends or the topic can't be read
// any more. It never gives up on a definition: see Snapshot.Broken.
func (l *Live) Run(ctx context.Context) error {
	err := l.newest.Follow(ctx, l.cfg, l.cfg.Names.Definitions(), func(now *Snapshot, records []pipeline.Record, offset int64) (*Snapshot, error) {
		if now == nil {
			now = NewSnapshot(l.builtin)
		}
		return now.With(records, offset), nil
	})
	if err != nil {
		return fmt.Errorf("following the definitions: %w", err)
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
