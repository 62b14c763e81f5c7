package definition

import (
	"fmt"
	"maps"
	"slices"
	"time"
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
	mine := map[Key]bool{}
	reported := map[Problem]bool{}
	for _, d := range s.Definitions {
		mine[d.Key] = true
	}
	for _, p := range s.Problems {
		reported[p.spot()] = true
	}
	for _, d := range s.Definitions {
		if d.rest != nil {
			found[d.Key] = d.checkRest(after)
		}
		for _, p := range d.problems(slices.Concat(without(found[d.Key], mine), d.checkCertificates(time.Now()), d.checkSealed(after))) {
			if !reported[p.spot()] { // else its meaning is wrong since its form is
				problems = append(problems, p)
			}
		}
	}
	for _, k := range slices.SortedFunc(maps.Keys(after.Broken), compareKeys) {
		if is := without(found[k], mine); !mine[k] && base.Broken[k] == nil && is.err() != nil {
			problems = append(problems, s.brokenBy(k, after, is))
		}
	}
	return after, problems.sorted()
}

// spot is the place of a problem, without what it says.
func (p Problem) spot() Problem { return Problem{File: p.File, Line: p.Line, Column: p.Column} }

// checkRest finds what is wrong in the part of a definition that can be read. A
// webhook without event types or destination is not asked about them.
func (d *Definition) checkRest(after *Snapshot) issues {
	v, err := decodeSpec(d.Key, d.rest)
	if err != nil {
		return nil
	}
	var is issues
	switch v := v.(type) {
	case *Destination:
		_, is = compileDestination(v, after.presets)
	case *EventType:
		_, is = compileEventType(v)
	case *Webhook:
		if len(v.Event) == 0 {
			return nil
		}
		_, is = compileWebhook(v, after.Catalog, after.Destinations)
	}
	return slices.DeleteFunc(is, func(i issue) bool { return d.node.find(i.path) == d.node })
}

// without leaves out that something is missing that the set has, but with
// problems of its own: those are told already.
func without(is issues, mine map[Key]bool) issues {
	return slices.DeleteFunc(slices.Clone(is), func(i issue) bool { return mine[i.lacks] })
}

// problems gives issues their places in the file.
func (d *Definition) problems(is issues) Problems {
	var out Problems
	for _, i := range is {
		n := d.node.find(i.path)
		where := n.at
		if i.line > 0 && n.kind == textNode {
			where = d.source.inside(n, i.line, i.column)
		}
		p := Problem{File: d.source.name, Line: where.line, Column: where.column, Message: i.message, Warning: i.warning, Lacks: i.lacks != Key{}}
		if n.style == plainStyle && !i.warning && i.line > 0 && isTorn(n.text) {
			p.Corrected = d.source.corrected(n.at.line, i.message)
		}
		out = append(out, p)
	}
	return out
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
