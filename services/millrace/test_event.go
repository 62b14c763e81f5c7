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
// examples of its types, or one with values that stand in the condition. One of
// which a request can be made comes before one of which none can. Where nothing
// fires, the first example remains.
func (t *trial) generate(ctx context.Context) error {
	run := newRun()
	var events []eventLine
	for n := range plainExamples {
		for _, typ := range t.webhook.Webhook.Event {
			e, err := t.example(typ, run, n)
			if err != nil {
				return err
			}
			events = append(events, e)
		}
	}
	ways, err := t.webhook.Suggest(t.defs.Catalog)
	if err != nil {
		return err
	}
	types := len(t.webhook.Webhook.Event)
	first, mail := events[:types], events[types:2*types]
	for _, w := range ways {
		for i := range types {
			e, err := suggested(first[i], w)
			if err != nil {
				return err
			}
			kept, err := suggested(mail[i], expression.Suggestion{Properties: w.Properties}) // what is asked of the user may be an e-mail address
			if err != nil {
				return err
			}
			if events = append(events, e); len(w.Fields) > 0 {
				events = append(events, kept)
			}
		}
	}
	if err := t.choose(ctx, events); err != nil {
		return err
	}
	if _, known := t.defs.Catalog.EventType(t.event.Type); !known {
		t.notes = append(t.notes, fmt.Sprintf("event type %s is not in the catalog, so the generated event has no properties but those of the condition", t.event.Type))
	}
	return nil
}

func (t *trial) choose(ctx context.Context, events []eventLine) error {
	for _, line := range events {
		text, err := marshal(line)
		if err != nil {
			return err
		}
		e, why, err := t.try(ctx, text)
		if err != nil {
			return err
		}
		t.tried++
		if t.event == nil || why.Fires && !t.why.Fires {
			t.event, t.why = e, why
		}
		if !why.Fires {
			continue
		}
		if _, err := t.makeRequest(e); err == nil {
			t.event, t.why = e, why
			return nil
		}
	}
	return nil
}

// example is the n-th example of a type, from where the webhook wants it to be.
func (t *trial) example(typ, run string, n int) (eventLine, error) {
	w := t.webhook.Webhook
	e, err := exampleOf(t.defs.Catalog, typ, run, n)
	if _, known := t.defs.Catalog.EventType(typ); !known {
		e = eventLine{Source: "millrace/example", Type: typ, User: "u-10427", Session: "s-500"}
		e.ID, err = "example-"+run, nil
	}
	if n%2 == 1 { // who a user is, is often known by an e-mail address
		e.User += "@example.com"
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
