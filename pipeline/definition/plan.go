package definition

import (
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/millrace-io/millrace/pipeline/secret"
)

// Options say how a set is to be applied.
type Options struct {
	Owner  string // the set of definitions that this belongs to, such as "files:heap"
	Author string // who applies it
	Prune  bool   // remove what the owner has in force and the set does not name
	Force  bool   // take over definitions of other owners
	Remove []Key  // to be removed besides
	// Keys seal the secrets that are written out; nil: those that the sinks have
	// published.
	Keys *secret.PublicKeys
}

// Op is what happens to a definition.
type Op string

// What a plan does, as it is shown.
const (
	Add    Op = "+"
	Modify Op = "~"
	Remove Op = "-"
)

// Change is one step of a plan.
type Change struct {
	Op     Op
	Key    Key
	From   *Resource // what is in force; nil for Add
	To     *Resource // what will be, still without what Apply gives it; nil for Remove
	Fields []Field   // for Modify: what differs
}

// Plan is what applying a set would do: event types and destinations first, then
// webhooks, then removals, webhooks before what they use. So every prefix of it
// leaves definitions that work.
type Plan struct {
	Changes   []Change
	Unchanged int // definitions of the set that are in force as they are

	base    *Snapshot
	set     *Set
	options Options
}

// NewPlan checks a set against what is in force and says what applying it would
// do. Secrets that are written out are sealed, so that none is in the plan; each
// time anew, so that nobody can tell whether one has changed. There is no plan if
// Problems.Err is not nil.
func NewPlan(base *Snapshot, set *Set, o Options) (*Plan, Problems) {
	if o.Keys != nil {
		base = base.copy()
		base.Keys = o.Keys
	}
	after, problems := set.Check(base)
	if problems.Err() == nil {
		sealed, more := set.sealed(after)
		set, problems = sealed, append(problems, more...)
	}
	p := &Plan{base: base, set: set, options: o}
	for _, d := range set.sorted() {
		problems = append(problems, d.problems(d.checkMoved(base, after))...)
		problems = append(problems, p.want(d)...)
	}
	problems = append(problems, p.remove()...)
	if problems.Err() != nil {
		return nil, problems
	}
	return p, problems
}

// sorted gives the definitions in the order in which they are written.
func (s *Set) sorted() []*Definition {
	return slices.SortedFunc(slices.Values(s.Definitions), func(a, b *Definition) int { return compareKeys(a.Key, b.Key) })
}

// want adds what has to be done so that d is in force.
func (p *Plan) want(d *Definition) Problems {
	to := &Resource{Format: resourceFormat, Kind: d.Kind, Name: d.Name, Owner: p.options.Owner, Author: p.options.Author, Spec: d.Spec}
	from := p.base.Resources[d.Key]
	switch {
	case from == nil:
		p.Changes = append(p.Changes, Change{Op: Add, Key: d.Key, To: to})
	case from.Owner != to.Owner && !p.options.Force:
		t := &text{name: d.source.name}
		t.report(d.node.find([]string{"name"}).at, "%s belongs to %q, not to %q; with force it is taken over", d.Key, from.Owner, to.Owner)
		return t.problems
	default:
		if len(diff(from, to)) == 0 {
			p.Unchanged++
			break
		}
		to.Created = from.Created
		from = p.base.shown(from)
		fields := diff(from, to)
		d.markWritten(fields)
		p.Changes = append(p.Changes, Change{Modify, d.Key, from, to, fields})
	}
	return nil
}

// remove adds the removals: those asked for, and the owner's rest.
func (p *Plan) remove() Problems {
	var problems Problems
	gone := map[Key]bool{}
	for _, k := range p.options.Remove {
		switch from := p.base.Resources[k]; {
		case from == nil && p.base.Broken[k] == nil:
			problems = append(problems, Problem{Message: fmt.Sprintf("%s is not there, so it can't be removed", k)})
		case from != nil && from.Owner != p.options.Owner && !p.options.Force:
			problems = append(problems, Problem{Message: fmt.Sprintf("%s belongs to %q, not to %q; with force it is removed", k, from.Owner, p.options.Owner)})
		default:
			gone[k] = true
		}
	}
	wanted := map[Key]bool{}
	for _, d := range p.set.Definitions {
		wanted[d.Key] = true
	}
	for k, r := range p.base.Resources {
		if p.options.Prune && r.Owner == p.options.Owner && !wanted[k] {
			gone[k] = true
		}
	}
	keys := slices.SortedFunc(maps.Keys(gone), func(a, b Key) int { return compareKeys(b, a) })
	for _, k := range keys {
		if wanted[k] {
			problems = append(problems, Problem{Message: fmt.Sprintf("%s is to be applied and to be removed", k)})
		}
		p.Changes = append(p.Changes, Change{Op: Remove, Key: k, From: p.base.shown(p.base.Resources[k])})
	}
	return append(problems, p.stillUsed(gone)...)
}

// stillUsed refuses to remove a destination that a webhook uses afterwards.
func (p *Plan) stillUsed(gone map[Key]bool) Problems {
	after := maps.Clone(p.base.Resources)
	for _, d := range p.set.Definitions {
		after[d.Key] = &Resource{Kind: d.Kind, Name: d.Name, Spec: d.Spec}
	}
	var problems Problems
	for _, r := range sortedResources(after) {
		if r.Kind != KindWebhook || gone[r.Key()] {
			continue
		}
		v, err := decodeSpec(r.Key(), r.Spec)
		if err != nil {
			continue
		}
		if k := (Key{KindDestination, v.(*Webhook).Destination}); gone[k] {
			problems = append(problems, Problem{Message: fmt.Sprintf("%s can't be removed: %s uses it", k, r.Key())})
		}
	}
	return problems
}

// Print writes the plan for people.
func (p *Plan) Print(w io.Writer) error {
	count := map[Op]int{}
	for _, c := range p.Changes {
		count[c.Op]++
		if _, err := fmt.Fprintf(w, "%s %s %s\n", c.Op, c.Key.Kind, c.Key.Name); err != nil {
			return err
		}
		for _, f := range c.Fields {
			if _, err := fmt.Fprintf(w, "    %s\n", f); err != nil {
				return err
			}
		}
	}
	_, err := fmt.Fprintf(w, "%d to add, %d to change, %d to remove, %d unchanged\n", count[Add], count[Modify], count[Remove], p.Unchanged)
	return err
}
