package expression

import (
	"slices"
	"strings"

	"github.com/expr-lang/expr/ast"

	"github.com/millrace-io/millrace/pipeline"
)

// Kind says how a clause comes to its answer.
type Kind string

// The kinds of clauses.
const (
	And  Kind = "and"    // all parts have to hold; the first that does not ends it
	Or   Kind = "or"     // one part has to hold; the first that does ends it
	Not  Kind = "not"    // its one part must not hold
	Test Kind = "clause" // it looks at values
)

// Answer is what a clause said about an event.
type Answer string

// The answers.
const (
	Holds      Answer = "holds"
	HoldsNot   Answer = "does_not_hold"
	Failed     Answer = "failed"      // and so the whole expression
	NotReached Answer = "not_reached" // the answer was known before
)

// Clause is a part of an expression and what it said about one event.
type Clause struct {
	Kind   Kind      `json:"kind"`
	Text   string    `json:"text"` // as it was written
	Line   int       `json:"line"` // where it begins, from 1
	Column int       `json:"column"`
	Answer Answer    `json:"answer"`
	Error  string    `json:"error,omitempty"`  // why it failed
	Values []Value   `json:"values,omitempty"` // what a Test looks at, in the order of the text
	Parts  []*Clause `json:"parts,omitempty"`

	slot     int
	computed []operand
}

// Value is something that a clause looks at, as it is in the event.
type Value struct {
	// Name is that of a property, of a field such as event.user, or the text of
	// what is computed.
	Name string `json:"name"`
	// Value is nil, a bool, an int64, a float64, a string, a list or map of
	// those, or a json.Number beyond 64 bits.
	Value any `json:"value"`
	// Missing says that the event has none; what is computed is left out then.
	Missing bool `json:"missing,omitempty"`
	// Property says that Name is that of a property, and Type what type it has
	// by the catalog; "" where that says nothing.
	Property bool          `json:"property,omitempty"`
	Type     pipeline.Type `json:"type,omitempty"`
	// Of are the properties that a computed value is made of.
	Of []string `json:"of,omitempty"`
}

// Explain evaluates an expression as Run does and says what each clause of it
// said: those of `and`, `or` and `not`, down to what looks at values. The first
// clause is the whole. The error is that of Compile.
func Explain(text string, s Scope, in *Input) (root *Clause, err error) {
	defer recovered(&err)
	x, err := parse(text, s)
	if err != nil {
		return nil, err
	}
	e := &explainer{parsed: x, source: newSpans(text), observe: observer{}, in: in}
	root = e.clause(x.tree.Node)
	root.Text = strings.TrimSpace(text)
	b := &builder{names: x.names, found: x.found, observe: e.observe}
	tree := b.node(x.tree.Node)
	if err := x.found.err(); err != nil {
		return nil, err
	}
	code, err := generate(tree, x.tree.Source)
	if err != nil {
		return nil, err
	}
	seen := make([]observation, len(e.observe))
	_, failure := (&Program{code: code, loops: b.loops}).run(in, seen)
	root.settle(seen)
	if failure != nil {
		root.blame(All(failure)[0].Message)
	}
	return root, nil
}

// Fires says whether the clause holds.
func (c *Clause) Fires() bool { return c.Answer == Holds }

// All yields the clause and all clauses within it, a whole before its parts.
func (c *Clause) All(yield func(*Clause) bool) { c.walk(yield) }

func (c *Clause) walk(yield func(*Clause) bool) bool {
	return yield(c) && !slices.ContainsFunc(c.Parts, func(p *Clause) bool { return !p.walk(yield) })
}

// settle fills in what was seen.
func (c *Clause) settle(seen []observation) {
	c.Answer = NotReached
	if o := seen[c.slot]; o.done {
		c.Answer = HoldsNot
		if isTrue(o.value) {
			c.Answer = Holds
		}
	}
	for _, v := range c.computed {
		if o := seen[v.slot]; o.done {
			c.compute(v, o.value)
		}
	}
	for _, p := range c.Parts {
		p.settle(seen)
	}
}

// compute adds a value that came to be, if it is one that Run could give.
func (c *Clause) compute(from operand, v any) {
	if plain, err := new(machine).result(v); err == nil {
		c.Values = append(c.Values, Value{Name: from.text, Value: plain, Of: from.of})
	}
}

// blame finds the clause that failed: clauses are evaluated in the order of the
// text, so it is the first that was begun and came to no answer.
func (c *Clause) blame(why string) {
	c.Answer = Failed
	i := slices.IndexFunc(c.Parts, func(p *Clause) bool { return p.Answer == NotReached })
	if i < 0 {
		c.Error = why
		return
	}
	c.Parts[i].blame(why)
}

// operand is one side of a comparison, where that is computed.
type operand struct {
	slot int
	text string
	of   []string
}

// explainer takes an expression apart into clauses.
type explainer struct {
	*parsed
	source  *spans
	observe observer
	in      *Input
}

func (e *explainer) clause(n ast.Node) *Clause {
	text, at := e.source.text(n)
	line, column := position(e.found.text, at)
	c := &Clause{Kind: Test, Text: text, Line: line, Column: column, slot: e.observe.add(n)}
	if kind := chain(n); kind != "" {
		c.Kind = Kind(kind)
		for _, part := range links(n, kind) {
			c.Parts = append(c.Parts, e.clause(part))
		}
		return c
	}
	if x, ok := n.(*ast.UnaryNode); ok && isNot(x) && !infix(x) {
		c.Kind, c.Parts = Not, []*Clause{e.clause(x.Node)}
		return c
	}
	c.Values = e.values(n)
	c.computed = e.operands(n)
	return c
}

func isNot(x *ast.UnaryNode) bool { return x.Operator == "not" || x.Operator == "!" }

// infix tells `a not in b` from `not (a in b)`: the parser makes the same of
// both, but of the first with the place of the operator.
func infix(x *ast.UnaryNode) bool {
	inner, ok := x.Node.(*ast.BinaryNode)
	return ok && isNot(x) && inner.Location() == x.Location()
}

// values are the properties and fields that a node reads.
func (e *explainer) values(n ast.Node) []Value {
	var out []Value
	ast.Walk(&n, visit(func(n *ast.Node) {
		v, ok := e.value(*n)
		if ok && !slices.ContainsFunc(out, func(have Value) bool { return have.Name == v.Name && have.Property == v.Property }) {
			out = append(out, v)
		}
	}))
	return out
}

// value is what a node reads of the input, if it reads just that.
func (e *explainer) value(n ast.Node) (Value, bool) {
	if x, ok := n.(*ast.BinaryNode); ok && x.Operator == "in" && identifier(x.Right, "props") != nil {
		return e.property(x.Left.(*ast.StringNode).Value), true
	}
	if name := propertyOf(n); name != "" {
		return e.property(name), true
	}
	read := (&builder{names: e.names}).read(n)
	if read == nil {
		return Value{}, false
	}
	text, _ := e.source.text(n)
	v := read(&machine{in: *e.in})
	return Value{Name: text, Value: v, Missing: v == nil}, true
}

func (e *explainer) property(name string) Value {
	v := Value{Name: name, Property: true, Missing: true, Type: e.names.properties[name]}
	if e.in.Event.Properties == nil {
		return v
	}
	v.Value = e.in.Event.Properties.Get(name)
	v.Missing = v.Value == nil
	if v.Missing { // or it is there and null
		for have := range e.in.Event.Properties.All() {
			if have == name {
				v.Missing = false
			}
		}
	}
	return v
}

// operands are the sides of a comparison that are neither read nor written out.
func (e *explainer) operands(n ast.Node) []operand {
	if x, ok := n.(*ast.UnaryNode); ok && infix(x) {
		n = x.Node
	}
	x, ok := n.(*ast.BinaryNode)
	if !ok || tests[x.Operator] == nil {
		return nil
	}
	var out []operand
	for _, side := range []ast.Node{x.Left, x.Right} {
		if _, plain := e.value(side); plain {
			continue
		}
		values := e.values(side)
		if len(values) == 0 {
			continue
		}
		text, _ := e.source.text(side)
		o := operand{slot: e.observe.add(side), text: text}
		for _, v := range values {
			if v.Property {
				o.of = append(o.of, v.Name)
			}
		}
		out = append(out, o)
	}
	return out
}
