package mapping

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"

	"github.com/millrace-io/millrace/pipeline/expression"
)

// node is one place of the JSON tree: an object, an array or, with a source, a
// value.
type node struct {
	entry    int    // which entry of the mapping mentioned it first
	key      string // of a member of an object
	index    int    // of an element of an array
	quoted   []byte // "key": of a member
	array    bool   // whether the children are elements
	children []*node
	source   *source
}

// insert puts a value where the path leads and makes what is missing on the
// way. Arrays come about where the first step into them is an index.
func (n *node) insert(path []step, entry int, s *source) error {
	for _, st := range path {
		if n.source != nil {
			return fmt.Errorf("properties[%d] makes a value of %q, which can't have %q in it", n.source.entry, n.key, st.key)
		}
		if len(n.children) > 0 && n.array != (st.index != isKey) {
			return fmt.Errorf("%q would make an array and an object of the same place; properties[%d] has made it %s", st.key, n.children[0].entry, n.kind())
		}
		n = n.child(st, entry)
	}
	switch {
	case n.source != nil:
		return fmt.Errorf("the name is taken: properties[%d] has it too", n.source.entry)
	case len(n.children) > 0:
		return fmt.Errorf("the name is taken: properties[%d] makes %s of it", n.children[0].entry, n.kind())
	}
	n.source = s
	return nil
}

func (n *node) kind() string {
	if n.array {
		return "an array"
	}
	return "an object"
}

// child finds or makes the child that a step leads to.
func (n *node) child(st step, entry int) *node {
	n.array = st.index != isKey
	if st.index == isAppend {
		st.index = 0
		for _, c := range n.children {
			st.index = max(st.index, c.index+1)
		}
	}
	for _, c := range n.children {
		if n.array && c.index == st.index || !n.array && c.key == st.key {
			return c
		}
	}
	c := &node{entry: entry, key: st.key, index: st.index}
	if n.array {
		c.key = strconv.Itoa(st.index)
	} else {
		c.quoted = append(appendString(nil, st.key), ':')
	}
	n.children = append(n.children, c)
	return c
}

// finish puts the elements of arrays in order and reports, by the entry that
// comes after it, each gap between them.
func (n *node) finish(report func(entry int, err error)) {
	if n.array {
		slices.SortFunc(n.children, func(a, b *node) int { return cmp.Compare(a.index, b.index) })
	}
	for i, c := range n.children {
		if n.array && c.index > i && (i == 0 || n.children[i-1].index == i-1) {
			report(c.entry, fmt.Errorf("the element %d is missing before %d: the indexes of an array are 0, 1, 2, … without a gap (an object whose keys are numbers needs one entry with value or expr)", i, c.index))
		}
		c.finish(report)
	}
}

// append writes the node as JSON and says whether there was something to write:
// a value may be missing, an object and an array never are.
func (n *node) append(dst []byte, in *expression.Input) ([]byte, bool, error) {
	switch {
	case n.source != nil:
		return n.source.append(dst, in)
	case n.array:
		return n.appendElements(dst, in)
	}
	return n.appendMembers(dst, in)
}

func (n *node) appendMembers(dst []byte, in *expression.Input) ([]byte, bool, error) {
	dst = append(dst, '{')
	first := true
	for _, c := range n.children {
		mark := len(dst)
		if !first {
			dst = append(dst, ',')
		}
		dst = append(dst, c.quoted...)
		out, present, err := c.append(dst, in)
		if err != nil {
			return out, false, err
		}
		if dst = out; !present {
			dst = dst[:mark]
			continue
		}
		first = false
	}
	return append(dst, '}'), true, nil
}

// appendElements writes null for what is missing, so that the others keep their
// places.
func (n *node) appendElements(dst []byte, in *expression.Input) ([]byte, bool, error) {
	dst = append(dst, '[')
	for i, c := range n.children {
		if i > 0 {
			dst = append(dst, ',')
		}
		out, present, err := c.append(dst, in)
		if err != nil {
			return out, false, err
		}
		if dst = out; !present {
			dst = append(dst, "null"...)
		}
	}
	return append(dst, ']'), true, nil
}
