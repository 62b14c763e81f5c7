// Package telemetry is what Millrace says about itself: metrics in the
// Prometheus format, traces, logs, and whether it is alive and ready.
//
// It keeps no global state: several roles in one process share one Telemetry,
// and tests make as many as they like.
package telemetry

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.opentelemetry.io/otel/attribute"
	exporter "go.opentelemetry.io/otel/exporters/prometheus"
	"go.opentelemetry.io/otel/metric/noop"
	sdk "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/exemplar"
	"go.opentelemetry.io/otel/sdk/resource"
)

// scope names the instruments' origin to OpenTelemetry.
const scope = "github.com/millrace-io/millrace"

// Config says who is speaking, in the labels of target_info and in traces;
// OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES win over it.
type Config struct {
	Service  string // such as "millrace-sink"
	Version  string // of the binary
	Instance string // unique among replicas, such as "host-1:8080"
	Traces   TraceConfig
}

// Telemetry holds the metrics and the traces of one process.
type Telemetry struct {
	// Metrics are the instruments; all are ready for use.
	Metrics *Metrics
	// Tracer makes spans; nil where traces are off.
	Tracer *Tracer

	provider *sdk.MeterProvider
	registry *prometheus.Registry
}

// New returns the metrics of a process, with those of the Go runtime and the
// process itself beside them, and its traces. Call Shutdown in the end. An error
// means that the configuration is wrong.
func New(ctx context.Context, c Config) (*Telemetry, error) {
	registry := prometheus.NewRegistry()
	registry.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	reader, err := exporter.New(exporter.WithRegisterer(registry), exporter.WithoutScopeInfo())
	if err != nil {
		return nil, fmt.Errorf("making the Prometheus exporter: %w", err)
	}
	about, err := resource.New(ctx, resource.WithAttributes(
		attribute.String("service.name", c.Service),
		attribute.String("service.version", c.Version),
		attribute.String("service.instance.id", c.Instance),
	), resource.WithFromEnv())
	if err != nil {
		return nil, fmt.Errorf("describing the service: %w", err)
	}
	provider := sdk.NewMeterProvider(
		sdk.WithReader(reader),
		sdk.WithResource(about),
		// Labels are bounded before they get here, in a way that keeps the
		// closed ones apart; the SDK's own limit would mix them up.
		sdk.WithCardinalityLimit(0),
		sdk.WithExemplarFilter(exemplar.AlwaysOffFilter),
	)
	metrics, err := newMetrics(provider.Meter(scope))
	if err != nil {
		return nil, err
	}
	tracer, err := newTracer(ctx, c.Traces, about, metrics)
	if err != nil {
		return nil, err
	}
	return &Telemetry{Metrics: metrics, Tracer: tracer, provider: provider, registry: registry}, nil
}

// Discard returns metrics that nobody reads, for tests and for tools that run
// once. They cost next to nothing.
func Discard() *Metrics {
	m, err := newMetrics(noop.NewMeterProvider().Meter(scope))
	if err != nil { // the same fields that New builds
		panic(err)
	}
	return m
}

// Handler serves the metrics in the Prometheus text format.
func (t *Telemetry) Handler() http.Handler {
	return promhttp.HandlerFor(t.registry, promhttp.HandlerOpts{
		// One metric that can't be collected must not hide all others.
		ErrorHandling: promhttp.ContinueOnError,
		Registry:      t.registry,
	})
}

// Shutdown sends the last traces, for a few seconds at most, and frees what the
// metrics hold. Instruments may still be used afterwards; what they count is lost.
func (t *Telemetry) Shutdown(ctx context.Context) error {
	err := t.Tracer.shutdown(ctx)
	if failed := t.provider.Shutdown(ctx); failed != nil {
		err = errors.Join(err, fmt.Errorf("shutting down metrics: %w", failed))
	}
	return err
}
