// Package filter is the role that turns events into matches: it reads the event
// topics, evaluates the conditions of all webhooks, and writes each event for
// which some fire to the matches topic, together with their names.
package filter

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"time"

	"github.com/millrace-io/millrace/pipeline"
	"github.com/millrace-io/millrace/pipeline/definition"
	"github.com/millrace-io/millrace/pipeline/event"
	"github.com/millrace-io/millrace/pipeline/stream"
	"github.com/millrace-io/millrace/pipeline/telemetry"
)

// Role is the name of the consumer group, in logs and in dead letters.
const Role = "filter"

// Config is what a filter needs.
type Config struct {
	Stream      stream.Config
	Topics      []string // of producers; with Regex, patterns of their names
	Regex       bool
	Definitions *definition.Live
	Registry    event.Registry // of Avro schemas; nil: events in Avro are refused
	Metrics     *telemetry.Metrics
	Tracer      *telemetry.Tracer // nil: no traces
	Observer    stream.Observer
}

// Run filters until ctx ends.
func Run(ctx context.Context, cfg Config) error {
	if _, err := cfg.Definitions.At(ctx, 0); err != nil { // the first snapshot
		return nil // ctx ended
	}
	ids, err := stream.OpenTopicIDs(ctx, cfg.Stream)
	if err != nil {
		return fmt.Errorf("starting the filter: %w", err)
	}
	defer ids.Close()
	f := newFilter(cfg, cfg.Definitions, ids.Cluster())
	f.decoder.TopicID = ids.TopicID
	f.learn = ids.Learn
	return stream.RunStage(ctx, stream.StageConfig{
		Config: cfg.Stream, Role: Role, Topics: f.topics(), Regex: cfg.Regex,
		Stage: f, Start: f.start, Observer: cfg.Observer,
	})
}

// topics are those of producers and that of the operator events. One that is
// named by two patterns is read once.
func (f *filter) topics() []string {
	own := f.names.OperatorEvents()
	if f.Regex {
		own = "^" + regexp.QuoteMeta(own) + "$"
	}
	return append(slices.Clone(f.Topics), own)
}

// definitions are those in force: a *definition.Live.
type definitions interface {
	Snapshot() *definition.Snapshot
}

type filter struct {
	Config
	names   pipeline.Names
	defs    definitions
	learn   func(ctx context.Context, topic string) error // what the ids of events need
	decoder *event.Decoder
}

func newFilter(cfg Config, defs definitions, cluster string) *filter {
	f := &filter{Config: cfg, names: cfg.Stream.Names, defs: defs, decoder: event.NewDecoder(cfg.Registry, cluster)}
	f.decoder.Mismatches = func(typ, property string) { f.Metrics.PropertyMismatches.Add(1, typ, property) }
	return f
}

// Process evaluates one event. All of it happens under one revision of the
// definitions, whichever is in force at the beginning.
func (f *filter) Process(ctx context.Context, in *pipeline.Record, out *pipeline.Output) error {
	f.Metrics.EventsRead.Add(1)
	defs := f.defs.Snapshot()
	typ, err := f.decoder.Type(in)
	if err == nil && typ != "" && !wanted(defs, typ) { // no trace begins with it
		span := f.Tracer.Continue(Role, in)
		f.unwanted(span)
		span.End()
		return nil
	}
	span := f.Tracer.Begin(Role, in)
	defer span.End()
	if err == nil {
		err = f.evaluate(ctx, defs, in, span, out)
	}
	span.Err(err)
	return err
}

// wanted says whether any webhook, at work or paused, is about a type.
func wanted(defs *definition.Snapshot, typ string) bool {
	return defs.FilterSet().Wants(typ) || defs.PausedSet().Wants(typ)
}

func (f *filter) unwanted(span *telemetry.Span) {
	f.Metrics.EventsUnwanted.Add(1)
	span.Set(telemetry.AttrOutcome, "unwanted")
}

// evaluate matches an event that some webhook may want.
func (f *filter) evaluate(ctx context.Context, defs *definition.Snapshot, in *pipeline.Record, span *telemetry.Span, out *pipeline.Output) error {
	if err := f.learn(ctx, in.Topic); err != nil {
		return err
	}
	e, err := f.decoder.Decode(ctx, in, defs.Catalog)
	if err != nil {
		return err
	}
	span.Set(telemetry.AttrEventType, e.Type)
	if !wanted(defs, e.Type) { // only decoding could tell
		f.unwanted(span)
		return nil
	}
	m := pipeline.Match{Definitions: defs.Offset, At: time.Now().UTC(), Event: *e}
	defs.FilterSet().Match(e,
		func(webhook string) { m.Webhooks = append(m.Webhooks, webhook) },
		func(webhook string, _ error) { f.Metrics.ConditionFailures.Add(1, webhook) },
	)
	defs.PausedSet().Match(e,
		func(webhook string) { f.Metrics.MatchesSkipped.Add(1, webhook) },
		func(string, error) {}, // counted once it is at work again
	)
	span.SetNumber(telemetry.AttrMatches, len(m.Webhooks))
	f.send(span.Headers(in.Headers), &m, out)
	return nil
}

// send writes the match, in several records if it names many webhooks.
func (f *filter) send(headers []pipeline.Header, m *pipeline.Match, out *pipeline.Output) {
	if len(m.Webhooks) == 0 {
		return
	}
	all := m.Webhooks
	value := event.AppendJSON(nil, &m.Event)
	for len(all) > 0 {
		n := min(len(all), pipeline.MaxWebhooks)
		m.Webhooks, all = all[:n], all[n:]
		for _, w := range m.Webhooks {
			f.Metrics.Matches.Add(1, w)
			out.Count(pipeline.One(w, m.At, pipeline.Matched, pipeline.DeliveryID(&m.Event, w)))
		}
		out.Send(pipeline.Record{
			Topic: f.names.Matches(), Key: keyOf(&m.Event), Value: value,
			Headers: pipeline.WithEnvelope(headers, m.AppendTo(nil)),
		})
	}
}

// keyOf keeps a user's matches in order, and spreads those of nobody.
func keyOf(e *pipeline.Event) []byte {
	if e.User == "" {
		return []byte(e.ID)
	}
	return []byte(e.User)
}

// start says where a partition without a committed offset begins: init committed
// one for each it saw, so that only partitions added since may begin by themselves.
// So does that of the operator events, which init leaves alone: with its oldest,
// since those are of this Millrace and none may be missed.
func (f *filter) start(topic string, partition int32, logStart int64) (int64, error) {
	start, ok := f.defs.Snapshot().Starts[topic]
	if !ok {
		return logStart, nil
	}
	if at, seen := start.Partitions[partition]; seen {
		return 0, fmt.Errorf("%s/%d has no committed offset, though `millrace init` set one (%d) for group %s: "+
			"it expired or was deleted. Commit one to say where to go on, for example with kafka-consumer-groups "+
			"--group %[4]s --topic %[1]s:%[2]d --reset-offsets", topic, partition, at, f.names.Group(Role))
	}
	return logStart, nil
}
