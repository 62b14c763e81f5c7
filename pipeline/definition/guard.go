package definition

import (
	"regexp"
	"slices"
	"strings"
)

// guardedKeys are the keys of a destination under which there may be secrets.
//
// What is wrong there is told by its place and by what was expected, and never
// by what was found, be it a key or a value: where a blank, a comma or a quote is
// missing or too many, a secret turns up as anything.
var guardedKeys = []string{"request", "auth", "tls", "signing"}

// guard marks a value as one that may be or hold a secret.
func (n *node) guard() {
	n.guarded = true
	for _, p := range n.pairs {
		p.key.guard()
		p.value.guard()
	}
	for _, i := range n.items {
		i.guard()
	}
}

// guardSecrets marks what may be a secret in a document of a kind.
func (n *node) guardSecrets(kind Kind) {
	for _, p := range n.pairs {
		if kind == KindDestination && slices.Contains(guardedKeys, p.key.text) {
			p.value.guard()
		}
	}
}

// publicKind is the line of a document that holds no secrets.
var publicKind = regexp.MustCompile(`^kind:[ \t]+(Webhook|EventType)[ \t]*(#.*)?$`)

// mayHoldSecrets says whether a document may be a destination. It may be one that
// is not even YAML.
func mayHoldSecrets(lines []string) bool {
	public := false
	for _, line := range lines {
		if strings.HasPrefix(line, "kind:") {
			if !publicKind.MatchString(line) {
				return true
			}
			public = true
		}
	}
	return !public
}

// words are what may stand in a destination and surely is no secret: the words of
// the language, and a few of HTTP.
func words() map[string]bool {
	all := []string{
		AuthNone, AuthBearer, AuthBasic, AuthOAuth2, AuthHeader, AuthProperty, GrantClientCredentials, GrantRefreshToken,
		"GET", "POST", "PUT", "PATCH", "Bearer", "Basic", "true", "false",
		"Accept", "Authorization", "Content-Type", "application/json", "application/x-www-form-urlencoded", "text/plain",
	}
	tables := [][]key{keysOf(KindDestination, false), requestKeys(false), tlsKeys(), signingKeys()}
	for _, grant := range []string{GrantClientCredentials, GrantRefreshToken} {
		for _, keys := range authKeys(grant) {
			tables = append(tables, keys)
		}
	}
	for _, keys := range tables {
		all = append(all, namesOf(keys)...)
	}
	set := map[string]bool{}
	for _, w := range all {
		set[w] = true
	}
	return set
}

var (
	expressionForm = regexp.MustCompile(`\{\{.*?\}\}`)
	referenceForm  = regexp.MustCompile(`\$\{(?:env:MILLRACE_SECRET_[A-Za-z0-9_]+|(?:file|sealed):[^}]*)\}`)
	originForm     = regexp.MustCompile(`https?://[A-Za-z0-9.-]+(?::[0-9]+)?([/?'" ,}]|$)`)
)

// isHarmless says whether a line of a document that may hold secrets holds none:
// nothing is in it but words, references, expressions, and scheme and host of a
// URL.
func isHarmless(line string) bool {
	rest := referenceForm.ReplaceAllString(line, " ")
	rest = expressionForm.ReplaceAllString(rest, " ")
	rest = originForm.ReplaceAllString(rest, " $1")
	known := words()
	for _, text := range strings.FieldsFunc(rest, func(r rune) bool { return strings.ContainsRune(" \t{}[],:'\"", r) }) {
		if !known[text] && strings.Trim(text, "/-|>") != "" {
			return false
		}
	}
	return true
}

// quotable says whether a key can be quoted to say that it is wrong.
func (n *node) quotable() bool { return !n.guarded || words()[n.text] }
