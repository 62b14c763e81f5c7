package definition

import (
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// corrected is the line as it should read, if it holds a slip that is known and
// the problem that the message tells of comes from it.
func (t *text) corrected(line int, message string) string {
	better, ok := correctLine(t.line(line))
	if !ok || t.trial || t.isJSON() || !t.mends(line, message, better) {
		return ""
	}
	return t.showable(line, better)
}

func (t *text) isJSON() bool { return strings.EqualFold(filepath.Ext(t.name), ".json") }

// mends tries out a correction: with it, the document must have that problem no
// more, fewer problems of form, and no new one.
func (t *text) mends(line int, message, better string) bool {
	doc := t.document(line)
	if t.trials++; doc == nil || t.trials > maxTrials {
		return false
	}
	before, _ := tryLines(doc, line, t.line(line))
	after, ok := tryLines(doc, line, better)
	if !ok || len(after) >= len(before) {
		return false
	}
	for _, p := range after {
		told := func(q Problem) bool { return p.Line == q.Line && p.Message == q.Message }
		if !slices.ContainsFunc(before, told) || p.Line == line && p.Message == message {
			return false
		}
	}
	return true
}

// document returns the text as a line's document alone, in its place; nil if
// there is none.
func (t *text) document(line int) *text {
	for _, d := range t.docs {
		if d[0] < line && line <= d[1] {
			return &text{name: t.name, lines: slices.Concat(make([]string, d[0]), t.lines[d[0]:d[1]]), trial: true}
		}
	}
	return nil
}

// tryLines returns the problems of form that a document has with one line as it
// is given; false if it is not even YAML.
func tryLines(doc *text, line int, as string) (Problems, bool) {
	try := &text{name: doc.name, lines: slices.Clone(doc.lines), trial: true}
	try.lines[line-1] = as
	top, bad := parseYAML(try.lines)
	if bad != nil {
		return nil, false
	}
	try.definition((&converter{text: try}).convert(top, 0))
	return try.problems, true
}

// showable is a corrected line, or nothing where it may hold a secret that is
// written out: what is reported ends up in the logs of others.
func (t *text) showable(line int, better string) string {
	if doc := t.document(line); doc == nil || mayHoldSecrets(doc.lines) && !isHarmless(better) {
		return ""
	}
	return better
}

var lastKey = regexp.MustCompile(`([A-Za-z][A-Za-z0-9_-]*):[ \t]*$`)

// behind names the key whose value a correction puts into quotes, for where the
// corrected line is not shown.
func behind(was, better, shown string) string {
	same := 0
	for same < min(len(was), len(better)) && was[same] == better[same] {
		same++
	}
	m := lastKey.FindStringSubmatch(was[:same])
	if shown != "" || m == nil || !words()[m[1]] {
		return ""
	}
	return " behind " + m[1] + ":"
}
