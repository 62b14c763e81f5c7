package event

import (
	"encoding/json"
	"math"
	"strconv"
	"time"

	"github.com/millrace-io/millrace/pipeline"
)

// convert gives a value the catalog's type where that loses nothing: text that
// spells an integer, number or boolean the way we would, the reverse, and a
// number without a fraction for an integer. Otherwise the value stays as it is
// and ok is false: it contradicts the catalog. Null fits every type.
//
// spelled is how the event spells a number.
func convert(v any, spelled string, to pipeline.Type) (converted any, ok bool) {
	if v == nil {
		return nil, true
	}
	switch to {
	case pipeline.Integer:
		return toInteger(v)
	case pipeline.Number:
		return toNumber(v)
	case pipeline.String:
		return toText(v, spelled)
	case pipeline.Boolean:
		return toBoolean(v)
	case pipeline.Date:
		s, ok := v.(string)
		return v, ok && isDate(s)
	}
	return v, true
}

func toInteger(v any) (any, bool) {
	switch t := v.(type) {
	case int64, json.Number:
		return v, true
	case float64:
		if t == math.Trunc(t) && math.Abs(t) < 1<<53 { // above, a float64 is several integers
			return int64(t), true
		}
	case string:
		if n, ok := spellsInteger(t); ok {
			return n, true
		}
	}
	return v, false
}

func toNumber(v any) (any, bool) {
	switch t := v.(type) {
	case int64, float64, json.Number:
		return v, true
	case string:
		if n, ok := spellsInteger(t); ok {
			return n, true
		}
		if f, err := strconv.ParseFloat(t, 64); err == nil && spellFloat(f) == t && isFinite(f) {
			return f, true
		}
	}
	return v, false
}

func toText(v any, spelled string) (any, bool) {
	switch t := v.(type) {
	case string:
		return v, true // as it is: another interface would be another allocation
	case bool:
		return strconv.FormatBool(t), true
	case int64:
		if strconv.FormatInt(t, 10) == spelled {
			return spelled, true
		}
	case json.Number:
		return t.String(), true
	case float64:
		if spellFloat(t) == spelled {
			return spelled, true
		}
	}
	return v, false
}

func toBoolean(v any) (any, bool) {
	switch v {
	case true, "true":
		return true, true
	case false, "false":
		return false, true
	}
	return v, false
}

func spellsInteger(s string) (int64, bool) {
	n, err := strconv.ParseInt(s, 10, 64)
	return n, err == nil && strconv.FormatInt(n, 10) == s
}

func spellFloat(f float64) string { return strconv.FormatFloat(f, 'f', -1, 64) }

func isFinite(f float64) bool { return !math.IsNaN(f) && !math.IsInf(f, 0) }

func isDate(s string) bool {
	if _, err := time.Parse(time.RFC3339, s); err == nil {
		return true
	}
	_, err := time.Parse(time.DateOnly, s)
	return err == nil
}
