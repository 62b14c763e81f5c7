package expression

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/expr-lang/expr/builtin"
)

// function is one function that expressions may call.
type function struct {
	name string
	// params has a letter for each argument: t for text, n for a number, i for
	// an integer, l for a list, v for any value; those after ? may be left out,
	// and * repeats the one before it. How many there are is checked when the
	// expression is compiled, their types at run time.
	params string
	// work is what a call costs besides the size of its arguments.
	work func(args []any) int
	call func(m *machine, args []any) (any, error)
}

// operator gives null where an argument is null, checks the types and counts
// the work.
func (f function) operator() operator {
	return func(m *machine, args []any) any {
		for _, a := range args {
			if a == nil {
				return nil
			}
		}
		m.spend(1)
		for i, a := range args {
			f.check(f.param(i), a)
			m.spend(size(a))
		}
		if f.work != nil {
			m.spend(f.work(args))
		}
		v, err := f.call(m, args)
		if err != nil {
			panic(err)
		}
		return v
	}
}

func (f function) param(i int) byte {
	params := strings.ReplaceAll(f.params, "?", "")
	if star := strings.IndexByte(params, '*'); star > 0 && i >= star {
		i = star - 1
	}
	return params[min(i, len(params)-1)]
}

func (f function) check(param byte, a any) {
	ok, want := true, ""
	switch param {
	case 't':
		_, ok = a.(string)
		want = "text"
	case 'n':
		_, ok = float(a)
		want = "a number"
	case 'i':
		_, ok = integer(a)
		want = "an integer"
	case 'l':
		_, ok = a.([]any)
		want = "a list"
	}
	if !ok {
		panic(fmt.Errorf("%s needs %s, not %s", f.name, want, typeName(a)))
	}
}

// size is what it costs to look at a value.
func size(v any) int {
	switch v := v.(type) {
	case string:
		return len(v) / 16
	case []any:
		return len(v)
	case map[string]any:
		return len(v)
	}
	return 0
}

// refused are the functions of expr that have no place here.
var refused = map[string]string{
	"now":       "the answer must depend on the event alone",
	"date":      "times are text; event.time compares as it is",
	"duration":  "times are text; event.time compares as it is",
	"timezone":  "times are text, in UTC",
	"keys":      "a map has no fixed order",
	"values":    "a map has no fixed order",
	"toPairs":   "a map has no fixed order",
	"fromPairs": "write a map as {name: value}",
	"groupBy":   "a map has no fixed order",
	"get":       "write value[name]",
	"toJSON":    "use json in property mappings",
}

// library calls expr's own function.
func library(name string) func(*machine, []any) (any, error) {
	f := builtin.Builtins[builtin.Index[name]]
	return func(_ *machine, args []any) (any, error) {
		var v any
		var err error
		switch {
		case f.Fast != nil:
			v = f.Fast(args[0])
		case f.Safe != nil:
			v, _, err = f.Safe(args...)
		default:
			v, err = f.Func(args...)
		}
		if texts, ok := v.([]string); ok {
			return list(texts), err
		}
		return v, err
	}
}

func list(texts []string) []any {
	out := make([]any, len(texts))
	for i, s := range texts {
		out[i] = s
	}
	return out
}

// functions are those of expr, by name.
var functions = named(map[string]function{
	"len":         {params: "v"},
	"type":        {params: "v", call: func(_ *machine, args []any) (any, error) { return builtin.Type(args[0]), nil }},
	"abs":         {params: "n", call: absolute},
	"ceil":        {params: "n"},
	"floor":       {params: "n"},
	"round":       {params: "n"},
	"int":         {params: "v", call: toInteger},
	"float":       {params: "v", call: toFloat},
	"string":      {params: "v", call: toText},
	"trim":        {params: "t?t"},
	"trimPrefix":  {params: "t?t"},
	"trimSuffix":  {params: "t?t"},
	"upper":       {params: "t"},
	"lower":       {params: "t"},
	"split":       {params: "tt?i", work: pieces},
	"splitAfter":  {params: "tt?i", work: pieces},
	"replace":     {params: "ttt?i", work: replaced},
	"repeat":      {params: "ti", work: repeated},
	"join":        {params: "l?t", work: joined},
	"indexOf":     {params: "tt"},
	"lastIndexOf": {params: "tt"},
	"hasPrefix":   {params: "tt"},
	"hasSuffix":   {params: "tt"},
	"max":         {params: "v*", call: extreme("max", 1)},
	"min":         {params: "v*", call: extreme("min", -1)},
	"mean":        {params: "v*", call: mean},
	"median":      {params: "v*", call: median},
	"fromJSON":    {params: "t", work: func(args []any) int { return len(args[0].(string)) }, call: fromJSON},
	"toBase64":    {params: "t"},
	"fromBase64":  {params: "t"},
	"first":       {params: "l"},
	"last":        {params: "l"},
	"take":        {params: "li"},
	"reverse":     {params: "l"},
	"uniq":        {params: "l", call: unique},
	"concat":      {params: "l*"},
	"flatten":     {params: "l", call: flatten},
	"sort":        {params: "l?t", work: func(args []any) int { return 16 * size(args[0]) }},
	"bitand":      {params: "ii"},
	"bitor":       {params: "ii"},
	"bitxor":      {params: "ii"},
	"bitnand":     {params: "ii"},
	"bitshl":      {params: "ii"},
	"bitshr":      {params: "ii"},
	"bitushr":     {params: "ii"},
	"bitnot":      {params: "i"},
})

// named gives every function its name, and expr's code where it has none of its own.
func named(table map[string]function) map[string]function {
	for name, f := range table {
		f.name = name
		if f.call == nil {
			f.call = library(name)
		}
		table[name] = f
	}
	return table
}

// pieces: a text may be cut before each of its characters.
func pieces(args []any) int { return len(args[0].(string)) }

func repeated(args []any) int {
	n, _ := integer(args[1])
	length := len(args[0].(string))
	if n > maxWork || length > maxWork {
		return maxWork + 1
	}
	return int(max(n, 0)) * length / 16
}

func replaced(args []any) int {
	s, from, to := args[0].(string), args[1].(string), args[2].(string)
	return (len(s) + strings.Count(s, from)*len(to)) / 16
}

func joined(args []any) int {
	items := args[0].([]any)
	total := 0
	for _, v := range items {
		total += size(v)
	}
	if len(args) > 1 {
		total += len(items) * len(args[1].(string)) / 16
	}
	return total
}

func absolute(m *machine, args []any) (any, error) {
	if c, _ := compareNumbers(args[0], int64(0)); c >= 0 {
		return args[0], nil
	}
	return subtract(m, int64(0), args[0])
}

func toInteger(_ *machine, args []any) (any, error) {
	switch v := args[0].(type) {
	case int, int64:
		return v, nil
	case float64:
		if v >= math.MinInt64 && v < math.MaxInt64 {
			return int64(v), nil
		}
		return nil, errOverflow
	case string:
		i, err := strconv.ParseInt(v, 10, 64)
		if errors.Is(err, strconv.ErrRange) {
			return nil, errOverflow
		}
		if err == nil {
			return i, nil
		}
	}
	return nil, fmt.Errorf("int cannot make an integer of %s", shown(args[0]))
}

func toFloat(_ *machine, args []any) (any, error) {
	if f, ok := float(args[0]); ok {
		return f, nil
	}
	if s, ok := args[0].(string); ok {
		if f, err := strconv.ParseFloat(s, 64); err == nil && !math.IsInf(f, 0) && !math.IsNaN(f) {
			return f, nil
		}
	}
	return nil, fmt.Errorf("float cannot make a number of %s", shown(args[0]))
}

// shown is a value as an error shows it.
func shown(v any) string {
	if s, ok := v.(string); ok {
		return strconv.Quote(s[:min(len(s), 50)])
	}
	return typeName(v)
}

func toText(_ *machine, args []any) (any, error) {
	switch v := args[0].(type) {
	case string:
		return v, nil
	case bool, int, int64, float64:
		return string(appendScalar(nil, v)), nil
	}
	return nil, fmt.Errorf("string cannot make text of %s", typeName(args[0]))
}
