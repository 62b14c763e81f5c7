package expression

import (
	"bytes"
	"crypto/md5"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strconv"
	"strings"
	"time"
)

// helper is a function of property mappings, with its type for the check.
type helper struct {
	function
	signature reflect.Type
}

// helpers are in scope with Scope.Delivery. A time is RFC 3339 text, a date
// such as 2006-01-02 (midnight UTC), or an integer of milliseconds since 1970.
var helpers = map[string]helper{
	"md5":        help("md5", "t", md5Hex, reflect.TypeFor[func(string) string]()),
	"sha256":     help("sha256", "t", sha256Hex, reflect.TypeFor[func(string) string]()),
	"unix":       help("unix", "v", unix, reflect.TypeFor[func(any) int64]()),
	"unixMilli":  help("unixMilli", "v", unixMilli, reflect.TypeFor[func(any) int64]()),
	"iso8601":    help("iso8601", "v", iso8601, reflect.TypeFor[func(any) string]()),
	"formatDate": help("formatDate", "vt", formatDate, reflect.TypeFor[func(any, string) string]()),
	"json":       help("json", "v", toJSON, reflect.TypeFor[func(any) string]()),
}

func help(name, params string, call func(*machine, []any) (any, error), signature reflect.Type) helper {
	return helper{function{name: name, params: params, call: call}, signature}
}

func md5Hex(_ *machine, args []any) (any, error) {
	sum := md5.Sum([]byte(args[0].(string))) // platforms ask for it to hide ids; it guards nothing
	return hex.EncodeToString(sum[:]), nil
}

func sha256Hex(_ *machine, args []any) (any, error) {
	sum := sha256.Sum256([]byte(args[0].(string)))
	return hex.EncodeToString(sum[:]), nil
}

// moment reads a time.
func moment(v any) (time.Time, error) {
	if ms, ok := integer(v); ok {
		t := time.UnixMilli(ms).UTC()
		if y := t.Year(); y < 0 || y > 9999 {
			return time.Time{}, fmt.Errorf("%d milliseconds is a time outside the years 0 to 9999", ms)
		}
		return t, nil
	}
	s, ok := v.(string)
	if !ok {
		return time.Time{}, fmt.Errorf("a time is text or an integer of milliseconds, not %s", typeName(v))
	}
	if t, err := time.Parse(time.RFC3339Nano, s); err == nil {
		return t.UTC(), nil
	}
	t, err := time.Parse(time.DateOnly, s)
	if err != nil {
		return time.Time{}, fmt.Errorf("%s is no time in RFC 3339", shown(s))
	}
	return t, nil
}

func unix(_ *machine, args []any) (any, error) {
	t, err := moment(args[0])
	return t.Unix(), err
}

func unixMilli(_ *machine, args []any) (any, error) {
	t, err := moment(args[0])
	return t.UnixMilli(), err
}

func iso8601(_ *machine, args []any) (any, error) {
	t, err := moment(args[0])
	return formatTime(t), err
}

// maxLayout is more than any layout needs.
const maxLayout = 200

// formatDate writes a time, in UTC, as Go's reference time is written in the
// layout: "2006-01-02 15:04:05", "Jan 2, 2006", "02/01/06". That is the layout
// of expr's own date function, and needs no list of letters to look up.
func formatDate(_ *machine, args []any) (any, error) {
	layout := args[1].(string)
	if len(layout) > maxLayout {
		return nil, fmt.Errorf("the layout has %d bytes; at most %d are allowed", len(layout), maxLayout)
	}
	t, err := moment(args[0])
	return t.Format(layout), err
}

// toJSON writes a value as compact JSON, its keys sorted.
func toJSON(m *machine, args []any) (any, error) {
	left := maxList
	v, err := plainValue(args[0], &left, maxDepth)
	if err != nil {
		return nil, err
	}
	b := appendJSON(nil, v)
	m.spendText(len(b))
	return string(b), nil
}

// appendJSON appends a plain value as compact JSON: keys sorted, integers with
// all their digits, no escapes that only HTML needs.
func appendJSON(dst []byte, v any) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil { // not with plain values
		return append(dst, "null"...)
	}
	return append(dst, bytes.TrimSuffix(b.Bytes(), []byte("\n"))...)
}

// appendScalar writes a boolean or a number as JSON does.
func appendScalar(dst []byte, v any) []byte {
	switch v := v.(type) {
	case bool:
		return strconv.AppendBool(dst, v)
	case float64:
		return appendJSON(dst, v)
	}
	i, _ := integer(v)
	return strconv.AppendInt(dst, i, 10)
}

// fromJSON reads one JSON value.
func fromJSON(_ *machine, args []any) (any, error) {
	d := json.NewDecoder(strings.NewReader(args[0].(string)))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, fmt.Errorf("fromJSON: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("fromJSON: there is more than one value")
	}
	return fromNumbers(v)
}

// fromNumbers makes integers and floats of the digits that JSON has.
func fromNumbers(v any) (any, error) {
	var err error
	switch v := v.(type) {
	case json.Number:
		return number(v)
	case []any:
		for i := range v {
			if v[i], err = fromNumbers(v[i]); err != nil {
				return nil, err
			}
		}
	case map[string]any:
		for k := range v {
			if v[k], err = fromNumbers(v[k]); err != nil {
				return nil, err
			}
		}
	}
	return v, nil
}

func number(n json.Number) (any, error) {
	if !strings.ContainsAny(n.String(), ".eE") {
		i, err := n.Int64()
		if err != nil {
			return nil, errOverflow
		}
		return i, nil
	}
	f, err := n.Float64()
	if err != nil {
		return nil, errRange
	}
	return f, nil
}
