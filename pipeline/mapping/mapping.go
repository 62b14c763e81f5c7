// Package mapping makes of an event what is sent: the JSON body or the query
// string of a webhook's property mapping, and the URL of a destination.
//
// A mapping is compiled once into a tree with quoted keys and then writes bytes
// straight into a buffer; no text is ever put together from parts that were not
// escaped. The same event and definition give the same bytes.
//
//   - Nested objects and arrays stand where they are first mentioned and are
//     always sent, even empty, so that a body has the same shape for every
//     event. A property that is missing is left out of an object; in an array
//     it leaves null, so that the others keep their places.
//   - A property of the event that is null counts as missing, and so does an
//     expression that gives null. Only a mapping without entries, which sends
//     the event's properties as they are, sends their nulls; a fixed null is
//     sent as it was written.
//   - A query string has no null: it is left out.
//
// Errors of AppendJSON, AppendQuery and URL.Append are pipeline.Permanent ones:
// they end one delivery.
package mapping

import (
	"fmt"
	"iter"

	"github.com/millrace-io/millrace/pipeline"
	"github.com/millrace-io/millrace/pipeline/expression"
)

// The bounds of a mapping, so that nobody's definition makes the stage slow.
const (
	MaxProperties = 1000 // entries, and elements of an array
	MaxDepth      = 32   // parts of a pointer
	MaxName       = 1024 // bytes of a name
)

// Mapping builds what a webhook sends. It is immutable and safe for concurrent
// use, as long as each event belongs to one goroutine.
type Mapping struct {
	root   *node // nil sends every property under its own name
	nested error // why it can't be a query string; nil if it can
}

// AppendJSON appends the body for an event. When it fails dst comes back as it
// was, with a Permanent error: PropertyMissing or MappingFailed, naming the
// property.
func (m *Mapping) AppendJSON(dst []byte, in *expression.Input) ([]byte, error) {
	if m.root == nil {
		return appendAll(dst, in)
	}
	out, _, err := m.root.append(dst, in)
	if err != nil {
		return dst, err
	}
	return out, nil
}

func appendAll(dst []byte, in *expression.Input) ([]byte, error) {
	start := len(dst)
	dst = append(dst, '{')
	for name, value := range all(in.Event) {
		if len(dst) > start+1 {
			dst = append(dst, ',')
		}
		var err error
		if dst, err = appendValue(append(appendString(dst, name), ':'), value); err != nil {
			return dst[:start], failed(fmt.Errorf("property %q: %w", name, err))
		}
	}
	return append(dst, '}'), nil
}

// all yields the properties of an event; none where it has none.
func all(e *pipeline.Event) iter.Seq2[string, any] {
	if e.Properties == nil {
		return func(func(string, any) bool) {}
	}
	return e.Properties.All()
}

// property returns a property of an event; nil where it is missing or null.
func property(e *pipeline.Event, name string) any {
	if e.Properties == nil {
		return nil
	}
	return e.Properties.Get(name)
}

func failed(err error) error {
	return pipeline.Permanent(pipeline.MappingFailed, fmt.Errorf("mapping %w", err))
}
