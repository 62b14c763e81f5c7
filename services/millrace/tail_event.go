package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/millrace-io/millrace/pipeline"
	"github.com/millrace-io/millrace/pipeline/event"
)

// eventObject is a decoded event as JSON.
type eventObject struct {
	ID          string          `json:"id"`
	Source      string          `json:"source,omitempty"`
	Type        string          `json:"type"`
	Time        time.Time       `json:"time"`
	System      string          `json:"system,omitempty"`
	Environment string          `json:"environment"`
	User        string          `json:"user,omitempty"`
	Session     string          `json:"session,omitempty"`
	Properties  json.RawMessage `json:"properties"`
}

// describe reads the whole event: as JSON, as text for people, and which
// properties contradict the catalog.
func (t *tail) describe(e *pipeline.Event) (eventObject, []cell, []string) {
	object, text := describeEvent(e, t.catalog(), &t.contradicts)
	return object, text, t.contradicts
}

// describeEvent is the same for any event. Reading it adds to contradicts, if
// its decoder does so.
func describeEvent(e *pipeline.Event, catalog *event.Catalog, contradicts *[]string) (eventObject, []cell) {
	known := kindsOf(catalog, e.Type)
	object := bytes.NewBufferString("{")
	var own, common []cell
	for name, v := range e.Properties.All() { // reading a value finds out what contradicts
		kind := known.of(name)
		if kind.sensitive {
			v = "***"
		}
		if object.Len() > 1 {
			object.WriteByte(',')
		}
		text := asText(v)
		fmt.Fprintf(object, "%s:%s", asText(name), text)
		c := plain(name + "=" + text + " ")
		if contradicts != nil && slices.Contains(*contradicts, name) {
			c = cell{name + "=" + text + "! ", yellow}
		}
		switch {
		case c.color != "", !kind.common:
			own = append(own, c)
		case !kind.mirrored:
			common = append(common, cell{c.text, dim})
		}
	}
	if e.Environment != pipeline.Production {
		own = append([]cell{{"[" + e.Environment + "] ", cyan}}, own...)
	}
	object.WriteByte('}')
	return eventObject{
		e.ID, e.Source, e.Type, e.Time, e.System, e.Environment, e.User, e.Session, object.Bytes(),
	}, append(own, common...)
}

// asText returns a property's value as JSON.
func asText(v any) string {
	text, err := marshal(v)
	if err != nil { // the contract of pipeline.Properties
		panic(err)
	}
	return string(text)
}

// kinds says what kind of property each name is, for one event type.
type kinds struct {
	byName   map[string]kind
	prefixes map[string]kind
}

type kind struct{ common, mirrored, sensitive bool }

// mirrored are the properties that say what the envelope says.
var mirrored = []string{"wm.euid", "type", "created_at", "sid", "wm.env"}

func kindsOf(c *event.Catalog, eventType string) kinds {
	k := kinds{map[string]kind{}, map[string]kind{}}
	for _, p := range c.Common() {
		k.byName[p.Name] = kind{common: true, mirrored: slices.Contains(mirrored, p.Name), sensitive: p.Sensitive}
	}
	t, ok := c.EventType(eventType)
	if !ok {
		return k
	}
	for _, p := range t.Properties {
		if prefix, ok := p.Prefix(); ok {
			k.prefixes[prefix] = kind{sensitive: p.Sensitive}
		} else {
			k.byName[p.Name] = kind{sensitive: p.Sensitive}
		}
	}
	return k
}

func (k kinds) of(name string) kind {
	if found, ok := k.byName[name]; ok {
		return found
	}
	for prefix, found := range k.prefixes {
		if strings.HasPrefix(name, prefix) {
			return found
		}
	}
	return kind{}
}

func showEvent(ctx context.Context, t *tail, r *pipeline.Record) (shown, error) {
	if err := t.ids.Learn(ctx, r.Topic); err != nil { // stands in ids that are made
		return shown{}, err
	}
	t.contradicts = nil
	e, err := t.decoder.Decode(ctx, r, t.catalog())
	if ctx.Err() != nil {
		return shown{}, ctx.Err()
	}
	if err != nil {
		return unreadable(r, err), nil
	}
	object, text, contradicts := t.describe(e)
	return shown{
		values: map[string][]string{"type": {e.Type}, "user": {e.User}},
		cells:  []cell{{clock(e.Time), dim}, {e.Type, cyan}, plain(orDash(e.User))},
		rest:   text,
		object: struct {
			source
			Event       eventObject `json:"event"`
			Contradicts []string    `json:"contradicts_catalog,omitempty"`
		}{sourceOf(r), object, contradicts},
	}, nil
}

func showMatch(_ context.Context, t *tail, r *pipeline.Record) (shown, error) {
	header, _ := r.Header(pipeline.EnvelopeHeader)
	m, err := pipeline.ParseMatch(header)
	if err != nil {
		return unreadable(r, err), nil
	}
	t.contradicts = nil
	e, err := t.decoder.Match(r.Value, &m, t.catalog())
	if err != nil {
		return unreadable(r, err), nil
	}
	deliveries := map[string]string{}
	for _, w := range m.Webhooks {
		deliveries[w] = pipeline.DeliveryID(e, w)
	}
	object, text, contradicts := t.describe(e)
	return shown{
		values: map[string][]string{"type": {e.Type}, "user": {e.User}, "webhook": m.Webhooks},
		cells: []cell{
			{clock(m.At), dim}, {e.Type, cyan}, plain(orDash(e.User)), plain(e.ID), {strings.Join(m.Webhooks, ","), green},
		},
		rest: text,
		object: struct {
			source
			Definitions int64             `json:"definitions"`
			Matched     time.Time         `json:"matched"`
			Deliveries  map[string]string `json:"deliveries"` // webhook to delivery id
			Event       eventObject       `json:"event"`
			Contradicts []string          `json:"contradicts_catalog,omitempty"`
		}{sourceOf(r), m.Definitions, m.At, deliveries, object, contradicts},
	}, nil
}
