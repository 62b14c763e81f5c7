package telemetry

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/millrace-io/millrace/pipeline"
	"github.com/millrace-io/millrace/pipeline/pipelinetest"
)

const (
	aTrace    = "4bf92f3577b34da6a3ce929d0e0e4736"
	aSpan     = "00f067aa0ba902b7"
	sampled   = "00-" + aTrace + "-" + aSpan + "-01"
	unsampled = "00-" + aTrace + "-" + aSpan + "-00"
)

// record is one with the given headers: keys and values in turn.
func record(headers ...string) *pipeline.Record {
	r := &pipeline.Record{Topic: "millrace.events", Partition: 3, Offset: 7}
	for i := 0; i < len(headers); i += 2 {
		r.Headers = append(r.Headers, pipeline.Header{Key: headers[i], Value: []byte(headers[i+1])})
	}
	return r
}

// traced has traces go to a receiver of its own.
func traced(t testing.TB, sample float64) (*Telemetry, *pipelinetest.Collection) {
	t.Helper()
	c := pipelinetest.Collector(t)
	tel, err := New(context.Background(), Config{
		Service: "millrace-test", Version: "v0", Instance: "one",
		Traces: TraceConfig{Endpoint: c.URL, Sample: sample},
	})
	if err != nil {
		t.Fatal(err)
	}
	return tel, c
}

// sent ends the sending and returns what arrived.
func sent(t testing.TB, tel *Telemetry, c *pipelinetest.Collection) []pipelinetest.Span {
	t.Helper()
	if err := tel.Shutdown(context.Background()); err != nil {
		t.Fatal(err)
	}
	return c.Spans()
}

func TestTraceContext(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", maxState)
	for _, c := range []struct {
		name          string
		headers       []string
		parent, state string
	}{
		{"none", nil, "", ""},
		{"sampled", []string{"traceparent", sampled}, sampled, ""},
		{"not sampled, with state", []string{"traceparent", unsampled, "tracestate", "a=1"}, unsampled, "a=1"},
		{"state in pieces", []string{"tracestate", "a=1", "traceparent", sampled, "tracestate", "b=2"}, sampled, "a=1,b=2"},
		{"the last one counts", []string{"traceparent", unsampled, "traceparent", sampled}, sampled, ""},
		{"a later version", []string{"traceparent", "cc" + sampled[2:] + "-more"}, "cc" + sampled[2:] + "-more", ""},
		{"state alone", []string{"tracestate", "a=1"}, "", ""},
		{"broken", []string{"traceparent", "00-1-2-01", "tracestate", "a=1"}, "", ""},
		{"another line", []string{"traceparent", sampled + "\r\nX-Evil: 1"}, "", ""},
		{"another line in the state", []string{"traceparent", sampled, "tracestate", "a=1\r\nX-Evil: 1"}, sampled, ""},
		{"a state without end", []string{"traceparent", sampled, "tracestate", long}, sampled, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if parent, state := TraceContext(record(c.headers...).Headers); parent != c.parent || state != c.state {
				t.Errorf("got %q, %q, want %q, %q", parent, state, c.parent, c.state)
			}
		})
	}
}

// FuzzTraceparent holds the reading of traceparent against OpenTelemetry's own.
func FuzzTraceparent(f *testing.F) {
	for _, v := range []string{
		sampled, unsampled, "", "00", strings.ToUpper(sampled), "ff" + sampled[2:], "01" + sampled[2:] + "-x", "01" + sampled[2:] + "x",
		sampled + "-", "00-" + strings.Repeat("0", 32) + "-" + aSpan + "-01", "00-" + aTrace + "-" + strings.Repeat("0", 16) + "-01",
		sampled[:53] + "03", sampled[:53] + "04", "00-1-2-01",
	} {
		f.Add([]byte(v))
	}
	f.Fuzz(func(t *testing.T, v []byte) {
		got, ok := parseTraceparent(v)
		carrier := propagation.MapCarrier{"traceparent": string(v)}
		want := trace.SpanContextFromContext(propagation.TraceContext{}.Extract(context.Background(), carrier))
		if len(v) == traceparentIs+1 && v[0] == '0' && v[1] == '0' {
			want = trace.SpanContext{} // OpenTelemetry lets a dash at the end pass
		}
		if ok != want.IsValid() || ok && !trace.NewSpanContext(got).Equal(want) {
			t.Errorf("%q: got %+v, %v, want %+v", v, got, ok, want)
		}
	})
}

// TestWhoIsSampled says which records have a span, and which of them begin a
// trace.
func TestWhoIsSampled(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		headers []string
		sample  float64
		follow  string // what Continue makes: "" nothing, else the trace it is in
		begin   string // what Begin makes; "new" is another trace
	}{
		{"by its producer", []string{"traceparent", sampled}, 0, aTrace, aTrace},
		{"by its producer not", []string{"traceparent", unsampled}, 1, "", ""},
		{"none", nil, 1, "", "new"},
		{"none, and none wanted", nil, 0, "", ""},
		{"broken", []string{"traceparent", "00-1-2-01", "tracestate", "a=1"}, 1, "", "new"},
		{"broken, and none wanted", []string{"traceparent", "\xff"}, 0, "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			tel, collector := traced(t, c.sample)
			r := record(c.headers...)
			tel.Tracer.Continue("continue", r).End()
			s := tel.Tracer.Begin("begin", r)
			out := s.Headers(r.Headers)
			s.End()
			got := map[string]pipelinetest.Span{}
			for _, s := range sent(t, tel, collector) {
				got[s.Name] = s
			}
			if got["continue"].Trace != c.follow {
				t.Errorf("Continue made %+v", got["continue"])
			}
			if s := got["begin"]; c.begin == "new" && (len(s.Trace) != 32 || s.Parent != "") || c.begin != "new" && s.Trace != c.begin {
				t.Errorf("Begin made %+v", s)
			}
			checkHeaders(t, c.begin, got["begin"], r, out)
		})
	}
}

// checkHeaders holds that what follows has the span as its parent, if there is
// one; a trace that is new has no state from before.
func checkHeaders(t *testing.T, begin string, s pipelinetest.Span, in *pipeline.Record, out []pipeline.Header) {
	t.Helper()
	want := in.Headers
	if begin != "" {
		want = record("traceparent", "00-"+s.Trace+"-"+s.ID+"-01").Headers
	}
	if !reflect.DeepEqual(out, want) {
		t.Errorf("what follows has the headers %q, want %q", out, want)
	}
}

// TestSpans looks at what a receiver gets.
func TestSpans(t *testing.T) {
	t.Parallel()
	tel, collector := traced(t, 0)
	r := record("ce_id", "e", "traceparent", sampled, "tracestate", "a=1,b=2")
	s := tel.Tracer.ContinueFrom(time.UnixMilli(1_000), "sink", r)
	call := s.Call("attempt")
	call.SetNumber(AttrStatus, 503)
	call.Set(AttrOutcome, "retry", AttrDestination, "a\xffb"+strings.Repeat("é", maxText))
	call.Fail("5xx")
	call.End()
	s.Event("put off", AttrWhy, "retry")
	s.Err(pipeline.Permanent(pipeline.FinalResponse, errors.New("ada@example.com is unknown")))
	out := s.Headers(r.Headers)
	s.End()

	spans := sent(t, tel, collector)
	if len(spans) != 2 {
		t.Fatalf("got %+v", spans)
	}
	sink, attempt := spans[0], spans[1]
	if sink.Trace != aTrace || sink.Parent != aSpan || sink.State != "a=1,b=2" || sink.Kind != "SPAN_KIND_CONSUMER" ||
		!sink.Start.Equal(time.UnixMilli(1_000)) || sink.Error != "final_response" {
		t.Errorf("got %+v", sink)
	}
	if want := map[string]string{
		"messaging.system": "kafka", "messaging.operation.type": "process", AttrTopic: "millrace.events",
		"messaging.destination.partition.id": "3", "messaging.kafka.offset": "7",
	}; !reflect.DeepEqual(sink.Attributes, want) {
		t.Errorf("got the attributes %v, want %v", sink.Attributes, want)
	}
	if want := []pipelinetest.SpanEvent{
		{Name: "put off", Attributes: map[string]string{AttrWhy: "retry"}},
		{Name: "dead letter", Attributes: map[string]string{AttrReason: "final_response"}},
	}; !reflect.DeepEqual(sink.Events, want) {
		t.Errorf("got the events %v, want %v", sink.Events, want)
	}
	if attempt.Trace != aTrace || attempt.Parent != sink.ID || attempt.Kind != "SPAN_KIND_CLIENT" || attempt.Error != "5xx" || attempt.State != "a=1,b=2" {
		t.Errorf("got %+v", attempt)
	}
	if want := map[string]string{
		AttrStatus: "503", AttrOutcome: "retry", AttrDestination: "a\uFFFDb" + strings.Repeat("é", (maxText-5)/2),
	}; !reflect.DeepEqual(attempt.Attributes, want) {
		t.Errorf("got the attributes %q, want %q", attempt.Attributes, want)
	}
	if want := record("ce_id", "e", "tracestate", "a=1,b=2", "traceparent", "00-"+aTrace+"-"+sink.ID+"-01").Headers; !reflect.DeepEqual(out, want) {
		t.Errorf("what follows has the headers %q, want %q", out, want)
	}
	if got := collector.Resource(); got["service.name"] != "millrace-test" || got["service.version"] != "v0" || got["service.instance.id"] != "one" {
		t.Errorf("the sender says of itself: %v", got)
	}
}

// TestShare shows that about as many events begin a trace as the settings say.
func TestShare(t *testing.T) {
	t.Parallel()
	tel, collector := traced(t, 0.01)
	const n = 50_000
	begun := 0
	for range n {
		if s := tel.Tracer.Begin("filter", record()); s != nil {
			begun++
			s.End()
		}
	}
	if begun < n/200 || begun > n/50 { // 1%; half of that and twice that are 11 and 22 deviations away
		t.Errorf("%d of %d events began a trace", begun, n)
	}
	if got := len(sent(t, tel, collector)); got != begun {
		t.Errorf("%d of %d spans arrived", got, begun)
	}
}

// TestNobodyTraces shows that without a Tracer, and of what is not sampled, all
// calls do nothing.
func TestNobodyTraces(t *testing.T) {
	t.Parallel()
	tel := setup(t)
	if tel.Tracer != nil {
		t.Fatal("there is a Tracer, though there is no receiver")
	}
	r := record("traceparent", sampled)
	for _, s := range []*Span{tel.Tracer.Begin("a", r), tel.Tracer.Continue("b", r), tel.Tracer.Begin("c", r).Call("d")} {
		s.Set("k", "v")
		s.SetNumber("n", 1)
		s.Event("e", "k", "v")
		s.Err(errors.New("x"))
		s.Fail("y")
		s.End()
		if got := s.Headers(r.Headers); &got[0] != &r.Headers[0] {
			t.Errorf("the headers became %q", got)
		}
	}
}

func BenchmarkNotSampled(b *testing.B) {
	tel, _ := traced(b, 0.01)
	b.Cleanup(func() { _ = tel.Shutdown(context.Background()) })
	for name, r := range map[string]*pipeline.Record{
		"none": record("ce_id", "1", "ce_type", "t"), "unsampled": record("ce_id", "1", "traceparent", unsampled),
	} {
		b.Run(fmt.Sprint("Continue/", name), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				s := tel.Tracer.Continue("transform", r)
				s.Event("delivery", AttrWebhook, "w", AttrDelivery, "d")
				s.End()
			}
		})
	}
}
