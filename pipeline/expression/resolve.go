package expression

import (
	"maps"
	"slices"

	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/builtin"
	"github.com/expr-lang/expr/file"
	"github.com/expr-lang/expr/parser"

	"github.com/millrace-io/millrace/pipeline"
)

// names is what an expression's names stand for.
type names struct {
	scope      Scope
	found      *problems
	properties map[string]pipeline.Type // those it reads, "" where untyped
	members    map[string]map[string]member
	input      bool                         // it reads something of its input
	broken     bool                         // some name means nothing, so types can't be told
	bases      map[*ast.IdentifierNode]bool // names that are fine where they stand
	variables  map[string]bool              // names given by let
}

// resolve finds out what every name of the expression means, replaces null and
// aliases, and reports all names that mean nothing.
func resolve(tree *parser.Tree, s Scope, found *problems) *names {
	n := &names{
		scope: s, found: found,
		properties: map[string]pipeline.Type{},
		members:    map[string]map[string]member{"event": eventMembers},
		bases:      map[*ast.IdentifierNode]bool{},
		variables:  map[string]bool{},
	}
	if s.Delivery {
		n.members["delivery"], n.members["webhook"] = deliveryMembers, webhookMembers
	}
	ast.Walk(&tree.Node, visit(n.declare))
	ast.Walk(&tree.Node, visit(n.resolve))
	ast.Walk(&tree.Node, visit(n.leftOver))
	return n
}

func (n *names) fail(at file.Location, format string, args ...any) {
	n.broken = true
	n.found.add(at, format, args...)
}

type visit func(*ast.Node)

func (f visit) Visit(n *ast.Node) { f(n) }

func (n *names) sorted() []string { return slices.Sorted(maps.Keys(n.properties)) }

func (n *names) declare(node *ast.Node) {
	switch x := (*node).(type) {
	case *ast.IdentifierNode:
		if x.Value == "null" {
			ast.Patch(node, &ast.NilNode{})
		}
	case *ast.VariableDeclaratorNode:
		n.variables[x.Name] = true
	}
}

// resolve looks at every place where a name may stand together with another.
func (n *names) resolve(node *ast.Node) {
	switch x := (*node).(type) {
	case *ast.MemberNode:
		n.member(x)
	case *ast.BinaryNode:
		if id := identifier(x.Right, "props"); id != nil && x.Operator == "in" {
			n.bases[id] = true
			n.propertyName(x.Left, id)
		}
	case *ast.CallNode:
		n.call(x)
	case *ast.BuiltinNode:
		if why, ok := refused[x.Name]; ok {
			n.fail(x.Location(), "%s is not available: %s", x.Name, why)
		}
	case *ast.BytesNode:
		n.fail(x.Location(), "bytes are not available; use text without the b in front")
	}
}

// leftOver reports the names that stand alone and mean nothing there.
func (n *names) leftOver(node *ast.Node) {
	x, ok := (*node).(*ast.IdentifierNode)
	if !ok || n.bases[x] || n.variables[x.Value] {
		return
	}
	switch {
	case x.Value == "props":
		n.fail(x.Location(), `props can't stand alone; name a property: props["name"]`)
	case n.members[x.Value] != nil:
		first := slices.Min(slices.Collect(maps.Keys(n.members[x.Value])))
		n.fail(x.Location(), "%s can't stand alone; name one of its fields, such as %s.%s", x.Value, x.Value, first)
	case x.Value == "delivery" || x.Value == "webhook":
		n.fail(x.Location(), "%s is known in property mappings only", x.Value)
	case n.isProperty(x.Value):
		n.fail(x.Location(), "unknown name %s; did you mean props[%q]?", x.Value, x.Value)
	default:
		known := append(slices.Collect(maps.Keys(n.members)), "props", "null", "true", "false")
		known = slices.AppendSeq(known, maps.Keys(n.variables))
		n.fail(x.Location(), "unknown name %s%s", x.Value, DidYouMean(x.Value, known))
	}
}

func (n *names) isProperty(name string) bool {
	_, ok := n.scope.typeOf(name)
	return ok && n.scope.Types != nil
}

func identifier(node ast.Node, name string) *ast.IdentifierNode {
	if id, ok := node.(*ast.IdentifierNode); ok && id.Value == name {
		return id
	}
	return nil
}

// member resolves props["x"], props.x and event.x.
func (n *names) member(x *ast.MemberNode) {
	id, ok := x.Node.(*ast.IdentifierNode)
	if !ok {
		return
	}
	if id.Value == "props" {
		n.bases[id] = true
		n.propertyName(x.Property, id)
		return
	}
	fields := n.members[id.Value]
	if fields == nil {
		return
	}
	n.bases[id] = true
	n.input = true
	name, ok := x.Property.(*ast.StringNode)
	switch {
	case !ok:
		n.fail(x.Property.Location(), "the name of a field of %s must be written out", id.Value)
	case fields[name.Value] == nil:
		n.fail(name.Location(), "unknown field %s.%s%s", id.Value, name.Value,
			DidYouMean(name.Value, slices.Collect(maps.Keys(fields))))
	}
}

// propertyName resolves the name of a property and puts an alias right.
func (n *names) propertyName(node ast.Node, props *ast.IdentifierNode) {
	n.input = true
	name, ok := node.(*ast.StringNode)
	if !ok {
		n.fail(props.Location(), `the name of a property must be written out: props["name"]`)
		return
	}
	property, t, err := n.scope.Property(name.Value)
	if err != nil {
		n.found.add(name.Location(), "%v", err)
	}
	name.Value = property
	n.properties[property] = t
}

// call resolves calls of what is not expr's own.
func (n *names) call(x *ast.CallNode) {
	id, ok := x.Callee.(*ast.IdentifierNode)
	if !ok {
		n.fail(x.Location(), "values have no methods; functions are called as name(value)")
		return
	}
	n.bases[id] = true
	if _, ok := helpers[id.Value]; ok {
		if !n.scope.Delivery {
			n.fail(id.Location(), "%s is known in property mappings only", id.Value)
		}
		return
	}
	n.fail(id.Location(), "unknown function %s%s", id.Value, DidYouMean(id.Value, n.functionNames()))
}

func (n *names) functionNames() []string {
	var out []string
	for _, f := range builtin.Names {
		if _, ok := refused[f]; !ok {
			out = append(out, f)
		}
	}
	if n.scope.Delivery {
		out = append(out, slices.Collect(maps.Keys(helpers))...)
	}
	return out
}
