package expression

import (
	"strings"

	"github.com/expr-lang/expr/ast"
)

// A test compares two values: never a failure, false for null or other types.
type test func(m *machine, a, b any) bool

// tests are the operators that give true or false.
var tests = map[string]test{
	"==":         equal,
	"!=":         func(m *machine, a, b any) bool { return !equal(m, a, b) },
	"<":          ordered(func(c int) bool { return c < 0 }),
	"<=":         ordered(func(c int) bool { return c <= 0 }),
	">":          ordered(func(c int) bool { return c > 0 }),
	">=":         ordered(func(c int) bool { return c >= 0 }),
	"in":         in,
	"contains":   onText(strings.Contains),
	"startsWith": onText(strings.HasPrefix),
	"endsWith":   onText(strings.HasSuffix),
	"matches":    func(*machine, any, any) bool { return false }, // always a constantTest
}

// mirror is what an operator is called with its sides swapped.
var mirror = map[string]string{"==": "==", "!=": "!=", "<": ">", "<=": ">=", ">": "<", ">=": "<="}

func ordered(holds func(int) bool) test {
	return func(m *machine, a, b any) bool {
		c, ok := compare(m, a, b)
		return ok && holds(c)
	}
}

func onText(holds func(s, part string) bool) test {
	return func(m *machine, a, b any) bool {
		s, ok := a.(string)
		part, ok2 := b.(string)
		if !ok || !ok2 {
			return false
		}
		m.spendText(len(s))
		return holds(s, part)
	}
}

func in(m *machine, a, b any) bool {
	if a == nil {
		return false
	}
	switch b := b.(type) {
	case []any:
		m.spend(len(b))
		for _, v := range b {
			if equal(m, a, v) {
				return true
			}
		}
	case map[string]any:
		k, ok := a.(string)
		return ok && b[k] != nil
	}
	return false
}

// constantTest is a test of one value against what is written in the text.
type constantTest struct {
	holds    func(m *machine, v any) bool
	mirrored bool // the constant stands on the left
	total    bool // can't fail, however large the value
}

// constantTest returns the test of a node that compares with a constant, else nil.
func (b *builder) constantTest(x *ast.BinaryNode) *constantTest {
	switch x.Operator {
	case "in":
		return b.inTest(x)
	case "matches":
		return b.matchTest(x)
	}
	f := tests[x.Operator]
	if f == nil {
		return nil
	}
	if v, ok := literal(x.Right); ok {
		return constantRight(x.Operator, f, v)
	}
	if v, ok := literal(x.Left); ok && mirror[x.Operator] != "" {
		t := constantRight(mirror[x.Operator], tests[mirror[x.Operator]], v)
		t.mirrored = true
		return t
	}
	return nil
}

func constantRight(op string, f test, v any) *constantTest {
	text, isText := v.(string)
	number, isInt := v.(int64)
	switch {
	case op == "==" && isText:
		return &constantTest{total: true, holds: func(_ *machine, v any) bool {
			s, ok := v.(string)
			return ok && s == text
		}}
	case op == "==" && isInt:
		return &constantTest{total: true, holds: func(m *machine, v any) bool {
			if i, ok := v.(int64); ok {
				return i == number
			}
			return equal(m, v, number)
		}}
	}
	return &constantTest{total: mirror[op] != "", holds: func(m *machine, a any) bool { return f(m, a, v) }}
}

// inTest is membership in a written list or in a written range.
func (b *builder) inTest(x *ast.BinaryNode) *constantTest {
	if list, ok := literals(x.Right); ok {
		set := map[any]bool{}
		for _, v := range list {
			set[Key(v)] = true
		}
		return &constantTest{total: true, holds: func(_ *machine, v any) bool {
			switch v.(type) {
			case nil, []any, map[string]any:
				return false
			}
			return set[Key(v)]
		}}
	}
	if from, to, ok := literalRange(x.Right); ok {
		return &constantTest{total: true, holds: func(_ *machine, v any) bool {
			i, ok := Key(v).(int64)
			return ok && from <= i && i <= to
		}}
	}
	return nil
}

// matchTest is a match with a pattern, which must be written out: it is checked
// and compiled once.
func (b *builder) matchTest(x *ast.BinaryNode) *constantTest {
	never := &constantTest{holds: func(*machine, any) bool { return false }}
	pattern, ok := x.Right.(*ast.StringNode)
	if !ok {
		b.found.add(x.Right.Location(), `the pattern of matches must be written out: matches "^a.*z$"`)
		return never
	}
	re, size, err := compilePattern(pattern.Value)
	if err != nil {
		b.found.add(x.Right.Location(), "%s", err)
		return never
	}
	return &constantTest{holds: func(m *machine, v any) bool {
		s, ok := v.(string)
		if !ok {
			return false
		}
		m.spend(len(s) * size / 8)
		return re.MatchString(s)
	}}
}

// literal returns a constant that is written out: a bool, int64, float64 or text.
func literal(n ast.Node) (any, bool) {
	switch x := n.(type) {
	case *ast.BoolNode:
		return x.Value, true
	case *ast.StringNode:
		return x.Value, true
	case *ast.IntegerNode:
		return int64(x.Value), true
	case *ast.FloatNode:
		return x.Value, true
	case *ast.NilNode:
		return nil, true
	case *ast.UnaryNode:
		v, ok := literal(x.Node)
		if !ok || x.Operator != "-" && x.Operator != "+" {
			return nil, false
		}
		return signed(v, x.Operator == "-")
	}
	return nil, false
}

func signed(v any, minus bool) (any, bool) {
	switch v := v.(type) {
	case int64: // as written there is no sign, so it can't overflow
		if minus {
			return -v, true
		}
		return v, true
	case float64:
		if minus {
			return -v, true
		}
		return v, true
	}
	return nil, false
}

// literals returns the values of a list that is written out. Null is left out:
// nothing is found by it.
func literals(n ast.Node) ([]any, bool) {
	list, ok := n.(*ast.ArrayNode)
	if !ok {
		return nil, false
	}
	var out []any
	for _, e := range list.Nodes {
		v, ok := literal(e)
		if !ok {
			return nil, false
		}
		if v != nil {
			out = append(out, v)
		}
	}
	return out, true
}

func literalRange(n ast.Node) (from, to int64, ok bool) {
	x, ok := n.(*ast.BinaryNode)
	if !ok || x.Operator != ".." {
		return 0, 0, false
	}
	a, _ := literal(x.Left)
	b, _ := literal(x.Right)
	from, ok = a.(int64)
	to, ok2 := b.(int64)
	return from, to, ok && ok2
}
