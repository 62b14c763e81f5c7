package expression

import (
	"fmt"

	"github.com/expr-lang/expr/ast"
)

// predicates are the functions that run an expression for each element of a
// list; true for those that ask it for true or false.
var predicates = map[string]bool{
	"all": true, "any": true, "none": true, "one": true, "filter": true, "count": true,
	"find": true, "findIndex": true, "findLast": true, "findLastIndex": true,
	"map": false, "reduce": false, "sortBy": false, "sum": false,
}

// builtin writes a call of one of expr's functions.
func (b *builder) builtin(x *ast.BuiltinNode) ast.Node {
	if asks, ok := predicates[x.Name]; ok {
		return b.predicate(x, asks)
	}
	return call(functions[x.Name].operator(), b.all(x.Arguments)...)
}

// predicate writes a loop: null over null, a failure over anything but a list,
// and each turn counted.
//
//	let list = …; list is null ? nil : any(list, {count(); …})
func (b *builder) predicate(x *ast.BuiltinNode, asks bool) ast.Node {
	b.loops = true
	name := b.variable()
	list := &ast.IdentifierNode{Value: name}
	args := []ast.Node{list}
	if len(x.Arguments) > 1 {
		args = append(args, b.body(x.Arguments[1], asks))
	}
	for _, a := range x.Arguments[min(2, len(x.Arguments)):] {
		args = append(args, b.node(a))
	}
	var loop ast.Node = &ast.BuiltinNode{Name: x.Name, Arguments: args}
	if x.Name == "sum" {
		loop = sum(args)
	}
	loop.SetLocation(x.Location())
	value := call(elements(x.Name), b.node(x.Arguments[0]))
	place(value, x.Location())
	return &ast.VariableDeclaratorNode{Name: name, Value: value, Expr: &ast.ConditionalNode{
		Cond: callBool(isNull, &ast.IdentifierNode{Value: name}), Exp1: &ast.NilNode{}, Exp2: loop,
	}}
}

// elements hands on what a loop can run over.
func elements(name string) operator {
	return func(m *machine, args []any) any {
		switch list := args[0].(type) {
		case nil:
			return nil
		case []any:
			m.spend(len(list))
			return list
		}
		panic(fmt.Errorf("%s needs a list, not %s", name, typeName(args[0])))
	}
}

// body writes what runs for each element. A turn costs as much as the body has
// nodes.
func (b *builder) body(n ast.Node, asks bool) ast.Node {
	b.nesting++
	defer func() { b.nesting-- }()
	if b.nesting > maxNesting {
		b.found.add(n.Location(), "loops may stand within each other %d deep at most", maxNesting)
	}
	inner := n
	if p, ok := n.(*ast.PredicateNode); ok {
		inner = p.Node
	}
	cost := 0
	ast.Walk(&inner, visit(func(*ast.Node) { cost++ }))
	turn := callRead(func(m *machine) any {
		m.spend(cost)
		return nil
	})
	written := b.node(inner)
	if asks {
		written = b.truth(inner)
	}
	return &ast.PredicateNode{Node: &ast.SequenceNode{Nodes: []ast.Node{turn, written}}}
}

// sum adds up with our own addition, since expr's wraps around.
func sum(args []ast.Node) ast.Node {
	var each ast.Node = &ast.PointerNode{}
	if len(args) > 1 {
		each = args[1].(*ast.PredicateNode).Node
	}
	turn := &ast.PredicateNode{Node: call(arithmetic(add), &ast.PointerNode{Name: "acc"}, each)}
	return &ast.BuiltinNode{Name: "reduce", Arguments: []ast.Node{args[0], turn, &ast.IntegerNode{Value: 0}}}
}
