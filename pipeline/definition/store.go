package definition

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/millrace-io/millrace/pipeline"
	"github.com/millrace-io/millrace/pipeline/stream"
)

// Store changes the definitions. It is safe for concurrent use, also by several
// processes: of two that change the same state, one is told.
type Store struct {
	cfg stream.Config
	log *stream.LogWriter
}

// OpenStore opens the definitions topic to write.
func OpenStore(ctx context.Context, cfg stream.Config) (*Store, error) {
	log, err := stream.OpenLogWriter(ctx, cfg, "definitions", cfg.Names.Definitions())
	if err != nil {
		return nil, err
	}
	return &Store{cfg, log}, nil
}

// Close ends the store's connections.
func (s *Store) Close() { s.log.Close() }

// ChangedError says that the definitions are not what the plan was made for.
// Nothing was written.
type ChangedError struct {
	Now      *Snapshot // what is in force now: plan again with it
	Problems Problems  // why the plan can't be made any more, if so
}

func (e *ChangedError) Error() string {
	text := "the definitions have changed since the plan was made; nothing was written, look at the new plan"
	if len(e.Problems) > 0 {
		text += ":\n" + e.Problems.Error()
	}
	return text
}

// Result says what Apply did.
type Result struct {
	Offset  int64 // of the definitions from which on the plan is in force
	Changes int
}

// Apply does what the plan says, all of it or nothing. It creates the lanes that
// destinations need before they are written, so that no role meets a lane
// without topics. A *ChangedError means that somebody else was faster in a way
// that changes the plan; any change elsewhere is no obstacle.
func (s *Store) Apply(ctx context.Context, p *Plan) (Result, error) {
	if err := s.ensureLanes(ctx, p); err != nil {
		return Result{}, err
	}
	decide := func(current map[string]pipeline.Record, next int64) ([]pipeline.Record, error) {
		now := p.base.at(current, next)
		again, problems := NewPlan(now, p.set, p.options)
		if problems.Err() != nil || !again.same(p) {
			return nil, &ChangedError{now, problems}
		}
		return p.records(s.cfg.Names, next)
	}
	next, err := s.log.WriteAmong(ctx, decide)
	if err != nil {
		return Result{}, fmt.Errorf("applying definitions: %w", err)
	}
	return Result{next, len(p.Changes)}, nil
}

func (s *Store) ensureLanes(ctx context.Context, p *Plan) error {
	lanes := map[string]bool{}
	for _, c := range p.Changes {
		if c.Key.Kind != KindDestination || c.To == nil {
			continue
		}
		v, err := decodeSpec(c.Key, c.To.Spec)
		if err != nil {
			return err
		}
		lanes[v.(*Destination).withDefaults().Lane] = true
	}
	for _, lane := range sortedKeys(lanes) {
		if err := stream.EnsureLane(ctx, s.cfg, lane); err != nil {
			return fmt.Errorf("creating lane %q: %w", lane, err)
		}
	}
	return nil
}

// WriteStarts writes where the filter starts. What is known of a topic stays:
// only a topic, or a partition, that is new, or a topic that was created again
// under its name, gets the start given here.
func (s *Store) WriteStarts(ctx context.Context, starts []Start) error {
	_, err := s.log.Write(ctx, func(current map[string]pipeline.Record, _ int64) (out []pipeline.Record, err error) {
		for _, start := range starts {
			r, isNew, err := start.recordOver(current, s.cfg.Names)
			if err != nil {
				return nil, err
			}
			if isNew {
				out = append(out, r)
			}
		}
		return out, nil
	})
	if err != nil {
		return fmt.Errorf("writing where the filter starts: %w", err)
	}
	return nil
}

// at is the snapshot of a whole topic, given by key. What has not changed since
// s is not compiled again.
func (s *Snapshot) at(current map[string]pipeline.Record, next int64) *Snapshot {
	var changes []pipeline.Record
	for k, r := range current {
		if !s.has(k, &r) {
			changes = append(changes, r)
		}
	}
	for k := range s.Resources {
		if _, ok := current[k.String()]; !ok {
			changes = append(changes, pipeline.Record{Key: []byte(k.String())})
		}
	}
	for k := range s.Broken {
		if _, ok := current[k.String()]; !ok && s.Resources[k] == nil {
			changes = append(changes, pipeline.Record{Key: []byte(k.String())})
		}
	}
	slices.SortFunc(changes, func(a, b pipeline.Record) int { return bytes.Compare(a.Key, b.Key) })
	return s.With(changes, next)
}

// has says whether the snapshot knows the record's revision.
func (s *Snapshot) has(key string, r *pipeline.Record) bool {
	k, err := ParseKey(key)
	if err != nil {
		return !strings.HasPrefix(key, startPrefix) && key != publishedKey
	}
	have := s.Resources[k]
	if have == nil {
		return false
	}
	now, err := decodeResource(k, r.Value)
	return err == nil && now.Revision == have.Revision
}

// same says whether two plans change the same revisions in the same way.
func (p *Plan) same(other *Plan) bool {
	return slices.EqualFunc(p.Changes, other.Changes, func(a, b Change) bool {
		return a.Op == b.Op && a.Key == b.Key && a.From.revision() == b.From.revision()
	})
}

func (r *Resource) revision() int64 {
	if r == nil {
		return -1
	}
	return r.Revision
}

// records are what the plan writes: each change to the definitions, in the
// plan's order, and to the history. A revision is the offset at which it is
// expected, which no revision before it can have had.
func (p *Plan) records(names pipeline.Names, next int64) ([]pipeline.Record, error) {
	now := time.Now().UTC().Truncate(time.Millisecond)
	var current, history []pipeline.Record
	for i, c := range p.Changes {
		r := Resource{
			Format: resourceFormat, Kind: c.Key.Kind, Name: c.Key.Name, Owner: p.options.Owner, Author: p.options.Author,
			Revision: next + int64(i), Time: now, Removed: c.To == nil,
		}
		if c.To != nil {
			r.Spec, r.Created = c.To.Spec, c.To.Created
		}
		if c.Op == Add && p.base.Broken[c.Key] == nil { // else there is one, which can't be read
			r.Created = r.Revision
		}
		past, err := r.record(names.Changes())
		if err != nil {
			return nil, err
		}
		inForce := pipeline.Record{Topic: names.Definitions(), Key: past.Key, Value: past.Value}
		if r.Removed {
			inForce.Value = nil
		}
		history = append(history, past)
		current = append(current, inForce)
	}
	return append(current, history...), nil
}
