package expression

import (
	"fmt"
	"math"

	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/file"
)

// builder writes the checked tree anew for the run: operators, functions and
// access to properties become calls of our own Go functions, which never fail
// on null or another type; and, or, not, ?:, ??, let and loops stay expr's. It
// shares leaves with the old tree and changes nothing of it.
type builder struct {
	names   *names
	found   *problems
	nesting int
	loops   bool
	hidden  int // variables made so far
	observe observer
}

// An operator works on values. It panics with an error where it fails.
type operator func(m *machine, args []any) any

// env is the machine in compiled code.
func env() ast.Node { return &ast.IdentifierNode{Value: "$env"} }

// call calls an operator with the machine and the values of the nodes.
func call(op operator, args ...ast.Node) ast.Node {
	fn := func(args ...any) any { return op(args[0].(*machine), args[1:]) }
	return &ast.CallNode{Callee: &ast.ConstantNode{Value: fn}, Arguments: append([]ast.Node{env()}, args...)}
}

// callTest calls a function that the VM knows to give a boolean.
func callTest(f func(m *machine) bool) ast.Node {
	fn := func(m any) bool { return f(m.(*machine)) }
	return &ast.CallNode{Callee: &ast.ConstantNode{Value: fn}, Arguments: []ast.Node{env()}}
}

func callRead(f member) ast.Node {
	fn := func(m any) any { return f(m.(*machine)) }
	return &ast.CallNode{Callee: &ast.ConstantNode{Value: fn}, Arguments: []ast.Node{env()}}
}

func callBool(f func(v any) bool, arg ast.Node) ast.Node {
	return &ast.CallNode{Callee: &ast.ConstantNode{Value: f}, Arguments: []ast.Node{arg}}
}

func isTrue(v any) bool {
	b, ok := v.(bool)
	return ok && b
}

func isNull(v any) bool { return v == nil }

func not(n ast.Node) ast.Node { return &ast.UnaryNode{Operator: "not", Node: n} }

// node writes one node anew. The place in the text is kept.
func (b *builder) node(n ast.Node) ast.Node {
	out := b.observe.wrap(n, b.write(n))
	if out != n {
		place(out, n.Location())
	}
	return out
}

// place gives a new node, and what was made together with it, the place of what
// they stand for. Nodes that have one keep it.
func place(n ast.Node, at file.Location) {
	if n.Location() != (file.Location{}) {
		return
	}
	n.SetLocation(at)
	switch x := n.(type) {
	case *ast.UnaryNode:
		place(x.Node, at)
	case *ast.VariableDeclaratorNode:
		place(x.Value, at)
	case *ast.CallNode:
		for _, a := range x.Arguments {
			place(a, at)
		}
	}
}

func (b *builder) write(n ast.Node) ast.Node {
	switch x := n.(type) {
	case *ast.MemberNode:
		return b.member(x)
	case *ast.ChainNode: // members of null are null anyway
		return b.node(x.Node)
	case *ast.SliceNode:
		return call(slice, b.node(x.Node), b.or(x.From, 0), b.or(x.To, math.MaxInt))
	case *ast.UnaryNode:
		return b.unary(x)
	case *ast.BinaryNode:
		return b.binary(x)
	case *ast.CallNode:
		return call(helpers[x.Callee.(*ast.IdentifierNode).Value].operator(), b.all(x.Arguments)...)
	case *ast.BuiltinNode:
		return b.builtin(x)
	case *ast.ConditionalNode:
		return &ast.ConditionalNode{Ternary: x.Ternary, Cond: b.truth(x.Cond), Exp1: b.node(x.Exp1), Exp2: b.node(x.Exp2)}
	case *ast.VariableDeclaratorNode:
		return &ast.VariableDeclaratorNode{Name: x.Name, Value: b.node(x.Value), Expr: b.node(x.Expr)}
	case *ast.SequenceNode:
		return &ast.SequenceNode{Nodes: b.all(x.Nodes)}
	case *ast.ArrayNode:
		return &ast.ArrayNode{Nodes: b.all(x.Nodes)}
	case *ast.MapNode:
		return &ast.MapNode{Pairs: b.all(x.Pairs)}
	case *ast.PairNode:
		return &ast.PairNode{Key: b.key(x.Key), Value: b.node(x.Value)}
	}
	return n // a leaf
}

// key writes the key of a map, which expr takes for text without looking.
func (b *builder) key(n ast.Node) ast.Node {
	if _, ok := n.(*ast.StringNode); ok {
		return n
	}
	out := call(mapKey, b.node(n))
	place(out, n.Location())
	return out
}

func (b *builder) all(nodes []ast.Node) []ast.Node {
	out := make([]ast.Node, len(nodes))
	for i, n := range nodes {
		out[i] = b.node(n)
	}
	return out
}

func (b *builder) or(n ast.Node, otherwise int) ast.Node {
	if n == nil {
		return &ast.IntegerNode{Value: otherwise}
	}
	return b.node(n)
}

// truth writes a node so that its value is a boolean: false unless true.
func (b *builder) truth(n ast.Node) ast.Node {
	if boolean(n) {
		return b.node(n)
	}
	if read := b.read(n); read != nil && !b.observe.has(n) {
		out := callTest(func(m *machine) bool { return isTrue(read(m)) })
		place(out, n.Location())
		return out
	}
	out := callBool(isTrue, b.node(n))
	place(out, n.Location())
	return out
}

// boolean says whether what b makes of a node always is true or false.
func boolean(n ast.Node) bool {
	switch x := n.(type) {
	case *ast.BoolNode:
		return true
	case *ast.UnaryNode:
		return x.Operator == "not" || x.Operator == "!"
	case *ast.BinaryNode:
		switch x.Operator {
		case "and", "&&", "or", "||":
			return true
		}
		return tests[x.Operator] != nil
	}
	return false
}

// read returns how to read a property or a field; nil for any other node.
func (b *builder) read(n ast.Node) member {
	x, ok := n.(*ast.MemberNode)
	if !ok {
		return nil
	}
	id, ok := x.Node.(*ast.IdentifierNode)
	if !ok {
		return nil
	}
	name, ok := x.Property.(*ast.StringNode)
	if !ok {
		return nil
	}
	if id.Value == "props" {
		return func(m *machine) any { return m.property(name.Value) }
	}
	return b.names.members[id.Value][name.Value]
}

func (b *builder) member(x *ast.MemberNode) ast.Node {
	if read := b.read(x); read != nil {
		return callRead(read)
	}
	return call(element, b.node(x.Node), b.node(x.Property))
}

func (b *builder) unary(x *ast.UnaryNode) ast.Node {
	switch x.Operator {
	case "not", "!":
		return not(b.truth(x.Node))
	}
	if v, ok := literal(x); ok {
		if f, ok := v.(float64); ok {
			return &ast.FloatNode{Value: f}
		}
		return &ast.IntegerNode{Value: int(v.(int64))}
	}
	if x.Operator == "-" {
		return call(arithmetic(subtract), &ast.IntegerNode{Value: 0}, b.node(x.Node))
	}
	return call(arithmetic(add), &ast.IntegerNode{Value: 0}, b.node(x.Node))
}

func (b *builder) binary(x *ast.BinaryNode) ast.Node {
	switch op := x.Operator; op {
	case "and", "&&", "or", "||":
		return &ast.BinaryNode{Operator: op, Left: b.truth(x.Left), Right: b.truth(x.Right)}
	case "??":
		return &ast.BinaryNode{Operator: op, Left: b.node(x.Left), Right: b.node(x.Right)}
	case "..":
		return call(makeRange, b.node(x.Left), b.node(x.Right))
	}
	if f := calculations[x.Operator]; f != nil {
		return call(arithmetic(f), b.node(x.Left), b.node(x.Right))
	}
	if x.Operator == "in" && identifier(x.Right, "props") != nil {
		name := x.Left.(*ast.StringNode).Value
		return callTest(func(m *machine) bool { return m.get(name) != nil })
	}
	if t := b.constantTest(x); t != nil {
		return b.apply(t, x)
	}
	if f := tests[x.Operator]; f != nil {
		op := func(m *machine, args []any) any { return f(m, args[0], args[1]) }
		return callBool(isTrue, call(op, b.node(x.Left), b.node(x.Right)))
	}
	b.found.add(x.Location(), "unknown operator %s", x.Operator)
	return x
}

// apply applies a test to the side of x that is no constant: in one step where
// that is a property, which most clauses of most conditions are.
func (b *builder) apply(t *constantTest, x *ast.BinaryNode) ast.Node {
	operand := x.Left
	if t.mirrored {
		operand = x.Right
	}
	if read := b.read(operand); read != nil {
		return callTest(func(m *machine) bool { return t.holds(m, read(m)) })
	}
	return callBool(isTrue, call(func(m *machine, args []any) any { return t.holds(m, args[0]) }, b.node(operand)))
}

func (b *builder) variable() string {
	b.hidden++
	return fmt.Sprintf("list %d", b.hidden) // no name that can be written
}
