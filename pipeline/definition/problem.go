package definition

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Problem is something wrong with a definition, and where it stands.
type Problem struct {
	File    string `json:"file,omitempty"`
	Line    int    `json:"line,omitempty"`   // from 1; 0 where there is no text to point at
	Column  int    `json:"column,omitempty"` // from 1, in characters
	Message string `json:"message"`          // what was found and what was expected
	// Corrected is the line as it should read, where a slip of YAML's flow or
	// quoting rules is at fault.
	Corrected string `json:"corrected,omitempty"`
	Warning   bool   `json:"warning,omitempty"` // worth a look, but not refused
	Lacks     bool   `json:"lacks,omitempty"`   // what it refers to is not there
}

// Error gives "file:line:column: message", and the corrected line below it.
func (p Problem) Error() string {
	var b strings.Builder
	if p.File != "" {
		b.WriteString(p.File + ":")
	}
	if p.Line > 0 {
		fmt.Fprintf(&b, "%d:%d:", p.Line, p.Column)
	}
	if b.Len() > 0 {
		b.WriteByte(' ')
	}
	if p.Warning {
		b.WriteString("warning: ")
	}
	b.WriteString(p.Message)
	if p.Corrected != "" {
		b.WriteString("; the corrected line:\n    " + strings.TrimSpace(p.Corrected))
	}
	return b.String()
}

// Problems are all that was found, in the order of the files.
type Problems []Problem

// Error gives one problem per line.
func (ps Problems) Error() string {
	lines := make([]string, len(ps))
	for i, p := range ps {
		lines[i] = p.Error()
	}
	return strings.Join(lines, "\n")
}

// Err returns the problems as an error, or nil if there are only warnings.
func (ps Problems) Err() error {
	if slices.ContainsFunc(ps, func(p Problem) bool { return !p.Warning }) {
		return ps
	}
	return nil
}

// sorted puts the problems in the order of their places and drops repeats.
func (ps Problems) sorted() Problems {
	slices.SortStableFunc(ps, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	return slices.Compact(ps)
}
