package event

import (
	"bytes"
	"encoding/json"
)

// searchType finds the type in an event's JSON: the member "type" of the object
// or, where that is missing, null or empty, of the object that holds the
// properties. It stops as soon as it knows. On anything but valid JSON its answer
// means nothing, since Decode looks properly.
func searchType(value []byte, properties string) string {
	s := search{b: value}
	inner := -1
	for s.member() {
		switch {
		case s.named("type"):
			if t := s.text(); t != "" {
				return t
			}
		case s.named(properties):
			inner = s.at
		}
		s.skip()
	}
	if inner < 0 || inner >= len(value) || value[inner] != '{' {
		return ""
	}
	s = search{b: value, at: inner}
	found := ""
	for s.member() {
		if s.named("type") {
			found = s.text() // the last one wins
		}
		s.skip()
	}
	return found
}

// search walks over the members of an object. It takes the JSON for valid and
// only makes sure that it ends.
type search struct {
	b    []byte
	at   int
	name []byte // of the member whose value it stands at, in quotes
}

// member moves to the value of the next member; false at the end.
func (s *search) member() bool {
	s.space()
	if s.at >= len(s.b) || s.b[s.at] != '{' && s.b[s.at] != ',' {
		return false
	}
	s.at++
	s.space()
	if s.at >= len(s.b) || s.b[s.at] != '"' {
		return false
	}
	s.name = s.quoted()
	s.space()
	if s.at >= len(s.b) || s.b[s.at] != ':' {
		return false
	}
	s.at++
	s.space()
	return s.at < len(s.b)
}

// named reports whether the member has that name.
func (s *search) named(name string) bool {
	if len(s.name) == len(name)+2 && string(s.name[1:len(s.name)-1]) == name {
		return true
	}
	return bytes.IndexByte(s.name, '\\') >= 0 && unquote(s.name) == name
}

// text returns the value as text, empty if it is none. It does not move.
func (s *search) text() string {
	if s.b[s.at] != '"' {
		return ""
	}
	at := s.at
	raw := s.quoted()
	s.at = at
	return unquote(raw)
}

func unquote(raw []byte) string {
	if len(raw) >= 2 && bytes.IndexByte(raw, '\\') < 0 {
		return string(raw[1 : len(raw)-1])
	}
	var text string
	if json.Unmarshal(raw, &text) != nil {
		return ""
	}
	return text
}

// skip moves behind the value.
func (s *search) skip() {
	switch s.b[s.at] {
	case '"':
		s.quoted()
	case '{', '[':
		s.nested()
	default:
		for s.at < len(s.b) && s.b[s.at] != ',' && s.b[s.at] != '}' {
			s.at++
		}
	}
}

// nested moves behind an object or array.
func (s *search) nested() {
	b, i, depth := s.b, s.at, 0
	for i < len(b) {
		switch b[i] {
		case '"':
			i = stringEnd(b, i)
			continue
		case '{', '[':
			depth++
		case '}', ']':
			depth--
		}
		i++
		if depth == 0 {
			break
		}
	}
	s.at = i
}

// quoted moves behind a string and returns it with its quotes.
func (s *search) quoted() []byte {
	start := s.at
	s.at = stringEnd(s.b, start)
	return s.b[start:s.at]
}

// stringEnd returns the index behind the string that starts at i.
func stringEnd(b []byte, i int) int {
	for {
		n := bytes.IndexByte(b[i+1:], '"')
		if n < 0 {
			return len(b)
		}
		i += n + 1
		if b[i-1] != '\\' || !escapes(b[:i]) {
			return i + 1
		}
	}
}

// escapes reports whether the backslashes that b ends with escape what follows.
func escapes(b []byte) bool {
	n := len(b)
	for n > 0 && b[n-1] == '\\' {
		n--
	}
	return (len(b)-n)%2 == 1
}

func (s *search) space() {
	for s.at < len(s.b) && (s.b[s.at] == ' ' || s.b[s.at] == '\n' || s.b[s.at] == '\r' || s.b[s.at] == '\t') {
		s.at++
	}
}
