package telemetry

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/millrace-io/millrace/pipeline/pipelinetest"
	"github.com/millrace-io/millrace/pipeline/secret"
)

func TestReceiver(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name     string
		endpoint string
		env      map[string]string
		want     string
		err      string
	}{
		{name: "nobody"},
		{name: "the setting", endpoint: "http://c:4318", want: "http://c:4318/v1/traces"},
		{name: "the setting with a path", endpoint: "https://c/otlp/", want: "https://c/otlp/v1/traces"},
		{name: "the setting in full", endpoint: "http://c:4318/v1/traces", want: "http://c:4318/v1/traces"},
		{
			name: "for all signals", env: map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"},
			want: "http://c:4318/v1/traces",
		},
		{
			name: "for traces, as it is", want: "http://t:1/x",
			env: map[string]string{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://t:1/x", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"},
		},
		{
			name: "the setting wins", endpoint: "http://own", want: "http://own/v1/traces",
			env: map[string]string{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://t:1/x"},
		},
		{name: "disabled", env: map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_SDK_DISABLED": "True"}},
		{name: "no traces", env: map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_TRACES_EXPORTER": "none"}},
		{
			name: "grpc", env: map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4317", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
			err: "OTEL_EXPORTER_OTLP_PROTOCOL is grpc",
		},
		{name: "grpc of nothing", env: map[string]string{"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}},
		{name: "no scheme", endpoint: "collector:4318", err: "traces-endpoint: expected a URL such as http://collector:4318"},
		{name: "no host", endpoint: "http://", err: "traces-endpoint: expected"},
		{
			name: "no URL", env: map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://me:secret@c:port"},
			err: "OTEL_EXPORTER_OTLP_ENDPOINT: expected a URL",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			config := TraceConfig{Endpoint: c.endpoint}
			got, err := config.receiver(func(name string) string { return c.env[name] })
			if got != c.want || (err == nil) != (c.err == "") {
				t.Fatalf("got %q, error %v", got, err)
			}
			if err != nil && (!strings.HasPrefix(err.Error(), c.err) || strings.Contains(err.Error(), "secret")) {
				t.Errorf("error %v, want %s", err, c.err)
			}
		})
	}
}

// What lets us in is known, so that it is not shown, and what can't be read of it
// is refused without a word of it.
func TestCredentials(t *testing.T) {
	t.Parallel()
	env := map[string]string{
		"OTEL_EXPORTER_OTLP_HEADERS":        "authorization=Bearer%20t0ken-1, x-tenant=4cme",
		"OTEL_EXPORTER_OTLP_TRACES_HEADERS": "api-key=k3y==",
	}
	all, err := credentials("http://me:p4ss@c:4318", func(name string) string { return env[name] })
	if err != nil {
		t.Fatal(err)
	}
	got := secret.NewRedactor(all...).Redact("http://me:p4ss@c: Bearer t0ken-1, 4cme, k3y==, " + base64.StdEncoding.EncodeToString([]byte("me:p4ss")))
	if got != "http://me:[secret]@c: [secret] [secret], [secret], [secret], [secret]==" {
		t.Errorf("shown is %s", got)
	}
	for _, wrong := range []string{"pl4nted", "a=b,pl4nted", "a=%zzpl4nted", "=pl4nted"} {
		env["OTEL_EXPORTER_OTLP_TRACES_HEADERS"] = wrong
		_, err := credentials("http://c", func(name string) string { return env[name] })
		if err == nil || strings.Contains(err.Error(), "pl4nted") || !strings.Contains(err.Error(), "OTEL_EXPORTER_OTLP_TRACES_HEADERS: entry") {
			t.Errorf("%q: %v", wrong, err)
		}
	}
}

func TestWrongShare(t *testing.T) {
	t.Parallel()
	for _, share := range []float64{1.5, -0.1, math.NaN()} {
		_, err := New(t.Context(), Config{Traces: TraceConfig{Sample: share}})
		if want := fmt.Sprintf("traces-sample is %v: expected a share from 0 to 1", share); err == nil || err.Error() != want {
			t.Errorf("error %v, want %s", err, want)
		}
	}
}

// TestReceiverRefuses shows that a receiver that does not take spans is told of
// once, when it begins and when it ends, and that what is lost is counted.
func TestReceiverRefuses(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	status := http.StatusBadRequest
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		w.WriteHeader(status)
	}))
	defer server.Close()
	var log bytes.Buffer
	tel, err := New(t.Context(), Config{Traces: TraceConfig{
		Endpoint: server.URL, Sample: 1, Log: slog.New(slog.NewTextHandler(&log, nil)),
	}})
	if err != nil {
		t.Fatal(err)
	}
	send := func() {
		t.Helper()
		tel.Tracer.Begin("filter", record()).End()
		if err := tel.Tracer.provider.ForceFlush(t.Context()); err != nil {
			t.Error(err)
		}
	}
	send()
	send()
	mu.Lock()
	status = http.StatusOK
	mu.Unlock()
	send()
	if err := tel.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	lines := strings.Split(strings.TrimSpace(log.String()), "\n")
	if len(lines) != 2 || !strings.Contains(lines[0], "traces can't be sent") || !strings.Contains(lines[0], "400") ||
		!strings.Contains(lines[1], "traces can be sent again") {
		t.Errorf("the log says %q", lines)
	}
	for result, want := range map[string]int64{"lost": 2, "exported": 1} {
		if got := tel.Metrics.Spans.of([]string{result}).Load(); got != want {
			t.Errorf("%d spans are counted as %s, want %d", got, result, want)
		}
	}
}

// TestReceiverHangs shows that a receiver that does not answer holds up nobody:
// neither those who end spans, however many, nor, for longer than they want to
// wait, those who shut down.
func TestReceiverHangs(t *testing.T) {
	t.Parallel()
	left := make(chan struct{}, 1)
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // only then it is seen that the sender has left
		<-r.Context().Done()
		select {
		case left <- struct{}{}:
		default:
		}
	}))
	defer server.Close()
	tel, err := New(t.Context(), Config{Traces: TraceConfig{Endpoint: server.URL, Sample: 1}})
	if err != nil {
		t.Fatal(err)
	}
	const n = 2*maxSpans + 100
	for range n {
		tel.Tracer.Begin("filter", record()).End()
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	start := time.Now()
	if err := tel.Shutdown(ctx); err == nil {
		t.Error("the last traces were sent")
	}
	if took := time.Since(start); took > flushTime {
		t.Errorf("shutting down took %v", took)
	}
	select {
	case <-left:
	case <-time.After(flushTime): // less than any time-out of a call
		t.Error("the call under way goes on")
	}
	if got := tel.Metrics.Spans.of([]string{"lost"}).Load(); got < n-maxSpans {
		t.Errorf("%d spans are counted as lost, at least %d were", got, n-maxSpans)
	}
}

// TestEnvironment has the usual variables say where traces go and who sends them.
func TestEnvironment(t *testing.T) {
	c := pipelinetest.Collector(t)
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", c.URL)
	t.Setenv("OTEL_EXPORTER_OTLP_HEADERS", "api-key=abc")
	t.Setenv("OTEL_SERVICE_NAME", "webhooks")
	t.Setenv("OTEL_TRACES_SAMPLER", "always_off") // the setting says which
	tel, err := New(t.Context(), Config{Service: "millrace", Traces: TraceConfig{Sample: 1}})
	if err != nil {
		t.Fatal(err)
	}
	tel.Tracer.Begin("filter", record()).End()
	if spans := sent(t, tel, c); len(spans) != 1 {
		t.Errorf("got %+v", spans)
	}
	if got := c.Header().Get("Api-Key"); got != "abc" {
		t.Errorf("the header is %q", got)
	}
	if got := c.Resource()["service.name"]; got != "webhooks" {
		t.Errorf("the spans come from %q", got)
	}
}
