package event

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/millrace-io/millrace/pipeline"
)

// layout is what decoding needs to know of an event type's properties.
type layout struct {
	known    map[string]*slot // by name and by alias
	prefixes []prefix         // names with a placeholder, longest first
	mirrors  []*slot          // those that mirror the envelope, in the order of mirror
}

// slot is one property in a layout.
type slot struct {
	names  []string      // its name, then its aliases
	typ    pipeline.Type // empty: as it comes
	mirror mirror
}

func (s *slot) name() string { return s.names[0] }

type prefix struct {
	text string
	typ  pipeline.Type
}

// newLayout makes the layout of a list of properties. Where typed is false the
// types are left out, names and aliases stay.
func newLayout(props []Property, typed bool) (*layout, error) {
	l := &layout{known: make(map[string]*slot, len(props))}
	var errs []error
	for _, p := range props {
		if err := l.add(&p, typed); err != nil {
			errs = append(errs, err)
		}
	}
	slices.SortStableFunc(l.prefixes, func(a, b prefix) int { return len(b.text) - len(a.text) })
	for m := mirrorUser; m <= mirrorEnvironment; m++ {
		l.mirrors = append(l.mirrors, l.mirror(m))
	}
	return l, errors.Join(errs...)
}

func (l *layout) add(p *Property, typed bool) error {
	if !knownType(p.Type) {
		return fmt.Errorf("property %s: type %q is none of integer, number, string, boolean, date", p.Name, p.Type)
	}
	if err := p.checkExample(); err != nil {
		return err
	}
	typ := p.Type
	if !typed {
		typ = ""
	}
	if text, ok := p.Prefix(); ok {
		l.prefixes = append(l.prefixes, prefix{text, typ})
		return nil
	}
	s := &slot{names: append([]string{p.Name}, p.Aliases...), typ: typ, mirror: mirrorOf(p.Name)}
	for _, n := range s.names {
		if n == "" {
			return errors.New("a property or an alias has no name")
		}
		if l.known[n] != nil {
			return fmt.Errorf("property %s: %s is the name or an alias of %s already", p.Name, n, l.known[n].name())
		}
		l.known[n] = s
	}
	return nil
}

func knownType(t pipeline.Type) bool {
	switch t {
	case pipeline.Integer, pipeline.Number, pipeline.String, pipeline.Boolean, pipeline.Date:
		return true
	}
	return false
}

// mirror returns the slot of a mirrored property; every event has it, whatever
// the catalog says.
func (l *layout) mirror(m mirror) *slot {
	if s := l.known[m.property()]; s != nil {
		return s
	}
	s := &slot{names: []string{m.property()}, mirror: m}
	l.known[m.property()] = s
	return s
}

// typeOf returns the type of a property that has no slot of its own.
func (l *layout) typeOf(name string) pipeline.Type {
	for _, p := range l.prefixes {
		if strings.HasPrefix(name, p.text) {
			return p.typ
		}
	}
	return ""
}

// layout returns the layout of an event type, that of the common properties
// where it is outside the catalog.
func (c *Catalog) layout(eventType string) *layout {
	if l, ok := c.layouts[eventType]; ok {
		return l
	}
	return c.other
}
