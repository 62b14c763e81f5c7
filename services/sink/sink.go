// Package sink is the role that makes the calls: it takes the deliveries of its
// lanes, sends each to its destination within that destination's limits, and
// writes down how it ended. What has to be tried again, or can't be sent now,
// goes to the delays and comes back on the lane's redeliveries; its partition
// goes on.
//
// Every delivery that is taken is ended or released exactly once: in Take, or
// in destination.process for those that were queued, or, while they are still
// queued when their partition goes to another sink, in destination.release.
package sink

import (
	"context"
	"iter"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/millrace-io/millrace/pipeline"
	"github.com/millrace-io/millrace/pipeline/definition"
	"github.com/millrace-io/millrace/pipeline/event"
	"github.com/millrace-io/millrace/pipeline/httpsend"
	"github.com/millrace-io/millrace/pipeline/state"
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
	Tracer      *telemetry.Tracer // nil: no traces
	Log         *slog.Logger
	// Observer of each of the two runners, by its role.
	Observer func(role string) stream.Observer
	// Ready is told that something can't be sent to for want of a secret or an
	// access token, with an error that names it, and nil once it can. May be nil.
	Ready func(name string, err error)
}

// drainTime is how long calls may be open when their partition goes: the longest
// timeout that a definition may set, 55 s, and a little.
const drainTime = 57 * time.Second

// Run delivers until ctx ends; then it waits for the calls under way.
func Run(ctx context.Context, cfg Config) error {
	s := newSink(cfg)
	g, ctx := errgroup.WithContext(ctx)
	states := state.NewLive(cfg.Stream)
	g.Go(func() error { return endedBy(ctx, states.Run(ctx)) })
	g.Go(func() error { return s.serve(ctx, g, states) })
	return g.Wait()
}

// endedBy is the error of something that runs until ctx ends.
func endedBy(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil //nolint:nilerr // that is why it ended
	}
	return err
}

// serve makes calls once it is known how every destination stands.
func (s *sink) serve(ctx context.Context, g *errgroup.Group, states *state.Live) error {
	cfg := s.Config
	if _, err := states.At(ctx, 0); err != nil {
		return endedBy(ctx, err)
	}
	s.stateOf = func(name string) state.State { return states.Snapshot().State(name) }
	lanes, err := s.waitForLanes(ctx)
	if err != nil {
		return endedBy(ctx, err)
	}
	writer, err := state.OpenWriter(ctx, cfg.Stream)
	if err != nil {
		return endedBy(ctx, err)
	}
	defer writer.Close()
	s.forgetOthers(s.newest(), states.Snapshot().All())
	mover, err := stream.NewTracked(stream.TrackedConfig{
		Config: cfg.Stream, Role: DelaysRole, Topics: delayTopics(s.names), Handler: &delays{s.names, cfg.Metrics, cfg.Tracer},
		OnDeadLetter: s.givenUp, Observer: cfg.Observer(DelaysRole),
	})
	if err != nil {
		return err
	}
	runner, err := stream.NewTracked(stream.TrackedConfig{
		Config: cfg.Stream, Role: Role, Topics: s.laneTopics(lanes), Lanes: true, Handler: s,
		OnDeadLetter: s.givenUp, OnOwned: s.owns, Observer: cfg.Observer(Role), Drain: drainTime,
	})
	if err != nil {
		return err
	}
	defer cfg.Client.Close()
	stop := s.beside(ctx,
		func(ctx context.Context) { s.follow(ctx, runner, lanes) },
		s.watchSecrets,
		func(ctx context.Context) { s.followStates(ctx, states) },
		func(ctx context.Context) { s.passes(ctx, runner.Ends) },
		func(ctx context.Context) {
			s.writeStates(ctx, func(ctx context.Context, all map[string]state.Change) error {
				offset, err := writer.Change(ctx, all)
				if err != nil {
					return err
				}
				ctx, cancel := context.WithTimeout(ctx, statesTime)
				defer cancel()
				_, err = states.At(ctx, offset)
				return err
			})
		},
	)
	defer stop()
	g.Go(func() error { return mover.Run(ctx) })
	return runner.Run(ctx)
}

// beside runs what goes on beside the calls. stop ends it, and then stops the
// timers of destinations: last, since what ends late may wind one up.
func (s *sink) beside(ctx context.Context, jobs ...func(context.Context)) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	for _, job := range jobs {
		running.Go(func() { job(ctx) })
	}
	return func() {
		cancel()
		running.Wait()
		s.rest()
	}
}

// rest stops the timers of destinations.
func (s *sink) rest() {
	for _, d := range s.all() {
		d.mu.Lock()
		d.rests = true
		d.stopWatch()
		d.mu.Unlock()
	}
}

// definitions are those in force: a *definition.Live.
type definitions interface {
	At(ctx context.Context, offset int64) (*definition.Snapshot, error)
	Snapshot() *definition.Snapshot
}

// sender makes the calls to one destination: a *httpsend.Sender.
type sender interface {
	Send(context.Context, httpsend.Call) httpsend.Result
	Ready() error
}

type sink struct {
	Config
	names     pipeline.Names
	defs      definitions
	newSender func(*definition.Destination) (sender, error)

	waiting *waiting
	states  *changes
	stateOf func(destination string) state.State // as far as it is written

	known      atomic.Pointer[definition.Snapshot] // the newest that destinations are made by
	alerts     event.Alerts                        // of dead letters
	held       atomic.Int64                        // weight of the calls in memory
	partitions sync.Map                            // contexts of the partitions that calls came from

	mu           sync.Mutex
	destinations map[string]*destination
	crowd        map[string]int  // how many destinations each lane has
	parts        map[string]part // of each lane's partitions, which are ours
	ownedAt      time.Time       // when that changed
}

func newSink(cfg Config) *sink {
	return &sink{
		Config: cfg, names: cfg.Stream.Names, defs: cfg.Definitions, destinations: map[string]*destination{},
		waiting: newWaiting(), states: newChanges(),
		newSender: func(def *definition.Destination) (sender, error) { return cfg.Client.Target(target(def)) },
	}
}

// newest returns the newest definitions. What is known of destinations is at
// least as new.
func (s *sink) newest() *definition.Snapshot {
	defs := s.defs.Snapshot()
	s.learn(defs)
	return defs
}

// learn takes over definitions that are newer than what is known: destinations
// get their new revision, which also forgets their gate and their breaker, and
// those that are gone are dropped.
func (s *sink) learn(defs *definition.Snapshot) {
	if s.known.Load() == defs {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if known := s.known.Load(); known != nil && defs.Offset <= known.Offset {
		return // somebody else was faster
	}
	s.review(defs)
	s.known.Store(defs)
	s.crowd = map[string]int{}
	for _, def := range defs.Destinations {
		s.crowd[def.Lane]++
	}
	for name, d := range s.destinations {
		switch def := defs.Destinations[name]; {
		case def == nil || created(defs, name) != d.created: // it is, or was, removed
			d.retire()
			delete(s.destinations, name)
		case def != d.definition():
			d.revise(s.newRevision(def), s.part(def.Lane))
		default:
			d.ring() // it may have its lane for itself no longer
		}
	}
}

// review has those look again who may wait no longer under new definitions, and
// forgets the states of destinations that were removed. Called with mu held.
func (s *sink) review(defs *definition.Snapshot) {
	known, now := s.known.Load(), time.Now()
	if known == nil {
		return
	}
	removed := func(name string) bool { return defs.Webhooks[name] == nil }
	if len(known.Broken) > 0 || slices.ContainsFunc(slices.Collect(maps.Keys(known.Webhooks)), removed) {
		s.waiting.wantAll(now)
	}
	for name, def := range known.Destinations {
		if defs.Destinations[name] != def {
			s.waiting.want(name, now)
		}
	}
	for _, keys := range []iter.Seq[definition.Key]{maps.Keys(known.Resources), maps.Keys(known.Broken)} {
		for key := range keys {
			if key.Kind != definition.KindDestination {
				continue
			}
			if upTo := lastOfOthers(defs, key.Name); upTo > lastOfOthers(known, key.Name) {
				s.states.add(key.Name, change{Change: forget(upTo)})
			}
		}
	}
}

// destination returns the runtime of a destination; nil if the newest
// definitions have none of that name.
func (s *sink) destination(name string) *destination {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.destinations[name]
	if def := s.known.Load().Destinations[name]; d == nil && def != nil {
		d = newDestination(s, name, s.newRevision(def), s.part(def.Lane))
		s.destinations[name] = d
	}
	return d
}

// alone says whether a destination has its lane for itself, so that it holds up
// nobody else by holding up the lane.
func (s *sink) alone(d *destination) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.crowd[d.definition().Lane] <= 1
}

// owns is told which partitions of each topic are ours.
func (s *sink) owns(owned map[string]stream.Owned) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.parts, s.ownedAt = map[string]part{}, time.Now()
	for topic, o := range owned {
		if lane, ok := s.names.LaneOf(topic); ok && topic == s.names.Deliveries(lane) {
			s.parts[lane] = part(o)
		}
	}
	for _, d := range s.destinations {
		d.setPart(s.part(d.definition().Lane))
	}
}

// part is the part of a destination's limits that this sink may use. In the
// default lane each destination has one owner, which may use all. A lane of
// which we own nothing has no calls to limit. Called with mu held.
func (s *sink) part(lane string) part {
	if lane == pipeline.DefaultLane {
		return part{}
	}
	return s.parts[lane]
}

// all returns the runtimes of all destinations.
func (s *sink) all() []*destination {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]*destination, 0, len(s.destinations))
	for _, d := range s.destinations {
		out = append(out, d)
	}
	return out
}

// watch sees to it that what is queued of a partition is released when the
// partition, whose context this is, goes to another sink.
func (s *sink) watch(partition context.Context) {
	if _, known := s.partitions.LoadOrStore(partition, true); known {
		return
	}
	context.AfterFunc(partition, func() {
		s.partitions.Delete(partition)
		for _, d := range s.all() {
			d.release(partition)
		}
	})
}

// follow adds the topics of new lanes as definitions change.
func (s *sink) follow(ctx context.Context, runner *stream.Tracked, known []string) {
	defs := s.newest()
	for {
		s.learn(defs)
		for _, lane := range s.lanes(defs) {
			if !slices.Contains(known, lane) {
				known = append(known, lane)
				runner.AddTopics(s.laneTopics([]string{lane})...)
				s.Log.Info("serving a new lane", telemetry.KeyLane, lane)
			}
		}
		var err error
		if defs, err = s.defs.At(ctx, defs.Offset+1); err != nil {
			return
		}
	}
}
