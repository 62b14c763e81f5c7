package expression

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/file"
)

// Error is a mistake in an expression, or a failure while it runs. Line and
// Column say where, counted from 1, in characters of the text that was given.
type Error struct {
	Line, Column int
	Message      string
}

// Error returns the message behind its position.
func (e *Error) Error() string { return fmt.Sprintf("%d:%d: %s", e.Line, e.Column, e.Message) }

// Warning is something that is allowed but can hardly be meant.
type Warning struct {
	Line, Column int
	Message      string
}

// String returns the message behind its position.
func (w Warning) String() string { return fmt.Sprintf("%d:%d: %s", w.Line, w.Column, w.Message) }

// All returns every Error that err holds.
func All(err error) []*Error {
	if many, ok := err.(interface{ Unwrap() []error }); ok {
		var out []*Error
		for _, e := range many.Unwrap() {
			out = append(out, All(e)...)
		}
		return out
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return []*Error{e}
	}
	return nil
}

// problems collects what is wrong with a text, so that it is all said at once.
type problems struct {
	text string
	list []*Error
}

func (p *problems) add(at file.Location, format string, args ...any) {
	line, column := position(p.text, at)
	p.put(&Error{line, column, fmt.Sprintf(format, args...)})
}

// put keeps one problem for each place: what else is found there follows from it.
func (p *problems) put(e *Error) {
	for _, have := range p.list {
		if have.Line == e.Line && have.Column == e.Column {
			return
		}
	}
	p.list = append(p.list, e)
}

// err returns the one problem, or all of them joined in the order of the text.
func (p *problems) err() error {
	if len(p.list) == 0 {
		return nil
	}
	if len(p.list) == 1 {
		return p.list[0]
	}
	slices.SortStableFunc(p.list, func(a, b *Error) int {
		if a.Line != b.Line {
			return a.Line - b.Line
		}
		return a.Column - b.Column
	})
	errs := make([]error, len(p.list))
	for i, e := range p.list {
		errs[i] = e
	}
	return errors.Join(errs...)
}

// position turns a location, which counts characters, into line and column.
func position(text string, at file.Location) (line, column int) {
	line, column = 1, 1
	n := 0
	for _, r := range text {
		if n == at.From {
			break
		}
		n++
		column++
		if r == '\n' {
			line, column = line+1, 1
		}
	}
	return line, column
}

// checkText refuses what is not worth parsing.
func checkText(text string) error {
	switch {
	case strings.TrimSpace(text) == "":
		return &Error{1, 1, "the expression is empty"}
	case len(text) > maxText:
		return &Error{1, 1, fmt.Sprintf("the expression has %d bytes; at most %d are allowed", len(text), maxText)}
	case !utf8.ValidString(text):
		return &Error{1, 1, "the expression is not valid UTF-8"}
	}
	return nil
}

// fromExpr turns an error of expr into ours, in the catalog's words.
func fromExpr(err error) *Error {
	if e, ok := errors.AsType[*file.Error](err); ok {
		line, column := max(e.Line, 1), e.Column+1
		if e.Prev != nil {
			return &Error{line, column, e.Prev.Error()}
		}
		return &Error{line, column, plain(e.Message)}
	}
	return &Error{1, 1, plain(err.Error())}
}

// plain puts a message of expr into the words of the catalog.
func plain(message string) string {
	for _, r := range rewordings {
		if r.from.MatchString(message) {
			message = r.from.ReplaceAllString(message, r.to)
		}
	}
	return typeWord.ReplaceAllStringFunc(strings.TrimSpace(message), func(w string) string { return typeWords[w] })
}

type rewording struct {
	from *regexp.Regexp
	to   string
}

// rewordings are messages of expr that its users would not understand.
var rewordings = []rewording{
	{regexp.MustCompile(`^.*exceeds maximum allowed nodes.*$`), tooLong().Message},
	{regexp.MustCompile(`^invalid operation: in \(mismatched types (.*) and (.*)\)$`), "in needs a list on its right, not $2"},
	{regexp.MustCompile(`^invalid operation: (\S+) \(mismatched (types? .*)\)$`), "mismatched $2 for $1"},
	{regexp.MustCompile(`^type (.*)\[.*\] is undefined$`), "$1 has no elements; a part of text is taken with [from:to]"},
	{regexp.MustCompile(`unexpected token EOF`), "unexpected end of the expression"},
	{regexp.MustCompile(`\b(?:Operator|Bracket|Identifier|Number|String|Bytes)\((".*")\)`), "$1"},
	{regexp.MustCompile(`^invalid integer literal: .*parsing "(.*)": value out of range$`), "$1 is an integer beyond 64 bits"},
	{regexp.MustCompile(`^integer literal is too large$`), "an integer beyond 64 bits"},
}

var typeWord = regexp.MustCompile(`\[\]interface ?\{\}|map\[string\]interface ?\{\}|interface ?\{\}|\b(int|int64|float64|bool)\b`)

// typeWords are what users call the types of expr.
var typeWords = map[string]string{
	"int": "integer", "int64": "integer", "float64": "number", "bool": "boolean",
	"[]interface {}": "list", "map[string]interface {}": "map", "interface {}": "value",
	"[]interface{}": "list", "map[string]interface{}": "map", "interface{}": "value",
}

func tooLong() *Error {
	return &Error{1, 1, fmt.Sprintf("the expression is too long: more than %d names, values and operators", maxNodes)}
}

// withinLimit counts the nodes of a tree as they are visited. In a chain such as
// 1 < x < 3 the parser uses the middle twice, so that the visits can double with
// every level of brackets and never end.
func withinLimit(root ast.Node) (ok bool) {
	type stop struct{}
	defer func() {
		if r := recover(); r != nil {
			if _, ours := r.(stop); !ours {
				panic(r)
			}
			ok = false
		}
	}()
	visits := 0
	ast.Walk(&root, visit(func(*ast.Node) {
		if visits++; visits > 2*maxNodes { // the only way to end a walk
			panic(stop{})
		}
	}))
	return true
}
