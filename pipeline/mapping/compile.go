package mapping

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/millrace-io/millrace/pipeline/expression"
)

// Property is one entry of a property mapping: exactly one of {from}, {from,
// as}, {name, value} and {name, expr}.
type Property struct {
	// From is a property of the event, or an alias of one; it is sent with its
	// type and all its digits. Without As it is sent under the name written
	// here, taken literally even if it starts with "/".
	From string
	// As and Name are what it is sent under. A name that starts with "/" is an
	// RFC 6901 JSON Pointer: /properties/subject is the member subject of the
	// object properties, /items/0 the first element of the array items, and
	// /items/- the element after the last one mentioned before. Elements must
	// be 0, 1, 2, … without a gap. Any other name is literal, dots and all.
	As, Name string
	// Value is a fixed value of any JSON type, null included; nil if not given.
	Value json.RawMessage
	// Expr is an expression over the event, delivery.id and webhook.name.
	Expr string
	// Required makes a missing property end the delivery. With From and Expr.
	Required bool
}

// Problem is what is wrong with one entry of a mapping.
type Problem struct {
	Index int    // of the entry
	Key   string // "from", "as", "name", "value", "expr" or "required"; "" for the entry as a whole
	Err   error  // an *expression.Error, or several joined, where Key is "expr"
}

// forms are the keys that an entry may have together, besides required.
var forms = []string{"from", "from, as", "name, value", "name, expr"}

// Compile checks a mapping and prepares it. It reports everything that is wrong
// at once; the Mapping is nil then. No properties at all send every property of
// the event under its own name, in the event's order. Delivery is in scope
// whether s says so or not.
func Compile(props []Property, s expression.Scope) (*Mapping, []Problem) {
	if len(props) == 0 {
		return &Mapping{}, nil
	}
	if len(props) > MaxProperties {
		err := fmt.Errorf("the mapping has %d entries; at most %d", len(props), MaxProperties)
		return nil, []Problem{{Index: MaxProperties, Err: err}}
	}
	s.Delivery = true
	c := compiler{scope: s, root: &node{}}
	for i := range props {
		c.add(i, &props[i])
	}
	if !c.misnamed {
		c.root.finish(func(entry int, err error) { c.report(entry, props[entry].nameKey(), err) })
	}
	if len(c.problems) > 0 {
		slices.SortStableFunc(c.problems, func(a, b Problem) int { return a.Index - b.Index })
		return nil, c.problems
	}
	return &Mapping{root: c.root, nested: c.root.checkFlat()}, nil
}

type compiler struct {
	scope    expression.Scope
	root     *node
	problems []Problem
	misnamed bool // an entry is not in the tree, so a gap may be no gap
}

func (c *compiler) report(entry int, key string, err error) {
	c.problems = append(c.problems, Problem{entry, key, err})
}

// add checks one entry and puts it into the tree.
func (c *compiler) add(i int, p *Property) {
	if given := p.given(); !slices.Contains(forms, given) {
		c.report(i, "", fmt.Errorf("the entry has {%s}; expected one of {%s}", given, strings.Join(forms, "}, {")))
		c.misnamed = true
		return
	}
	if p.Required && p.Value != nil {
		c.report(i, "required", errors.New("a fixed value is never missing: required goes with from and expr"))
	}
	s := &source{entry: i, name: p.name(), required: p.Required}
	path, err := p.path()
	if err == nil {
		err = c.root.insert(path, i, s)
	}
	if err != nil {
		c.report(i, p.nameKey(), err)
		c.misnamed = true
	} else {
		s.pair = append(appendQueryEscaped(nil, path[0].key), '=')
	}
	if key, err := c.compile(s, p); err != nil {
		c.report(i, key, err)
	}
}

// given lists the keys that the entry has, besides required.
func (p *Property) given() string {
	var keys []string
	for _, k := range []struct {
		key   string
		given bool
	}{
		{"from", p.From != ""},
		{"as", p.As != ""},
		{"name", p.Name != ""},
		{"value", p.Value != nil},
		{"expr", p.Expr != ""},
	} {
		if k.given {
			keys = append(keys, k.key)
		}
	}
	return strings.Join(keys, ", ")
}

// name is what the entry is sent under, as it is written.
func (p *Property) name() string { return p.As + p.Name + p.ownName() }

// ownName is what a property is sent under where the entry doesn't rename it.
func (p *Property) ownName() string {
	if p.As == "" {
		return p.From
	}
	return ""
}

// nameKey is the key of the entry that holds its name.
func (p *Property) nameKey() string {
	switch {
	case p.Name != "":
		return "name"
	case p.As != "":
		return "as"
	}
	return "from"
}

func (p *Property) path() ([]step, error) {
	own := p.ownName()
	if own == "" {
		return parseName(p.As + p.Name)
	}
	if err := checkText(own); err != nil {
		return nil, fmt.Errorf("%w, and give it with as", err)
	}
	return []step{{own, isKey}}, nil
}

// compile fills in where the value comes from; the error is about the key.
func (c *compiler) compile(s *source, p *Property) (key string, err error) {
	switch {
	case p.Value != nil:
		return "value", s.fix(p.Value)
	case p.Expr != "":
		s.program, _, err = expression.Compile(p.Expr, c.scope)
		return "expr", err
	}
	s.property, err = c.property(p.From)
	return "from", err
}

// property resolves the alias of a property and says whether the catalog has
// it.
func (c *compiler) property(name string) (string, error) {
	if len(name) > MaxName || !utf8.ValidString(name) {
		return "", fmt.Errorf("the property's name must be UTF-8 of at most %d bytes", MaxName)
	}
	property, _, err := c.scope.Property(name)
	return property, err
}

// fix checks a fixed value and writes it once for all events: as JSON on one
// line, in the order of its keys and with its digits as they are, and as text
// for a query string.
func (s *source) fix(value json.RawMessage) error {
	var out bytes.Buffer
	if err := json.Compact(&out, bytes.ToValidUTF8(value, []byte("\uFFFD"))); err != nil {
		return fmt.Errorf("reading the value as JSON: %w", err)
	}
	s.fixed = out.Bytes()
	text := out.String()
	if text[0] == '"' {
		if err := json.Unmarshal(s.fixed, &text); err != nil {
			return fmt.Errorf("reading the value as JSON: %w", err)
		}
	}
	s.pair = appendQueryEscaped(s.pair, text)
	return nil
}

// checkFlat says why the tree can't be a query string.
func (n *node) checkFlat() error {
	for _, c := range n.children {
		switch {
		case n.array || c.source == nil:
			return fmt.Errorf("properties[%d] is nested, which a query string can't be", c.entry)
		case len(c.source.fixed) > 0 && strings.ContainsRune("[{", rune(c.source.fixed[0])):
			return fmt.Errorf("properties[%d], %q: %w", c.entry, c.source.name, errNested)
		}
	}
	return nil
}
