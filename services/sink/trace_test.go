package sink

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/millrace-io/millrace/pipeline"
	"github.com/millrace-io/millrace/pipeline/httpsend"
	"github.com/millrace-io/millrace/pipeline/pipelinetest"
	"github.com/millrace-io/millrace/pipeline/telemetry"
)

const (
	aTrace    = "4bf92f3577b34da6a3ce929d0e0e4736"
	aSpan     = "00f067aa0ba902b7"
	sampled   = "00-" + aTrace + "-" + aSpan + "-01"
	unsampled = "00-" + aTrace + "-" + aSpan + "-00"
)

// traced has the sink's traces go to a receiver; spans ends the sending and
// returns them.
func (h *house) traced() (spans func() []pipelinetest.Span) {
	h.t.Helper()
	c := pipelinetest.Collector(h.t)
	tel, err := telemetry.New(context.Background(), telemetry.Config{Traces: telemetry.TraceConfig{Endpoint: c.URL, Sample: 1}})
	if err != nil {
		h.t.Fatal(err)
	}
	h.Tracer = tel.Tracer
	return func() []pipelinetest.Span {
		if err := tel.Shutdown(context.Background()); err != nil {
			h.t.Error(err)
		}
		return c.Spans()
	}
}

// with adds a header to a ticket's record.
func (s *slip) with(key, value string) *slip {
	s.record.Headers = append(s.record.Headers, pipeline.Header{Key: key, Value: []byte(value)})
	return s
}

// TestTrace follows a delivery through a failed call, its wait and a second call.
func TestTrace(t *testing.T) {
	t.Parallel()
	h := build(t, hooked("crm", ""))
	spans := h.traced()
	var calls []httpsend.Call
	h.answer("crm", func(c httpsend.Call) httpsend.Result {
		calls = append(calls, c)
		if len(calls) == 1 {
			return httpsend.Result{Status: 503, Outcome: httpsend.Retry, Class: "status", RetryAfter: 2 * time.Second}
		}
		return ok()
	})
	v := h.delivery("crm")
	first := h.takes(t.Context(), h.slipOf(v).with("traceparent", sampled).with("tracestate", "a=1"))
	if got := h.became(first); got.topic != h.names.Delays(pipeline.Tiers()[0]) {
		t.Fatalf("the delivery became %+v", got)
	}

	// A record of the tier 1s, written two seconds ago: it is due.
	waited := &slip{t: t, done: make(chan struct{}), record: first.out.Records[slices.IndexFunc(first.out.Records, func(r pipeline.Record) bool {
		return r.Topic != h.names.Attempts()
	})]}
	waited.record.Time = time.Now().Add(-2 * time.Second)
	m := &delays{h.names, h.Metrics, h.Tracer}
	if err := m.take(t.Context(), &waited.record, waited); err != nil {
		t.Fatal(err)
	}
	back := h.slipOf(v) // as it comes back once it is due
	for _, header := range waited.out.Records[0].Headers {
		if header.Key != pipeline.EnvelopeHeader {
			back.with(header.Key, string(header.Value))
		}
	}
	if got := h.became(h.takes(t.Context(), back)); got.ending != pipeline.Delivered {
		t.Fatalf("the delivery became %+v", got)
	}

	all := spans()
	byName := map[string][]pipelinetest.Span{}
	for _, s := range all {
		byName[s.Name] = append(byName[s.Name], s)
		if s.Trace != aTrace {
			t.Errorf("%s is in trace %s", s.Name, s.Trace)
		}
	}
	if len(all) != 5 || len(byName["sink"]) != 2 || len(byName["attempt"]) != 2 || len(byName["delays"]) != 1 {
		t.Fatalf("got %+v", all)
	}
	for i, s := range byName["sink"] {
		attempt := byName["attempt"][i]
		if s.Parent != aSpan || attempt.Parent != s.ID {
			t.Errorf("attempt %d has the parent %s, its delivery %s", i+1, attempt.Parent, s.Parent)
		}
		want := []httpsend.Header{{Name: "Traceparent", Value: "00-" + aTrace + "-" + attempt.ID + "-01"}, {Name: "Tracestate", Value: "a=1"}}
		if !slices.Equal(calls[i].Header, want) {
			t.Errorf("call %d has the headers %v, want %v", i+1, calls[i].Header, want)
		}
		if s.Attributes[telemetry.AttrDelivery] != v.ID || s.Attributes[telemetry.AttrWebhook] != "crm" || s.Attributes[telemetry.AttrEventType] != "launcher.clicked" {
			t.Errorf("the delivery has the attributes %v", s.Attributes)
		}
	}
	checkAttempts(t, byName["attempt"])
	if events := byName["sink"][0].Events; len(events) != 1 || events[0].Name != "put off" ||
		events[0].Attributes[telemetry.AttrWhy] != "retry" || events[0].Attributes[telemetry.AttrTier] != "1s" {
		t.Errorf("of the first delivery it says %v", events)
	}
	if got := byName["sink"][1].Attributes[telemetry.AttrEnding]; got != "delivered" {
		t.Errorf("the second ended as %q", got)
	}
	if s := byName["delays"][0]; s.Parent != aSpan || s.End.Sub(s.Start) < 2*time.Second || s.Attributes[telemetry.AttrTopic] != waited.record.Topic {
		t.Errorf("it waited like this: %+v", s)
	}
}

func checkAttempts(t *testing.T, attempts []pipelinetest.Span) {
	t.Helper()
	for i, want := range []map[string]string{
		{telemetry.AttrAttempt: "1", telemetry.AttrOutcome: "retry", telemetry.AttrStatus: "503", telemetry.AttrErrorClass: "status"},
		{telemetry.AttrOutcome: "success", telemetry.AttrStatus: "200", telemetry.AttrDestination: "crm"},
	} {
		for k, v := range want {
			if got := attempts[i].Attributes[k]; got != v {
				t.Errorf("call %d has %s %q, want %q", i+1, k, got, v)
			}
		}
	}
	if attempts[0].Error != "retry" || attempts[1].Error != "" {
		t.Errorf("the calls failed with %q and %q", attempts[0].Error, attempts[1].Error)
	}
}

// TestTraceEnds shows what a span says of a delivery that ends without a call, or
// that another sink takes.
func TestTraceEnds(t *testing.T) {
	t.Parallel()
	h := build(t, hooked("crm", "status: paused")+hooked("another", "")+hooked("mail", "lane: own\nlimits: {concurrency: 1}"))
	spans := h.traced()
	h.became(h.takes(t.Context(), h.slipOf(h.delivery("crm")).with("traceparent", sampled)))
	old := h.delivery("mail")
	old.MatchedAt = time.Now().Add(-1000 * time.Hour)
	h.became(h.takes(t.Context(), h.slipOf(old).with("traceparent", sampled)))

	busy, free := make(chan struct{}), make(chan struct{})
	h.answer("mail", func(httpsend.Call) httpsend.Result {
		close(busy)
		<-free
		return ok()
	})
	h.takes(t.Context(), h.slipOf(h.delivery("mail")))
	<-busy
	ctx, cancel := context.WithCancel(t.Context())
	queued := h.takes(ctx, h.slipOf(h.delivery("mail")).with("traceparent", sampled))
	cancel()
	if got := h.became(queued); !got.released {
		t.Errorf("what was queued became %+v", got)
	}
	close(free)

	all := spans()
	if len(all) != 3 {
		t.Fatalf("got %+v", all)
	}
	for i, want := range []struct{ event, attribute, value, err string }{
		{"put off", telemetry.AttrWhy, "paused", ""},
		{"dead letter", telemetry.AttrReason, "expired", "expired"},
		{"released", "", "", ""},
	} {
		s := all[i]
		if len(s.Events) != 1 || s.Events[0].Name != want.event || s.Events[0].Attributes[want.attribute] != want.value || s.Error != want.err {
			t.Errorf("got %+v, want %+v", s, want)
		}
	}
}

// TestTraceContextOfCalls says what a call carries of the trace context of its
// record. One that is broken is ignored: no delivery ends for it.
func TestTraceContextOfCalls(t *testing.T) {
	t.Parallel()
	r := pipelinetest.Receiver(t)
	text := "kind: Destination\nname: crm\nrequest: {url: " + r.URL + "}\n---\n" + aWebhook("crm", "crm", "")
	for _, c := range []struct {
		name   string
		send   []string // headers of the record
		parent string
		state  string
	}{
		{"none", nil, "", ""},
		{"not sampled", []string{"traceparent", unsampled, "tracestate", "a=1"}, unsampled, "a=1"},
		{"sampled, while nobody traces", []string{"traceparent", sampled}, sampled, ""},
		{"broken", []string{"traceparent", "00-1-2-01", "tracestate", "a=1"}, "", ""},
		{"no header at all", []string{"traceparent", sampled + "\r\nX-Evil: 1"}, "", ""},
		{"a state that is none", []string{"traceparent", unsampled, "tracestate", "a=1\nb"}, unsampled, ""},
	} {
		h := build(t, text)
		h.overHTTP()
		s := h.slipOf(h.delivery("crm"))
		for i := 0; i < len(c.send); i += 2 {
			s.with(c.send[i], c.send[i+1])
		}
		if got := h.became(h.takes(t.Context(), s)); got.ending != pipeline.Delivered {
			t.Fatalf("%s: the delivery became %+v", c.name, got)
		}
		calls := r.Calls()
		header := calls[len(calls)-1].Header
		if parent, state := header.Get("Traceparent"), header.Get("Tracestate"); parent != c.parent || state != c.state || header.Get("X-Evil") != "" {
			t.Errorf("%s: the call has %v", c.name, header)
		}
	}
}

// BenchmarkTrace is what traces cost a delivery that is not sampled, without its
// call: ratios within one run.
func BenchmarkTrace(b *testing.B) {
	h := build(b, hooked("crm", "lane: own"))
	tel, err := telemetry.New(context.Background(), telemetry.Config{
		Traces: telemetry.TraceConfig{Endpoint: pipelinetest.Collector(b).URL},
	})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = tel.Shutdown(context.Background()) })
	plain, producer := h.slipOf(h.delivery("crm")), h.slipOf(h.delivery("crm")).with("traceparent", unsampled)
	for _, c := range []struct {
		name   string
		tracer *telemetry.Tracer
		slip   *slip
	}{{"off", nil, plain}, {"none", tel.Tracer, plain}, {"off, unsampled", nil, producer}, {"unsampled", tel.Tracer, producer}} {
		b.Run(c.name, func(b *testing.B) {
			h.Tracer = c.tracer
			var open sync.WaitGroup
			b.ReportAllocs()
			for b.Loop() {
				open.Add(1)
				if err := h.take(b.Context(), &c.slip.record, counter{&open}); err != nil {
					b.Fatal(err)
				}
			}
			open.Wait()
		})
	}
}
