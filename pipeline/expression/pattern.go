package expression

import (
	"fmt"
	"regexp"
	"regexp/syntax"
)

// Limits of a pattern of matches. Go's expressions match in time linear in the
// text; the factor is the size of the pattern once its repetitions are written out.
const (
	maxPattern      = 1_000 // bytes
	maxInstructions = 1_000
)

// compilePattern compiles a pattern and returns about how many instructions it has.
func compilePattern(pattern string) (*regexp.Regexp, int, error) {
	if len(pattern) > maxPattern {
		return nil, 0, fmt.Errorf("the pattern has %d bytes; at most %d are allowed", len(pattern), maxPattern)
	}
	tree, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil {
		return nil, 0, err
	}
	size := instructions(tree)
	if size > maxInstructions {
		return nil, 0, fmt.Errorf("the pattern is too large: with repetitions written out it has %d parts; at most %d are allowed", size, maxInstructions)
	}
	re, err := regexp.Compile(pattern)
	return re, size, err
}

func instructions(re *syntax.Regexp) int {
	n := 1
	if re.Op == syntax.OpLiteral {
		n = len(re.Rune)
	}
	for _, sub := range re.Sub {
		n += instructions(sub)
	}
	if re.Op == syntax.OpRepeat {
		n *= max(re.Max, re.Min, 1)
	}
	return min(n, 1<<20)
}
