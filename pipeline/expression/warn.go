package expression

import (
	"fmt"
	"slices"
	"time"

	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/parser"

	"github.com/millrace-io/millrace/pipeline"
)

// critic looks for what is allowed but can hardly be meant.
type critic struct {
	names *names
	text  string
	out   []Warning
	inner map[ast.Node]bool // parts of a chain of and or or that was looked at as a whole
}

// warn returns the warnings about a checked tree, in the order of the text.
func warn(tree *parser.Tree, n *names, text string) []Warning {
	c := &critic{names: n, text: text, inner: map[ast.Node]bool{}}
	markInner(tree.Node, c.inner)
	ast.Walk(&tree.Node, visit(c.look))
	slices.SortStableFunc(c.out, func(a, b Warning) int {
		if a.Line != b.Line {
			return a.Line - b.Line
		}
		return a.Column - b.Column
	})
	return slices.Compact(c.out)
}

func markInner(root ast.Node, inner map[ast.Node]bool) {
	ast.Walk(&root, visit(func(n *ast.Node) {
		x, ok := (*n).(*ast.BinaryNode)
		if !ok || chain(x) == "" {
			return
		}
		for _, side := range []ast.Node{x.Left, x.Right} {
			if chain(side) == chain(x) {
				inner[side] = true
			}
		}
	}))
}

// chain returns "and" or "or" for a node of such a chain, whatever its spelling.
func chain(n ast.Node) string {
	if x, ok := n.(*ast.BinaryNode); ok {
		switch x.Operator {
		case "and", "&&":
			return "and"
		case "or", "||":
			return "or"
		}
	}
	return ""
}

func (c *critic) warn(at ast.Node, format string, args ...any) {
	line, column := position(c.text, at.Location())
	c.out = append(c.out, Warning{line, column, fmt.Sprintf(format, args...)})
}

func (c *critic) look(node *ast.Node) {
	x, ok := (*node).(*ast.BinaryNode)
	if !ok {
		return
	}
	switch op := x.Operator; {
	case chain(x) != "":
		c.operands(x)
		if !c.inner[x] {
			c.clauses(x)
		}
	case op == "..":
		if from, to, ok := literalRange(x); ok && from > to {
			c.warn(x, "the range %d..%d is empty", from, to)
		}
	case op == "in":
		c.in(x)
	case tests[op] != nil && op != "matches":
		c.comparison(x)
	}
}

// operands warns of true and false as parts of a chain.
func (c *critic) operands(x *ast.BinaryNode) {
	for _, side := range []ast.Node{x.Left, x.Right} {
		if b, ok := side.(*ast.BoolNode); ok {
			c.warn(b, "%t is a constant: it decides %s or changes nothing", b.Value, chain(x))
		}
	}
}

func (c *critic) in(x *ast.BinaryNode) {
	list, ok := x.Right.(*ast.ArrayNode)
	if !ok {
		return
	}
	if len(list.Nodes) == 0 {
		c.warn(x, "the list is empty: nothing is in it")
	}
	for _, n := range list.Nodes {
		if v, ok := literal(n); ok {
			c.value(x.Left, n, v, "is never")
		}
	}
}

// comparison warns of comparisons whose answer is known beforehand.
func (c *critic) comparison(x *ast.BinaryNode) {
	a, ok := literal(x.Left)
	b, ok2 := literal(x.Right)
	switch {
	case ok && ok2:
		c.warn(x, "two constants are compared: always %t", tests[x.Operator](new(machine), a, b))
	case x.Left.String() == x.Right.String():
		c.warn(x, "%s is compared with itself", x.Left)
	case ok2:
		c.constant(x.Operator, x.Left, x.Right, b)
	case ok && mirror[x.Operator] != "":
		c.constant(mirror[x.Operator], x.Right, x.Left, a)
	}
}

func (c *critic) constant(op string, operand, at ast.Node, v any) {
	switch op {
	case "==":
		c.value(operand, at, v, "is never")
	case "!=":
		c.value(operand, at, v, "is always other than")
	default:
		if s, ok := v.(string); ok && mirror[op] != "" && c.date(operand) && !isDate(s) {
			c.warn(at, "%q is no date; dates are written as 2006-01-02 or in RFC 3339", s)
		}
	}
}

// value warns where an operand can't have a value, going by its type.
func (c *critic) value(operand, at ast.Node, v any, verdict string) {
	nature := operand.Nature()
	s, isText := v.(string)
	_, isBool := v.(bool)
	_, isNumber := float(v)
	_, isInteger := Key(v).(int64)
	switch {
	case v == nil:
	case nature.IsInteger && isNumber && !isInteger:
		c.warn(at, "%s is an integer: it %s %#v", operand, verdict, v)
	case nature.IsNumber() && !isNumber, nature.IsString() && !isText, nature.IsBool() && !isBool:
		c.warn(at, "%s is of another type: it %s %#v", operand, verdict, v)
	case isText && c.environment(operand) && s != pipeline.Production && s != pipeline.QA:
		c.warn(at, "the environment is %s or %s: it %s %q", pipeline.Production, pipeline.QA, verdict, s)
	case isText && c.date(operand) && !isDate(s):
		c.warn(at, "%q is no date; dates are written as 2006-01-02 or in RFC 3339", s)
	}
}

func (c *critic) environment(n ast.Node) bool {
	x, ok := n.(*ast.MemberNode)
	if !ok || identifier(x.Node, "event") == nil {
		return false
	}
	name, ok := x.Property.(*ast.StringNode)
	return ok && name.Value == "environment"
}

func (c *critic) date(n ast.Node) bool { return c.names.properties[propertyOf(n)] == pipeline.Date }

func isDate(s string) bool {
	for _, layout := range []string{time.DateOnly, time.RFC3339Nano} {
		if _, err := time.Parse(layout, s); err == nil {
			return true
		}
	}
	return false
}

// fact is what one clause of a chain says about an operand.
type fact struct {
	operand string
	op      string
	value   any // a []any for in
	at      ast.Node
}

// clauses warns where two clauses of a chain can't hold at once, or where of
// two alternatives one always holds.
func (c *critic) clauses(x *ast.BinaryNode) {
	var facts []fact
	for _, n := range links(x, chain(x)) {
		f, ok := factOf(n)
		if !ok {
			continue
		}
		for _, have := range facts {
			if have.operand != f.operand {
				continue
			}
			if chain(x) == "and" && (contradict(have, f) || contradict(f, have)) {
				c.warn(f.at, "this can't hold together with the clause before it about %s: never true", f.operand)
				break
			}
			if chain(x) == "or" && have.op == "!=" && f.op == "!=" && Key(have.value) != Key(f.value) {
				c.warn(f.at, "%s is always other than one of the two: always true", f.operand)
				break
			}
		}
		facts = append(facts, f)
	}
}

// links returns the clauses of a chain of and or or.
func links(n ast.Node, kind string) []ast.Node {
	if chain(n) != kind {
		return []ast.Node{n}
	}
	x := n.(*ast.BinaryNode)
	return append(links(x.Left, kind), links(x.Right, kind)...)
}

func factOf(n ast.Node) (fact, bool) {
	x, ok := n.(*ast.BinaryNode)
	if !ok || tests[x.Operator] == nil || x.Operator == "matches" {
		return fact{}, false
	}
	if list, ok := literals(x.Right); ok && x.Operator == "in" {
		return fact{x.Left.String(), "in", list, x}, true
	}
	if v, ok := literal(x.Right); ok && x.Operator != "in" {
		return fact{x.Left.String(), x.Operator, v, x}, true
	}
	if v, ok := literal(x.Left); ok && mirror[x.Operator] != "" {
		return fact{x.Right.String(), mirror[x.Operator], v, x}, true
	}
	return fact{}, false
}

// contradict says whether nothing can be both.
func contradict(a, b fact) bool {
	if a.op == "==" {
		return !tests[b.op](new(machine), a.value, b.value)
	}
	lower := a.op == ">" || a.op == ">="
	upper := b.op == "<" || b.op == "<="
	if !lower || !upper {
		return false
	}
	c, ok := compare(nil, a.value, b.value)
	return !ok || c > 0 || c == 0 && (a.op == ">" || b.op == "<")
}
