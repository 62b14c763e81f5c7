package telemetry

import (
	"context"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/millrace-io/millrace/pipeline"
)

// The attributes of spans and their events. What stands in them is chosen by the
// program or by whoever defines webhooks: never by an end user, and never secret.
const (
	AttrWebhook     = "millrace.webhook"
	AttrDestination = "millrace.destination"
	AttrLane        = "millrace.lane"
	AttrDelivery    = "millrace.delivery" // id
	AttrEventType   = "millrace.event_type"
	AttrAttempt     = "millrace.attempt" // number, from 1
	AttrOutcome     = "millrace.outcome"
	AttrEnding      = "millrace.ending"
	AttrReason      = "millrace.reason" // of a dead letter
	AttrWhy         = "millrace.why"    // it was put off
	AttrTier        = "millrace.tier"
	AttrDue         = "millrace.due"
	AttrMatches     = "millrace.matches"
	AttrStatus      = "http.response.status_code"
	AttrErrorClass  = "error.type"
	AttrTopic       = "messaging.destination.name"
)

// Tracer makes spans of records that are sampled: by their producer, who says so
// in the traceparent header, or, where there is none, by Begin. A nil Tracer
// makes none.
//
// Of a record that is not sampled there is no span: the Span is nil and its
// methods do nothing. So it costs a look at the headers, and whoever calls need
// not ask.
type Tracer struct {
	tracer   trace.Tracer
	provider *sdk.TracerProvider
	exporter *spanExporter
	sample   float64
}

// Continue begins a span of a record that its headers say is sampled.
func (t *Tracer) Continue(name string, r *pipeline.Record) *Span {
	return t.ContinueFrom(time.Time{}, name, r)
}

// ContinueFrom is Continue for a span that began in the past.
func (t *Tracer) ContinueFrom(start time.Time, name string, r *pipeline.Record) *Span {
	if t == nil {
		return nil
	}
	parent, ok := contextOf(r)
	if !ok || !parent.TraceFlags.IsSampled() {
		return nil
	}
	return t.child(start, parent, name, r)
}

// Begin is Continue, and begins a new trace for some of the records that are in
// none. A broken trace context is none.
func (t *Tracer) Begin(name string, r *pipeline.Record) *Span {
	if t == nil {
		return nil
	}
	parent, ok := contextOf(r)
	switch {
	case ok && parent.TraceFlags.IsSampled():
		return t.child(time.Time{}, parent, name, r)
	case ok || rand.Float64() >= t.sample:
		return nil
	}
	s := t.start(context.Background(), time.Time{}, name, r)
	s.root = true
	return s
}

func contextOf(r *pipeline.Record) (trace.SpanContextConfig, bool) {
	value, ok := r.Header(traceparentHeader)
	if !ok {
		return trace.SpanContextConfig{}, false
	}
	return parseTraceparent(value)
}

func (t *Tracer) child(start time.Time, parent trace.SpanContextConfig, name string, r *pipeline.Record) *Span {
	// Which of it is broken is of no use here: then it is handed on unseen.
	parent.TraceState, _ = trace.ParseTraceState(stateOf(r.Headers))
	ctx := trace.ContextWithRemoteSpanContext(context.Background(), trace.NewSpanContext(parent))
	return t.start(ctx, start, name, r)
}

func (t *Tracer) start(ctx context.Context, start time.Time, name string, r *pipeline.Record) *Span {
	opts := []trace.SpanStartOption{
		trace.WithSpanKind(trace.SpanKindConsumer),
		trace.WithAttributes(
			attribute.String("messaging.system", "kafka"),
			attribute.String("messaging.operation.type", "process"),
			attribute.String(AttrTopic, text(r.Topic)),
			attribute.String("messaging.destination.partition.id", strconv.Itoa(int(r.Partition))),
			attribute.Int64("messaging.kafka.offset", r.Offset),
		),
	}
	if !start.IsZero() {
		opts = append(opts, trace.WithTimestamp(start))
	}
	ctx, span := t.tracer.Start(ctx, name, opts...)
	return &Span{ctx: ctx, span: span, tracer: t.tracer}
}

// Span is what one step took and what came of it. It is safe for concurrent use.
// What happens after End is not seen.
type Span struct {
	ctx    context.Context // for its children
	span   trace.Span
	tracer trace.Tracer
	root   bool // nothing came before it
}

// Call begins the span of a call that is made in this one.
func (s *Span) Call(name string) *Span {
	if s == nil {
		return nil
	}
	ctx, span := s.tracer.Start(s.ctx, name, trace.WithSpanKind(trace.SpanKindClient))
	return &Span{ctx: ctx, span: span, tracer: s.tracer}
}

// Set adds attributes, given as keys and values in turn.
func (s *Span) Set(attributes ...string) {
	if s != nil {
		s.span.SetAttributes(pairs(attributes)...)
	}
}

// SetNumber adds an attribute that is a number.
func (s *Span) SetNumber(key string, n int) {
	if s != nil {
		s.span.SetAttributes(attribute.Int(key, n))
	}
}

// Event adds something that happened now, with attributes as in Set.
func (s *Span) Event(name string, attributes ...string) {
	if s != nil {
		s.span.AddEvent(name, trace.WithAttributes(pairs(attributes)...))
	}
}

// Fail says that the step failed, in one of a few words.
func (s *Span) Fail(why string) {
	if s != nil {
		s.span.SetStatus(codes.Error, why)
	}
}

// Err says what an error of a stage means. It leaves out the error's text, which
// may hold what an end user wrote.
func (s *Span) Err(err error) {
	if s == nil || err == nil {
		return
	}
	if dead, permanent := pipeline.IsPermanent(err); permanent {
		s.Event("dead letter", AttrReason, string(dead.Reason))
		s.Fail(string(dead.Reason))
		return
	}
	s.Fail("not now")
}

// End ends the span. Only then it can be seen.
func (s *Span) End() {
	if s != nil {
		s.span.End()
	}
}

// Headers returns the headers of what comes out of a record with the given ones:
// with this span as the parent of what follows.
func (s *Span) Headers(of []pipeline.Header) []pipeline.Header {
	if s == nil {
		return of
	}
	out := make([]pipeline.Header, 0, len(of)+1)
	for _, h := range of {
		if h.Key != traceparentHeader && (h.Key != tracestateHeader || !s.root) {
			out = append(out, h)
		}
	}
	return append(out, pipeline.Header{Key: traceparentHeader, Value: traceparent(s.span.SpanContext())})
}

func traceparent(c trace.SpanContext) []byte {
	return []byte("00-" + c.TraceID().String() + "-" + c.SpanID().String() + "-" + c.TraceFlags().String())
}

func pairs(texts []string) []attribute.KeyValue {
	out := make([]attribute.KeyValue, 0, len(texts)/2)
	for i := 0; i+1 < len(texts); i += 2 {
		out = append(out, attribute.String(texts[i], text(texts[i+1])))
	}
	return out
}

// maxText is how long the value of an attribute may be, in bytes.
const maxText = 256

// text makes a value fit to be sent: one that is not UTF-8 would have the whole
// batch of spans refused.
func text(s string) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	if len(s) <= maxText {
		return strings.Clone(s) // the caller may use the memory again
	}
	end := maxText
	for !utf8.RuneStart(s[end]) {
		end--
	}
	return strings.Clone(s[:end])
}
