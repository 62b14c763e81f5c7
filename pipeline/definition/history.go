package definition

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/millrace-io/millrace/pipeline"
	"github.com/millrace-io/millrace/pipeline/event"
	"github.com/millrace-io/millrace/pipeline/stream"
)

// History is every revision of every definition, as the topic of changes has
// them. The definitions topic keeps the newest alone.
type History struct{ revisions []*Resource } // oldest first

// ReadHistory reads the history as it is now.
func ReadHistory(ctx context.Context, cfg stream.Config) (*History, error) {
	h := &History{}
	err := stream.Scan(ctx, cfg, []string{cfg.Names.Changes()}, time.Time{}, nil, func(r pipeline.Record) error {
		k, err := ParseKey(string(r.Key))
		if err != nil {
			return nil //nolint:nilerr // of a later version, as in a snapshot
		}
		if revision, err := decodeResource(k, r.Value); err == nil {
			h.revisions = append(h.revisions, revision)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("reading the history of definitions: %w", err)
	}
	slices.SortStableFunc(h.revisions, func(a, b *Resource) int { return int(a.Revision - b.Revision) })
	return h, nil
}

// Has says whether there ever was a definition of that key.
func (h *History) Has(k Key) bool {
	return slices.ContainsFunc(h.revisions, func(r *Resource) bool { return r.Key() == k })
}

// At returns what was in force at an offset of the definitions topic: the
// snapshot that was complete up to there.
func (h *History) At(builtin *event.Catalog, offset int64) (*Snapshot, error) {
	newest := map[Key]*Resource{}
	for _, r := range h.revisions {
		if r.Revision < offset { // a revision is the offset it stands at
			newest[r.Key()] = r
		}
	}
	var records []pipeline.Record
	for _, r := range sortedResources(newest) {
		record, err := r.record("")
		if err != nil {
			return nil, err
		}
		if r.Removed {
			record.Value = nil
		}
		records = append(records, record)
	}
	return NewSnapshot(builtin).With(records, offset), nil
}
