package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/millrace-io/millrace/pipeline"
	"github.com/millrace-io/millrace/pipeline/event"
	"github.com/millrace-io/millrace/pipeline/expression"
)

// The formats that events can be sent in.
const (
	formatJSON       = "json"
	formatBinary     = "cloudevents"
	formatStructured = "structured"
)

// eventLine is an event as it is sent, in Event JSON.
type eventLine struct {
	ID          string                     `json:"id,omitempty"`
	Source      string                     `json:"source,omitempty"`
	Type        string                     `json:"type"`
	Time        string                     `json:"time,omitempty"`
	System      string                     `json:"system,omitempty"`
	Environment string                     `json:"environment,omitempty"`
	User        string                     `json:"user,omitempty"`
	Session     string                     `json:"session,omitempty"`
	Properties  map[string]json.RawMessage `json:"properties,omitempty"`
}

// parseProps reads NAME=VALUE flags.
func parseProps(flags []string) (map[string]json.RawMessage, error) {
	props := map[string]json.RawMessage{}
	for _, f := range flags {
		name, value, ok := strings.Cut(f, "=")
		if !ok || name == "" {
			return nil, fmt.Errorf("--prop %q: expected NAME=VALUE", f)
		}
		if _, twice := props[name]; twice {
			return nil, fmt.Errorf("--prop %s is there twice", name)
		}
		v, err := propValue(value)
		if err != nil {
			return nil, fmt.Errorf("--prop %s: %w", name, err)
		}
		props[name] = v
	}
	return props, nil
}

// propValue returns a value as JSON: itself if it is a number, boolean, null or
// text there, else as text.
func propValue(value string) (json.RawMessage, error) {
	nested := strings.HasPrefix(value, "{") || strings.HasPrefix(value, "[")
	trimmed := value == strings.TrimSpace(value)
	if trimmed && !nested && json.Valid([]byte(value)) {
		return json.RawMessage(value), nil
	}
	return marshal(value)
}

// marshal writes JSON as people write it: without escapes for HTML.
func marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimRight(b.Bytes(), "\n"), nil
}

// printJSON prints a value as a line of such JSON.
func printJSON(w io.Writer, v any) error {
	text, err := marshal(v)
	if err == nil {
		_, err = w.Write(append(text, '\n'))
	}
	return err
}

// over returns the event with what is given in place of what it has.
func (e eventLine) over(given eventLine) eventLine {
	e.ID, e.Source, e.Time = cmp.Or(given.ID, e.ID), cmp.Or(given.Source, e.Source), cmp.Or(given.Time, e.Time)
	e.System, e.Environment = cmp.Or(given.System, e.System), cmp.Or(given.Environment, e.Environment)
	e.User, e.Session = cmp.Or(given.User, e.User), cmp.Or(given.Session, e.Session)
	for name, v := range given.Properties {
		e.Properties[name] = v
	}
	return e
}

// exampleOf returns the n-th example of a type, with an id that no other has:
// those of the catalog come again.
func exampleOf(c *event.Catalog, eventType, run string, n int) (eventLine, error) {
	var e eventLine
	text, err := c.Example(eventType, n)
	if err == nil {
		err = json.Unmarshal(text, &e)
	}
	e.ID = "example-" + run + "-" + strconv.Itoa(n)
	return e, err
}

// newRun makes what tells the examples of two runs apart.
func newRun() string { return strings.ToLower(rand.Text()[:10]) }

// checker makes records of events, as they will be sent, and decodes them.
type checker struct {
	catalog *event.Catalog
	decoder *event.Decoder
	format  string
	topic   string
	out     io.Writer // for problems and warnings

	problems int
	warned   map[string]bool
}

// maxProblems is how many problems are told one by one.
const maxProblems = 20

// all decodes every event and tells what is wrong; it returns how many there are.
func (k *checker) all(ctx context.Context, lines *eventLines) (n int, err error) {
	for ; lines.next(); n++ {
		_, e, err := k.record(ctx, lines.text)
		if err != nil {
			k.problem(lines.at(), err)
			continue
		}
		k.warn(lines.at(), e)
	}
	if lines.err != nil {
		k.problem(lines.at(), lines.err)
	}
	if k.problems > maxProblems {
		fmt.Fprintf(k.out, "and %d more\n", k.problems-maxProblems)
	}
	if k.problems > 0 {
		return n, fmt.Errorf("%d of %d events can't be decoded, so none was sent", k.problems, n)
	}
	return n, nil
}

func (k *checker) problem(at string, err error) {
	if k.problems++; k.problems <= maxProblems {
		fmt.Fprintf(k.out, "%s: %v\n", at, err)
	}
}

// warn tells, once for each, of a type that nobody has described.
func (k *checker) warn(at string, e *pipeline.Event) {
	if _, ok := k.catalog.EventType(e.Type); ok || k.warned[e.Type] {
		return
	}
	if k.warned == nil {
		k.warned = map[string]bool{}
	}
	k.warned[e.Type] = true
	fmt.Fprintf(k.out, "warning: %s: event type %s is not in the catalog, so its properties have no types%s\n",
		at, e.Type, expression.DidYouMean(e.Type, typeNames(k.catalog)))
}

// record makes the record that is sent for an event in JSON, and decodes it.
func (k *checker) record(ctx context.Context, text []byte) (pipeline.Record, *pipeline.Event, error) {
	r := pipeline.Record{Topic: k.topic, Value: text, Time: time.Now()}
	e, err := k.decode(ctx, &r)
	if err == nil && k.format != formatJSON {
		if r, err = k.cloudEvent(e, text); err == nil {
			e, err = k.decode(ctx, &r)
		}
	}
	if err != nil {
		return r, nil, err
	}
	if e.User != "" {
		r.Key = []byte(e.User)
	}
	return r, e, nil
}

func (k *checker) decode(ctx context.Context, r *pipeline.Record) (*pipeline.Event, error) {
	e, err := k.decoder.Decode(ctx, r, k.catalog)
	if dead, ok := pipeline.IsPermanent(err); ok {
		return nil, dead.Err
	}
	return e, err
}

// cloudEvent writes an event as CloudEvents, which asks for an id and a source.
func (k *checker) cloudEvent(e *pipeline.Event, text []byte) (pipeline.Record, error) {
	var given struct {
		ID         json.RawMessage `json:"id"`
		Properties json.RawMessage `json:"properties"`
	}
	if err := json.Unmarshal(text, &given); err != nil {
		return pipeline.Record{}, err
	}
	id := e.ID
	if len(given.ID) == 0 || string(given.ID) == "null" || string(given.ID) == `""` {
		id = rand.Text() // the one it has is made of where a record lies, which is not known yet
	}
	attributes := []attribute{
		{"specversion", "1.0"},
		{"id", id},
		{"source", cmp.Or(e.Source, "millrace/send")},
		{"type", e.Type},
		{"time", e.Time.Format("2006-01-02T15:04:05.000Z07:00")},
		{"subject", e.User},
		{"system", e.System},
		{"environment", e.Environment},
		{"session", e.Session},
	}
	attributes = slices.DeleteFunc(attributes, func(a attribute) bool { return a.value == "" })
	if len(given.Properties) == 0 || string(given.Properties) == "null" {
		given.Properties = json.RawMessage("{}")
	}
	if k.format == formatStructured {
		return k.structured(attributes, given.Properties)
	}
	return k.binary(attributes, given.Properties), nil
}

// attribute is one of a CloudEvent's.
type attribute struct{ name, value string }

func (k *checker) binary(attributes []attribute, properties []byte) pipeline.Record {
	r := pipeline.Record{Topic: k.topic, Value: properties}
	for _, a := range attributes {
		r.Headers = append(r.Headers, pipeline.Header{Key: "ce_" + a.name, Value: []byte(a.value)})
	}
	r.Headers = append(r.Headers, pipeline.Header{Key: "content-type", Value: []byte("application/json")})
	return r
}

func (k *checker) structured(attributes []attribute, properties json.RawMessage) (pipeline.Record, error) {
	object := map[string]any{"datacontenttype": "application/json", "data": properties}
	for _, a := range attributes {
		object[a.name] = a.value
	}
	value, err := marshal(object)
	return pipeline.Record{
		Topic: k.topic, Value: value,
		Headers: []pipeline.Header{{Key: "content-type", Value: []byte("application/cloudevents+json; charset=UTF-8")}},
	}, err
}

func typeNames(c *event.Catalog) []string {
	var names []string
	for _, t := range c.Types() {
		names = append(names, t.Name)
	}
	return names
}
