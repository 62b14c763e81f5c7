// Package expression runs the expressions that users write into conditions and
// property mappings: expr-lang over one event, made safe.
//
// Safe means: a missing or null property, or one of another type, is never a
// surprise (comparisons are false, arithmetic and functions give null); the
// answer depends on the event alone (no clock, nothing without a fixed order);
// and neither a slip nor malice costs more than a moment of time or a few
// megabytes. An expression is checked against the catalog's types as it was
// written, then rewritten and compiled without types, since at run time a
// property can be anything.
package expression

import (
	"fmt"
	"slices"

	"github.com/expr-lang/expr/conf"
	"github.com/expr-lang/expr/parser"
	"github.com/expr-lang/expr/vm"

	"github.com/millrace-io/millrace/pipeline"
)

// Limits of one expression, far above what people write.
const (
	maxText    = 10_000    // bytes of text
	maxNodes   = 500       // nodes of the syntax tree
	maxNesting = 2         // predicates within predicates
	maxList    = 100_000   // elements of one list
	maxMemory  = 100_000   // elements that literals and predicates make, counted by expr
	maxWork    = 1_000_000 // see machine.spend
	maxDepth   = 64        // lists within lists
)

// Input is what an expression is about. DeliveryID and Webhook are read by
// expressions compiled with Scope.Delivery.
type Input struct {
	Event      *pipeline.Event
	DeliveryID string
	Webhook    string
}

// Equality is a clause "property == value" without which the whole expression
// can't be true. Value is a bool, int64, float64 or string; a number without a
// fraction is an int64 where it fits.
type Equality struct {
	Property string
	Value    any
	// Guards are the properties that clauses before it read. Where one of them
	// holds an integer beyond 64 bits, the expression fails there.
	Guards []string
}

// Program is a compiled expression. It is immutable and safe for concurrent use.
type Program struct {
	code       *vm.Program
	result     pipeline.Type
	properties []string
	constant   bool
	loops      bool
	equalities []Equality
}

// Properties returns the names of the properties that it reads, sorted.
func (p *Program) Properties() []string { return slices.Clone(p.properties) }

// Type is the type of its value as far as the check can tell; "" for anything
// else, null included.
func (p *Program) Type() pipeline.Type { return p.result }

// Constant says that it reads nothing of its input.
func (p *Program) Constant() bool { return p.constant }

// Equalities returns the clauses of its top-level `and` that an index may use:
// where the property has another value, Run gives false and no error.
func (p *Program) Equalities() []Equality { return p.equalities }

// Compile checks and compiles an expression. The error is an *Error or several,
// joined: see All.
func Compile(text string, s Scope) (p *Program, warnings []Warning, err error) {
	defer recovered(&err)
	x, err := parse(text, s)
	if err != nil {
		return nil, nil, err
	}
	b := &builder{names: x.names, found: x.found}
	root := b.node(x.tree.Node)
	equalities := b.equalities(x.tree.Node)
	if err := x.found.err(); err != nil {
		return nil, nil, err
	}
	warnings = warn(x.tree, x.names, text)
	code, err := generate(root, x.tree.Source)
	if err != nil {
		return nil, nil, err
	}
	return &Program{
		code: code, result: x.result, properties: x.names.sorted(), constant: !x.names.input,
		loops: b.loops, equalities: equalities,
	}, warnings, nil
}

// parsed is an expression that is checked, but not yet rewritten.
type parsed struct {
	tree   *parser.Tree
	names  *names
	found  *problems
	result pipeline.Type
}

// parse reads and checks an expression.
func parse(text string, s Scope) (*parsed, error) {
	if err := checkText(text); err != nil {
		return nil, err
	}
	config := conf.CreateNew()
	config.MaxNodes = maxNodes
	tree, err := parser.ParseWithConfig(text, config)
	if err != nil {
		return nil, fromExpr(err)
	}
	if !withinLimit(tree.Node) {
		return nil, tooLong()
	}
	x := &parsed{tree: tree, found: &problems{text: text}}
	x.names = resolve(tree, s, x.found)
	x.result = check(tree, s, x.names, x.found)
	return x, x.found.err()
}

// recovered makes an error of a panic: expr's parser panics on some malformed
// input.
func recovered(err *error) {
	if r := recover(); r != nil {
		*err = &Error{1, 1, fmt.Sprintf("cannot be compiled: %v", r)}
	}
}

// Run evaluates the expression. The value is nil, a bool, an int64, a float64
// (never infinite or NaN), a string, or a []any or map[string]any of those. The
// error is an *Error.
func (p *Program) Run(in *Input) (any, error) { return p.run(in, nil) }

// run evaluates the expression and notes in seen what its observed nodes say.
func (p *Program) run(in *Input, seen []observation) (any, error) {
	m := machines.Get().(*machine)
	m.vm.MemoryBudget, m.in, m.spent, m.seen = maxMemory, *in, 0, seen
	v, err := m.vm.Run(p.code, m)
	if err != nil {
		err = fromExpr(err)
	} else {
		v, err = m.result(v)
	}
	m.in, m.seen = Input{}, nil
	if p.loops { // a VM keeps room for the largest loop it ran
		m.vm = vm.VM{}
	}
	machines.Put(m)
	if err != nil {
		return nil, err
	}
	return v, nil
}
