package definition

import (
	"strconv"
	"unicode/utf8"

	"github.com/millrace-io/millrace/pipeline/scalar"
)

// node is a value as it stands in a file: YAML and JSON both become this, so
// that everything after the syntax is checked once.
type node struct {
	kind  kindOfNode
	text  string // of a scalar; a number's is in JSON's form
	raw   string // a plain scalar as it was written
	style style
	pairs []pair
	items []*node
	at    place
	// guarded says that it may be a secret or hold one, which is not quoted.
	guarded bool
}

type pair struct{ key, value *node }

// place is a line and a column, both from 1; columns count characters.
type place struct{ line, column int }

// kindOfNode is that of a scalar, or listNode or mapNode.
type kindOfNode = scalar.Kind

const (
	nullNode    = scalar.Null
	boolNode    = scalar.Boolean
	integerNode = scalar.Integer
	numberNode  = scalar.Number
	textNode    = scalar.Text

	listNode kindOfNode = "list"
	mapNode  kindOfNode = "map"
)

// style is how a value is written, as far as positions and corrections need it.
type style int

const (
	blockStyle   style = iota // a list or map by indentation
	flowStyle                 // a list or map in brackets
	plainStyle                // a scalar without quotes
	quotedStyle               // a scalar in either quotes
	literalStyle              // a scalar after |
	foldedStyle               // a scalar after >
)

// get returns the value of a key of a map, or nil.
func (n *node) get(key string) *node {
	if n == nil {
		return nil
	}
	for _, p := range n.pairs {
		if p.key.text == key {
			return p.value
		}
	}
	return nil
}

// find follows keys and indexes as far as they lead.
func (n *node) find(path []string) *node {
	for _, step := range path {
		next := n.get(step)
		if i, err := strconv.Atoi(step); next == nil && err == nil && i >= 0 && i < len(n.items) {
			next = n.items[i]
		}
		if next == nil {
			return n
		}
		n = next
	}
	return n
}

// describe says what the node is, for "found …".
func (n *node) describe() string {
	switch n.kind {
	case nullNode:
		return "nothing"
	case listNode, mapNode:
		if len(n.items)+len(n.pairs) == 0 {
			return "an empty " + string(n.kind)
		}
		return article(n.kind)
	case textNode:
		if n.guarded {
			return "text"
		}
		return strconv.Quote(cut(n.text, 60))
	default:
		if n.guarded {
			return article(n.kind)
		}
		return "the " + string(n.kind) + " " + cut(n.raw, 60)
	}
}

// article is a kind with its article.
func article(k kindOfNode) string {
	if k == integerNode {
		return "an " + string(k)
	}
	return "a " + string(k)
}

func cut(s string, most int) string {
	if len(s) <= most {
		return s
	}
	for !utf8.RuneStart(s[most]) {
		most--
	}
	return s[:most] + "…"
}

// appendJSON writes the value as JSON, keys in the order they stand in.
func (n *node) appendJSON(b []byte) []byte {
	switch n.kind {
	case nullNode:
		return append(b, "null"...)
	case textNode:
		return appendText(b, n.text)
	case listNode:
		b = append(b, '[')
		for i, item := range n.items {
			if i > 0 {
				b = append(b, ',')
			}
			b = item.appendJSON(b)
		}
		return append(b, ']')
	case mapNode:
		b = append(b, '{')
		for i, p := range n.pairs {
			if i > 0 {
				b = append(b, ',')
			}
			b = append(appendText(b, p.key.text), ':')
			b = p.value.appendJSON(b)
		}
		return append(b, '}')
	default:
		return append(b, n.text...)
	}
}

func appendText(b []byte, s string) []byte {
	quoted, err := marshal(s)
	if err != nil { // text always has a form
		panic(err)
	}
	return append(b, quoted...)
}
