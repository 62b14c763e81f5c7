package transform

import (
	"context"
	"testing"

	"github.com/millrace-io/millrace/pipeline"
	"github.com/millrace-io/millrace/pipeline/pipelinetest"
	"github.com/millrace-io/millrace/pipeline/telemetry"
)

// TestTrace has a match that makes a delivery, a dead letter and nothing: the
// span says so of each, and is the parent of what follows the delivery.
func TestTrace(t *testing.T) {
	t.Parallel()
	const (
		trace   = "4bf92f3577b34da6a3ce929d0e0e4736"
		span    = "00f067aa0ba902b7"
		sampled = "00-" + trace + "-" + span + "-01"
	)
	collector := pipelinetest.Collector(t)
	tel, err := telemetry.New(context.Background(), telemetry.Config{Traces: telemetry.TraceConfig{Endpoint: collector.URL, Sample: 1}})
	if err != nil {
		t.Fatal(err)
	}
	h := build(t, destination("crm", "https://crm.example", "")+hook("one", "crm", "")+
		hook("two", "crm", "properties:\n  - {from: launcher_name, required: true}\n"))
	h.Tracer = tel.Tracer
	in := h.match(`{"launcher_id":7}`, "one", "two", "three")
	if err := h.Process(t.Context(), in, new(pipeline.Output)); err != nil {
		t.Fatal(err) // its traceparent is broken: nothing is traced
	}
	in.Headers[0].Value = []byte(sampled)
	var out pipeline.Output
	if err := h.Process(t.Context(), in, &out); err != nil {
		t.Fatal(err)
	}
	if err := tel.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	spans := collector.Spans()
	if len(spans) != 1 || spans[0].Name != Role || spans[0].Trace != trace || spans[0].Parent != span || len(spans[0].Events) != 3 {
		t.Fatalf("got %+v", spans)
	}
	for i, want := range []struct{ name, webhook, key, value string }{
		{"delivery", "one", telemetry.AttrDestination, "crm"},
		{"dead letter", "two", telemetry.AttrReason, string(pipeline.PropertyMissing)},
		{"removed", "three", "", ""},
	} {
		e := spans[0].Events[i]
		if e.Name != want.name || e.Attributes[telemetry.AttrWebhook] != want.webhook || e.Attributes[want.key] != want.value {
			t.Errorf("event %d is %+v, want %+v", i, e, want)
		}
	}
	for topic, want := range map[string]string{
		h.names.Deliveries(pipeline.DefaultLane): "00-" + trace + "-" + spans[0].ID + "-01",
		h.names.DeadLetters():                    sampled,
	} {
		for _, r := range out.Records {
			if got, _ := r.Header("traceparent"); r.Topic == topic && string(got) != want {
				t.Errorf("%s carries %q, want %q", topic, got, want)
			}
		}
	}
}

// BenchmarkTrace is what traces cost a match that is not sampled: ratios within
// one run.
func BenchmarkTrace(b *testing.B) {
	h := build(b, destination("crm", "https://crm.example", "")+hook("one", "crm", ""))
	tel, err := telemetry.New(context.Background(), telemetry.Config{
		Traces: telemetry.TraceConfig{Endpoint: pipelinetest.Collector(b).URL},
	})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = tel.Shutdown(context.Background()) })
	plain, producer := h.match(`{"launcher_id":7}`, "one"), h.match(`{"launcher_id":7}`, "one")
	plain.Headers = plain.Headers[1:]
	producer.Headers[0].Value = []byte("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00")
	for _, c := range []struct {
		name   string
		tracer *telemetry.Tracer
		record *pipeline.Record
	}{{"off", nil, plain}, {"none", tel.Tracer, plain}, {"off, unsampled", nil, producer}, {"unsampled", tel.Tracer, producer}} {
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
