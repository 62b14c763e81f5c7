package definition

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strconv"

	"github.com/millrace-io/millrace/pipeline"
	"github.com/millrace-io/millrace/pipeline/event"
	"github.com/millrace-io/millrace/pipeline/scalar"
)

// compileEventType makes an entry of the catalog. Whether it fits the others is
// for the catalog to say.
func compileEventType(e *EventType) (event.EventType, issues) {
	var is issues
	if pipeline.IsOperator(e.Name) {
		is.add(at("name"), "event types that begin with %s are Millrace's own: use another name", pipeline.OperatorPrefix)
	}
	out := event.EventType{Name: e.Name, Group: e.Group, DisplayName: e.DisplayName.forCatalog(), Description: e.Description}
	for i, p := range e.Properties {
		example := valueOf(p.Example)
		if !fits(example, p.Type) {
			is.add(at("properties", strconv.Itoa(i), "example"), "found %s, expected an example of type %s", p.Example, p.Type)
		}
		out.Properties = append(out.Properties, event.Property{
			Name: p.Name, Type: p.Type, DisplayName: p.DisplayName.forCatalog(), Example: example, Aliases: p.Aliases,
		})
	}
	return out, is
}

func (t Text) forCatalog() event.Text {
	out := event.Text{EN: t["en"], DE: t["de"], FR: t["fr"]}
	for _, language := range []string{"de", "fr"} {
		if out.EN == "" { // the catalog shows English where a language is missing
			out.EN = t[language]
		}
	}
	return out
}

// fits says whether an example has the type; none always does.
func fits(example any, t pipeline.Type) bool {
	switch example.(type) {
	case nil:
		return true
	case string:
		return t == pipeline.String || t == pipeline.Date
	case bool:
		return t == pipeline.Boolean
	case int64:
		return t == pipeline.Integer || t == pipeline.Number
	case float64:
		return t == pipeline.Number
	default:
		return false
	}
}

// valueOf gives JSON as the values that properties of events have: int64,
// float64, and json.Number for an integer beyond 64 bits. It is nil for nothing.
func valueOf(raw json.RawMessage) any {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil && !errors.Is(err, io.EOF) {
		return nil // not JSON: such a spec does not come this far
	}
	return withNumbers(v)
}

func withNumbers(v any) any {
	switch v := v.(type) {
	case json.Number:
		return numberOf(v)
	case []any:
		for i := range v {
			v[i] = withNumbers(v[i])
		}
	case map[string]any:
		for k := range v {
			v[k] = withNumbers(v[k])
		}
	}
	return v
}

func numberOf(n json.Number) any {
	if i, err := n.Int64(); err == nil {
		return i
	}
	if kind, _ := scalar.Plain(n.String()); kind == scalar.Integer {
		return n
	}
	if f, err := n.Float64(); err == nil {
		return f
	}
	return n
}
