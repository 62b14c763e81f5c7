package event

import (
	"encoding/json"
	"strconv"
)

// kind is what a token is.
type kind uint8

const (
	null kind = iota
	yes
	no
	integer     // digits only; may be beyond 64 bits
	float       // with a point or an exponent; fits a float64
	plainText   // without escapes; the token spans what is between the quotes
	escapedText // with escapes; the token spans the quotes too
	nested      // an object or array
)

// token is one JSON value or name, as a span of the text scanned. Kafka's
// records stay far below 2 GiB.
type token struct {
	from, to int32
	kind     kind
}

// raw returns the token as it is spelled.
func (t token) raw(text string) string { return text[t.from:t.to] }

// string returns the text of a name or a string. Half a surrogate pair, which
// stands for no character, becomes U+FFFD.
func (t token) string(text string) string {
	if t.kind == plainText {
		return t.raw(text)
	}
	var s string
	if err := json.Unmarshal([]byte(t.raw(text)), &s); err != nil {
		panic(err) // the scanner has checked it
	}
	return s
}

// is reports whether a name is this one.
func (t token) is(text, name string) bool {
	if t.kind == plainText {
		return t.raw(text) == name
	}
	return t.string(text) == name
}

// native returns the value as Properties give it; nil for what is nested.
func (t token) native(text string) any {
	switch t.kind {
	case yes:
		return true
	case no:
		return false
	case plainText, escapedText:
		return t.string(text)
	case integer:
		if n, err := strconv.ParseInt(t.raw(text), 10, 64); err == nil {
			return n
		}
		return json.Number(t.raw(text))
	case float:
		f, _ := strconv.ParseFloat(t.raw(text), 64) // the scanner has checked it
		return f
	}
	return nil
}
