package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/millrace-io/millrace/pipeline/pipelinetest"
	"github.com/millrace-io/millrace/pipeline/telemetry"
)

// What a producer says in traceparent is what the receiver of the call hears: one
// trace, over every topic and stage, a failed call and its wait. Events that are
// not sampled leave no span, and a broken traceparent is as good as none.
func TestTraceFromProducerToReceiver(t *testing.T) {
	t.Parallel()
	const trace, span = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
	collector := pipelinetest.Collector(t)
	r := pipelinetest.Receiver(t, pipelinetest.Answering(pipelinetest.InTurn(
		pipelinetest.Answer{Status: 503, Header: map[string][]string{"Retry-After": {"1"}}, Body: []byte("ada@example.com")},
		pipelinetest.Answer{},
	)))
	m := start(t, options{traces: traceSettings{Endpoint: collector.URL}})
	m.apply(soonAgain("crm", r.URL+"/s3cret?k=s3cret"))
	event := func(id string) string {
		return fmt.Sprintf(`{"id":%q,"source":"kcat","type":"tick","user":"ada@example.com","properties":{"phone":"555-01"}}`, id)
	}
	m.kcat(event("sampled"), "ada@example.com", "traceparent=00-"+trace+"-"+span+"-01", "tracestate=vendor=1")
	r.Wait(t, 2)
	const unsampled = "00-" + "11111111111111111111111111111111" + "-" + span + "-00"
	m.kcat(event("unsampled"), "ada@example.com", "traceparent="+unsampled)
	r.Wait(t, 3)
	m.kcat(event("broken"), "ada@example.com", "traceparent=00-broken\r\nX-Evil: 1", "tracestate=vendor=1")
	r.Wait(t, 4)
	m.processes[0].stop()

	spans := map[string]pipelinetest.Span{}
	for _, s := range collector.Spans() {
		spans[s.ID] = s
		if s.Trace != trace || s.State != "vendor=1" {
			t.Errorf("%s is in trace %s with state %s", s.Name, s.Trace, s.State)
		}
		if text := fmt.Sprint(s); strings.Contains(text, "ada@") || strings.Contains(text, "s3cret") || strings.Contains(text, "555-01") {
			t.Errorf("a span says too much: %s", text)
		}
	}
	calls := r.Calls()
	first := wayTo(t, spans, calls[0].Header.Get("Traceparent"))
	second := wayTo(t, spans, calls[1].Header.Get("Traceparent"))
	for i, way := range [][]pipelinetest.Span{first, second} {
		var names []string
		for _, s := range way {
			names = append(names, s.Name)
		}
		if !slices.Equal(names, []string{"attempt", "sink", "transform", "filter"}) || way[3].Parent != span {
			t.Fatalf("call %d came by %v, the first of which has the parent %s", i+1, names, way[len(way)-1].Parent)
		}
		if got := calls[i].Header.Get("Tracestate"); got != "vendor=1" {
			t.Errorf("call %d has the tracestate %q", i+1, got)
		}
		if got := way[1].Attributes[telemetry.AttrDelivery]; got != calls[i].ID() {
			t.Errorf("call %d of delivery %s is traced as one of %s", i+1, calls[i].ID(), got)
		}
	}
	if first[2].ID != second[2].ID {
		t.Error("the two calls have no step in common")
	}
	checkRetry(t, m, spans, first, second)
	if got := calls[2].Header.Get("Traceparent"); got != unsampled {
		t.Errorf("the call that is not sampled has traceparent %q", got)
	}
	if h := calls[3].Header; h.Get("Traceparent") != "" || h.Get("Tracestate") != "" || h.Get("X-Evil") != "" {
		t.Errorf("of a broken traceparent the call has %v", h)
	}
}

// checkRetry holds what the trace says of a failed call, its wait and the call
// that came through.
func checkRetry(t *testing.T, m *millrace, spans map[string]pipelinetest.Span, first, second []pipelinetest.Span) {
	t.Helper()
	if a := first[0]; a.Attributes[telemetry.AttrStatus] != "503" || a.Attributes[telemetry.AttrOutcome] != "retry" || a.Attributes[telemetry.AttrAttempt] != "1" || a.Error == "" {
		t.Errorf("of the first call it says %+v", a)
	}
	if a := second[0]; a.Attributes[telemetry.AttrStatus] != "200" || a.Attributes[telemetry.AttrOutcome] != "success" || a.Attributes[telemetry.AttrAttempt] != "2" || a.Error != "" {
		t.Errorf("of the second call it says %+v", a)
	}
	if e := first[1].Events; len(e) != 1 || e[0].Name != "put off" || e[0].Attributes[telemetry.AttrWhy] != "retry" || e[0].Attributes[telemetry.AttrTier] != "1s" {
		t.Errorf("of the delivery after the first call it says %v", e)
	}
	var topics []string
	for _, s := range []pipelinetest.Span{first[3], first[2], first[1], second[1]} {
		topics = append(topics, s.Attributes[telemetry.AttrTopic])
	}
	names := m.cfg.Names
	if want := []string{names.Events(), names.Matches(), names.Deliveries("default"), names.Redeliveries("default")}; !slices.Equal(topics, want) {
		t.Errorf("it came by the topics %v, want %v", topics, want)
	}
	waited := 0
	for _, s := range spans {
		if s.Name != "delays" {
			continue
		}
		waited++
		if s.Parent != first[2].ID || s.End.Sub(s.Start) < time.Second || s.Attributes[telemetry.AttrTopic] != string(names)+"delays.1s" {
			t.Errorf("it waited like this: %+v", s)
		}
	}
	if waited != 1 {
		t.Errorf("it waited %d times", waited)
	}
}

// wayTo returns the spans that led to a call, from the last to the first.
func wayTo(t *testing.T, spans map[string]pipelinetest.Span, traceparent string) (way []pipelinetest.Span) {
	t.Helper()
	parts := strings.Split(traceparent, "-")
	if len(parts) != 4 || parts[3] != "01" {
		t.Fatalf("a call has traceparent %q", traceparent)
	}
	for s, ok := spans[parts[2]]; ok; s, ok = spans[s.Parent] {
		way = append(way, s)
	}
	return way
}

// Without a producer's traceparent, the filter begins a trace.
func TestTraceBegins(t *testing.T) {
	t.Parallel()
	collector, r := pipelinetest.Collector(t), pipelinetest.Receiver(t)
	m := start(t, options{traces: traceSettings{Endpoint: collector.URL, Sample: 1}})
	m.apply(soonAgain("crm", r.URL))
	m.produce(tickEvent(t, 1))
	r.Wait(t, 1)
	m.processes[0].stop()
	spans := map[string]pipelinetest.Span{}
	for _, s := range collector.Spans() {
		spans[s.ID] = s
	}
	way := wayTo(t, spans, r.Calls()[0].Header.Get("Traceparent"))
	if len(way) != 4 || way[3].Name != "filter" || way[3].Parent != "" {
		t.Errorf("the call came by %+v", way)
	}
	if got := collector.Resource()["service.name"]; got != "millrace" {
		t.Errorf("the spans come from %q", got)
	}
}

// A receiver of traces that hangs delays no call, and the end of the process
// only for a bounded time.
func TestTracesHoldUpNobody(t *testing.T) {
	t.Parallel()
	hangs := pipelinetest.Receiver(t, pipelinetest.Answering(func(*pipelinetest.Call) pipelinetest.Answer {
		return pipelinetest.Answer{Delay: time.Hour}
	}))
	r := pipelinetest.Receiver(t)
	m := start(t, options{traces: traceSettings{Endpoint: hangs.URL, Sample: 1}})
	m.apply(soonAgain("crm", r.URL))
	for i := range 50 {
		m.produce(tickEvent(t, i))
	}
	r.Wait(t, 50)
	m.settled(map[string]endings{"crm": {"matched": 50, "delivered": 50}})
	begin := time.Now()
	m.processes[0].stop()
	if took := time.Since(begin); took > 30*time.Second {
		t.Errorf("it took %v to stop", took)
	}
	if !strings.Contains(m.log.String(), "sending the last traces") {
		t.Error("nobody was told that traces were lost")
	}
}

// Settings of traces that can't be right are told before anything runs.
func TestTraceSettings(t *testing.T) {
	t.Parallel()
	for says, flags := range map[string][]string{
		"traces-endpoint: expected a URL such as http://collector:4318": {"--traces-endpoint", "collector:4318"},
		"traces-sample is 1.5: expected a share from 0 to 1":            {"--traces-endpoint", "http://collector:4318", "--traces-sample", "1.5"},
	} {
		got := commandLine(t, "", append([]string{"transform"}, flags...)...)
		if got.code != exitUsage || !strings.Contains(got.err, says) {
			t.Errorf("%v gives exit code %d and says %q", flags, got.code, got.err)
		}
	}
}
