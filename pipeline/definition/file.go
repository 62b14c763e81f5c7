package definition

import (
	"fmt"
	"path/filepath"
	"strings"
	"unicode/utf8"
)

// File is a text that holds definitions: JSON where the name ends in ".json",
// YAML otherwise. The name stands in front of every problem.
type File struct {
	Name string
	Data []byte
}

// The bounds of one file. They stop a small hostile file from becoming a large
// amount of work, and are far above what people write.
const (
	maxFile     = 16 << 20 // bytes
	maxDepth    = 100      // lists and maps inside each other
	maxCopies   = 10_000   // values that aliases repeat
	maxSlips    = 20       // corrected slips in one document, each a parse of its own
	maxTrials   = 20       // corrections tried out in one file, likewise
	maxSyntaxes = 100      // problems of syntax in one file
)

// text is a file being read.
type text struct {
	name     string
	lines    []string // without their line ends
	problems Problems

	docs   [][2]int // YAML documents, as the lines that each has
	trial  bool     // it is read to try out a correction
	trials int      // how many have been tried out
}

// openText checks the bytes and splits them into lines.
func openText(f File) (*text, bool) {
	t := &text{name: f.Name}
	switch bad := invalidAt(f.Data); {
	case len(f.Data) > maxFile:
		t.report(place{}, "found a file of %d bytes, expected at most %d; split it into several", len(f.Data), maxFile)
		return t, false
	case bad >= 0:
		t.report(endOf(string(f.Data[:bad])), "found bytes that are not UTF-8, expected text in UTF-8")
		return t, false
	}
	s := strings.TrimPrefix(string(f.Data), "\uFEFF")
	s = strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(s)
	t.lines = strings.Split(s, "\n")
	return t, true
}

// endOf is the place right behind a text.
func endOf(text string) place {
	start := strings.LastIndexByte(text, '\n') + 1
	return place{strings.Count(text, "\n") + 1, utf8.RuneCountInString(text[start:]) + 1}
}

// invalidAt is the offset of the first byte that is not UTF-8, or -1.
func invalidAt(b []byte) int {
	for i := 0; i < len(b); {
		r, n := utf8.DecodeRune(b[i:])
		if r == utf8.RuneError && n == 1 {
			return i
		}
		i += n
	}
	return -1
}

func (t *text) report(at place, format string, args ...any) {
	t.reportSlip(at, "", format, args...)
}

// reportSlip reports a problem with the line as it should read, if that is known.
func (t *text) reportSlip(at place, corrected, format string, args ...any) {
	t.problems = append(t.problems, Problem{
		File: t.name, Line: at.line, Column: at.column, Message: fmt.Sprintf(format, args...), Corrected: corrected,
	})
}

// line returns a line by its number, from 1; empty beyond the end.
func (t *text) line(n int) string {
	if n < 1 || n > len(t.lines) {
		return ""
	}
	return t.lines[n-1]
}

// documents returns the file's documents; problems of syntax are in t.
func (t *text) documents() []*node {
	if strings.EqualFold(filepath.Ext(t.name), ".json") {
		return t.jsonDocuments()
	}
	return t.yamlDocuments()
}

// inside returns the place of a line and column within the text of a scalar;
// the scalar's own place where that can't be told.
func (t *text) inside(n *node, line, column int) place {
	switch n.style {
	case literalStyle:
		lines := strings.Split(n.text, "\n")
		if line < 1 || line > len(lines) {
			return place{n.at.line + 1, 1}
		}
		source := t.line(n.at.line + line)
		if before, ok := strings.CutSuffix(source, lines[line-1]); ok {
			return place{n.at.line + line, utf8.RuneCountInString(before) + max(column, 1)}
		}
		return place{n.at.line + line, 1}
	case foldedStyle:
		return place{n.at.line + 1, 1}
	case plainStyle, quotedStyle:
		return t.insideLine(n, line, column)
	default:
		return n.at
	}
}

// insideLine is inside for a scalar on one line that stands there as it reads,
// apart from the quotes around it.
func (t *text) insideLine(n *node, line, column int) place {
	source := []rune(t.line(n.at.line))
	from := n.at.column - 1
	if n.style == quotedStyle {
		from++
	}
	value := []rune(n.text)
	if line != 1 || column < 1 || from+len(value) > len(source) || string(source[from:from+len(value)]) != n.text {
		return n.at
	}
	return place{n.at.line, from + column}
}
