package event

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"
)

const (
	// maxDepth bounds nesting in what is skipped; properties are flat.
	maxDepth = 64
	// maxNumber is more than any number needs: a float64 has at most 309 digits
	// before the point.
	maxNumber = 400
)

// scanner reads JSON strictly by RFC 8259, in one pass and without copying.
//
// It is here, rather than a general parser, because events come from anyone and
// are passed on byte for byte: what is accepted must be JSON for every reader
// after us (no NaN, no control characters, no trailing bytes), an error must not
// cost more than the value, and an event must keep no pooled memory.
type scanner struct {
	text string // checked by checkText
	at   int
}

// checkText refuses what a scanner can't read: text must be UTF-8.
func checkText(text string) error {
	if int64(len(text)) > math.MaxInt32 {
		return fmt.Errorf("value of %d bytes is too large", len(text))
	}
	if !utf8.ValidString(text) {
		return fmt.Errorf("value is not UTF-8 from byte %d on", firstInvalid(text))
	}
	return nil
}

func firstInvalid(text string) int {
	for i, r := range text {
		if r == utf8.RuneError {
			if _, size := utf8.DecodeRuneInString(text[i:]); size == 1 {
				return i
			}
		}
	}
	return len(text)
}

// peek skips white space and returns the next byte, 0 at the end.
func (s *scanner) peek() byte {
	for s.at < len(s.text) {
		switch c := s.text[s.at]; c {
		case ' ', '\t', '\n', '\r':
			s.at++
		default:
			return c
		}
	}
	return 0
}

// expected is the error for anything but what is wanted at this place.
func (s *scanner) expected(what string) error {
	if s.at >= len(s.text) {
		return fmt.Errorf("byte %d: expected %s, found the end", s.at, what)
	}
	r, _ := utf8.DecodeRuneInString(s.text[s.at:])
	return fmt.Errorf("byte %d: expected %s, found %q", s.at, what, r)
}

// take skips white space and the byte c.
func (s *scanner) take(c byte, what string) error {
	if s.peek() != c {
		return s.expected(what)
	}
	s.at++
	return nil
}

// end fails unless nothing but white space is left.
func (s *scanner) end() error {
	s.peek()
	if s.at < len(s.text) {
		return s.expected("the end")
	}
	return nil
}

// object reads an object; member is called with each name and reads the value.
func (s *scanner) object(member func(name token) error) error {
	if err := s.take('{', "{"); err != nil {
		return err
	}
	if s.peek() == '}' {
		s.at++
		return nil
	}
	for {
		name, err := s.name()
		if err != nil {
			return err
		}
		if err := member(name); err != nil {
			return err
		}
		switch s.peek() {
		case ',':
			s.at++
		case '}':
			s.at++
			return nil
		default:
			return s.expected(", or }")
		}
	}
}

// name reads a member's name and the colon after it.
func (s *scanner) name() (token, error) {
	if s.peek() != '"' {
		return token{}, s.expected("a name in quotes")
	}
	t, err := s.quoted()
	if err != nil {
		return t, err
	}
	return t, s.take(':', ":")
}

// value reads any value; nested ones are checked and skipped.
func (s *scanner) value(depth int) (token, error) {
	switch c := s.peek(); {
	case c == '"':
		return s.quoted()
	case c == '-' || isDigit(c):
		return s.number()
	case c == 't':
		return s.word("true", yes)
	case c == 'f':
		return s.word("false", no)
	case c == 'n':
		return s.word("null", null)
	case c == '{' || c == '[':
		return s.skip(depth)
	}
	return token{}, s.expected("a value")
}

func (s *scanner) word(w string, k kind) (token, error) {
	if !strings.HasPrefix(s.text[s.at:], w) {
		return token{}, s.expected(w)
	}
	return s.token(s.at+len(w), k), nil
}

// token makes a token that ends before end, and goes on from there.
func (s *scanner) token(end int, k kind) token {
	t := token{int32(s.at), int32(end), k}
	s.at = end
	return t
}

// skip reads an object or array.
func (s *scanner) skip(depth int) (token, error) {
	if depth >= maxDepth {
		return token{}, fmt.Errorf("byte %d: nested more than %d deep", s.at, maxDepth)
	}
	t := token{int32(s.at), 0, nested}
	var err error
	if s.text[s.at] == '[' {
		err = s.array(depth + 1)
	} else {
		err = s.object(func(token) error {
			_, err := s.value(depth + 1)
			return err
		})
	}
	t.to = int32(s.at)
	return t, err
}

// array reads an array whose elements lie at this depth.
func (s *scanner) array(depth int) error {
	s.at++ // [
	if s.peek() == ']' {
		s.at++
		return nil
	}
	for {
		if _, err := s.value(depth); err != nil {
			return err
		}
		switch s.peek() {
		case ',':
			s.at++
		case ']':
			s.at++
			return nil
		default:
			return s.expected(", or ]")
		}
	}
}

// quoted reads a string; the scanner stands at its opening quote.
func (s *scanner) quoted() (token, error) {
	text, open := s.text, s.at
	for i := open + 1; i < len(text); i++ {
		c := text[i]
		if c >= ' ' && c != '"' && c != '\\' { // first, since most are
			continue
		}
		switch c {
		case '"':
			s.at = i + 1
			return token{int32(open + 1), int32(i), plainText}, nil
		case '\\':
			return s.escaped(open, i)
		}
		s.at = i
		return token{}, s.expected("no control character in a string")
	}
	s.at = len(text)
	return token{}, s.expected(`"`)
}

// escaped reads on from the first backslash.
func (s *scanner) escaped(open, i int) (token, error) {
	for i < len(s.text) {
		switch c := s.text[i]; {
		case c == '"':
			s.at = open
			return s.token(i+1, escapedText), nil
		case c == '\\':
			n := escapeLen(s.text[i:])
			if n == 0 {
				s.at = i
				return token{}, s.expected(`an escape such as \n or \u00e9`)
			}
			i += n
		case c < ' ':
			s.at = i
			return token{}, s.expected("no control character in a string")
		default:
			i++
		}
	}
	s.at = len(s.text)
	return token{}, s.expected(`"`)
}

// escapeLen returns the length of the escape that text begins with, 0 if it is
// none.
func escapeLen(text string) int {
	if len(text) < 2 {
		return 0
	}
	switch text[1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return 2
	case 'u':
		if len(text) < 6 {
			return 0
		}
		for _, c := range []byte(text[2:6]) {
			if !isDigit(c) && (c|0x20 < 'a' || c|0x20 > 'f') {
				return 0
			}
		}
		return 6
	}
	return 0
}

// number reads a number by JSON's grammar and refuses what no float64 holds.
func (s *scanner) number() (token, error) {
	i, k := s.at, integer
	if s.text[i] == '-' {
		i++
	}
	first := i
	i = digits(s.text, i)
	if i == first || i > first+1 && s.text[first] == '0' {
		s.at = first
		return token{}, s.expected("a number without leading zeros")
	}
	if i < len(s.text) && s.text[i] == '.' {
		k = float
		if i = digits(s.text, i+1); s.text[i-1] == '.' {
			s.at = i
			return token{}, s.expected("a digit")
		}
	}
	exponent := i < len(s.text) && s.text[i]|0x20 == 'e'
	if exponent {
		k = float
		if i = exponentEnd(s.text, i); !isDigit(s.text[i-1]) {
			s.at = i
			return token{}, s.expected("a digit")
		}
	}
	if i-s.at > maxNumber {
		return token{}, fmt.Errorf("byte %d: number of %d characters is too long", s.at, i-s.at)
	}
	if exponent || k == float && i-s.at > 300 {
		if _, err := strconv.ParseFloat(s.text[s.at:i], 64); err != nil {
			return token{}, fmt.Errorf("byte %d: number is too large", s.at)
		}
	}
	return s.token(i, k), nil
}

// exponentEnd returns where the exponent that starts at i ends; the byte before
// is no digit if it has none.
func exponentEnd(text string, i int) int {
	i++
	if i < len(text) && (text[i] == '+' || text[i] == '-') {
		i++
	}
	return digits(text, i)
}

// digits returns the index after the digits that start at i.
func digits(text string, i int) int {
	for i < len(text) && isDigit(text[i]) {
		i++
	}
	return i
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }
