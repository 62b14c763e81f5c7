package condition

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/millrace-io/millrace/pipeline/expression"
)

// Row is one line of a condition made by choosing instead of writing.
type Row struct {
	// Join ties it to the row before: "and" (the default) or "or"; and binds
	// tighter. Of the first row it means nothing.
	Join string
	// Property is the name of a property.
	Property string
	// Operator is one of equals, not_equals, contains, not_contains,
	// starts_with, ends_with, matches, greater_than, greater_or_equal, less_than,
	// less_or_equal, in, not_in, is_set, is_not_set.
	Operator string
	// Value is nil, a bool, any integer, a float64, a json.Number or a string;
	// for in and not_in a list of those; for is_set and is_not_set nothing.
	Value any
}

// RowError is what is wrong with one row.
type RowError struct {
	Index int    // of the row, from 0
	Key   string // join, property, operator or value
	Err   error
}

// Error names the row as conditions[index].
func (e *RowError) Error() string { return fmt.Sprintf("conditions[%d].%s: %v", e.Index, e.Key, e.Err) }

// Unwrap returns the cause.
func (e *RowError) Unwrap() error { return e.Err }

// FromRows writes rows as the expression that means the same, a line for each.
// The error is one *RowError or several, joined, in order.
func FromRows(rows []Row, s expression.Scope) (string, error) {
	if len(rows) == 0 {
		return "", errors.New("there are no rows")
	}
	var text strings.Builder
	var errs []error
	for i, r := range rows {
		clause, err := r.write(i, s)
		if err != nil {
			errs = append(errs, err)
		}
		switch {
		case r.Join != "" && r.Join != "and" && r.Join != "or":
			errs = append(errs, &RowError{i, "join", fmt.Errorf("%q is neither and nor or", r.Join)})
		case i > 0 && r.Join == "or":
			text.WriteString("\nor ")
		case i > 0:
			text.WriteString("\nand ")
		}
		text.WriteString(clause)
	}
	if len(errs) == 1 {
		return "", errs[0]
	}
	return text.String(), errors.Join(errs...)
}

// An operand is what kind of value an operator takes.
type operand int

const (
	anyValue operand = iota
	aText
	anOrder // a number or text
	aList
	noValue
)

type rowOperator struct {
	symbol string
	takes  operand
}

// rowOperators are the operators of rows, and how they are written.
var rowOperators = map[string]rowOperator{
	"equals":           {"==", anyValue},
	"not_equals":       {"!=", anyValue},
	"contains":         {"contains", aText},
	"not_contains":     {"not contains", aText},
	"starts_with":      {"startsWith", aText},
	"ends_with":        {"endsWith", aText},
	"matches":          {"matches", aText},
	"greater_than":     {">", anOrder},
	"greater_or_equal": {">=", anOrder},
	"less_than":        {"<", anOrder},
	"less_or_equal":    {"<=", anOrder},
	"in":               {"in", aList},
	"not_in":           {"not in", aList},
	"is_set":           {"in props", noValue},
	"is_not_set":       {"not in props", noValue},
}

// Operators returns the operators of rows, sorted.
func Operators() []string { return slices.Sorted(maps.Keys(rowOperators)) }

// write writes a row and checks it alone, so that what is wrong has its row.
func (r Row) write(index int, s expression.Scope) (string, error) {
	property, err := quote(r.Property)
	if err != nil || r.Property == "" {
		return "", &RowError{index, "property", errors.New("the name of a property is missing or not valid UTF-8")}
	}
	op, ok := rowOperators[r.Operator]
	if !ok {
		return "", &RowError{index, "operator", fmt.Errorf("%q is none of %s", r.Operator, strings.Join(Operators(), ", "))}
	}
	value, err := op.operand(r.Value)
	if err != nil {
		return "", &RowError{index, "value", fmt.Errorf("%s %w", r.Operator, err)}
	}
	if _, _, err := expression.Compile(`props[`+property+`] == null`, s); err != nil {
		return "", &RowError{index, "property", reason(err)}
	}
	text := fmt.Sprintf("props[%s] %s %s", property, op.symbol, value)
	if op.takes == noValue {
		text = property + " " + op.symbol
	}
	if _, _, err := expression.Compile(text, s); err != nil {
		return "", &RowError{index, "value", reason(err)}
	}
	return text, nil
}

// reason is an error without its place in a text that nobody wrote.
func reason(err error) error {
	all := expression.All(err)
	if len(all) == 0 {
		return err
	}
	return errors.New(all[0].Message)
}

// operand writes the value, if it is one that the operator takes.
func (op rowOperator) operand(v any) (string, error) {
	list, isList := v.([]any)
	switch {
	case op.takes == noValue && v != nil:
		return "", errors.New("takes no value")
	case op.takes == noValue:
		return "", nil
	case op.takes == aList && !isList:
		return "", errors.New("takes a list of values")
	case op.takes == aList:
		return writeList(list)
	case isList:
		return "", errors.New("takes one value, not a list")
	case v == nil && op.takes != anyValue:
		return "", errors.New("needs a value")
	}
	text, isText := v.(string)
	_, isBool := v.(bool)
	switch {
	case op.takes == aText && !isText:
		return "", errors.New("takes text")
	case op.takes == anOrder && isBool:
		return "", errors.New("takes a number or text")
	case isText:
		return quote(text)
	}
	return writeScalar(v)
}

func writeList(list []any) (string, error) {
	parts := make([]string, len(list))
	for i, v := range list {
		var err error
		if parts[i], err = writeScalar(v); err != nil {
			return "", err
		}
	}
	return "[" + strings.Join(parts, ", ") + "]", nil
}

func writeScalar(v any) (string, error) {
	switch v := v.(type) {
	case nil:
		return "null", nil
	case bool:
		return strconv.FormatBool(v), nil
	case string:
		return quote(v)
	case int:
		return writeInt(int64(v)), nil
	case int64:
		return writeInt(v), nil
	case uint64:
		if v > math.MaxInt64 {
			return "", fmt.Errorf("takes integers of 64 bits, not %d", v)
		}
		return writeInt(int64(v)), nil
	case float64:
		return writeFloat(v)
	case json.Number:
		return writeNumber(v)
	}
	return "", fmt.Errorf("cannot take a %T", v)
}

// writeInt writes an integer. The smallest has no literal, since the sign is an
// operator; as a number it is the same.
func writeInt(i int64) string {
	if i == math.MinInt64 {
		return strconv.FormatInt(i, 10) + ".0"
	}
	return strconv.FormatInt(i, 10)
}

func writeFloat(f float64) (string, error) {
	if math.IsInf(f, 0) || math.IsNaN(f) {
		return "", errors.New("takes numbers within the range of numbers")
	}
	s := strconv.FormatFloat(f, 'g', -1, 64)
	if !strings.ContainsAny(s, ".e") {
		s += ".0"
	}
	return s, nil
}

func writeNumber(n json.Number) (string, error) {
	if strings.ContainsAny(n.String(), ".eE") {
		f, err := n.Float64()
		if err != nil {
			return "", fmt.Errorf("takes numbers within the range of numbers, not %s", n)
		}
		return writeFloat(f)
	}
	i, err := n.Int64()
	if err != nil {
		return "", fmt.Errorf("takes integers of 64 bits, not %s", n)
	}
	return writeInt(i), nil
}

// quote writes text as a literal that means exactly that text.
func quote(s string) (string, error) {
	if !utf8.ValidString(s) {
		return "", errors.New("takes valid UTF-8")
	}
	b := []byte{'"'}
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b = append(b, '\\', byte(r))
		case r < ' ' || r == 0x7f:
			b = fmt.Appendf(b, `\u%04x`, r)
		default:
			b = utf8.AppendRune(b, r)
		}
	}
	return string(append(b, '"')), nil
}
