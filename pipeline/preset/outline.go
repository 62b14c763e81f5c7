package preset

import (
	"slices"
	"strconv"
)

// Outline is what is known of a body, or of a part of it, before there is an
// event: a property mapping, as a contract sees it.
type Outline struct {
	Entry   int        // of the mapping, which the violation is reported at
	Object  bool       // it has Members
	Array   bool       // it has Members, whose names do not count
	Fixed   []byte     // the value itself, as JSON
	Type    string     // otherwise the value's type, as JSON calls it; empty: unknown
	Members []*Outline // in their order
	Name    string     // of a member of an object
	// Open means that it may have members which are not known.
	Open bool
}

// CheckOutline returns where no body of that outline can keep the rule: what is
// missing, fixed values that break it, wrong names and types.
func (r *Rule) CheckOutline(o *Outline) []*Violation {
	out := r.outline(o)
	for _, v := range out {
		if v.Entry < 0 {
			v.Entry = o.Entry
		}
	}
	return out
}

func (r *Rule) outline(o *Outline) []*Violation {
	switch {
	case r == nil:
		return nil
	case o.Fixed != nil:
		w := walker{body: o.Fixed}
		return one(w.value(r))
	case o.Object:
		if v := r.takes(object); v != nil {
			return one(v)
		}
		return r.outlineOfObject(o)
	case o.Array:
		if v := r.takes(array); v != nil {
			return one(v)
		}
		return r.outlineOfArray(o)
	case o.Type == number && slices.Contains(r.Type, integer):
		return nil // it may be one
	case o.Type != "":
		return one(r.takes(o.Type))
	}
	return nil
}

func one(v *Violation) []*Violation {
	if v == nil {
		return nil
	}
	return []*Violation{v}
}

func (r *Rule) outlineOfObject(o *Outline) []*Violation {
	var out []*Violation
	var s seen
	for _, m := range o.Members {
		found := one(r.name([]byte(m.Name)))
		rule := r.member([]byte(m.Name), string(m.Fixed) == null, &s)
		for _, v := range rule.CheckOutline(m) {
			found = append(found, v.within(m.Name))
		}
		for _, v := range found {
			v.Entry = m.entryOf(v)
		}
		out = append(out, found...)
	}
	if !o.Open {
		out = append(out, r.outlineMissing(o, s)...)
	}
	if count(len(o.Members)) < r.MinCount && !o.Open { // too many is not certain: an event may lack some
		out = append(out, r.count(len(o.Members), "properties"))
	}
	return out
}

// outlineMissing reports at its own entry what ought not to be there.
func (r *Rule) outlineMissing(o *Outline, s seen) []*Violation {
	out := r.missing(s)
	for _, v := range out {
		for _, m := range o.Members {
			if m.Name == v.path[0] {
				v.Entry = m.Entry
			}
		}
	}
	return out
}

func (r *Rule) outlineOfArray(o *Outline) []*Violation {
	var out []*Violation
	for i, m := range o.Members {
		for _, v := range r.Items.CheckOutline(m) {
			out = append(out, v.within(strconv.Itoa(i)))
		}
	}
	return append(out, one(r.count(len(o.Members), "elements"))...)
}

// entryOf is the entry that a violation below o is reported at.
func (o *Outline) entryOf(v *Violation) int {
	if v.Entry < 0 {
		return o.Entry
	}
	return v.Entry
}
