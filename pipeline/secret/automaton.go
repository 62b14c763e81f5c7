package secret

// automaton finds many texts at once, and looks at each byte that is searched
// about once, however alike the texts are (Aho and Corasick, 1975). That matters,
// since a destination that knows a secret may answer with what is slow to search.
type automaton struct {
	nodes []node     // each is the beginning of a text; 0 is the empty one
	first [256]int32 // the nodes of one byte, by all that are alike
}

type node struct {
	child, sibling int32 // the first with one more byte; the next with another last byte; 0: none
	fail           int32 // the longest other end of it that is a node too
	match          int32 // how long the longest text is with which it ends; 0: none
	begun          int32 // how long the longest end of it is that a text begins with, and goes on
	last           byte
}

// alike are bytes that are one and the same when secrets are looked for: a space
// is + in a form, and once its backslash is gone, a line break is an n.
var alike = func() (to [256]byte) {
	for c := range to {
		to[c] = byte(c)
	}
	for i, c := range []byte("\n\t\r\b\f\a\v+") {
		to[c] = "ntrbfav "[i]
	}
	return to
}()

func newAutomaton() *automaton { return &automaton{nodes: make([]node, 1)} }

// add adds a text, or where it is no text, but may be its beginning, that alone.
func (a *automaton) add(text string, whole bool) {
	at := int32(0)
	for _, c := range []byte(text) {
		c = alike[c]
		next := a.next(at, c)
		if next == 0 {
			next = int32(len(a.nodes))
			a.nodes = append(a.nodes, node{last: c, sibling: a.nodes[at].child})
			a.nodes[at].child = next
		}
		at = next
	}
	if whole {
		a.nodes[at].match = int32(len(text))
	}
}

// finish is to be called once all texts are added. A node is finished after those
// of fewer bytes.
func (a *automaton) finish() {
	for c := range a.first {
		a.first[c] = a.next(0, alike[c])
	}
	level := []int32{0}
	for depth := int32(0); len(level) > 0; depth++ {
		var below []int32
		for _, at := range level {
			n := &a.nodes[at]
			end := &a.nodes[n.fail]
			if n.match == 0 {
				n.match = end.match
			}
			if n.begun = depth; n.child == 0 {
				n.begun = end.begun
			}
			for c := n.child; c != 0; c = a.nodes[c].sibling {
				if at != 0 {
					a.nodes[c].fail = a.step(n.fail, a.nodes[c].last)
				}
				below = append(below, c)
			}
		}
		level = below
	}
}

// next is the node with one more byte; 0: there is none.
func (a *automaton) next(at int32, c byte) int32 {
	n := a.nodes[at].child
	for n != 0 && a.nodes[n].last != c {
		n = a.nodes[n].sibling
	}
	return n
}

// step is the longest node with which what was read ends, after one more byte.
func (a *automaton) step(at int32, c byte) int32 {
	for c := alike[c]; at != 0; at = a.nodes[at].fail {
		if next := a.next(at, c); next != 0 {
			return next
		}
	}
	return a.first[c]
}
