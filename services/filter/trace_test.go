package filter

import (
	"context"
	"maps"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/pipeline"
	"github.com/millrace-io/millrace/pipeline/pipelinetest"
	"github.com/millrace-io/millrace/pipeline/telemetry"
)

const (
	aTrace    = "4bf92f3577b34da6a3ce929d0e0e4736"
	aSpan     = "00f067aa0ba902b7"
	sampled   = "00-" + aTrace + "-" + aSpan + "-01"
	unsampled = "00-" + aTrace + "-" + aSpan + "-00"
)

// TestTrace says which events have a span in the filter, what it says of them,
// and what the match carries on.
func TestTrace(t *testing.T) {
	t.Parallel()
	wanted, unwanted := clicked(1, ""), clicked(1, "")
	unwanted.Value = []byte(`{"type":"menu.opened"}`)
	broken := pipeline.Record{Topic: "events", Value: []byte("no event")}
	for _, c := range []struct {
		name   string
		record pipeline.Record
		parent string // traceparent
		sample float64
		spans  int
		about  map[string]string // attributes
		err    string
	}{
		{name: "sampled", record: wanted, parent: sampled, spans: 1, about: map[string]string{
			telemetry.AttrEventType: "launcher.clicked", telemetry.AttrMatches: "1",
		}},
		{name: "not sampled", record: wanted, parent: unsampled, sample: 1},
		{name: "new", record: wanted, sample: 1, spans: 1, about: map[string]string{
			telemetry.AttrEventType: "launcher.clicked", telemetry.AttrMatches: "1",
		}},
		{name: "not new", record: wanted},
		{name: "sampled, but nobody wants it", record: unwanted, parent: sampled, spans: 1, about: map[string]string{
			telemetry.AttrOutcome: "unwanted",
		}},
		{name: "nobody wants it, so nothing begins", record: unwanted, sample: 1},
		{name: "no event", record: broken, parent: sampled, spans: 1, err: "undecodable"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			h := build(t, crm+hook("one", ""))
			collector := pipelinetest.Collector(t)
			tel, err := telemetry.New(context.Background(), telemetry.Config{Traces: telemetry.TraceConfig{Endpoint: collector.URL, Sample: c.sample}})
			if err != nil {
				t.Fatal(err)
			}
			h.Tracer = tel.Tracer
			if c.parent != "" {
				c.record.Headers = []pipeline.Header{{Key: "traceparent", Value: []byte(c.parent)}}
			}
			_, out, err := h.process(c.record)
			if (err != nil) != (c.err != "") {
				t.Fatal(err)
			}
			if err := tel.Shutdown(t.Context()); err != nil {
				t.Fatal(err)
			}
			spans := collector.Spans()
			if len(spans) != c.spans {
				t.Fatalf("got %+v", spans)
			}
			carried := c.parent
			for _, s := range spans {
				carried = "00-" + s.Trace + "-" + s.ID + "-01"
				if s.Name != Role || s.Error != c.err || c.parent != "" && (s.Trace != aTrace || s.Parent != aSpan) {
					t.Errorf("got %+v", s)
				}
				maps.DeleteFunc(s.Attributes, func(k, _ string) bool { return strings.HasPrefix(k, "messaging.") })
				if !maps.Equal(s.Attributes, c.about) {
					t.Errorf("got the attributes %v, want %v", s.Attributes, c.about)
				}
			}
			for _, r := range out.Records {
				if got, _ := r.Header("traceparent"); string(got) != carried {
					t.Errorf("the match carries %q, want %q", got, carried)
				}
			}
		})
	}
}

// BenchmarkTrace is what traces cost an event that is not sampled: ratios within
// one run.
func BenchmarkTrace(b *testing.B) {
	h := build(b, crm+hook("one", ""))
	h.learn = func(context.Context, string) error { return nil }
	tel, err := telemetry.New(context.Background(), telemetry.Config{
		Traces: telemetry.TraceConfig{Endpoint: pipelinetest.Collector(b).URL, Sample: 0},
	})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = tel.Shutdown(context.Background()) })
	plain, producer := clicked(1, ""), clicked(1, "")
	producer.Headers = []pipeline.Header{{Key: "traceparent", Value: []byte(unsampled)}}
	for _, c := range []struct {
		name   string
		tracer *telemetry.Tracer
		record *pipeline.Record
	}{{"off", nil, &plain}, {"none", tel.Tracer, &plain}, {"off, unsampled", nil, &producer}, {"unsampled", tel.Tracer, &producer}} {
		b.Run(c.name, func(b *testing.B) {
			h.Tracer = c.tracer
			var out pipeline.Output
			b.ReportAllocs()
			for b.Loop() {
				out.Reset()
				if err := h.Process(context.Background(), c.record, &out); err != nil || len(out.Records) != 1 {
					b.Fatal(err)
				}
			}
		})
	}
}
