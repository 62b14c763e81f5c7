package event

import (
	"bytes"
	"testing"

	"github.com/millrace-io/millrace/pipeline"
)

func TestExamplesAreEvents(t *testing.T) {
	t.Parallel()
	c := builtin(t)
	d := NewDecoder(nil, "cluster")
	d.Mismatches = func(eventType, property string) { t.Errorf("%s of %s contradicts the catalog", property, eventType) }
	for _, want := range c.Types() {
		for n := range 25 {
			value, err := c.Example(want.Name, n)
			if err != nil {
				t.Fatal(err)
			}
			e, err := d.Decode(t.Context(), rec(string(value)), c)
			if err != nil {
				t.Fatalf("%s: %v", value, err)
			}
			operator := pipeline.IsOperator(e.Type) // of nobody
			if e.Type != want.Name || (e.User == "") != operator || (e.Session == "") != operator || !e.Time.Equal(recorded.Truncate(1e6)) {
				t.Errorf("%+v", e)
			}
			present := map[string]bool{}
			for name, v := range e.Properties.All() {
				present[name] = v != nil
			}
			properties := len(want.Properties) + len(c.Common())
			if operator {
				properties = len(want.Properties) + 3 // type, created_at, wm.env
			}
			if got := len(present); got != properties {
				t.Errorf("%d properties, want %d: %s", got, properties, value)
			}
		}
	}
}

func TestExampleDependsOnItsNumberAlone(t *testing.T) {
	t.Parallel()
	a, b := builtin(t), builtin(t)
	one, _ := a.Example("survey.submitted", 1)
	again, _ := b.Example("survey.submitted", 1)
	two, _ := a.Example("survey.submitted", 2)
	if !bytes.Equal(one, again) || bytes.Equal(one, two) {
		t.Errorf("1: %s\n1: %s\n2: %s", one, again, two)
	}
	if _, err := a.Example("outside", 1); err == nil {
		t.Error("a type outside the catalog has an example")
	}
}

func TestExampleOfATypeWithoutExamples(t *testing.T) {
	t.Parallel()
	var props []Property
	for _, typ := range []string{"integer", "number", "string", "boolean", "date"} {
		props = append(props, Property{Name: typ, Type: pipeline.Type(typ)})
	}
	c, err := builtin(t).With([]EventType{{Name: "plain", Properties: props}})
	if err != nil {
		t.Fatal(err)
	}
	value, err := c.Example("plain", 3)
	want := []byte(`"integer":3,"number":3.5,"string":"example","boolean":false,"date":"2026-01-01"}}`)
	if err != nil || !bytes.HasSuffix(value, want) {
		t.Errorf("got %s, %v", value, err)
	}
}
