package expression

import (
	"maps"
	"regexp/syntax"
	"slices"
	"strings"

	"github.com/expr-lang/expr/ast"
)

// Suggestion is what an event may hold to make an expression true. In
// Properties, nil means that there is none.
type Suggestion struct {
	Properties map[string]any
	Fields     map[string]string // of event, such as "user"
}

// maxSuggestions is how many ways to make an expression true are looked at.
const maxSuggestions = 64

// Suggest reads off an expression's own constants what events may make it true,
// likely ones first. It is no solver: what it gives is to be tried, and there
// may be none among it. The error is that of Compile.
func Suggest(text string, s Scope) (out []Suggestion, err error) {
	defer recovered(&err)
	x, err := parse(text, s)
	if err != nil {
		return nil, err
	}
	return suggester{&builder{names: x.names, found: x.found}}.want(x.tree.Node, true), nil
}

type suggester struct{ *builder }

// want gives ways in which a node may be true, or false.
func (g suggester) want(n ast.Node, truth bool) []Suggestion {
	kind := chain(n)
	if kind == "" {
		return g.wantClause(n, truth)
	}
	all := (kind == "and") == truth // each part has to be so
	out := []Suggestion{{}}
	var either []Suggestion
	for _, part := range links(n, kind) {
		ways := g.want(part, truth)
		either = append(either, ways...)
		out = combine(out, ways)
	}
	if all {
		return out
	}
	return either[:min(len(either), maxSuggestions)]
}

func (g suggester) wantClause(n ast.Node, truth bool) []Suggestion {
	switch x := n.(type) {
	case *ast.UnaryNode:
		if isNot(x) {
			return g.want(x.Node, !truth)
		}
	case *ast.MemberNode:
		return g.assign(x, truth)
	case *ast.BinaryNode:
		return g.wantComparison(x, truth)
	}
	return []Suggestion{{}}
}

func (g suggester) wantComparison(x *ast.BinaryNode, truth bool) []Suggestion {
	if x.Operator == "in" {
		return g.wantIn(x, truth)
	}
	if v, ok := literal(x.Right); ok {
		return g.assign(x.Left, values(x.Operator, v, truth)...)
	}
	if v, ok := literal(x.Left); ok && mirror[x.Operator] != "" {
		return g.assign(x.Right, values(mirror[x.Operator], v, truth)...)
	}
	return []Suggestion{{}}
}

func (g suggester) wantIn(x *ast.BinaryNode, truth bool) []Suggestion {
	if name, ok := x.Left.(*ast.StringNode); ok && identifier(x.Right, "props") != nil {
		if truth {
			return []Suggestion{{}} // which value is for others to say
		}
		return []Suggestion{{Properties: map[string]any{name.Value: nil}}}
	}
	list, ok := literals(x.Right)
	if from, _, isRange := literalRange(x.Right); isRange {
		list, ok = []any{from}, true
	}
	switch {
	case ok && truth:
		return g.assign(x.Left, list...)
	case ok:
		return g.assign(x.Left, nil)
	}
	return []Suggestion{{}}
}

// values are some for which a comparison with a constant is true, or false.
func values(op string, v any, truth bool) []any {
	text, _ := v.(string)
	switch {
	case op == "!=" && truth, op == "==" && !truth:
		return []any{step(v, 1)}
	case op == ">" && truth, op == "<=" && !truth:
		return []any{step(v, 1)}
	case op == "<" && truth, op == ">=" && !truth:
		return []any{step(v, -1)}
	case op == "matches" && truth:
		return []any{sample(text)}
	case !truth && mirror[op] == "": // of text
		return []any{nil}
	}
	return []any{v}
}

// step is a value above or below another one.
func step(v any, by int64) any {
	switch v := v.(type) {
	case bool:
		return !v
	case int64:
		return v + by
	case float64:
		return v + float64(by)
	case string:
		if by < 0 {
			return ""
		}
		return v + "x"
	}
	return "x"
}

// sample is a text that a pattern matches, or nearly.
func sample(pattern string) string {
	tree, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil {
		return ""
	}
	var b strings.Builder
	write(&b, tree)
	return b.String()
}

func write(b *strings.Builder, re *syntax.Regexp) {
	const maxSample = 1_000
	times := 1
	switch re.Op {
	case syntax.OpLiteral:
		b.WriteString(string(re.Rune))
	case syntax.OpCharClass:
		if len(re.Rune) > 0 {
			b.WriteRune(max(re.Rune[0], min('a', re.Rune[1])))
		}
	case syntax.OpAnyChar, syntax.OpAnyCharNotNL:
		b.WriteByte('a')
	case syntax.OpStar, syntax.OpQuest:
		times = 0
	case syntax.OpRepeat:
		times = re.Min
	case syntax.OpAlternate:
		write(b, re.Sub[0])
		times = 0
	}
	for range times {
		for _, sub := range re.Sub {
			if b.Len() < maxSample {
				write(b, sub)
			}
		}
	}
}

// assign gives what a node reads one of some values.
func (g suggester) assign(n ast.Node, values ...any) []Suggestion {
	var out []Suggestion
	property := propertyOf(n)
	read := g.read(n) != nil
	for _, v := range values[:min(len(values), maxSuggestions)] {
		text, isText := v.(string)
		switch {
		case property != "":
			out = append(out, Suggestion{Properties: map[string]any{property: v}})
		case read && isText:
			field := n.(*ast.MemberNode).Property.(*ast.StringNode).Value
			out = append(out, Suggestion{Fields: map[string]string{field: text}})
		}
	}
	if len(out) == 0 {
		return []Suggestion{{}}
	}
	return out
}

// combine takes each way together with each other. Where two want the same to
// be different, it is once as the later and once as the earlier one wants it.
func combine(have, more []Suggestion) []Suggestion {
	var out, doubtful []Suggestion
	for _, a := range have {
		for _, b := range more {
			out = append(out, merge(a, b))
			if clash(a, b) {
				doubtful = append(doubtful, merge(b, a))
			}
			if len(out) >= maxSuggestions {
				return out
			}
		}
	}
	return slices.Concat(out, doubtful)[:min(len(out)+len(doubtful), maxSuggestions)]
}

func clash(a, b Suggestion) bool {
	for name := range a.Properties {
		if _, both := b.Properties[name]; both {
			return true
		}
	}
	return false
}

func merge(a, b Suggestion) Suggestion {
	out := Suggestion{map[string]any{}, map[string]string{}}
	for _, s := range []Suggestion{a, b} {
		maps.Copy(out.Properties, s.Properties)
		maps.Copy(out.Fields, s.Fields)
	}
	return out
}
