package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/millrace-io/millrace/pipeline"
	"github.com/millrace-io/millrace/pipeline/event"
	"github.com/millrace-io/millrace/pipeline/expression"
)

// decodeTest decodes an event in Event JSON as the filter does. One without an
// id gets one of its own, so that no platform takes it for one that it had.
func decodeTest(ctx context.Context, text []byte, catalog *event.Catalog) (*pipeline.Event, error) {
	record := pipeline.Record{Topic: "test", Time: time.Now(), Value: text}
	e, err := event.NewDecoder(nil, "").Decode(ctx, &record, catalog)
	if dead, ok := pipeline.IsPermanent(err); ok {
		err = dead.Err
	}
	if err != nil {
		return nil, fmt.Errorf("reading the event: %w", err)
	}
	var given struct {
		ID any `json:"id"`
	}
	if err := json.Unmarshal(text, &given); err == nil && (given.ID == nil || given.ID == "") {
		own := *e
		own.ID = "test-" + newRun()
		return &own, nil
	}
	return e, nil
}

// plainExamples is how many of the catalog's examples are tried as they are.
const plainExamples = 8

// generate finds an event for which the webhook fires: one of the catalog's
// examples, or one with values that stand in the condition. Where none is found,
// the first example remains.
func (t *trial) generate(ctx context.Context) error {
	run := newRun()
	first, err := t.example(run, 0)
	if err != nil {
		return err
	}
	var events []eventLine
	for n := range plainExamples {
		e, err := t.example(run, n)
		if err != nil {
			return err
		}
		events = append(events, e)
	}
	ways, err := t.webhook.Suggest(t.defs.Catalog)
	if err != nil {
		return err
	}
	for _, w := range ways {
		e, err := suggested(first, w)
		if err != nil {
			return err
		}
		events = append(events, e)
	}
	return t.firstThatFires(ctx, events)
}

func (t *trial) firstThatFires(ctx context.Context, events []eventLine) error {
	for i, line := range events {
		text, err := marshal(line)
		if err != nil {
			return err
		}
		e, why, err := t.try(ctx, text)
		if err != nil {
			return err
		}
		if t.tried++; why.Fires || i == 0 {
			t.event, t.why = e, why
		}
		if why.Fires {
			return nil
		}
	}
	return nil
}

// example is the n-th example of the webhook's first type, from where the
// webhook wants it to be.
func (t *trial) example(run string, n int) (eventLine, error) {
	w := t.webhook.Webhook
	e, err := exampleOf(t.defs.Catalog, w.Event[0], run, n)
	if _, known := t.defs.Catalog.EventType(w.Event[0]); !known {
		e = eventLine{Source: "millrace/example", Type: w.Event[0], User: "u-10427", Session: "s-500"}
		e.ID, err = "example-"+run, nil
		if n == 0 {
			t.notes = append(t.notes, fmt.Sprintf("event type %s is not in the catalog, so the generated event has no properties but those of the condition", e.Type))
		}
	}
	if w.System != "" {
		e.System = w.System
	}
	e.Environment = w.Environment
	return e, err
}

// suggested is an event with what a suggestion says in place of what it has.
func suggested(e eventLine, s expression.Suggestion) (eventLine, error) {
	props := maps.Clone(e.Properties)
	if props == nil {
		props = map[string]json.RawMessage{}
	}
	for name, v := range s.Properties {
		if v == nil {
			delete(props, name)
			continue
		}
		text, err := marshal(v)
		if err != nil {
			return e, err
		}
		props[name] = text
	}
	fields := map[string]*string{
		"id": &e.ID, "source": &e.Source, "type": &e.Type, "time": &e.Time, "system": &e.System,
		"environment": &e.Environment, "user": &e.User, "session": &e.Session,
	}
	for name, v := range s.Fields {
		if at, ok := fields[name]; ok {
			*at = v
		}
	}
	e.Properties = props
	return e, nil
}

// oneLine is an error's text on one line: joined errors have several.
func oneLine(err error) string {
	if err == nil {
		return ""
	}
	return strings.ReplaceAll(err.Error(), "\n", "; ")
}
