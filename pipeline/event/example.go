package event

import (
	"fmt"
	"slices"
	"strings"

	"github.com/millrace-io/millrace/pipeline"
)

// exampleSource is the source of generated events.
const exampleSource = "millrace/example"

// Example returns a generated event of a type in the catalog, as Event JSON: the
// same bytes for the same n. The item that it is about is always that of the
// catalog's examples; user, session, browser, scores and yes/no differ by n. It
// has no time, so that it happens when it is sent. Operator events are of no
// user and differ in their id alone.
func (c *Catalog) Example(eventType string, n int) ([]byte, error) {
	t, ok := c.byName[eventType]
	if !ok {
		return nil, fmt.Errorf("event type %q is not in the catalog", eventType)
	}
	n = max(n, 0)
	b := fmt.Appendf(nil, `{"id":"example-%d","source":%q,"type":`, n, exampleSource)
	b = appendString(b, eventType)
	common := c.common
	if pipeline.IsOperator(eventType) {
		common, n = nil, 0
	} else {
		b = fmt.Appendf(b, `,"system":"example","user":"u-%d","session":"s-%d"`, 10427+n, 500+n)
	}
	b = append(b, `,"properties":{`...)
	start := len(b)
	for _, p := range slices.Concat(common, t.Properties) {
		if mirrorOf(p.Name) == mirrorNone {
			b = p.appendExample(b, n)
		}
	}
	if len(b) > start {
		b = b[:len(b)-1] // the last comma
	}
	return append(b, "}}"...), nil
}

// appendExample appends the property as a member and a comma.
func (p *Property) appendExample(b []byte, n int) []byte {
	name := p.Name
	if prefix, ok := p.Prefix(); ok {
		name = prefix + "1"
	}
	b = append(appendString(b, name), ':')
	b = appendValue(b, p.exampleAt(n))
	return append(b, ',')
}

// exampleAt varies the example.
func (p *Property) exampleAt(n int) any {
	switch v := p.Example.(type) {
	case nil:
		return map[pipeline.Type]any{
			pipeline.Integer: int64(n), pipeline.Number: float64(n) + 0.5, pipeline.String: "example",
			pipeline.Boolean: n%2 == 0, pipeline.Date: "2026-01-01",
		}[p.Type]
	case bool:
		return v == (n%2 == 0)
	case int64:
		if !strings.HasSuffix(p.Name, "_id") && v >= 0 {
			return (v + int64(n)) % (max(v, 10) + 1)
		}
	case string:
		if p.Name == "env.browser.name" {
			return [...]string{v, "Firefox", "Safari", "Edge"}[n%4]
		}
	}
	return p.Example
}

// checkExample refuses an example that is not of the property's type.
func (p *Property) checkExample() error {
	switch v := p.Example.(type) {
	case nil:
		return nil
	case int64, float64, string, bool:
		if same, ok := convert(v, "", p.Type); ok && same == v {
			return nil
		}
	}
	return fmt.Errorf("property %s: example %v is no %s", p.Name, p.Example, p.Type)
}
