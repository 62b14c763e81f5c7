package telemetry

import (
	"context"
	"fmt"
	"reflect"
	"sync/atomic"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// Counter counts what only grows. Like the other instruments it is safe for
// concurrent use and panics if the number of label values is not that of its
// labels, as that is a mistake of the caller.
type Counter struct{ numbers }

// Add counts n more under the given label values.
func (c *Counter) Add(n int64, values ...string) { c.of(values).Add(n) }

func (c *Counter) create(m metric.Meter, tag reflect.StructTag) error {
	c.init(labelsOf(tag), newNumber)
	_, err := m.Int64ObservableCounter(tag.Get("metric"), unit(tag), help(tag), metric.WithInt64Callback(c.observe))
	return err
}

// UpDown is a number that is moved, not set, so that several owners may share
// a series: each adds what it has and takes away what it no longer has.
type UpDown struct{ numbers }

// Add moves the number by n, which may be negative.
func (u *UpDown) Add(n int64, values ...string) { u.of(values).Add(n) }

func (u *UpDown) create(m metric.Meter, tag reflect.StructTag) error {
	u.init(labelsOf(tag), newNumber)
	_, err := m.Int64ObservableUpDownCounter(tag.Get("metric"), unit(tag), help(tag), metric.WithInt64Callback(u.observe))
	return err
}

// Gauge is a number that has one owner, who sets it.
type Gauge struct{ numbers }

// Set replaces the number.
func (g *Gauge) Set(n int64, values ...string) { g.of(values).Store(n) }

func (g *Gauge) create(m metric.Meter, tag reflect.StructTag) error {
	g.init(labelsOf(tag), newNumber)
	_, err := m.Int64ObservableGauge(tag.Get("metric"), unit(tag), help(tag), metric.WithInt64Callback(g.observe))
	return err
}

// numbers are the series of an instrument that OpenTelemetry reads when it is
// scraped. To count is then one look-up and one atomic addition, where the
// SDK's own counters look the labels up a second time.
type numbers struct{ labels[*number] }

type number struct {
	atomic.Int64
	labels metric.MeasurementOption
}

func newNumber(s attribute.Set) *number { return &number{labels: metric.WithAttributeSet(s)} }

func (s *numbers) observe(_ context.Context, o metric.Int64Observer) error {
	for _, n := range *s.known.Load() {
		o.Observe(n.Load(), n.labels)
	}
	return nil
}

// Histogram counts values by size.
type Histogram struct {
	inst   metric.Float64Histogram
	series labels[[]metric.RecordOption] // kept as the slice that Record takes, or each call makes one
}

// Record adds a value, in the unit of the histogram.
func (h *Histogram) Record(v float64, values ...string) {
	h.inst.Record(context.Background(), v, h.series.of(values)...)
}

func (h *Histogram) create(m metric.Meter, tag reflect.StructTag) (err error) {
	h.series.init(labelsOf(tag), recordOptions)
	bounds, err := buckets(tag.Get("buckets"))
	if err != nil {
		return err
	}
	h.inst, err = m.Float64Histogram(tag.Get("metric"), unit(tag), help(tag),
		metric.WithExplicitBucketBoundaries(bounds...))
	return err
}

func recordOptions(s attribute.Set) []metric.RecordOption {
	return []metric.RecordOption{metric.WithAttributeSet(s)}
}

func unit(tag reflect.StructTag) metric.InstrumentOption { return metric.WithUnit(tag.Get("unit")) }

func help(tag reflect.StructTag) metric.InstrumentOption {
	return metric.WithDescription(tag.Get("help"))
}

// buckets returns the upper bounds of a histogram. Few are enough: each is a
// series for each destination.
func buckets(kind string) ([]float64, error) {
	switch kind {
	case "seconds": // up to a destination's usual timeout, and beyond
		return []float64{0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30}, nil
	case "records": // up to a full poll
		return []float64{1, 10, 100, 1_000, 2_500, 5_000, 10_000}, nil
	}
	return nil, fmt.Errorf("unknown buckets %q", kind)
}
