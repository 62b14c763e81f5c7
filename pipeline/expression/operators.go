package expression

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"math/bits"
)

// Within an expression a value is nil, a bool, an int or int64, a float64, a
// string, a []any or a map[string]any.

// typeName is what users call the type of a value.
func typeName(v any) string {
	switch v.(type) {
	case nil:
		return "null"
	case bool:
		return "a boolean"
	case int, int64:
		return "an integer"
	case float64:
		return "a number"
	case string:
		return "text"
	case []any:
		return "a list"
	}
	return "a map"
}

// integer returns the value of an integer.
func integer(v any) (int64, bool) {
	switch v := v.(type) {
	case int64:
		return v, true
	case int:
		return int64(v), true
	}
	return 0, false
}

func float(v any) (float64, bool) {
	if i, ok := integer(v); ok {
		return float64(i), true
	}
	f, ok := v.(float64)
	return f, ok
}

// Key returns a comparable value that is the same for two constants exactly
// where they are equal: a number without a fraction is an int64 if it fits.
func Key(v any) any {
	switch v := v.(type) {
	case int:
		return int64(v)
	case float64:
		if i := int64(v); v >= math.MinInt64 && v < math.MaxInt64 && float64(i) == v {
			return i
		}
	}
	return v
}

// equal compares any two values; those of different types are not equal, but an
// integer and a number are compared as numbers, exactly.
func equal(m *machine, a, b any) bool { return equalAt(m, a, b, maxDepth) }

func equalAt(m *machine, a, b any, depth int) bool {
	switch x := a.(type) {
	case nil:
		return b == nil
	case bool:
		y, ok := b.(bool)
		return ok && x == y
	case string:
		y, ok := b.(string)
		return ok && x == y
	case []any:
		y, ok := b.([]any)
		return ok && equalLists(m, x, y, depth)
	case map[string]any:
		y, ok := b.(map[string]any)
		return ok && equalMaps(m, x, y, depth)
	}
	c, ok := compareNumbers(a, b)
	return ok && c == 0
}

func equalLists(m *machine, x, y []any, depth int) bool {
	if depth == 0 {
		panic(errDepth)
	}
	if len(x) != len(y) {
		return false
	}
	m.spend(len(x))
	for i := range x {
		if !equalAt(m, x[i], y[i], depth-1) {
			return false
		}
	}
	return true
}

func equalMaps(m *machine, x, y map[string]any, depth int) bool {
	if depth == 0 {
		panic(errDepth)
	}
	if len(x) != len(y) {
		return false
	}
	m.spend(len(x))
	for k, v := range x {
		if w, ok := y[k]; !ok || !equalAt(m, v, w, depth-1) {
			return false
		}
	}
	return true
}

// compare orders two texts or two numbers; nothing else has an order.
func compare(_ *machine, a, b any) (int, bool) {
	if s, ok := a.(string); ok {
		t, ok := b.(string)
		return cmp.Compare(s, t), ok
	}
	return compareNumbers(a, b)
}

func compareNumbers(a, b any) (int, bool) {
	i, aInt := integer(a)
	j, bInt := integer(b)
	if aInt && bInt {
		return cmp.Compare(i, j), true
	}
	x, aFloat := a.(float64)
	y, bFloat := b.(float64)
	switch {
	case aFloat && bFloat:
		return cmp.Compare(x, y), true
	case aInt && bFloat:
		return compareMixed(i, y), true
	case aFloat && bInt:
		return -compareMixed(j, x), true
	}
	return 0, false
}

// compareMixed compares without losing digits of the integer.
func compareMixed(i int64, f float64) int {
	switch {
	case f >= math.MaxInt64:
		return -1
	case f < math.MinInt64:
		return 1
	}
	whole := math.Trunc(f)
	if c := cmp.Compare(i, int64(whole)); c != 0 {
		return c
	}
	return cmp.Compare(whole, f)
}

// A calculation works on two values of which neither is null.
type calculation func(m *machine, a, b any) (any, error)

// calculations are the operators that compute.
var calculations = map[string]calculation{
	"+": add, "-": subtract, "*": multiply, "/": divide, "%": modulo, "**": power, "^": power,
}

var (
	errOverflow = errors.New("the result is an integer beyond 64 bits")
	errRange    = errors.New("the result is beyond the range of numbers")
	errZero     = errors.New("division by zero")
)

// arithmetic makes an operator of a calculation: null where either side is.
func arithmetic(f calculation) operator {
	return func(m *machine, args []any) any {
		a, b := args[0], args[1]
		if a == nil || b == nil {
			return nil
		}
		v, err := f(m, a, b)
		if err != nil {
			panic(err)
		}
		return v
	}
}

func add(m *machine, a, b any) (any, error) {
	s, ok := a.(string)
	t, ok2 := b.(string)
	if ok && ok2 {
		m.spendText(len(s) + len(t))
		return s + t, nil
	}
	return numeric("add", a, b,
		func(i, j int64) (int64, bool) { return i + j, (i+j > i) == (j > 0) },
		func(x, y float64) float64 { return x + y })
}

func subtract(_ *machine, a, b any) (any, error) {
	return numeric("subtract", a, b,
		func(i, j int64) (int64, bool) { return i - j, (i-j < i) == (j > 0) },
		func(x, y float64) float64 { return x - y })
}

func multiply(_ *machine, a, b any) (any, error) {
	return numeric("multiply", a, b, timesInt, func(x, y float64) float64 { return x * y })
}

func timesInt(i, j int64) (int64, bool) {
	hi, lo := bits.Mul64(magnitude(i), magnitude(j))
	if (i < 0) != (j < 0) {
		return i * j, hi == 0 && lo <= 1<<63
	}
	return i * j, hi == 0 && lo < 1<<63
}

func magnitude(i int64) uint64 {
	if i < 0 {
		return -uint64(i)
	}
	return uint64(i)
}

// numeric computes with integers as long as both are, else with floats.
func numeric(verb string, a, b any, ints func(i, j int64) (int64, bool), floats func(x, y float64) float64) (any, error) {
	i, ok := integer(a)
	j, ok2 := integer(b)
	if ok && ok2 {
		v, ok := ints(i, j)
		if !ok {
			return nil, errOverflow
		}
		return v, nil
	}
	return floating(verb, a, b, floats)
}

func floating(verb string, a, b any, f func(x, y float64) float64) (any, error) {
	x, ok := float(a)
	y, ok2 := float(b)
	if !ok || !ok2 {
		return nil, fmt.Errorf("cannot %s %s and %s", verb, typeName(a), typeName(b))
	}
	v := f(x, y)
	if math.IsInf(v, 0) || math.IsNaN(v) {
		return nil, errRange
	}
	return v, nil
}

func divide(_ *machine, a, b any) (any, error) {
	if y, ok := float(b); ok && y == 0 {
		return nil, errZero
	}
	return floating("divide", a, b, func(x, y float64) float64 { return x / y })
}

func power(_ *machine, a, b any) (any, error) { return floating("raise", a, b, math.Pow) }

func modulo(_ *machine, a, b any) (any, error) {
	if y, ok := float(b); ok && y == 0 {
		return nil, errZero
	}
	i, ok := integer(a)
	j, ok2 := integer(b)
	if !ok || !ok2 {
		return nil, fmt.Errorf("%% needs two integers, not %s and %s", typeName(a), typeName(b))
	}
	return i % j, nil
}

// makeRange makes the list of integers from the first to the last.
func makeRange(m *machine, args []any) any {
	if args[0] == nil || args[1] == nil {
		return nil
	}
	from, ok := integer(args[0])
	to, ok2 := integer(args[1])
	if !ok || !ok2 {
		panic(fmt.Errorf("a range needs two integers, not %s and %s", typeName(args[0]), typeName(args[1])))
	}
	if to < from {
		return []any{}
	}
	size := uint64(to) - uint64(from) + 1
	if size == 0 || size > maxList {
		panic(fmt.Errorf("the range has more than %d elements", maxList))
	}
	m.spend(int(size))
	out := make([]any, size)
	for i := range out {
		out[i] = from + int64(i)
	}
	return out
}

// element takes an element of a list, from the end where the index is negative,
// or a value of a map; null where there is none.
func element(_ *machine, args []any) any {
	switch of := args[0].(type) {
	case nil:
		return nil
	case []any:
		i, ok := integer(args[1])
		if !ok {
			break
		}
		if i < 0 {
			i += int64(len(of))
		}
		if i < 0 || i >= int64(len(of)) {
			return nil
		}
		return of[i]
	case map[string]any:
		if k, ok := args[1].(string); ok {
			return of[k]
		}
	}
	if args[1] == nil {
		return nil
	}
	panic(fmt.Errorf("%s has no element that is named by %s", typeName(args[0]), typeName(args[1])))
}

func mapKey(_ *machine, args []any) any {
	if k, ok := args[0].(string); ok {
		return k
	}
	panic(fmt.Errorf("the keys of a map are text, not %s", typeName(args[0])))
}

// slice takes a part of a list or, counted in bytes as by indexOf, of a text.
func slice(_ *machine, args []any) any {
	if args[0] == nil || args[1] == nil || args[2] == nil {
		return nil
	}
	switch of := args[0].(type) {
	case []any:
		from, to := bounds(len(of), args[1], args[2])
		return of[from:to]
	case string:
		from, to := bounds(len(of), args[1], args[2])
		return of[from:to]
	}
	panic(fmt.Errorf("cannot take a part of %s", typeName(args[0])))
}

func bounds(size int, from, to any) (int, int) {
	end := bound(size, to)
	return min(bound(size, from), end), end
}

func bound(size int, v any) int {
	i, ok := integer(v)
	if !ok {
		panic(fmt.Errorf("the bounds of a part are integers, not %s", typeName(v)))
	}
	if i < 0 {
		i += int64(size)
	}
	return int(min(max(i, 0), int64(size)))
}
