package telemetry

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"go.opentelemetry.io/otel/attribute"
)

// MaxSeries is how many different values, or pairs of values, of the labels
// that users name an instrument tells apart. Those beyond share the value
// Other, so that 100,000 webhooks can't drown the monitoring system.
const MaxSeries = 2_000

// Other stands for every label value beyond the first MaxSeries.
const Other = "other"

// maxLabels is how many labels an instrument may have.
const maxLabels = 2

// tuple holds the values of an instrument's labels, in order.
type tuple [maxLabels]string

// labels keeps one S for each tuple of label values: to build and hash a set of
// attributes costs more than to count.
type labels[S any] struct {
	names  []string
	series func(attribute.Set) S

	// known is replaced, never changed: it is read on every count and written
	// only when a tuple is seen for the first time.
	known atomic.Pointer[map[tuple]S]

	mu    sync.Mutex     // for replacing known, and for named
	named map[tuple]bool // user-named values that are told apart
}

func (l *labels[S]) init(names []string, series func(attribute.Set) S) {
	if len(names) > maxLabels {
		panic(fmt.Sprintf("%d labels, at most %d", len(names), maxLabels))
	}
	l.names, l.series = names, series
	l.known.Store(&map[tuple]S{})
	l.named = map[tuple]bool{}
}

// of returns the series for the given values.
func (l *labels[S]) of(values []string) S {
	if len(values) != len(l.names) {
		panic(fmt.Sprintf("%d values for the labels %q", len(values), l.names))
	}
	var t tuple
	copy(t[:], values)
	if s, ok := (*l.known.Load())[t]; ok {
		return s
	}
	return l.add(t)
}

func (l *labels[S]) add(t tuple) S {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, v := range t {
		// The caller may use the memory again, and Prometheus refuses a whole
		// metric for one label that is not UTF-8.
		t[i] = strings.Clone(strings.ToValidUTF8(v, "\uFFFD"))
	}
	t = l.bounded(t)
	known := *l.known.Load()
	if s, ok := known[t]; ok {
		return s
	}
	known = maps.Clone(known)
	known[t] = l.series(l.attributes(t))
	l.known.Store(&known)
	return known[t]
}

// bounded replaces the values of user-named labels once there are too many.
// Values that the program chooses (outcome, ending) stay: there are few.
func (l *labels[S]) bounded(t tuple) tuple {
	named, rest := tuple{}, t
	for i, name := range l.names {
		if userNamed(name) {
			named[i], rest[i] = t[i], Other
		}
	}
	switch {
	case named == tuple{}, l.named[named]:
		return t
	case len(l.named) >= MaxSeries:
		return rest
	}
	l.named[named] = true
	return t
}

// userNamed reports whether users choose the values of a label.
func userNamed(label string) bool {
	return slices.Contains([]string{"webhook", "destination", "type", "property", "lane"}, label)
}

func (l *labels[S]) attributes(t tuple) attribute.Set {
	kvs := make([]attribute.KeyValue, len(l.names))
	for i, name := range l.names {
		kvs[i] = attribute.String(name, t[i])
	}
	return attribute.NewSet(kvs...)
}
