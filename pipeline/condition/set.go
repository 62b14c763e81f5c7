package condition

import (
	"encoding/json"
	"slices"

	"github.com/millrace-io/millrace/pipeline"
	"github.com/millrace-io/millrace/pipeline/expression"
)

// Rule says which events fire a webhook.
type Rule struct {
	Webhook     string     // its name
	Types       []string   // event types, one at least
	System      string     // "" for any
	Environment string     // "" for any
	Condition   *Condition // nil always holds
}

// Set is many rules at once. It is immutable and safe for concurrent use.
//
// Rules are found by event type, and within one by an equality that their
// condition can't do without: of ten thousand webhooks that each wait for
// another walk-thru, one is evaluated. Conditions without such a clause are
// evaluated one by one.
type Set struct {
	types map[string]*group
}

// group holds the rules of one event type. Each is in one place.
type group struct {
	linear  []*Rule
	indexes []*index
}

// index holds the rules that need one property to have a certain value.
type index struct {
	property string
	rules    map[any][]*Rule // by expression.Key of the value
	all      []*Rule
	guards   []string // properties that conditions read before this one
}

// NewSet makes a set of rules. It keeps them.
func NewSet(rules []Rule) *Set {
	byType := map[string][]*Rule{}
	for i := range rules {
		types := slices.Clone(rules[i].Types)
		slices.Sort(types)
		for _, t := range slices.Compact(types) {
			byType[t] = append(byType[t], &rules[i])
		}
	}
	s := &Set{types: make(map[string]*group, len(byType))}
	for t, rules := range byType {
		s.types[t] = newGroup(rules)
	}
	return s
}

// clause is an equality that can be counted.
type clause struct {
	property string
	value    any
}

func clauseOf(e expression.Equality) clause { return clause{e.Property, e.Value} }

func newGroup(rules []*Rule) *group {
	common := map[clause]int{} // how many rules wait for a value
	for _, r := range rules {
		for _, e := range r.equalities() {
			common[clauseOf(e)]++
		}
	}
	g := &group{}
	for _, r := range rules {
		best := -1
		equalities := r.equalities()
		for i, e := range equalities {
			if best < 0 || common[clauseOf(e)] < common[clauseOf(equalities[best])] {
				best = i
			}
		}
		if best < 0 {
			g.linear = append(g.linear, r)
			continue
		}
		g.index(equalities[best].Property).add(r, equalities[best])
	}
	return g
}

// index returns the index over a property, a new one if there is none.
func (g *group) index(property string) *index {
	for _, x := range g.indexes {
		if x.property == property {
			return x
		}
	}
	x := &index{property: property, rules: map[any][]*Rule{}}
	g.indexes = append(g.indexes, x)
	return x
}

func (x *index) add(r *Rule, e expression.Equality) {
	x.rules[e.Value] = append(x.rules[e.Value], r)
	x.all = append(x.all, r)
	for _, p := range e.Guards {
		if !slices.Contains(x.guards, p) {
			x.guards = append(x.guards, p)
		}
	}
}

// Wants says whether any rule is about events of a type.
func (s *Set) Wants(eventType string) bool { return s.types[eventType] != nil }

// Match calls fires for every webhook that the event fires, and fails for every
// one whose condition fails on it; the others are not affected. The order is
// the same whenever the same set meets the same event.
func (s *Set) Match(e *pipeline.Event, fires func(webhook string), fails func(webhook string, err error)) {
	g := s.types[e.Type]
	if g == nil {
		return
	}
	for _, r := range g.linear {
		r.match(e, fires, fails)
	}
	for _, x := range g.indexes {
		for _, r := range x.candidates(e) {
			r.match(e, fires, fails)
		}
	}
}

// candidates returns the rules that may hold or fail: those that wait for the
// value, but all of them where an integer beyond 64 bits makes conditions fail.
func (x *index) candidates(e *pipeline.Event) []*Rule {
	if e.Properties == nil {
		return nil
	}
	for _, p := range x.guards {
		if beyond(e.Properties.Get(p)) {
			return x.all
		}
	}
	v := e.Properties.Get(x.property)
	if beyond(v) {
		return x.all
	}
	return x.rules[expression.Key(v)]
}

func beyond(v any) bool {
	_, ok := v.(json.Number)
	return ok
}

func (r *Rule) equalities() []expression.Equality {
	if r.Condition == nil {
		return nil
	}
	return r.Condition.program.Equalities()
}

func (r *Rule) match(e *pipeline.Event, fires func(string), fails func(string, error)) {
	if r.System != "" && r.System != e.System || r.Environment != "" && r.Environment != e.Environment {
		return
	}
	if r.Condition == nil {
		fires(r.Webhook)
		return
	}
	holds, err := r.Condition.Match(e)
	switch {
	case err != nil:
		fails(r.Webhook, err)
	case holds:
		fires(r.Webhook)
	}
}
