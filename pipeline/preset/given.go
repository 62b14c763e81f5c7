package preset

import (
	"maps"
	"slices"
)

// Given returns the rule for bodies that get a property later, at a path of
// names: it may be missing, and counts as there where one of several has to be.
// What an array has to hold, it has to hold in each element, so there the
// property may be missing from all of them.
func (r *Rule) Given(path []string) *Rule {
	if r == nil {
		return nil
	}
	out := *r
	if len(path) == 0 {
		return &out
	}
	name := path[0]
	out.Items = r.Items.Given(path[1:])
	out.Properties = maps.Clone(r.Properties)
	if inner := r.Properties[name].Given(path[1:]); inner != nil {
		inner.Required = false
		out.Properties[name] = inner
	}
	if slices.Contains(r.AnyOf, name) {
		out.AnyOf = nil
	}
	return &out
}
