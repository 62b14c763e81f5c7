package definition

import (
	"fmt"
	"maps"
	"slices"
)

// Check compiles the set on top of what is in force and returns what would be in
// force then, and all problems: those of Parse, those of meaning, and the
// definitions outside the set that would stop working. The snapshot is of use
// only if Problems.Err is nil.
func (s *Set) Check(base *Snapshot) (*Snapshot, Problems) {
	changes := map[Key]change{}
	for _, d := range s.Definitions {
		if d.Spec != nil {
			changes[d.Key] = change{resource: &Resource{Kind: d.Kind, Name: d.Name, Spec: d.Spec}}
		}
	}
	after := base.copy()
	found := after.apply(changes)
	problems := slices.Clone(s.Problems)
	mine := map[Key]*Definition{}
	for _, d := range s.Definitions {
		mine[d.Key] = d
		problems = append(problems, d.problems(s.known(found[d.Key]))...)
	}
	for _, k := range slices.SortedFunc(maps.Keys(after.Broken), compareKeys) {
		if mine[k] == nil && base.Broken[k] == nil && s.known(found[k]).err() != nil {
			problems = append(problems, s.brokenBy(k, after, s.known(found[k])))
		}
	}
	return after, problems.sorted()
}

// known leaves out that something is missing that the set has, but with problems
// of its own: those are told already.
func (s *Set) known(is issues) issues {
	return slices.DeleteFunc(slices.Clone(is), func(i issue) bool {
		return slices.ContainsFunc(s.Definitions, func(d *Definition) bool { return d.Key == i.lacks })
	})
}

// problems gives issues their places in the file.
func (d *Definition) problems(is issues) Problems {
	t := &text{name: d.source.name, lines: d.source.lines}
	for _, i := range is {
		n := d.node.find(i.path)
		where := n.at
		if i.line > 0 && n.kind == textNode {
			where = d.source.inside(n, i.line, i.column)
		}
		p := t.report(where, "%s", i.message)
		p.Warning = i.warning
		if n.style == plainStyle && !i.warning && i.line > 0 && isTorn(n.text) {
			p.Corrected = t.corrected(n.at.line)
		}
	}
	return t.problems
}

// brokenBy reports a definition that is in force and would not work any more, at
// the definition of the set that it depends on.
func (s *Set) brokenBy(k Key, after *Snapshot, is issues) Problem {
	p := Problem{Message: fmt.Sprintf("%s is in force and would not work any more: %v", k, is.err())}
	depends := map[Key]bool{}
	if r := after.Resources[k]; r != nil {
		if v, err := decodeSpec(k, r.Spec); err == nil {
			if w, ok := v.(*Webhook); ok {
				depends[Key{KindDestination, w.Destination}] = true
				for _, t := range w.Event {
					depends[Key{KindEventType, t}] = true
				}
			}
		}
	}
	for _, d := range s.Definitions {
		if depends[d.Key] {
			p.File, p.Line, p.Column = d.source.name, d.node.at.line, d.node.at.column
			break
		}
	}
	return p
}
