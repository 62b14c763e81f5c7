package preset

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"gopkg.in/yaml.v3"
)

// The types of a rule. An integer is a number too.
const (
	object  = "object"
	array   = "array"
	text    = "string"
	number  = "number"
	integer = "integer"
	boolean = "boolean"
	null    = "null"
)

// Rule is what a platform expects of one value. The zero Rule and no Rule expect
// nothing.
type Rule struct {
	Type     Types `yaml:"type"`     // one of these; none: any
	Required bool  `yaml:"required"` // in its object
	// Refused says why it must not be there at all.
	Refused string `yaml:"refused"`

	// Of text: how many characters it may have, what it looks like (a pattern,
	// and the same in words), and what it must not be.
	MinLength count    `yaml:"min_length"`
	MaxLength count    `yaml:"max_length"`
	Form      string   `yaml:"form"`
	FormMeans string   `yaml:"form_means"`
	Not       []string `yaml:"not"`

	// Of an object: what it holds by name, what holds for all other values, and
	// for all names as if each were a text. AnyOf are names of which at least
	// one must be there and not be null.
	Properties map[string]*Rule `yaml:"properties"`
	Values     *Rule            `yaml:"values"`
	Names      *Rule            `yaml:"names"`
	AnyOf      []string         `yaml:"any_of"`

	Items *Rule `yaml:"items"` // of an array: what holds for each element

	// Of an object or an array: how many members or elements it may have.
	MinCount count `yaml:"min_count"`
	MaxCount count `yaml:"max_count"`

	form   *regexp.Regexp
	listed []string // Properties by name, sorted
}

// Types are written as one word or as a list.
type Types []string

// UnmarshalYAML reads a word or a list of words.
func (t *Types) UnmarshalYAML(n *yaml.Node) error {
	if n.Kind == yaml.SequenceNode {
		return n.Decode((*[]string)(t))
	}
	*t = Types{""}
	return n.Decode(&(*t)[0])
}

// maxListed is how many properties an object may name: a bit each.
const maxListed = 64

// prepare checks the rule and all below it, and makes it ready.
func (r *Rule) prepare() error {
	if r == nil {
		return nil
	}
	for _, t := range r.Type {
		if !slices.Contains([]string{object, array, text, number, integer, boolean, null}, t) {
			return fmt.Errorf("found the type %q, which JSON does not have", t)
		}
	}
	if (r.Form == "") != (r.FormMeans == "") {
		return errors.New("expected form and form_means together")
	}
	if r.Form != "" {
		form, err := regexp.Compile(r.Form)
		if err != nil {
			return fmt.Errorf("compiling form: %w", err)
		}
		r.form = form
	}
	r.listed = slices.Sorted(maps.Keys(r.Properties))
	if len(r.listed) > maxListed {
		return fmt.Errorf("found %d properties, expected at most %d", len(r.listed), maxListed)
	}
	for _, name := range r.AnyOf {
		if r.Properties[name] == nil {
			return fmt.Errorf("found %q in any_of, which properties does not have", name)
		}
	}
	for _, name := range r.listed {
		if err := r.Properties[name].prepare(); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return errors.Join(r.Values.prepare(), r.Names.prepare(), r.Items.prepare())
}

// Violation is a value that breaks a rule. Its text names both, and never shows
// the value.
type Violation struct {
	Rule  string // what was found and what the platform expects
	Entry int    // of the mapping, from CheckOutline; -1 for the body as a whole
	path  []string
}

func broken(format string, args ...any) *Violation {
	return &Violation{Rule: fmt.Sprintf(format, args...), Entry: -1}
}

// Property is the name of the property, or a JSON Pointer where it is nested;
// empty for the body itself.
func (v *Violation) Property() string {
	if len(v.path) <= 1 {
		return strings.Join(v.path, "")
	}
	escape := strings.NewReplacer("~", "~0", "/", "~1")
	var b strings.Builder
	for _, p := range slices.Backward(v.path) {
		b.WriteString("/" + escape.Replace(p))
	}
	return b.String()
}

// Error gives "property: rule".
func (v *Violation) Error() string {
	if p := v.Property(); p != "" {
		return p + ": " + v.Rule
	}
	return "the body: " + v.Rule
}

// within says that the violation is in the member of that name.
func (v *Violation) within(name string) *Violation {
	if v != nil {
		v.path = append(v.path, name)
	}
	return v
}

// takes says that the rule does not take a value of a type.
func (r *Rule) takes(kind string) *Violation {
	if r == nil || len(r.Type) == 0 || slices.Contains(r.Type, kind) || kind == integer && slices.Contains(r.Type, number) {
		return nil
	}
	return broken("found %s, expected %s", article(kind), articles(r.Type))
}

func articles(kinds []string) string {
	all := make([]string, len(kinds))
	for i, k := range kinds {
		all[i] = article(k)
	}
	return strings.Join(all, " or ")
}

func article(kind string) string {
	switch kind {
	case null:
		return "null"
	case object, array, integer:
		return "an " + kind
	}
	return "a " + kind
}

// text checks a value that is text.
func (r *Rule) text(s []byte) *Violation {
	if r == nil || r.MinLength == 0 && r.MaxLength == 0 && r.form == nil && r.Not == nil {
		return nil
	}
	switch n := count(utf8.RuneCount(s)); {
	case r.MinLength > 0 && n < r.MinLength:
		return broken("found %d characters, expected at least %d", n, r.MinLength)
	case r.MaxLength > 0 && n > r.MaxLength:
		return broken("found %d characters, expected at most %d", n, r.MaxLength)
	case r.form != nil && !r.form.Match(s):
		return broken("expected %s", r.FormMeans)
	case slices.ContainsFunc(r.Not, func(not string) bool { return string(s) == not }):
		return broken("found one of %s, which the platform does not take", quotedList(r.Not))
	}
	return nil
}

func quotedList(words []string) string {
	all := make([]string, len(words))
	for i, w := range words {
		all[i] = fmt.Sprintf("%q", w)
	}
	return strings.Join(all, ", ")
}

// count checks how many members or elements there are.
func (r *Rule) count(n int, what string) *Violation {
	switch {
	case r == nil:
		return nil
	case count(n) < r.MinCount:
		return broken("found %d %s, expected at least %d", n, what, r.MinCount)
	case r.MaxCount > 0 && count(n) > r.MaxCount:
		return broken("found %d %s, expected at most %d", n, what, r.MaxCount)
	}
	return nil
}

// seen is which of its listed members an object has, a bit each: all of them,
// and those that are not null.
type seen struct{ there, filled uint64 }

// member returns the rule for a member, nil where there is none, and notes that
// it is there.
func (r *Rule) member(name []byte, isNull bool, s *seen) *Rule {
	if r == nil {
		return nil
	}
	for i, known := range r.listed {
		if known == string(name) {
			s.there |= 1 << i
			if !isNull {
				s.filled |= 1 << i
			}
			return r.Properties[known]
		}
	}
	return r.Values
}

// items returns the rule for elements, nil where there is none.
func (r *Rule) items() *Rule {
	if r == nil {
		return nil
	}
	return r.Items
}

// name checks the name of a member.
func (r *Rule) name(name []byte) *Violation {
	if r == nil || r.Names == nil {
		return nil
	}
	if v := r.Names.text(name); v != nil {
		v.Rule = "the name: " + v.Rule
		return v.within(string(name))
	}
	return nil
}

// missing says which members ought to be there, or not to be there together.
func (r *Rule) missing(s seen) []*Violation {
	if r == nil {
		return nil
	}
	var out []*Violation
	for i, name := range r.listed {
		there := s.there&(1<<i) != 0
		switch m := r.Properties[name]; {
		case m.Required && !there:
			out = append(out, broken("is missing, and required").within(name))
		case m.Refused != "" && there:
			out = append(out, broken("%s", m.Refused).within(name))
		}
	}
	if len(r.AnyOf) > 0 && !r.anyOf(s) {
		out = append(out, broken("found none of them, expected at least one").within(strings.Join(r.AnyOf, ", ")))
	}
	return out
}

// anyOf says whether one of AnyOf is there and not null.
func (r *Rule) anyOf(s seen) bool {
	for i, name := range r.listed {
		if s.filled&(1<<i) != 0 && slices.Contains(r.AnyOf, name) {
			return true
		}
	}
	return false
}
