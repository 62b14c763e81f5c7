package expression

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/millrace-io/millrace/pipeline"
)

// Scope says what an expression may name besides event and props.
type Scope struct {
	// Types holds the properties that may be named. A key that ends in ".<…>",
	// such as "answer.<question_id>", allows every name that starts with what
	// stands before the "<". Nil allows any name, untyped.
	Types map[string]pipeline.Type
	// Aliases leads from another spelling of a property to its name.
	Aliases map[string]string
	// Delivery adds delivery.id, webhook.name and the helper functions of
	// property mappings.
	Delivery bool
}

// Property returns the property that a name or an alias stands for, and its
// type, "" where it has none. The error suggests the nearest name.
func (s Scope) Property(name string) (property string, t pipeline.Type, err error) {
	if to, ok := s.Aliases[name]; ok {
		name = to
	}
	t, ok := s.typeOf(name)
	if !ok {
		known := slices.AppendSeq(slices.Collect(maps.Keys(s.Types)), maps.Keys(s.Aliases))
		err = fmt.Errorf("unknown property %s%s", name, DidYouMean(name, known))
	}
	return name, t, err
}

// typeOf returns the type of a property and whether it may be named.
func (s Scope) typeOf(name string) (pipeline.Type, bool) {
	if s.Types == nil {
		return "", true
	}
	if t, ok := s.Types[name]; ok {
		return t, true
	}
	for _, key := range slices.Sorted(maps.Keys(s.Types)) {
		prefix, ok := placeholder(key)
		if ok && len(name) > len(prefix) && strings.HasPrefix(name, prefix) {
			return s.Types[key], true
		}
	}
	return "", false
}

// placeholder returns what stands before the placeholder of a name such as
// answer.<question_id>.
func placeholder(key string) (prefix string, ok bool) {
	i := strings.LastIndex(key, ".<")
	if i < 0 || !strings.HasSuffix(key, ">") {
		return "", false
	}
	return key[:i+1], true
}

// DidYouMean gives "; did you mean x?" for the nearest of the known names, or
// nothing where none is near: a third of the characters may differ, or one.
func DidYouMean(found string, known []string) string {
	length := utf8.RuneCountInString(found)
	best, at := "", max(1, length/3)+1
	for _, k := range known {
		if n := utf8.RuneCountInString(k); n > length+at || n < length-at {
			continue // as far as that apart already
		}
		if d := distance(found, k); d < at || d == at && best != "" && k < best {
			best, at = k, d
		}
	}
	if best == "" {
		return ""
	}
	return "; did you mean " + best + "?"
}

// distance counts the characters to add, drop, change or swap with their
// neighbour to get from a to b; upper and lower case count as the same.
func distance(a, b string) int {
	s, t := []rune(strings.ToLower(a)), []rune(strings.ToLower(b))
	before, prev, row := make([]int, len(t)+1), make([]int, len(t)+1), make([]int, len(t)+1)
	for j := range prev {
		prev[j] = j
	}
	for i := range s {
		row[0] = i + 1
		for j := range t {
			cost := 1
			if s[i] == t[j] {
				cost = 0
			}
			row[j+1] = min(prev[j]+cost, prev[j+1]+1, row[j]+1)
			if i > 0 && j > 0 && s[i] == t[j-1] && s[i-1] == t[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
		before, prev, row = prev, row, before
	}
	return prev[len(t)]
}
