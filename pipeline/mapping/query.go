package mapping

import (
	"fmt"
	"net/url"
	"strings"

	"github.com/millrace-io/millrace/pipeline"
	"github.com/millrace-io/millrace/pipeline/expression"
)

// Flat says whether the mapping can be sent with GET, as a query string: if
// not, the error names the first entry that is nested.
func (m *Mapping) Flat() error { return m.nested }

// AppendQuery appends the properties as a query string, a=b&c=d, in their
// order, without a question mark. When it fails dst comes back as it was, with
// a Permanent error as AppendJSON's; it is also MappingFailed where a value
// turns out to be a list or an object.
func (m *Mapping) AppendQuery(dst []byte, in *expression.Input) ([]byte, error) {
	if m.nested != nil {
		return dst, pipeline.Permanent(pipeline.MappingFailed, m.nested)
	}
	if m.root == nil {
		return appendAllPairs(dst, in)
	}
	out := dst
	for _, n := range m.root.children {
		var err error
		if out, err = n.source.appendPair(out, len(out) == len(dst), in); err != nil {
			return dst, err
		}
	}
	return out, nil
}

func appendAllPairs(dst []byte, in *expression.Input) ([]byte, error) {
	out := dst
	for name, value := range all(in.Event) {
		if value == nil {
			continue
		}
		value, err := text(value)
		if err != nil {
			return dst, failed(fmt.Errorf("property %q: %w", name, err))
		}
		out = appendQueryEscaped(separate(out, len(out) == len(dst)), name)
		out = appendQueryEscaped(append(out, '='), value)
	}
	return out, nil
}

func separate(dst []byte, first bool) []byte {
	if first {
		return dst
	}
	return append(dst, '&')
}

func appendQueryEscaped(dst []byte, s string) []byte {
	return append(dst, url.QueryEscape(strings.ToValidUTF8(s, "\uFFFD"))...)
}

// text returns what a value, not nil, is as text: strings as they are, the
// others as in JSON. A list or an object has none.
func text(v any) (string, error) {
	switch v := v.(type) {
	case string:
		return v, nil
	case []any, map[string]any:
		return "", errNested
	}
	var room [32]byte
	out, err := appendValue(room[:0], v)
	return string(out), err
}
