// Package transform is the role that turns matches into deliveries: for each
// webhook that a match names it applies the property mapping and writes the
// request to the lane of the destination.
package transform

import (
	"context"
	"fmt"
	"time"

	"github.com/millrace-io/millrace/pipeline"
	"github.com/millrace-io/millrace/pipeline/definition"
	"github.com/millrace-io/millrace/pipeline/event"
	"github.com/millrace-io/millrace/pipeline/expression"
	"github.com/millrace-io/millrace/pipeline/stream"
	"github.com/millrace-io/millrace/pipeline/telemetry"
)

// Role is the name of the consumer group, in logs and in dead letters.
const Role = "transform"

// Config is what a transform needs.
type Config struct {
	Stream      stream.Config
	Definitions *definition.Live
	Metrics     *telemetry.Metrics
	Tracer      *telemetry.Tracer // nil: no traces
	Observer    stream.Observer
}

// Run transforms until ctx ends.
func Run(ctx context.Context, cfg Config) error {
	t := newTransform(cfg, cfg.Definitions)
	return stream.RunStage(ctx, stream.StageConfig{
		Config: cfg.Stream, Role: Role, Topics: []string{t.names.Matches()}, Owner: true,
		Stage: t, OnDeadLetter: t.givenUp, Observer: cfg.Observer,
	})
}

// definitions are those in force: a *definition.Live.
type definitions interface {
	At(ctx context.Context, offset int64) (*definition.Snapshot, error)
	Snapshot() *definition.Snapshot // nil before there is one
}

type transform struct {
	Config
	names   pipeline.Names
	defs    definitions
	decoder *event.Decoder
	alerts  event.Alerts // of dead letters
}

func newTransform(cfg Config, defs definitions) *transform {
	t := &transform{Config: cfg, names: cfg.Stream.Names, defs: defs, decoder: event.NewDecoder(nil, "")}
	t.decoder.Mismatches = func(typ, property string) { t.Metrics.PropertyMismatches.Add(1, typ, property) }
	return t
}

// Process makes the deliveries of one match. It waits until its definitions are
// at least those that the match was made under, then uses the newest it has.
func (t *transform) Process(ctx context.Context, in *pipeline.Record, out *pipeline.Output) error {
	span := t.Tracer.Continue(Role, in)
	defer span.End()
	err := t.process(ctx, in, span, out)
	span.Err(err)
	return err
}

func (t *transform) process(ctx context.Context, in *pipeline.Record, span *telemetry.Span, out *pipeline.Output) error {
	header, _ := in.Header(pipeline.EnvelopeHeader)
	m, err := pipeline.ParseMatch(header)
	if err != nil {
		return err
	}
	defs, err := t.defs.At(ctx, m.Definitions)
	if err != nil {
		return err
	}
	e, err := t.decoder.Match(in.Value, &m, defs.Catalog)
	if err != nil {
		return err
	}
	span.Set(telemetry.AttrEventType, e.Type)
	headers := span.Headers(in.Headers)
	for _, name := range m.Webhooks {
		w := webhook{transform: t, in: in, m: &m, e: e, name: name, id: pipeline.DeliveryID(e, name), span: span, headers: headers}
		if err := w.deliver(defs, out); err != nil {
			return err
		}
	}
	return nil
}

// webhook is one webhook of a match.
type webhook struct {
	*transform
	in   *pipeline.Record
	m    *pipeline.Match
	e    *pipeline.Event
	name string
	id   string

	span    *telemetry.Span
	headers []pipeline.Header // of what comes out
}

// deliver writes the delivery, or why there is none. A failure concerns this
// webhook alone.
func (w *webhook) deliver(defs *definition.Snapshot, out *pipeline.Output) error {
	c := defs.Webhooks[w.name]
	broken := defs.Broken[definition.Key{Kind: definition.KindWebhook, Name: w.name}]
	switch {
	case c == nil && broken == nil:
		w.span.Event("removed", telemetry.AttrWebhook, w.name)
		w.count(pipeline.Removed, out)
		return nil
	case c == nil:
		return w.bury(pipeline.Permanent(pipeline.UnusableDefinition, broken), nil, out)
	}
	d := w.delivery(c, defs.Offset)
	value, err := w.request(c, &d)
	if err != nil {
		w.Metrics.MappingFailures.Add(1, w.name)
		return w.bury(err, c.Destination, out)
	}
	w.Metrics.DeliveriesProduced.Add(1, d.Lane)
	w.span.Event("delivery", telemetry.AttrWebhook, w.name, telemetry.AttrDelivery, w.id,
		telemetry.AttrDestination, d.Destination, telemetry.AttrLane, d.Lane)
	out.Send(pipeline.Record{
		Topic: w.names.Deliveries(d.Lane), Key: d.Key(), Value: value,
		Headers: pipeline.WithEnvelope(w.headers, d.AppendTo(nil)),
	})
	return nil
}

func (w *webhook) delivery(c *definition.Compiled, offset int64) pipeline.Delivery {
	return pipeline.Delivery{
		Definitions: offset, ID: w.id, Webhook: w.name, Destination: c.Destination.Name,
		Lane: c.Destination.Lane, MatchedAt: w.m.At, EventID: w.e.ID, EventType: w.e.Type,
		EventTime: w.e.Time, User: w.e.User,
	}
}

// request makes the body, or the query of a GET, and the URL where it depends
// on the event. A panic is a failure of this webhook too, not of the match.
func (w *webhook) request(c *definition.Compiled, d *pipeline.Delivery) (value []byte, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = pipeline.Permanent(pipeline.Panicked, fmt.Errorf("panic while mapping: %v", p))
		}
	}()
	out, err := c.Request(&expression.Input{Event: w.e, DeliveryID: w.id, Webhook: w.name})
	d.URL = out.URL
	return out.Value, err
}

// bury makes a dead letter of the match, for this webhook, if err is permanent,
// and tells of it. to is nil where nobody knows which destination it was for.
func (w *webhook) bury(err error, to *definition.Destination, out *pipeline.Output) error {
	dead, permanent := pipeline.IsPermanent(err)
	if !permanent {
		return err
	}
	w.Metrics.DeadLetters.Add(1, Role, string(dead.Reason))
	w.span.Event("dead letter", telemetry.AttrWebhook, w.name, telemetry.AttrReason, string(dead.Reason))
	out.Send(pipeline.NewDeadLetter(w.names.DeadLetters(), w.in, pipeline.DeadLetter{
		Stage: Role, Reason: dead.Reason, Error: dead.Err.Error(), At: time.Now(),
		Webhook: w.name, Delivery: w.id,
	}))
	if to != nil {
		w.alert(w.name, w.e, to, dead, w.in, out)
	}
	w.count(pipeline.DeadLettered, out)
	return nil
}

// alert adds the operator event about the dead letter of a webhook, if it is time
// for one. What comes of an operator event raises none.
func (t *transform) alert(webhook string, e *pipeline.Event, to *definition.Destination, dead *pipeline.PermanentError, in *pipeline.Record, out *pipeline.Output) {
	if pipeline.IsOperator(e.Type) {
		return
	}
	t.alerts.Tell(t.names, event.Operator{
		At: time.Now(), Destination: to.Name, Lane: to.Lane, Webhook: webhook, Delivery: pipeline.DeliveryID(e, webhook),
		Reason: string(dead.Reason), Detail: dead.Err.Error(),
	}, fmt.Sprint(in.Topic, "/", in.Partition, "@", in.Offset, " for ", webhook), out)
}

func (w *webhook) count(e pipeline.Ending, out *pipeline.Output) {
	out.Count(pipeline.One(w.name, w.m.At, e, w.id))
}

// givenUp adds to a dead letter that the runner itself makes of a whole match what
// bury adds to that of a webhook.
func (t *transform) givenUp(in *pipeline.Record, dead *pipeline.PermanentError, out *pipeline.Output) {
	header, _ := in.Header(pipeline.EnvelopeHeader)
	m, err := pipeline.ParseMatch(header)
	if err != nil {
		return
	}
	defs := t.defs.Snapshot()
	for _, name := range m.Webhooks {
		if defs != nil && defs.Webhooks[name] != nil {
			t.alert(name, &m.Event, defs.Webhooks[name].Destination, dead, in, out)
		}
		out.Count(pipeline.One(name, m.At, pipeline.DeadLettered, pipeline.DeliveryID(&m.Event, name)))
	}
}
