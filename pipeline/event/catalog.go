package event

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/millrace-io/millrace/pipeline"
	"github.com/millrace-io/millrace/schemas"
)

// Text is a display name in the languages of the console. Where only one is
// known, it stands in EN.
type Text struct {
	EN string `yaml:"en"`
	DE string `yaml:"de"`
	FR string `yaml:"fr"`
}

// Property is one property of an event type.
//
// A name that ends in a placeholder, such as "answer.<question_id>", stands for
// every name that starts with what is in front of the placeholder.
type Property struct {
	Name        string        `yaml:"name"`
	Type        pipeline.Type `yaml:"type"`
	DisplayName Text          `yaml:"display_name"`
	// Example is an int64, float64, string or bool, by Type; a date is a string.
	Example any `yaml:"example"`
	// Aliases are other names under which producers write it.
	Aliases []string `yaml:"aliases"`
	// Sensitive values are not shown in the console or by tail.
	Sensitive bool `yaml:"sensitive"`
}

// Prefix returns what is in front of the placeholder, if the name has one.
func (p *Property) Prefix() (prefix string, ok bool) {
	if !strings.HasSuffix(p.Name, ">") {
		return "", false
	}
	prefix, _, ok = strings.Cut(p.Name, "<")
	return prefix, ok
}

// EventType is one entry of the catalog.
type EventType struct {
	Name        string
	Group       string
	DisplayName Text
	Description string
	ChosenBy    []string   // the properties that hold the id of the one item it is about
	Properties  []Property // its own ones; every event has Catalog.Common too
}

// Catalog is the set of event types known. It does not change: With returns
// another one.
type Catalog struct {
	common  []Property
	types   []*EventType // in the order of the catalog
	byName  map[string]*EventType
	layouts map[string]*layout
	other   *layout // of types outside the catalog
}

// BuiltinCatalog returns the catalog that Millrace comes with: what end users
// do, and behind it the operator events.
func BuiltinCatalog() (*Catalog, error) {
	c, err := parseCatalog(schemas.Catalog)
	if err != nil {
		return nil, fmt.Errorf("reading the catalog: %w", err)
	}
	operator, err := parseCatalog(schemas.OperatorCatalog)
	if err != nil {
		return nil, fmt.Errorf("reading the catalog of operator events: %w", err)
	}
	var types []EventType
	for _, t := range slices.Concat(c.types, operator.types) {
		types = append(types, *t)
	}
	return newCatalog(c.common, types)
}

// catalogFile is the form of schemas/catalog.yaml: each property is described
// once and named by the event types that have it.
type catalogFile struct {
	Common     []string   `yaml:"common"`
	Properties []Property `yaml:"properties"`
	Groups     []struct {
		Name       string `yaml:"name"`
		EventTypes []struct {
			Name        string `yaml:"name"`
			DisplayName Text   `yaml:"display_name"`
			Description string `yaml:"description"`
			Properties  []struct {
				Name   string `yaml:"name"`
				Chosen bool   `yaml:"chosen"`
			} `yaml:"properties"`
		} `yaml:"event_types"`
	} `yaml:"groups"`
}

func parseCatalog(text []byte) (*Catalog, error) {
	var f catalogFile
	d := yaml.NewDecoder(bytes.NewReader(text))
	d.KnownFields(true)
	if err := d.Decode(&f); err != nil {
		return nil, err
	}
	if err := d.Decode(new(any)); !errors.Is(err, io.EOF) {
		return nil, errors.New("found more than one document")
	}
	return f.catalog()
}

func (f *catalogFile) catalog() (*Catalog, error) {
	var errs []error
	find := func(owner, name string) Property {
		i := slices.IndexFunc(f.Properties, func(p Property) bool { return p.Name == name })
		if i < 0 {
			errs = append(errs, fmt.Errorf("%s: property %s is not described", owner, name))
			return Property{Name: name}
		}
		return f.Properties[i]
	}
	var common []Property
	for _, name := range f.Common {
		common = append(common, find("common", name))
	}
	var types []EventType
	for _, g := range f.Groups {
		for _, e := range g.EventTypes {
			t := EventType{Name: e.Name, Group: g.Name, DisplayName: e.DisplayName, Description: e.Description}
			for _, p := range e.Properties {
				t.Properties = append(t.Properties, find(e.Name, p.Name))
				if p.Chosen {
					t.ChosenBy = append(t.ChosenBy, p.Name)
				}
			}
			types = append(types, t)
		}
	}
	c, err := newCatalog(common, types)
	return c, errors.Join(append(errs, err)...)
}

// newCatalog checks the properties and prepares what decoding needs.
func newCatalog(common []Property, types []EventType) (*Catalog, error) {
	c := &Catalog{common: common, byName: map[string]*EventType{}, layouts: map[string]*layout{}}
	var errs []error
	normalize(common)
	for i := range types {
		t := &types[i]
		if t.Name == "" || c.byName[t.Name] != nil {
			errs = append(errs, fmt.Errorf("event type %q is empty or there twice", t.Name))
			continue
		}
		normalize(t.Properties)
		l, err := newLayout(slices.Concat(common, t.Properties), true)
		if err != nil {
			errs = append(errs, fmt.Errorf("event type %s: %w", t.Name, err))
		}
		c.types = append(c.types, t)
		c.byName[t.Name] = t
		c.layouts[t.Name] = l
	}
	other, err := newLayout(common, false)
	if err != nil {
		errs = append(errs, fmt.Errorf("common properties: %w", err))
	}
	c.other = other
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return c, nil
}

// normalize gives examples the Go types that properties of events have.
func normalize(props []Property) {
	for i := range props {
		if n, ok := props[i].Example.(int); ok {
			props[i].Example = int64(n)
		}
	}
}

// With returns a catalog that has the given event types too. One whose name is
// there already adds its properties to it and changes nothing else. All that is
// wrong is reported at once (errors.Join): a property twice, under a name or
// alias that another has, or of an unknown type.
func (c *Catalog) With(more []EventType) (*Catalog, error) {
	types := make([]EventType, 0, len(c.types)+len(more))
	at := map[string]int{}
	for _, t := range c.types {
		at[t.Name] = len(types)
		types = append(types, *t)
	}
	for _, t := range more {
		if i, ok := at[t.Name]; ok {
			types[i].Properties = slices.Concat(types[i].Properties, t.Properties)
			types[i].ChosenBy = slices.Concat(types[i].ChosenBy, t.ChosenBy)
			continue
		}
		at[t.Name] = len(types)
		t.Properties = slices.Clone(t.Properties)
		types = append(types, t)
	}
	return newCatalog(c.common, types)
}

// EventType returns the entry of that name. It must not be changed.
func (c *Catalog) EventType(name string) (*EventType, bool) {
	t, ok := c.byName[name]
	return t, ok
}

// Types returns every event type, in the order of the catalog, those of With
// last. They must not be changed.
func (c *Catalog) Types() []*EventType { return slices.Clone(c.types) }

// Common returns the properties that every event has. They must not be changed.
func (c *Catalog) Common() []Property { return slices.Clone(c.common) }

// Scope returns what an expression over events of these types may name: the
// union of their properties and the common ones, and their aliases (alias to
// name). A name with a placeholder stands there with it. Properties are nil,
// which means anything, if one of the types is outside the catalog. An error
// names a property on whose type the event types disagree.
func (c *Catalog) Scope(types ...string) (props map[string]pipeline.Type, aliases map[string]string, err error) {
	props, aliases = map[string]pipeline.Type{}, map[string]string{}
	first := map[string]string{} // property -> the event type that had it first
	known := true
	var errs []error
	add := func(eventType string, list []Property) {
		for _, p := range list {
			if have, ok := props[p.Name]; ok && have != p.Type {
				errs = append(errs, fmt.Errorf("property %s is %s in %s and %s in %s", p.Name, have, first[p.Name], p.Type, eventType))
				continue
			}
			props[p.Name], first[p.Name] = p.Type, eventType
			for _, a := range p.Aliases {
				aliases[a] = p.Name
			}
		}
	}
	add("every event", c.common)
	for _, name := range types {
		if t, ok := c.byName[name]; ok {
			add(name, t.Properties)
		} else {
			known = false
		}
	}
	if !known {
		props = nil
	}
	return props, aliases, errors.Join(errs...)
}
