package definition

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	goccy "github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/parser"
	"gopkg.in/yaml.v3"

	"github.com/millrace-io/millrace/pipeline/scalar"
)

// yamlDocuments splits the file where YAML does, so that a slip of syntax in one
// document leaves the problems of the others to be found.
func (t *text) yamlDocuments() []*node {
	var docs []*node
	add := func(from, to int) {
		if doc := t.yamlDocument(from, to); doc != nil && doc.kind != nullNode {
			docs = append(docs, doc)
		}
	}
	from := 0
	for i, line := range t.lines {
		switch {
		case isMark(line, "---") && i > from:
			add(from, i)
			from = i
		case isMark(line, "..."):
			add(from, i)
			from = i + 1
		}
	}
	add(from, len(t.lines))
	return docs
}

// isMark says whether the line starts or ends a document: in column 1 nothing
// else can stand there.
func isMark(line, mark string) bool {
	rest, ok := strings.CutPrefix(line, mark)
	return ok && (rest == "" || rest[0] == ' ' || rest[0] == '\t')
}

// yamlDocument reads the lines [from, to). A slip that can be corrected is
// reported, and reading goes on with the corrected line.
func (t *text) yamlDocument(from, to int) *node {
	if len(t.problems) > maxSyntaxes {
		return nil
	}
	t.docs = append(t.docs, [2]int{from, to})
	for range maxSlips {
		doc, bad := parseYAML(t.lines[from:to])
		if bad == nil {
			c := &converter{text: t, offset: from}
			return c.convert(doc, 0)
		}
		bad.at.line += from
		if !t.correctSyntax(from, to, bad) {
			t.report(bad.at, "%s", bad.message)
			return nil
		}
	}
	return nil
}

// correctSyntax looks for a slip around an expression or a secret in the lines
// near the error. A correction counts only if reading then gets beyond it.
func (t *text) correctSyntax(from, to int, bad *syntaxError) bool {
	for _, n := range []int{bad.at.line, bad.at.line - 1, bad.at.line + 1} {
		if n <= from || n > to {
			continue
		}
		was := t.lines[n-1]
		better, ok := correctLine(was)
		if !ok {
			continue
		}
		t.lines[n-1] = better
		_, still := parseYAML(t.lines[from:to])
		if still == nil || still.at.line+from > max(n, bad.at.line) {
			column := len(was) - len(strings.TrimLeft(was, " -")) + 1
			shown := t.showable(n, better)
			t.reportSlip(place{n, column}, shown, "found characters here that mean something else in YAML, expected the text%s in quotes", behind(was, better, shown))
			return true
		}
		t.lines[n-1] = was
	}
	return false
}

type syntaxError struct {
	at      place
	message string
}

// parseYAML reads one document. yaml.v3 decides what is YAML; of the two parsers
// goccy's says better where a mistake is, and yaml.v3 gives no column at all.
func parseYAML(lines []string) (doc *yaml.Node, bad *syntaxError) {
	data := []byte(strings.Join(lines, "\n"))
	var top yaml.Node
	err := yaml.Unmarshal(data, &top)
	if err == nil {
		return &top, nil
	}
	if bad := goccyError(data); bad != nil {
		return nil, bad
	}
	return nil, v3Error(err, lines)
}

func goccyError(data []byte) (bad *syntaxError) {
	defer func() {
		if recover() != nil { // it only helps to place an error: better no place than no answer
			bad = nil
		}
	}()
	_, err := parser.ParseBytes(data, 0)
	syntax, ok := errors.AsType[*goccy.SyntaxError](err)
	if !ok || syntax.Token == nil || syntax.Token.Position == nil {
		return nil
	}
	at := syntax.Token.Position
	message, _, _ := strings.Cut(syntax.Message, `: "`) // what comes then is the text itself, perhaps a secret
	message = quotation.ReplaceAllString(message, "")
	return &syntaxError{place{at.Line, at.Column}, "this is not YAML: " + message}
}

// quotation is what an error of a parser quotes of a file.
var quotation = regexp.MustCompile(` ?"(?:\\.|[^"\\])*"?`)

var v3Form = regexp.MustCompile(`^yaml: (?:line ([0-9]+): )?(.*)`)

var anchorForm = regexp.MustCompile(`^unknown anchor '(.*)' referenced$`)

func v3Error(err error, lines []string) *syntaxError {
	m := v3Form.FindStringSubmatch(err.Error())
	if m == nil {
		return &syntaxError{place{1, 1}, "this is not YAML"}
	}
	if anchor := anchorForm.FindStringSubmatch(m[2]); anchor != nil {
		return noAnchor("*"+anchor[1], lines)
	}
	line, _ := strconv.Atoi(m[1])
	return &syntaxError{place{max(line, 1), 1}, "this is not YAML: " + quotation.ReplaceAllString(m[2], "")}
}

// noAnchor is what is wrong with an alias that nothing belongs to. It may be a
// secret that begins with a *.
func noAnchor(alias string, lines []string) *syntaxError {
	at := place{1, 1}
	if i := slices.IndexFunc(lines, func(l string) bool { return strings.Contains(l, alias) }); i >= 0 {
		before, _, _ := strings.Cut(lines[i], alias)
		at = place{i + 1, utf8.RuneCountInString(before) + 1}
	}
	return &syntaxError{at, "found an alias and nowhere its anchor; text that starts with * needs quotes"}
}

// converter makes nodes of a YAML document.
type converter struct {
	text   *text
	offset int // lines before the document
	copies int // values that aliases have repeated
	within int // aliases being followed
}

func (c *converter) convert(y *yaml.Node, depth int) *node {
	n := &node{kind: nullNode, at: place{y.Line + c.offset, y.Column}}
	if depth > maxDepth {
		c.text.report(n.at, "found more than %d lists and maps inside each other", maxDepth)
		return n
	}
	if c.within > 0 {
		if c.copies++; c.copies > maxCopies {
			if c.copies == maxCopies+1 {
				c.text.report(n.at, "found aliases that repeat more than %d values; write them out", maxCopies)
			}
			return n
		}
	}
	switch y.Kind {
	case yaml.DocumentNode:
		return c.convert(y.Content[0], depth)
	case yaml.AliasNode:
		c.within++
		defer func() { c.within-- }()
		return c.convert(y.Alias, depth+1)
	case yaml.MappingNode:
		c.mapping(n, y, depth)
	case yaml.SequenceNode:
		n.kind, n.style = listNode, containerStyle(y)
		for _, item := range y.Content {
			n.items = append(n.items, c.convert(item, depth+1))
		}
	case yaml.ScalarNode:
		c.scalar(n, y)
	}
	if y.Kind != yaml.ScalarNode && y.Style&yaml.TaggedStyle != 0 {
		c.text.report(n.at, "found a tag, expected none")
	}
	return n
}

func containerStyle(y *yaml.Node) style {
	if y.Style&yaml.FlowStyle != 0 {
		return flowStyle
	}
	return blockStyle
}

func (c *converter) mapping(n *node, y *yaml.Node, depth int) {
	n.kind, n.style = mapNode, containerStyle(y)
	lines := map[string]int{}
	for i := 0; i+1 < len(y.Content); i += 2 {
		key := c.convert(y.Content[i], depth+1)
		if key.kind == listNode || key.kind == mapNode {
			c.text.reportTorn(key.at, fmt.Sprintf("found %s, expected a key", key.describe()))
			continue
		}
		if key.kind != textNode { // 200: and true: are names like any other
			key.text = y.Content[i].Value
		}
		if line, twice := lines[key.text]; twice {
			c.text.report(key.at, "found this key again, expected it once; it stands in line %d already", line)
			continue
		}
		lines[key.text] = key.at.line
		n.pairs = append(n.pairs, pair{key, c.convert(y.Content[i+1], depth+1)})
	}
}

func (c *converter) scalar(n *node, y *yaml.Node) {
	n.kind, n.text, n.raw = textNode, y.Value, y.Value
	n.style = plainStyle
	switch {
	case y.Style&yaml.LiteralStyle != 0:
		n.style = literalStyle
	case y.Style&yaml.FoldedStyle != 0:
		n.style = foldedStyle
	case y.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle) != 0:
		n.style = quotedStyle
	}
	if y.Style&yaml.TaggedStyle != 0 {
		if y.Tag != "!!str" {
			c.text.reportTorn(n.at, "found a tag, expected none; text that starts with ! needs quotes")
		}
		return
	}
	if n.style != plainStyle {
		return
	}
	if scalar.Endless(y.Value) {
		c.text.report(n.at, "found %s, expected a number that JSON has", y.Value)
	}
	n.kind, n.text = scalar.Plain(y.Value)
}
