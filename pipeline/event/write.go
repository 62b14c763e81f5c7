package event

import (
	"encoding/json"
	"fmt"
	"math"
	"strconv"

	"github.com/millrace-io/millrace/pipeline"
)

// AppendJSON appends an event as Event JSON. What came in as Event JSON is
// passed on byte for byte, and properties that came in as JSON likewise: the
// envelope of a match says what the producer left out.
func AppendJSON(dst []byte, e *pipeline.Event) []byte {
	p, ok := e.Properties.(*properties)
	if ok && p.whole {
		return append(dst, p.text...)
	}
	dst = appendEnvelope(append(dst, '{'), e)
	dst = append(dst, `,"properties":`...)
	switch {
	case ok && p.to > 0:
		dst = append(dst, p.text[p.from:p.to]...)
	case ok || e.Properties == nil:
		dst = append(dst, "{}"...)
	default:
		dst = appendProperties(dst, e.Properties)
	}
	return append(dst, '}')
}

func appendEnvelope(dst []byte, e *pipeline.Event) []byte {
	dst = appendString(append(dst, `"id":`...), e.ID)
	for _, m := range [...]struct{ name, value string }{
		{`,"source":`, e.Source},
		{`,"type":`, e.Type},
		{`,"system":`, e.System},
		{`,"environment":`, e.Environment},
		{`,"user":`, e.User},
		{`,"session":`, e.Session},
	} {
		if m.value != "" {
			dst = appendString(append(dst, m.name...), m.value)
		}
	}
	dst = append(dst, `,"time":"`...)
	dst = e.Time.UTC().AppendFormat(dst, "2006-01-02T15:04:05.000Z07:00")
	return append(dst, '"')
}

func appendProperties(dst []byte, p pipeline.Properties) []byte {
	dst = append(dst, '{')
	first := true
	for name, v := range p.All() {
		if !first {
			dst = append(dst, ',')
		}
		first = false
		dst = append(appendString(dst, name), ':')
		dst = appendValue(dst, v)
	}
	return append(dst, '}')
}

// appendValue appends a property's value.
func appendValue(dst []byte, v any) []byte {
	switch v := v.(type) {
	case nil:
		return append(dst, "null"...)
	case bool:
		return strconv.AppendBool(dst, v)
	case int64:
		return strconv.AppendInt(dst, v, 10)
	case float64:
		return appendFloat(dst, v)
	case json.Number:
		return append(dst, v...)
	case string:
		return appendString(dst, v)
	}
	panic(fmt.Sprintf("a property holds a %T", v)) // against the contract of Properties
}

// appendFloat keeps a number without a fraction a float64 when it is read again,
// unless it is an exact integer.
func appendFloat(dst []byte, f float64) []byte {
	if f == math.Trunc(f) && math.Abs(f) < 1<<53 {
		return strconv.AppendInt(dst, int64(f), 10)
	}
	return strconv.AppendFloat(dst, f, 'g', -1, 64)
}

const hexDigits = "0123456789abcdef"

// appendString appends s in quotes; s is UTF-8.
func appendString(dst []byte, s string) []byte {
	dst = append(dst, '"')
	start := 0
	for i := range len(s) {
		c := s[i]
		if c >= ' ' && c != '"' && c != '\\' {
			continue
		}
		dst = append(dst, s[start:i]...)
		start = i + 1
		if c >= ' ' {
			dst = append(dst, '\\', c)
		} else {
			dst = append(dst, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
		}
	}
	dst = append(dst, s[start:]...)
	return append(dst, '"')
}
