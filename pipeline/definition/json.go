package definition

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"sort"
	"strings"
	"unicode/utf8"

	"github.com/millrace-io/millrace/pipeline/scalar"
)

// jsonDocuments reads one definition, several in a row, or a list of them.
func (t *text) jsonDocuments() []*node {
	r := &jsonReader{text: t, data: []byte(strings.Join(t.lines, "\n"))}
	r.dec = json.NewDecoder(bytes.NewReader(r.data))
	r.dec.UseNumber()
	for i, b := range r.data {
		if b == '\n' {
			r.ends = append(r.ends, i)
		}
	}
	var docs []*node
	for {
		doc, err := r.value(0)
		if errors.Is(err, io.EOF) && doc == nil {
			return docs
		}
		if err != nil {
			t.report(r.failedAt(err), "this is not JSON: %s", plainError(err))
			return docs
		}
		if doc.kind == listNode {
			docs = append(docs, doc.items...)
		} else {
			docs = append(docs, doc)
		}
	}
}

// jsonReader makes nodes of JSON, token by token, so that each has its place.
type jsonReader struct {
	text *text
	data []byte
	dec  *json.Decoder
	ends []int // offsets of the line ends
}

var errTooDeep = errors.New("there are too many lists and maps inside each other")

// value reads the next value; nil and io.EOF at the end.
func (r *jsonReader) value(depth int) (*node, error) {
	n := &node{at: r.next(), style: quotedStyle}
	token, err := r.dec.Token()
	if err != nil {
		return nil, err
	}
	if depth > maxDepth {
		return n, errTooDeep
	}
	switch v := token.(type) {
	case json.Delim:
		n.style = blockStyle
		if v == '[' {
			return n, r.list(n, depth)
		}
		return n, r.object(n, depth)
	case string:
		n.kind, n.text = textNode, v
	case json.Number:
		n.kind, n.text = scalar.Plain(v.String())
	case bool:
		n.kind, n.text = boolNode, map[bool]string{true: "true", false: "false"}[v]
	default:
		n.kind = nullNode
	}
	n.raw = n.text
	return n, nil
}

func (r *jsonReader) list(n *node, depth int) error {
	n.kind = listNode
	for r.dec.More() {
		item, err := r.value(depth + 1)
		if err != nil {
			return unexpectedEnd(err)
		}
		n.items = append(n.items, item)
	}
	_, err := r.dec.Token()
	return unexpectedEnd(err)
}

func (r *jsonReader) object(n *node, depth int) error {
	n.kind = mapNode
	seen := map[string]bool{}
	for r.dec.More() {
		key, err := r.value(depth + 1)
		if err != nil {
			return unexpectedEnd(err)
		}
		value, err := r.value(depth + 1)
		if err != nil {
			return unexpectedEnd(err)
		}
		if seen[key.text] {
			r.text.report(key.at, "found this key again, expected it once")
			continue
		}
		seen[key.text] = true
		n.pairs = append(n.pairs, pair{key, value})
	}
	_, err := r.dec.Token()
	return unexpectedEnd(err)
}

func unexpectedEnd(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// next is where the next value starts.
func (r *jsonReader) next() place {
	i := int(r.dec.InputOffset())
	for i < len(r.data) && strings.IndexByte(" \t\n\r,:", r.data[i]) >= 0 {
		i++
	}
	return r.placeOf(i)
}

func (r *jsonReader) placeOf(offset int) place {
	offset = min(max(offset, 0), len(r.data))
	line := sort.SearchInts(r.ends, offset)
	start := 0
	if line > 0 {
		start = r.ends[line-1] + 1
	}
	return place{line + 1, utf8.RuneCount(r.data[start:offset]) + 1}
}

func (r *jsonReader) failedAt(err error) place {
	if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
		return r.placeOf(int(syntax.Offset) - 1)
	}
	return r.placeOf(int(r.dec.InputOffset()))
}

func plainError(err error) string {
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return "it ends too early"
	}
	return err.Error()
}
