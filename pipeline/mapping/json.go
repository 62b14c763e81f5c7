package mapping

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"unicode/utf8"
)

var errNotFinite = errors.New("the value is not a finite number, which JSON can't hold")

// appendValue writes a value of a property or an expression as JSON, byte for
// byte as encoding/json does without its escaping for HTML: keys are sorted,
// floats are the shortest that read back the same, invalid UTF-8 becomes
// U+FFFD. How large a value can be is bounded by its event and by expression.
func appendValue(dst []byte, v any) ([]byte, error) {
	switch v := v.(type) {
	case nil:
		return append(dst, "null"...), nil
	case bool:
		return strconv.AppendBool(dst, v), nil
	case int64:
		return strconv.AppendInt(dst, v, 10), nil
	case float64:
		return appendFloat(dst, v)
	case string:
		return appendString(dst, v), nil
	case json.Number:
		return appendNumber(dst, v)
	case []any:
		return appendList(dst, v)
	case map[string]any:
		return appendObject(dst, v)
	}
	return dst, fmt.Errorf("a value of type %T can't be sent", v)
}

func appendList(dst []byte, list []any) (_ []byte, err error) {
	dst = append(dst, '[')
	for i, v := range list {
		if i > 0 {
			dst = append(dst, ',')
		}
		if dst, err = appendValue(dst, v); err != nil {
			return dst, err
		}
	}
	return append(dst, ']'), nil
}

func appendObject(dst []byte, object map[string]any) (_ []byte, err error) {
	dst = append(dst, '{')
	for i, key := range slices.Sorted(maps.Keys(object)) {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(appendString(dst, key), ':')
		if dst, err = appendValue(dst, object[key]); err != nil {
			return dst, err
		}
	}
	return append(dst, '}'), nil
}

// appendNumber keeps every digit.
func appendNumber(dst []byte, n json.Number) ([]byte, error) {
	if s := []byte(n); !json.Valid(s) || s[0] != '-' && (s[0] < '0' || s[0] > '9') {
		return dst, fmt.Errorf("%q is no number", string(n))
	}
	return append(dst, n...), nil
}

func appendFloat(dst []byte, f float64) ([]byte, error) {
	if math.IsInf(f, 0) || math.IsNaN(f) {
		return dst, errNotFinite
	}
	if abs := math.Abs(f); abs == 0 || 1e-6 <= abs && abs < 1e21 {
		return strconv.AppendFloat(dst, f, 'f', -1, 64), nil
	}
	dst = strconv.AppendFloat(dst, f, 'e', -1, 64)
	if n := len(dst); dst[n-4] == 'e' && dst[n-3] == '-' && dst[n-2] == '0' { // e-09 is written e-9
		dst[n-2] = dst[n-1]
		dst = dst[:n-1]
	}
	return dst, nil
}

const hexDigits = "0123456789abcdef"

// appendString writes a JSON string: runs of bytes that need no care are copied
// as they are.
func appendString(dst []byte, s string) []byte {
	dst = append(dst, '"')
	start := 0
	for i := 0; i < len(s); {
		size := 1
		var escaped string
		if c := s[i]; c < utf8.RuneSelf {
			if c >= ' ' && c != '"' && c != '\\' {
				i++
				continue
			}
			escaped = escapes[c]
		} else {
			var r rune
			r, size = utf8.DecodeRuneInString(s[i:])
			escaped = escapeRune(r, size)
		}
		if escaped != "" {
			dst = append(append(dst, s[start:i]...), escaped...)
			start = i + size
		}
		i += size
	}
	return append(append(dst, s[start:]...), '"')
}

// escapeRune gives "" for what stands as it is. The two separators would end a
// line where JSON is read as JavaScript.
func escapeRune(r rune, size int) string {
	switch {
	case r == utf8.RuneError && size == 1:
		return `\ufffd`
	case r == '\u2028':
		return `\u2028`
	case r == '\u2029':
		return `\u2029`
	}
	return ""
}

// escapes holds the escaped form of the ASCII characters that need one.
var escapes = func() (table [utf8.RuneSelf]string) {
	for c := range ' ' {
		table[c] = `\u00` + string(hexDigits[c>>4]) + string(hexDigits[c&15])
	}
	table['\b'], table['\f'], table['\n'], table['\r'], table['\t'] = `\b`, `\f`, `\n`, `\r`, `\t`
	table['"'], table['\\'] = `\"`, `\\`
	return table
}()
