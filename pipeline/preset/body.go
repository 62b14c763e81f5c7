package preset

import (
	"encoding/json"
	"strconv"
)

// Check says where a body breaks the rule: a *Violation for the first place, or
// nil. Where a body breaks several rules the same one is named every time. The
// body must be JSON, which a mapping's always is; it is not checked again.
func (r *Rule) Check(body []byte) error {
	w := walker{body: body}
	if v := w.value(r); v != nil {
		return v
	}
	return nil
}

// walker reads JSON from front to back, once, without making values of it. Other
// bytes lead nowhere, but neither beyond their end nor round in a circle.
type walker struct {
	body []byte
	at   int
}

// next skips what separates values and returns the byte that follows; 0 at the
// end.
func (w *walker) next() byte {
	for ; w.at < len(w.body); w.at++ {
		switch c := w.body[w.at]; c {
		case ' ', '\t', '\r', '\n', ',', ':':
		default:
			return c
		}
	}
	return 0
}

func notJSON() *Violation { return broken("found no JSON") }

// value checks the value that comes next; no rule skips it.
func (w *walker) value(r *Rule) *Violation {
	switch c := w.next(); c {
	case '{':
		return w.object(r)
	case '[':
		return w.array(r)
	case '"':
		s := w.text()
		if v := r.takes(text); v != nil {
			return v
		}
		return r.text(s)
	case 0, '}', ']':
		return notJSON()
	default:
		return r.takes(w.scalar(c))
	}
}

// scalar passes over a number, a boolean or null and returns its type.
func (w *walker) scalar(first byte) string {
	kind := integer
	switch first {
	case 't', 'f':
		kind = boolean
	case 'n':
		kind = null
	}
	for ; w.at < len(w.body); w.at++ {
		switch c := w.body[w.at]; c {
		case ',', '}', ']', ' ', '\t', '\r', '\n':
			return kind
		case '.', 'e', 'E':
			if kind == integer {
				kind = number
			}
		}
	}
	return kind
}

// text passes over a text and returns what it says.
func (w *walker) text() []byte {
	start, escaped := w.at, false
	for w.at++; w.at < len(w.body) && w.body[w.at] != '"'; w.at++ {
		if w.body[w.at] == '\\' {
			escaped = true
			w.at++
		}
	}
	if w.at >= len(w.body) {
		return nil
	}
	w.at++
	if !escaped {
		return w.body[start+1 : w.at-1]
	}
	var s string
	if json.Unmarshal(w.body[start:w.at], &s) != nil {
		return nil
	}
	return []byte(s)
}

func (w *walker) object(r *Rule) *Violation {
	if v := r.takes(object); v != nil {
		return v
	}
	w.at++
	n := 0
	var s seen
	for ; w.next() != '}'; n++ {
		if w.next() != '"' {
			return notJSON()
		}
		name := w.text()
		if v := r.name(name); v != nil {
			return v
		}
		if v := w.value(r.member(name, w.next() == 'n', &s)); v != nil {
			return v.within(string(name))
		}
	}
	w.at++
	for _, v := range r.missing(s) {
		return v
	}
	return r.count(n, "properties")
}

func (w *walker) array(r *Rule) *Violation {
	if v := r.takes(array); v != nil {
		return v
	}
	w.at++
	n := 0
	for ; w.next() != ']'; n++ {
		if v := w.value(r.items()); v != nil {
			return v.within(strconv.Itoa(n))
		}
	}
	w.at++
	return r.count(n, "elements")
}
