package telemetry

import (
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"

	"github.com/millrace-io/millrace/pipeline/secret"
)

// TraceConfig says where traces go, and which events get one.
type TraceConfig struct {
	// Endpoint is the URL of a receiver of OTLP over HTTP, such as
	// http://collector:4318; /v1/traces is added. Where it is empty, it is taken
	// from OTEL_EXPORTER_OTLP_TRACES_ENDPOINT or OTEL_EXPORTER_OTLP_ENDPOINT, and
	// without those there are no traces. The other OTEL_EXPORTER_OTLP_ variables
	// hold in any case.
	Endpoint string

	// Sample is the share, from 0 to 1, of the events without a trace context
	// that begin a trace. All others do as their producer says.
	Sample float64

	// Log is told when traces can't be sent, and when they can again; nil: nobody.
	Log *slog.Logger
}

// tracesPath is where receivers of OTLP take traces.
const tracesPath = "/v1/traces"

// receiver returns the URL that traces are sent to; "" for none.
func (c *TraceConfig) receiver(env func(string) string) (string, error) {
	name, from := "traces-endpoint", c.Endpoint
	if from == "" {
		if strings.EqualFold(env("OTEL_SDK_DISABLED"), "true") || env("OTEL_TRACES_EXPORTER") == "none" {
			return "", nil
		}
		name = "OTEL_EXPORTER_OTLP_ENDPOINT"
		from = env(name)
	}
	exact := c.Endpoint == "" && env("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") != ""
	if exact {
		name = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
		from = env(name)
	}
	if from == "" {
		return "", nil
	}
	if cmp.Or(env("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"), env("OTEL_EXPORTER_OTLP_PROTOCOL")) == "grpc" {
		return "", errors.New("OTEL_EXPORTER_OTLP_PROTOCOL is grpc: traces are sent over HTTP only, as http/protobuf or http/json")
	}
	u, err := url.Parse(from)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		// Without the value: there may be a password in it.
		return "", fmt.Errorf("%s: expected a URL such as http://collector:4318", name)
	}
	if !exact && !strings.HasSuffix(u.Path, tracesPath) {
		u = u.JoinPath(tracesPath)
	}
	return u.String(), nil
}

// credentials are what the receiver at a URL is sent to let us in, which it may
// quote. Headers that can't be read are refused: OpenTelemetry would print them,
// values and all, and go on without.
func credentials(to string, env func(string) string) (all []secret.Value, err error) {
	if u, err := url.Parse(to); err == nil && u.User != nil {
		password, _ := u.User.Password()
		pair := base64.RawStdEncoding.EncodeToString([]byte(u.User.Username() + ":" + password))
		all = append(all, secret.New(password), secret.New(pair))
	}
	for _, name := range []string{"OTEL_EXPORTER_OTLP_HEADERS", "OTEL_EXPORTER_OTLP_TRACES_HEADERS"} {
		for i, pair := range strings.Split(env(name), ",") {
			key, escaped, found := strings.Cut(pair, "=")
			value, err := url.PathUnescape(escaped)
			if env(name) != "" && (!found || err != nil || strings.TrimSpace(key) == "") {
				return nil, fmt.Errorf("%s: entry %d: expected NAME=VALUE, with what is special in the value escaped as in a URL", name, i+1)
			}
			for _, word := range strings.Fields(value) { // such as Bearer and the token
				all = append(all, secret.New(word))
			}
		}
	}
	return all, nil
}

// newTracer returns what makes spans; nil if nobody wants them.
func newTracer(ctx context.Context, c TraceConfig, about *resource.Resource, m *Metrics) (*Tracer, error) {
	if !(c.Sample >= 0 && c.Sample <= 1) { // NaN is no share either
		return nil, fmt.Errorf("traces-sample is %v: expected a share from 0 to 1", c.Sample)
	}
	to, err := c.receiver(os.Getenv)
	if to == "" || err != nil {
		return nil, err
	}
	secrets, err := credentials(to, os.Getenv)
	if err != nil {
		return nil, err
	}
	otlp, err := otlptracehttp.New(ctx, otlptracehttp.WithEndpointURL(to))
	if err != nil {
		return nil, fmt.Errorf("making the exporter of traces: %w", err)
	}
	e := &spanExporter{SpanExporter: otlp, metrics: m, log: c.Log, redactor: secret.NewRedactor(secrets...)}
	if e.log == nil {
		e.log = slog.New(slog.DiscardHandler)
	}
	e.ctx, e.giveUp = context.WithCancel(context.Background())
	provider := sdk.NewTracerProvider(
		sdk.WithSpanProcessor(&bounded{sdk.NewBatchSpanProcessor(e, sdk.WithMaxQueueSize(maxSpans)), e}),
		sdk.WithResource(about),
		sdk.WithSampler(sdk.AlwaysSample()), // of what is not sampled there is no span
	)
	return &Tracer{tracer: provider.Tracer(scope), provider: provider, exporter: e, sample: c.Sample}, nil
}

// flushTime is how long the last spans may take to be sent when a process ends.
const flushTime = 5 * time.Second

// shutdown sends what is there, and gives up what takes longer than flushTime.
func (t *Tracer) shutdown(ctx context.Context) error {
	if t == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, flushTime)
	defer cancel()
	defer t.exporter.giveUp()
	if err := t.provider.Shutdown(ctx); err != nil {
		return fmt.Errorf("sending the last traces: %w", err)
	}
	return nil
}

// maxSpans is how many spans may wait to be sent. Those beyond are lost: nobody
// waits for a trace.
const maxSpans = 2048

// bounded counts the spans for which there is no room; OpenTelemetry drops them
// without a word.
type bounded struct {
	sdk.SpanProcessor
	exporter *spanExporter
}

// OnEnd hands on a span that has ended, if there is room.
func (b *bounded) OnEnd(s sdk.ReadOnlySpan) {
	if b.exporter.waiting.Add(1) > maxSpans {
		b.exporter.waiting.Add(-1)
		b.exporter.metrics.Spans.Add(1, "lost")
		return
	}
	b.SpanProcessor.OnEnd(s)
}

// spanExporter sends spans and says what became of them. It is not called
// concurrently.
type spanExporter struct {
	sdk.SpanExporter
	metrics *Metrics
	log     *slog.Logger
	waiting atomic.Int64
	failing bool

	redactor *secret.Redactor // of what the receiver is sent to let us in

	ctx    context.Context // ends when nobody waits for answers any more
	giveUp context.CancelFunc
}

// ExportSpans never returns an error: OpenTelemetry would print each.
func (e *spanExporter) ExportSpans(ctx context.Context, spans []sdk.ReadOnlySpan) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(e.ctx, cancel)()
	err := e.SpanExporter.ExportSpans(ctx, spans)
	e.waiting.Add(-int64(len(spans)))
	result := "exported"
	if err != nil {
		result = "lost"
	}
	e.metrics.Spans.Add(int64(len(spans)), result)
	if failing := err != nil; failing != e.failing {
		e.failing = failing
		if failing {
			e.log.Warn("traces can't be sent", KeyError, text(e.redactor.RedactCut(err.Error())))
		} else {
			e.log.Info("traces can be sent again")
		}
	}
	return nil
}
