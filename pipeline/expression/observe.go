package expression

import "github.com/expr-lang/expr/ast"

// observer says which nodes a program notes the values of while it runs, and
// where. So an explanation is of the very run that it explains: what is not
// reached, fails or costs too much there is so here.
type observer map[ast.Node]int

// observation is the value that a node had; done says that it came to one.
type observation struct {
	value any
	done  bool
}

// add has a node observed and returns where its value will be.
func (o observer) add(n ast.Node) int {
	if _, ok := o[n]; !ok {
		o[n] = len(o)
	}
	return o[n]
}

func (o observer) has(n ast.Node) bool {
	_, ok := o[n]
	return ok
}

// wrap makes the rewritten form of an observed node note its value. What is
// known to be a boolean stays one.
func (o observer) wrap(n, rewritten ast.Node) ast.Node {
	at, ok := o[n]
	if !ok {
		return rewritten
	}
	note := call(func(m *machine, args []any) any {
		m.seen[at] = observation{args[0], true}
		return args[0]
	}, rewritten)
	if boolean(n) {
		return callBool(isTrue, note)
	}
	return note
}
