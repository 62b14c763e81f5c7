package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/pipeline"
	"github.com/millrace-io/millrace/pipeline/event"
	"github.com/millrace-io/millrace/pipeline/pipelinetest"
)

// oneProperty is a webhook that fires for one value of one property.
type oneProperty struct {
	webhook, eventType string
	name               string // as an event has it: no placeholder
	condition          string
	hit, miss          any
}

// Of each of the 32 event types, each property of its own is watched by a
// webhook: an event with the value fires it and no other webhook, one whose
// value differs by one fires none.
func TestEveryPropertyOfEveryEventType(t *testing.T) {
	t.Parallel()
	catalog, err := event.BuiltinCatalog()
	if err != nil {
		t.Fatal(err)
	}
	types := slices.DeleteFunc(catalog.Types(), func(t *event.EventType) bool { return pipeline.IsOperator(t.Name) })
	if len(types) != 32 {
		t.Fatalf("the catalog has %d event types", len(types))
	}
	r := pipelinetest.Receiver(t)
	m := start(t, options{})
	defs := fmt.Sprintf("kind: Destination\nname: receiver\nrequest:\n  url: %s\n", r.URL)
	var events []pipeline.Record
	var want []string
	ledger := map[string]endings{}
	for i, typ := range types {
		hooks := watch(typ, i)
		for _, h := range hooks {
			defs += h.yaml()
			events = append(events, h.event(t, hooks, h.hit, h.webhook), h.event(t, hooks, h.miss, "none of "+h.webhook))
			want = append(want, fmt.Sprintf(`{"webhook":%q,"event":%[1]q}`, h.webhook))
			ledger[h.webhook] = endings{pipeline.Matched: 1, pipeline.Delivered: 1}
		}
	}
	m.apply(defs)
	m.produce(events...)
	m.settled(ledger)
	slices.Sort(want)
	if got := bodies(r); !slices.Equal(got, want) {
		t.Errorf("arrived: %q\nexpected: %q", got, want)
	}
}

// watch makes a webhook for each property of an event type; for one of the
// common properties where it has none of its own.
func watch(typ *event.EventType, n int) (hooks []oneProperty) {
	properties := typ.Properties
	if len(properties) == 0 {
		properties = []event.Property{{Name: "wm.language", Type: pipeline.String}}
	}
	for i, p := range properties {
		h := oneProperty{webhook: fmt.Sprintf("w%d-%d", n, i), eventType: typ.Name, name: p.Name}
		if prefix, ok := p.Prefix(); ok {
			h.name = prefix + "17"
		}
		switch p.Type {
		case pipeline.Integer:
			id := int64(9007199254740993 + i) // beyond what a float holds
			h.condition, h.hit, h.miss = fmt.Sprintf("props[%q] == %d", h.name, id), id, id+1
			if i%2 == 1 {
				h.condition = fmt.Sprintf("props[%q] <= %d", h.name, id)
			}
		case pipeline.Number:
			h.condition, h.hit, h.miss = fmt.Sprintf("props[%q] < 1", h.name), 0.5, 1
		case pipeline.Boolean:
			h.condition, h.hit, h.miss = fmt.Sprintf("props[%q]", h.name), true, false
		default:
			h.condition, h.hit, h.miss = fmt.Sprintf("props[%q] == %q", h.name, "Zoë's"), "Zoë's", "Zoë’s"
			if i%2 == 1 {
				h.condition = fmt.Sprintf("props[%q] startsWith %q", h.name, "Zo")
				h.hit, h.miss = "Zo", "zo"
			}
		}
		hooks = append(hooks, h)
	}
	return hooks
}

func (h *oneProperty) yaml() string {
	return fmt.Sprintf(`---
kind: Webhook
name: %s
event: %s
condition: |
  %s
properties:
  - name: webhook
    expr: |
      webhook.name
  - name: event
    expr: |
      event.id
destination: receiver
`, h.webhook, h.eventType, h.condition)
}

// event is an event with a value for the property, and values that miss for the
// type's others.
func (h *oneProperty) event(t *testing.T, all []oneProperty, value any, id string) pipeline.Record {
	t.Helper()
	properties := map[string]any{}
	for _, other := range all {
		properties[other.name] = other.miss
	}
	properties[h.name] = value
	return jsonEvent(t, map[string]any{"id": id, "type": h.eventType, "user": "u-" + h.webhook, "properties": properties})
}

// The rows of `conditions:` do what the expression of the same meaning does.
func TestRowsBesideExpressions(t *testing.T) {
	t.Parallel()
	pairs := map[string]struct{ rows, expression string }{
		"range": {
			`{property: n, operator: greater_or_equal, value: 3}, {property: n, operator: less_than, value: 6}`,
			`props["n"] >= 3 and props["n"] < 6`,
		},
		"either": {
			`{property: n, operator: equals, value: 2}, {join: or, property: s, operator: starts_with, value: x7}`,
			`props["n"] == 2 or props["s"] startsWith "x7"`,
		},
		"missing": {`{property: gone, operator: is_not_set}, {property: n, operator: in, value: [1, 8]}`, `props["gone"] == null and props["n"] in [1, 8]`},
	}
	r := pipelinetest.Receiver(t)
	m := start(t, options{})
	var defs strings.Builder
	fmt.Fprintf(&defs, "kind: Destination\nname: receiver\nrequest:\n  url: %s\n", r.URL)
	const webhook = "---\nkind: Webhook\nname: %s\nevent: made.up\n%sproperties:\n  - from: n\ndestination: receiver\n"
	for name, p := range pairs {
		fmt.Fprintf(&defs, webhook, name+"-rows", "conditions: ["+p.rows+"]\n")
		fmt.Fprintf(&defs, webhook, name+"-text", "condition: |\n  "+p.expression+"\n")
	}
	m.apply(defs.String())
	var events []pipeline.Record
	for n := range 10 {
		events = append(events, jsonEvent(t, map[string]any{
			"type": "made.up", "user": "u", "properties": map[string]any{"n": n, "s": fmt.Sprint("x", n)},
		}))
	}
	m.produce(events...)
	want := map[string]endings{}
	for name, n := range map[string]int64{"range": 3, "either": 2, "missing": 2} {
		for _, form := range []string{"-rows", "-text"} {
			want[name+form] = endings{pipeline.Matched: n, pipeline.Delivered: n}
		}
	}
	m.settled(want)
	if n := len(slices.Collect(maps.Keys(r.IDs()))); n != 14 {
		t.Errorf("%d different deliveries", n)
	}
}
