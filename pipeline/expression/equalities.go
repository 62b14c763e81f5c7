package expression

import (
	"slices"

	"github.com/expr-lang/expr/ast"
)

// equalities returns the clauses of the top-level `and` that an index may use:
// `property == constant`, reached by way of clauses that can't fail but for an
// integer beyond 64 bits in a property they read.
func (b *builder) equalities(root ast.Node) []Equality {
	var out []Equality
	var guards []string
	for _, clause := range conjuncts(root) {
		reads, ok := b.total(clause)
		if !ok {
			break
		}
		if name, value, ok := b.equality(clause); ok {
			out = append(out, Equality{name, value, slices.Clone(guards)})
		}
		guards = append(guards, reads...)
	}
	return out
}

func conjuncts(n ast.Node) []ast.Node {
	if x, ok := n.(*ast.BinaryNode); ok && (x.Operator == "and" || x.Operator == "&&") {
		return append(conjuncts(x.Left), conjuncts(x.Right)...)
	}
	return []ast.Node{n}
}

// equality takes a clause apart that compares a property with a constant.
func (b *builder) equality(n ast.Node) (property string, value any, ok bool) {
	x, ok := n.(*ast.BinaryNode)
	if !ok || x.Operator != "==" {
		return "", nil, false
	}
	for _, side := range [][2]ast.Node{{x.Left, x.Right}, {x.Right, x.Left}} {
		name := propertyOf(side[0])
		v, ok := literal(side[1])
		if name != "" && ok && v != nil {
			return name, Key(v), true
		}
	}
	return "", nil, false
}

// total says whether a clause can't fail, apart from integers beyond 64 bits in
// the properties that it reads.
func (b *builder) total(n ast.Node) (reads []string, ok bool) {
	switch x := n.(type) {
	case *ast.BoolNode:
		return nil, true
	case *ast.MemberNode:
		if b.read(x) == nil {
			return nil, false
		}
		if name := propertyOf(x); name != "" {
			reads = []string{name}
		}
		return reads, true
	case *ast.UnaryNode:
		if x.Operator == "not" || x.Operator == "!" {
			return b.total(x.Node)
		}
	case *ast.BinaryNode:
		return b.totalBinary(x)
	}
	return nil, false
}

func (b *builder) totalBinary(x *ast.BinaryNode) (reads []string, ok bool) {
	switch x.Operator {
	case "and", "&&", "or", "||":
		left, ok := b.total(x.Left)
		right, ok2 := b.total(x.Right)
		return append(left, right...), ok && ok2
	case "in":
		if identifier(x.Right, "props") != nil {
			return nil, true
		}
	}
	t := b.constantTest(x)
	if t == nil || !t.total {
		return nil, false
	}
	if t.mirrored {
		return b.total(x.Right)
	}
	return b.total(x.Left)
}

// propertyOf returns the name of the property that a node reads, else "".
func propertyOf(n ast.Node) string {
	x, ok := n.(*ast.MemberNode)
	if !ok || identifier(x.Node, "props") == nil {
		return ""
	}
	name, ok := x.Property.(*ast.StringNode)
	if !ok {
		return ""
	}
	return name.Value
}
