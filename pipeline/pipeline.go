// Package pipeline is the vocabulary of Millrace: what an event, a match, a
// delivery and a dead letter are, how they are written into Kafka records, and
// what a stage promises. Every other package speaks in these words; this one
// imports none of them and knows neither Kafka nor HTTP.
package pipeline

import (
	"context"
	"iter"
	"time"
)

// Type is the type of a property in the catalog.
type Type string

// The types a property can have. A date is text in RFC 3339 or "2006-01-02".
const (
	Integer Type = "integer"
	Number  Type = "number"
	String  Type = "string"
	Boolean Type = "boolean"
	Date    Type = "date"
)

// The stages of the application that events come from.
const (
	Production = "production"
	QA         = "qa"
)

// Event is one thing an end user did. It is immutable once decoded.
type Event struct {
	ID          string    // unique within Source
	Source      string    // who produced it; may be empty
	Type        string    // an event type, such as "smart_walk_thru.goal_reached"
	Time        time.Time // when it happened, UTC, in milliseconds
	System      string    // the application it comes from; may be empty
	Environment string    // Production or QA
	User        string    // the end user's id; may be empty
	Session     string    // may be empty
	Properties  Properties
}

// Properties are the flat properties of an event, under the catalog's names,
// converted to the catalog's types where that loses nothing. Properties that
// mirror the envelope (wm.euid, type, created_at, sid, wm.env) are among them.
//
// A value is nil, a bool, an int64, a float64, a string, or, for an integer
// that does not fit 64 bits, a json.Number with all its digits. Implementations
// may parse on first use, so one event belongs to one goroutine at a time.
type Properties interface {
	// Get returns the value of a property; nil where it is missing or null.
	Get(name string) any
	// All yields every property once, in the order of the event; null ones too.
	All() iter.Seq2[string, any]
}

// Header is one header of a record.
type Header struct {
	Key   string
	Value []byte
}

// Record is one Kafka record. Topic is the full name, prefix included.
type Record struct {
	Topic     string
	Partition int32 // of a record that was read; outputs are partitioned by Key
	Offset    int64 // of a record that was read
	Time      time.Time
	Key       []byte
	Value     []byte
	Headers   []Header
}

// Header returns the value of the last header with that key.
func (r *Record) Header(key string) ([]byte, bool) {
	for i := len(r.Headers) - 1; i >= 0; i-- {
		if r.Headers[i].Key == key {
			return r.Headers[i].Value, true
		}
	}
	return nil, false
}

// Output collects what a stage makes of its input. The zero value is ready.
type Output struct {
	Records []Record
	Counts  []Count
}

// Send adds a record. The bytes it refers to must not change afterwards.
func (o *Output) Send(r Record) { o.Records = append(o.Records, r) }

// Count adds an entry for the ledger.
func (o *Output) Count(c Count) { o.Counts = append(o.Counts, c) }

// Reset empties the output and keeps its memory.
func (o *Output) Reset() {
	clear(o.Records)
	o.Records, o.Counts = o.Records[:0], o.Counts[:0]
}

// Stage turns one input record into output records.
//
// Process is called from several goroutines, one for each partition at a time
// and in its order. What it puts into out is written exactly once, together
// with the input's offset. It must be a pure function of the record and of
// state that only grows (definitions, schemas): after a crash it is called
// again for the same record.
//
// The error says what happens to the record: a Permanent one makes it a dead
// letter, whatever out holds; so does a panic. Any other error means "not now":
// the same records are processed again after a pause, RetryAfter's if it is
// one. Process returns ctx's error when ctx ends.
type Stage interface {
	Process(ctx context.Context, in *Record, out *Output) error
}

// StageFunc makes a Stage of a function.
type StageFunc func(ctx context.Context, in *Record, out *Output) error

// Process calls f.
func (f StageFunc) Process(ctx context.Context, in *Record, out *Output) error {
	return f(ctx, in, out)
}
