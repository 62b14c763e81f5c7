package definition

import (
	"regexp"
	"slices"
	"strings"
)

// A line of block style: indentation and dashes, a key, a value.
var blockLine = regexp.MustCompile(`^([ ]*(?:- +)*)([A-Za-z_][A-Za-z0-9_./-]*):[ \t]+(.*?)[ \t]*$`)

// correctLine puts quotes where YAML's rules of flow style and quoting have cut
// an expression or a ${…} short. It says false where the line has no such thing
// or would stay as it is.
func correctLine(line string) (string, bool) {
	if !isFragile(line) {
		return "", false
	}
	better := correctBlockLine(line)
	return better, better != line
}

// isFragile says whether the line holds what YAML's rules tend to tear apart.
func isFragile(line string) bool {
	for _, mark := range []string{"expr:", "condition:", "${", "{{", "props["} {
		if strings.Contains(line, mark) {
			return true
		}
	}
	return false
}

func correctBlockLine(line string) string {
	if m := blockLine.FindStringSubmatch(line); m != nil {
		value, rest := endOfFlow(m[3])
		return m[1] + m[2] + ": " + correctValue(m[2], value, rest != "") + rest
	}
	start := len(line) - len(strings.TrimLeft(line, " -"))
	return line[:start] + correctValue("", line[start:], false)
}

// endOfFlow cuts a value where a { } or [ ] ends, or goes on, that an earlier
// line has begun.
func endOfFlow(value string) (before, rest string) {
	end := len(strings.TrimSuffix(value, ","))
	scan(value, func(i, depth int) bool {
		if depth < 0 && (value[i] == '}' || value[i] == ']') {
			end = i
		}
		return depth >= 0
	})
	return strings.TrimRight(value[:end], " "), value[end:]
}

// structural are keys whose values are maps or lists: quotes are never what they
// need.
var structural = []string{
	"request", "headers", "auth", "tls", "signing", "limits", "retry", "responses", "breaker", "batch", "labels", "scopes", "properties", "conditions", "tests", "aliases",
}

// correctValue quotes a value if it needs it; the values in a { } one by one.
func correctValue(key, value string, flow bool) string {
	switch {
	case isWhole(value):
		return value
	case isFlowMap(value):
		return correctFlow(value)
	case slices.Contains(structural, key), key != "expr" && key != "condition" && isFlowList(value):
		return value
	case strings.HasPrefix(value, "| "), strings.HasPrefix(value, "> "):
		return quote(strings.TrimSpace(value[2:]))
	case needsQuotes(key, value, flow):
		return quote(value)
	default:
		return value
	}
}

// isFlowMap tells {key: value} from the {{ }} of an expression and from a map
// that an expression makes.
func isFlowMap(value string) bool {
	return strings.HasPrefix(value, "{") && !strings.HasPrefix(value, "{{") &&
		flowKey.MatchString(value)
}

var flowKey = regexp.MustCompile(`^\{\s*[A-Za-z_][A-Za-z0-9_./-]*:\s`)

// isFlowList says whether a value is a list in brackets, from its first to its
// last character.
func isFlowList(value string) bool {
	return strings.HasPrefix(value, "[") && closing(value) == len(value)-1
}

// correctFlow corrects each value of a {…} and keeps what follows it.
func correctFlow(value string) string {
	end := closing(value)
	if end < 0 {
		return value
	}
	parts := splitFlow(value[1:end])
	for i, part := range parts {
		key, v, ok := strings.Cut(part, ": ")
		if !ok {
			parts[i] = strings.TrimSpace(part)
			continue
		}
		parts[i] = strings.TrimSpace(key) + ": " + correctValue(strings.TrimSpace(key), strings.TrimSpace(v), true)
	}
	return "{" + strings.Join(parts, ", ") + value[end:]
}

// needsQuotes says whether a plain value would be read as something else.
func needsQuotes(key, value string, flow bool) bool {
	if value == "" || value == "|" || value == ">" || value == "|-" || value == "|+" || isTorn(value) {
		return false // torn: it goes on in the next line
	}
	if flow && strings.ContainsAny(value, "[]{},") {
		return true
	}
	expression := key == "expr" || key == "condition" || strings.Contains(value, "{{") || strings.Contains(value, "${")
	return expression && (strings.ContainsAny(value[:1], "\"'[]{}!&*%@`|>#,?-") ||
		strings.Contains(value, ": ") || strings.Contains(value, " #"))
}

// isWhole says whether the value is in quotes from its first to its last
// character.
func isWhole(value string) bool {
	if len(value) < 2 || value[0] != '"' && value[0] != '\'' {
		return false
	}
	return quoteEnd(value) == len(value)-1
}

// quoteEnd is where the quote that value starts with is closed, or -1.
func quoteEnd(value string) int {
	for i := 1; i < len(value); i++ {
		switch {
		case value[0] == '"' && value[i] == '\\':
			i++
		case value[i] == value[0]:
			if value[0] == '\'' && i+1 < len(value) && value[i+1] == '\'' {
				i++
				continue
			}
			return i
		}
	}
	return -1
}

// closing is where the bracket that value starts with is closed, or -1.
func closing(value string) int {
	end := -1
	scan(value, func(i, depth int) bool {
		if depth == 0 && i > 0 {
			end = i
		}
		return end < 0
	})
	return end
}

// splitFlow cuts at the commas that stand in no bracket and no quotes.
func splitFlow(inner string) []string {
	var parts []string
	from := 0
	scan(inner, func(i, depth int) bool {
		if depth == 0 && inner[i] == ',' {
			parts = append(parts, inner[from:i])
			from = i + 1
		}
		return true
	})
	return append(parts, inner[from:])
}

// scan calls visit for each byte outside quotes with the depth of brackets after
// it, until visit says false.
func scan(s string, visit func(i, depth int) bool) {
	depth := 0
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '"', '\'':
			if end := quoteEnd(s[i:]); end > 0 {
				i += end
				continue
			}
		case '(', '[', '{':
			depth++
		case ')', ']', '}':
			depth--
		}
		if !visit(i, depth) {
			return
		}
	}
}

// quote puts the text into YAML's single quotes, in which only the quote itself
// means anything.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

// isTorn says whether quotes or brackets are open at the end of the text: the
// rest of it has been cut off.
func isTorn(s string) bool {
	last, open := 0, false
	for i := 0; i < len(s); i++ {
		if s[i] == '"' || s[i] == '\'' {
			end := quoteEnd(s[i:])
			if end < 0 {
				open = true
				break
			}
			i += end
		}
	}
	scan(s, func(_, depth int) bool { last = depth; return true })
	return open || last > 0
}
