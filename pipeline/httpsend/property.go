package httpsend

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/millrace-io/millrace/pipeline/secret"
)

// InProperty puts a key into the body, beside what the mapping made, or with GET
// into the query. It is done when the call is made, so that the key is in no
// topic. What the mapping has under that name gives way.
type InProperty struct {
	// Name is that of a property, as in a mapping: one that begins with / is a JSON
	// Pointer. What is missing on its way is made, as long as arrays get no gaps.
	Name  string
	Value secret.Reference
}

func (i InProperty) check() error {
	if i.Name == "" || !utf8.ValidString(i.Name) {
		return errors.New("the property that auth sets has no name, or one that is not valid UTF-8")
	}
	return nil
}

func (InProperty) header() string { return "" }

func (i InProperty) references() []secret.Reference { return []secret.Reference{i.Value} }

func (i InProperty) apply(found []string, b *builder) {
	b.secrets = append(b.secrets, secret.New(found[0]))
	if !utf8.ValidString(found[0]) {
		b.errs = append(b.errs, fmt.Errorf("property %q: its secret is not valid UTF-8", i.Name))
		return
	}
	b.property = newProperty(i.Name, found[0])
}

func (InProperty) show() string { return "" } // it stands in the body: see shown

// property is a property to put into each call.
type property struct {
	name  string
	path  []string
	value []byte // as JSON
	pair  []byte // as a part of a query
}

func newProperty(name, value string) *property {
	return &property{
		name: name, path: PropertyPath(name), value: asJSON(value),
		pair: []byte(url.QueryEscape(name) + "=" + url.QueryEscape(value)),
	}
}

// PropertyPath takes the name of a property, as a mapping has it, apart: one that
// begins with / is a JSON Pointer (RFC 6901), any other is one name.
func PropertyPath(name string) []string {
	if !strings.HasPrefix(name, "/") {
		return []string{name}
	}
	path := strings.Split(name[1:], "/")
	for i, part := range path {
		path[i] = strings.NewReplacer("~1", "/", "~0", "~").Replace(part)
	}
	return path
}

func asJSON(s string) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	_ = e.Encode(s) // a string can't fail
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}

// inQuery returns the query with the property.
func (p *property) inQuery(query []byte) []byte {
	var out []byte
	for pair := range bytes.SplitSeq(query, []byte("&")) {
		key, _, _ := bytes.Cut(pair, []byte("="))
		if name, err := url.QueryUnescape(string(key)); len(pair) == 0 || err == nil && name == p.name {
			continue
		}
		out = append(append(out, pair...), '&')
	}
	return append(out, p.pair...)
}

// inBody returns the body with the property. It goes over the bytes, and takes
// them for valid JSON: of what is not, it makes nothing worse.
func (p *property) inBody(body []byte) ([]byte, error) {
	hole, err := locate(body, p.path)
	if err != nil {
		return nil, fmt.Errorf("property %q, which auth sets: %w", p.name, err)
	}
	out := make([]byte, 0, len(body)+len(p.value)+len(p.name)+8)
	out = append(out, body[:hole.start]...)
	if hole.comma {
		out = append(out, ',')
	}
	if hole.isNew && !hole.element {
		out = append(append(out, asJSON(hole.key)...), ':')
	}
	if out, err = appendNested(out, hole.missing, p.value); err != nil {
		return nil, fmt.Errorf("property %q, which auth sets: %w", p.name, err)
	}
	return append(out, body[hole.end:]...), nil
}

// hole is where a value goes: in the place of what stands between start and end.
type hole struct {
	start, end int
	isNew      bool     // nothing stands there yet
	comma      bool     // something stands before it
	key        string   // of a new member of an object
	element    bool     // a new element of an array, which has no key
	missing    []string // what has to be made around it
}

// appendNested appends a value with what has to be made around it: objects, or
// arrays where a part is the index of their first element.
func appendNested(dst []byte, parts []string, value []byte) ([]byte, error) {
	var closing []byte
	for i := range parts {
		switch index, ok := indexOf(parts[i]); {
		case !ok:
			dst = append(append(append(dst, '{'), asJSON(parts[i])...), ':')
			closing = append(closing, '}')
		case index == 0:
			dst = append(dst, '[')
			closing = append(closing, ']')
		default:
			return nil, fmt.Errorf("the body has no element before %d there", index)
		}
	}
	dst = append(dst, value...)
	for i := len(closing) - 1; i >= 0; i-- {
		dst = append(dst, closing[i])
	}
	return dst, nil
}

// indexOf reads a part of a pointer as an index: digits without leading zeros.
func indexOf(part string) (int, bool) {
	n, err := strconv.Atoi(part)
	return n, err == nil && strconv.Itoa(n) == part && n >= 0
}

var errBody = errors.New("the body is no JSON")

// locate finds where the value at a path goes.
func locate(body []byte, path []string) (hole, error) {
	at := skipSpace(body, 0)
	for i, part := range path {
		if at >= len(body) {
			return hole{}, errBody
		}
		var found hole
		var err error
		switch index, ok := indexOf(part); {
		case body[at] == '{':
			found, err = member(body, at+1, part)
		case body[at] == '[' && ok:
			found, err = element(body, at+1, index)
		default:
			err = fmt.Errorf("the body has something else where %q would have to be in", part)
		}
		if err != nil {
			return hole{}, err
		}
		if last := i == len(path)-1; last || found.isNew {
			found.missing = path[i+1:]
			return found, nil
		}
		at = found.start
	}
	return hole{}, errBody
}

// member finds the member of an object by its key, the last one of several, or
// the place for a new one; at is behind the {.
func member(body []byte, at int, key string) (hole, error) {
	if at = skipSpace(body, at); next(body, at, '}') {
		return hole{start: at, end: at, isNew: true, key: key}, nil
	}
	found := hole{isNew: true, key: key, comma: true}
	for {
		at = skipSpace(body, at)
		nameEnd := skipString(body, at)
		colon := skipSpace(body, nameEnd)
		if nameEnd == at || !next(body, colon, ':') {
			return hole{}, errBody
		}
		start := skipSpace(body, colon+1)
		end := skipValue(body, start)
		if isKey(body[at:nameEnd], key) {
			found = hole{start: start, end: end}
		}
		at = skipSpace(body, end)
		switch {
		case end > start && next(body, at, ','):
			at++
		case end > start && next(body, at, '}'):
			if found.isNew {
				found.start, found.end = at, at
			}
			return found, nil
		default:
			return hole{}, errBody
		}
	}
}

// element finds the element of an array, or the place after its last one; at is
// behind the [.
func element(body []byte, at, index int) (hole, error) {
	if at = skipSpace(body, at); next(body, at, ']') {
		return afterLast(at, 0, index)
	}
	for n := 0; ; n++ {
		start := skipSpace(body, at)
		end := skipValue(body, start)
		if n == index && end > start {
			return hole{start: start, end: end}, nil
		}
		at = skipSpace(body, end)
		switch {
		case end > start && next(body, at, ','):
			at++
		case end > start && next(body, at, ']'):
			return afterLast(at, n+1, index)
		default:
			return hole{}, errBody
		}
	}
}

// next says whether the character at a place is the one expected.
func next(body []byte, at int, c byte) bool { return at < len(body) && body[at] == c }

func afterLast(at, count, index int) (hole, error) {
	if index > count {
		return hole{}, fmt.Errorf("the body has %d elements there, which leaves a gap before %d", count, index)
	}
	return hole{start: at, end: at, isNew: true, element: true, comma: count > 0}, nil
}

// isKey compares a key as it is written in JSON.
func isKey(raw []byte, key string) bool {
	if bytes.IndexByte(raw, '\\') < 0 {
		return string(raw[1:len(raw)-1]) == key
	}
	var text string
	return json.Unmarshal(raw, &text) == nil && text == key
}

func skipSpace(body []byte, at int) int {
	for at < len(body) && (body[at] == ' ' || body[at] == '\n' || body[at] == '\t' || body[at] == '\r') {
		at++
	}
	return at
}

// skipString returns the end of a string; at where there is none.
func skipString(body []byte, at int) int {
	if at >= len(body) || body[at] != '"' {
		return at
	}
	for i := at + 1; i < len(body); i++ {
		switch body[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return at
}

// skipValue returns the end of a value; at where there is none.
func skipValue(body []byte, at int) int {
	depth := 0
	for i := at; i < len(body); i++ {
		switch body[i] {
		case '"':
			end := skipString(body, i)
			if end == i {
				return at
			}
			i = end - 1
		case '{', '[':
			depth++
			continue
		case '}', ']':
			if depth == 0 {
				return i
			}
			depth--
		case ',', ' ', '\n', '\t', '\r':
			if depth == 0 {
				return i
			}
			continue
		default:
			continue
		}
		if depth == 0 { // behind a string, an object or an array
			return i + 1
		}
	}
	return at
}
