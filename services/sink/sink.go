// Package sink is the role that makes the calls: it takes the deliveries of its
// lanes, sends each to its destination within that destination's limits, and
// writes down how it ended. What has to be tried again, or can't be sent now,
// goes to the delays and comes back on the lane's redeliveries; its partition
// goes on.
package sink

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/millrace-io/millrace/pipeline"
	"github.com/millrace-io/millrace/pipeline/definition"
	"github.com/millrace-io/millrace/pipeline/httpsend"
	"github.com/millrace-io/millrace/pipeline/stream"
	"github.com/millrace-io/millrace/pipeline/telemetry"
)

// The names of the sink's two consumer groups.
const (
	Role       = "sink"
	DelaysRole = "delays"
)

// Config is what a sink needs.
type Config struct {
	Stream      stream.Config
	Definitions *definition.Live
	Lanes       []string // patterns as in path.Match; none: all lanes
	Client      *httpsend.Client
	Metrics     *telemetry.Metrics
	Log         *slog.Logger
	// Observer of each of the two runners, by its role.
	Observer func(role string) stream.Observer
}

// Run delivers until ctx ends; then it waits for the calls under way.
func Run(ctx context.Context, cfg Config) error {
	s := &sink{Config: cfg, names: cfg.Stream.Names, destinations: map[string]*destination{}}
	lanes, err := s.waitForLanes(ctx)
	if err != nil {
		return nil //nolint:nilerr // ctx ended
	}
	delays, err := stream.NewTracked(stream.TrackedConfig{
		Config: cfg.Stream, Role: DelaysRole, Topics: delayTopics(s.names), Handler: &delays{s.names},
		OnDeadLetter: deadDelivery, Observer: cfg.Observer(DelaysRole),
	})
	if err != nil {
		return err
	}
	runner, err := stream.NewTracked(stream.TrackedConfig{
		Config: cfg.Stream, Role: Role, Topics: s.laneTopics(lanes), Lanes: true, Handler: s,
		OnDeadLetter: deadDelivery, OnOwned: s.owns, Observer: cfg.Observer(Role), Drain: drainTime,
	})
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return delays.Run(ctx) })
	g.Go(func() error { return runner.Run(ctx) })
	g.Go(func() error { s.follow(ctx, runner, lanes); return nil })
	err = g.Wait()
	cfg.Client.Close()
	return err
}

type sink struct {
	Config
	names pipeline.Names

	mu           sync.Mutex
	destinations map[string]*destination
	shares       map[string]float64 // of each lane's partitions, how much is ours
	mixed        mixture
}

// lanes returns the lanes of a snapshot that this sink serves.
func (s *sink) lanes(defs *definition.Snapshot) []string {
	return slices.DeleteFunc(defs.Lanes(), func(lane string) bool { return !s.serves(lane) })
}

func (s *sink) serves(lane string) bool {
	return len(s.Lanes) == 0 || slices.ContainsFunc(s.Lanes, func(pattern string) bool {
		ok, err := path.Match(pattern, lane)
		return ok && err == nil
	})
}

// CheckLanes says what is wrong with patterns of lanes.
func CheckLanes(patterns []string) error {
	var errs []error
	for _, p := range patterns {
		if _, err := path.Match(p, ""); err != nil {
			errs = append(errs, fmt.Errorf("lane pattern %q: %w", p, err))
		}
	}
	return errors.Join(errs...)
}

func (s *sink) laneTopics(lanes []string) []string {
	var topics []string
	for _, lane := range lanes {
		topics = append(topics, s.names.Deliveries(lane), s.names.Redeliveries(lane))
	}
	return topics
}

// waitForLanes waits until there is a lane to serve.
func (s *sink) waitForLanes(ctx context.Context) ([]string, error) {
	defs, err := s.Definitions.At(ctx, 0)
	for err == nil && len(s.lanes(defs)) == 0 {
		defs, err = s.Definitions.At(ctx, defs.Offset+1)
	}
	if err != nil {
		return nil, err
	}
	return s.lanes(defs), nil
}

// follow adds the topics of new lanes as definitions change.
func (s *sink) follow(ctx context.Context, runner *stream.Tracked, known []string) {
	defs := s.Definitions.Snapshot()
	for {
		for _, lane := range s.lanes(defs) {
			if !slices.Contains(known, lane) {
				known = append(known, lane)
				runner.AddTopics(s.laneTopics([]string{lane})...)
				s.Log.Info("serving a new lane", telemetry.KeyLane, lane)
			}
		}
		s.forget(defs)
		var err error
		if defs, err = s.Definitions.At(ctx, defs.Offset+1); err != nil {
			return
		}
	}
}

// forget drops destinations that are gone from the definitions; calls that are
// queued keep theirs until they ended.
func (s *sink) forget(defs *definition.Snapshot) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, d := range s.destinations {
		if defs.Destinations[name] == nil {
			d.retire()
			delete(s.destinations, name)
		}
	}
}

// owns is told how large a share of each topic's partitions is ours.
func (s *sink) owns(shares map[string]float64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.shares = map[string]float64{}
	for topic, share := range shares {
		if lane, ok := s.names.LaneOf(topic); ok && topic == s.names.Deliveries(lane) {
			s.shares[lane] = share
		}
	}
	for _, d := range s.destinations {
		d.setShare(s.share(d.lane))
	}
}

// share is the part of a destination's limits that this sink may use. In the
// default lane each destination has one owner, which may use all. Called with
// mu held.
func (s *sink) share(lane string) float64 {
	if share, ok := s.shares[lane]; ok && lane != pipeline.DefaultLane {
		return share
	}
	return 1
}

// destination returns the runtime of a destination, made anew when its
// definition changed: that also forgets its gate and its breaker.
func (s *sink) destination(def *definition.Destination) (*destination, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if d := s.destinations[def.Name]; d != nil {
		if d.def == def {
			return d, nil
		}
		d.retire()
		delete(s.destinations, def.Name)
	}
	d, err := s.newDestination(def)
	if err != nil {
		return nil, err
	}
	d.setShare(s.share(d.lane))
	s.destinations[def.Name] = d
	return d, nil
}
