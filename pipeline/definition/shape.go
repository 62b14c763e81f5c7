package definition

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/millrace-io/millrace/pipeline/expression"
	"github.com/millrace-io/millrace/pipeline/secret"
)

// shape checks a value: it reports what is wrong with it, and may turn it into
// the form in which it is kept. key is the name it stands under.
type shape func(t *text, key string, n *node)

// expected reports what was found instead of what was expected, with the
// corrected line where a slip is behind it.
func (t *text) expected(n *node, what string, args ...any) {
	message := fmt.Sprintf("found %s, expected %s", n.describe(), fmt.Sprintf(what, args...))
	if n.style == blockStyle {
		t.report(n.at, "%s", message)
	} else {
		t.reportTorn(n.at, message)
	}
}

// reportTorn reports what may come from a slip, with the corrected line if it
// does.
func (t *text) reportTorn(at place, message string) {
	t.reportSlip(at, t.corrected(at.line, message), "%s", message)
}

func anyText() shape {
	return func(t *text, _ string, n *node) {
		switch isScalar := n.kind == integerNode || n.kind == numberNode || n.kind == boolNode; {
		case isScalar && n.guarded:
			t.expected(n, "text; put it in quotes")
		case isScalar:
			t.expected(n, "text; write %q", n.raw)
		case n.kind != textNode:
			t.expected(n, "text")
		}
	}
}

func pattern(form *regexp.Regexp, what string) shape {
	return func(t *text, key string, n *node) {
		if anyText()(t, key, n); n.kind == textNode && !form.MatchString(n.text) {
			t.expected(n, "%s", what)
		}
	}
}

// word accepts one of the given words.
func word(words ...string) shape { return wordLater(words) }

// wordLater accepts one of the words; later ones belong to a later version.
func wordLater(words []string, later ...string) shape {
	return func(t *text, key string, n *node) {
		switch {
		case slices.Contains(later, n.text):
			t.report(n.at, "%s %q is not supported yet", key, n.text)
		case n.kind != textNode || !slices.Contains(words, n.text):
			t.expected(n, "%s%s", alternatives(quoted(words)), expression.DidYouMean(n.text, words))
		}
	}
}

func quoted(words []string) []string {
	out := make([]string, len(words))
	for i, w := range words {
		out[i] = strconv.Quote(w)
	}
	return out
}

func alternatives(words []string) string {
	if len(words) == 1 {
		return words[0]
	}
	last := len(words) - 1
	return strings.Join(words[:last], ", ") + " or " + words[last]
}

// later refuses a key whose feature belongs to a later version.
func later() shape {
	return func(t *text, key string, n *node) { t.report(n.at, "%q is not supported yet", key) }
}

// anything accepts every value.
func anything() shape { return func(*text, string, *node) {} }

func anyMap() shape {
	return func(t *text, _ string, n *node) {
		if n.kind != mapNode {
			t.expected(n, "a map")
		}
	}
}

func anyScalar() shape {
	return func(t *text, _ string, n *node) {
		if n.kind == mapNode || n.kind == listNode {
			t.expected(n, "text, a number or a boolean")
		}
	}
}

func boolean() shape {
	return func(t *text, _ string, n *node) {
		if n.kind != boolNode {
			t.expected(n, "true or false")
		}
	}
}

// count accepts an integer from 1.
func count(most int64) shape {
	return func(t *text, _ string, n *node) {
		v, err := strconv.ParseInt(n.text, 10, 64)
		if n.kind != integerNode || err != nil || v < 1 || v > most {
			t.expected(n, "an integer from 1 to %d", most)
		}
	}
}

func number(least, most float64) shape {
	return func(t *text, _ string, n *node) {
		v, err := strconv.ParseFloat(n.text, 64)
		if n.kind != integerNode && n.kind != numberNode || err != nil || v < least || v > most {
			t.expected(n, "a number from %s to %s", strconv.FormatFloat(least, 'f', -1, 64), strconv.FormatFloat(most, 'f', -1, 64))
		}
	}
}

// bounded checks a value that is written as text, such as 10s or 256KiB.
func bounded[T Duration | Size](parse func(string) (T, error), least, most, example string) shape {
	return func(t *text, _ string, n *node) {
		low, _ := parse(least)
		high, _ := parse(most)
		v, err := parse(n.text)
		if n.kind != textNode && n.kind != integerNode || err != nil || v < low || v > high {
			t.expected(n, "%s from %s to %s", example, least, most)
		}
	}
}

func duration(least, most string) shape {
	return bounded(ParseDuration, least, most, "a duration, such as 500ms, 10s, 72h or 3d,")
}

func size(least, most string) shape {
	return bounded(ParseSize, least, most, "a size, such as 256KiB or 1MiB,")
}

func percentage() shape {
	return func(t *text, _ string, n *node) {
		if v, err := ParseShare(n.text); n.kind != textNode || err != nil || v == 0 {
			t.expected(n, "a share above 0%% and up to 100%%, such as 50%%")
		}
	}
}

// oneOf accepts one value by the first shape, or a list or map by the second.
func oneOf(single, several shape) shape {
	return func(t *text, key string, n *node) {
		if n.kind == listNode || n.kind == mapNode {
			several(t, key, n)
		} else {
			single(t, key, n)
		}
	}
}

func listOf(item shape) shape {
	return func(t *text, key string, n *node) {
		if n.kind != listNode || len(n.items) == 0 {
			t.expected(n, "a list of one or more")
			return
		}
		for _, i := range n.items {
			item(t, key, i)
		}
	}
}

// mapOf accepts a map of any keys of one shape to values of another.
func mapOf(name, value shape) shape {
	return func(t *text, _ string, n *node) {
		if n.kind != mapNode {
			t.expected(n, "a map")
			return
		}
		for _, p := range n.pairs {
			asText := *p.key
			asText.kind = textNode
			name(t, "", &asText)
			value(t, p.key.text, p.value)
		}
	}
}

// object accepts a map of the given keys.
func object(keys ...key) shape {
	return func(t *text, name string, n *node) {
		if n.kind != mapNode {
			t.expected(n, "a map of %s", alternatives(namesOf(keys)))
			return
		}
		for _, p := range n.pairs {
			i := slices.IndexFunc(keys, func(k key) bool { return k.name == p.key.text })
			if i < 0 {
				t.unknownKey(n, p, keys)
				continue
			}
			keys[i].shape(t, p.key.text, p.value)
		}
		for _, k := range keys {
			if k.required && n.get(k.name) == nil {
				t.report(n.at, "found no key %q%s, expected one", k.name, under(name))
			}
		}
	}
}

func under(name string) string {
	if name == "" {
		return ""
	}
	return " under " + name
}

func namesOf(keys []key) []string {
	names := make([]string, len(keys))
	for i, k := range keys {
		names[i] = k.name
	}
	return names
}

func (t *text) unknownKey(n *node, p pair, keys []key) {
	names := namesOf(keys)
	found := "an unknown key"
	if p.key.quotable() {
		found = fmt.Sprintf("the unknown key %q", cut(p.key.text, 60))
	}
	hint := expression.DidYouMean(p.key.text, names)
	switch before, _, colon := strings.Cut(p.key.text, ":"); {
	case colon && slices.Contains(names, before):
		hint = fmt.Sprintf("; did you mean %s with a blank behind its colon?", before)
	case hint != "":
	case n.style == flowStyle && !p.key.quotable():
		hint = fmt.Sprintf(", expected %s; a value with a comma in it needs quotes", alternatives(names))
	default:
		hint = ", expected " + alternatives(names)
	}
	message := "found " + found + hint
	if n.style == flowStyle { // a comma in an expression ends its value here
		t.reportTorn(p.key.at, message)
	} else {
		t.report(p.key.at, "%s", message)
	}
}

// expressionText accepts text that is code: a plain scalar is taken as it is
// written, and must not have been cut off by a " #".
func expressionText() shape {
	return func(t *text, _ string, n *node) {
		if n.style == plainStyle && n.kind != nullNode {
			n.kind, n.text = textNode, n.raw
		}
		if n.kind != textNode || n.text == "" {
			t.expected(n, "text")
			return
		}
		n.text = strings.TrimRight(n.text, " \t\n")
		t.checkTorn(n)
	}
}

// checkTorn reports a plain scalar that a comment has cut off.
func (t *text) checkTorn(n *node) {
	line := t.line(n.at.line)
	_, comment, ok := strings.Cut(line, n.text)
	if n.style != plainStyle || !ok || !strings.HasPrefix(strings.TrimLeft(comment, " \t"), "#") || !isTorn(n.text) {
		return
	}
	t.reportTorn(n.at, fmt.Sprintf("found %s, cut off by a comment, expected the text in quotes", n.describe()))
}

// secretText accepts text with references to secrets, or a secret that is written
// out: it is sealed later. In some fields that is none, and may be empty.
func secretText(public bool) shape {
	return func(t *text, key string, n *node) {
		if n.kind != textNode {
			t.expected(n, "text")
			return
		}
		r, err := secret.Parse(n.text)
		switch {
		case err != nil:
			t.report(n.at, "%v", err)
		case !public && strings.TrimSpace(n.text) == "":
			t.report(n.at, "found nothing under %s, expected a secret", key)
		case !public && r.Literal() && nearReference.MatchString(n.text):
			t.report(n.at, "found what looks like the name of a secret under %s, expected ${env:%s…} or ${file:…}", key, secret.EnvPrefix)
		}
	}
}

// nearReference is a reference without its ${ and }.
var nearReference = regexp.MustCompile(`^[$%]?[{(]?((env|file|sealed):|` + secret.EnvPrefix + `)`)

// signingSecret accepts a secret to sign with, or a reference to one, or to what
// follows whsec_ in one.
func signingSecret() shape {
	return func(t *text, key string, n *node) {
		secretText(false)(t, key, n)
		r, err := secret.Parse(n.text)
		if n.kind != textNode || err != nil || strings.TrimSpace(n.text) == "" {
			return
		}
		if r.Literal() {
			if _, err := secret.SigningKey(n.text); err != nil {
				t.report(n.at, "%s: %v", key, err)
			}
			return
		}
		if rest := strings.TrimPrefix(n.text, secret.SigningPrefix); rest != r.Placeholders()[0] {
			t.report(n.at, "%s: found more than a reference to a secret, expected it alone or after %s", key, secret.SigningPrefix)
		}
	}
}

// authentication accepts what the type of authentication needs.
func authentication() shape {
	return func(t *text, name string, n *node) {
		kind := n.get("type")
		if n.kind != mapNode || kind == nil {
			object(key{"type", anyText(), true})(t, name, n)
			return
		}
		grant := ""
		if g := n.get("grant"); g != nil {
			grant = g.text
		}
		known := authKeys(grant)
		keys, ok := known[kind.text]
		if !ok {
			keys = known[AuthNone]
			keys[0].shape(t, "type", kind)
			return
		}
		object(keys...)(t, name, n)
	}
}
