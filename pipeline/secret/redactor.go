package secret

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"encoding/json"
	"html"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Redactor replaces known secrets by Mask in texts that others wrote: responses
// that echo a request, errors that quote it. It knows each secret as it is and
// as it looks in a URL, in JSON, in HTML, quoted by Go, and in base64. It is
// safe for concurrent use.
type Redactor struct {
	replacer *strings.Replacer
	forms    []string // what it replaces, longest first
}

// NewRedactor returns a Redactor for what is secret in the values.
func NewRedactor(values ...Value) *Redactor {
	var forms []string
	for _, v := range values {
		_, secrets := v.reveal()
		for _, s := range secrets {
			for _, piece := range pieces(s) {
				forms = append(forms, formsOf(piece)...)
			}
		}
	}
	forms = slices.DeleteFunc(forms, func(s string) bool { return s == "" })
	slices.SortFunc(forms, func(a, b string) int { // a replacer prefers what comes first
		return cmp.Or(len(b)-len(a), strings.Compare(a, b))
	})
	forms = slices.Compact(forms)
	pairs := make([]string, 0, 2*len(forms))
	for _, f := range forms {
		pairs = append(pairs, f, Mask)
	}
	return &Redactor{strings.NewReplacer(pairs...), forms}
}

// Redact returns the text with every known secret replaced.
func (r *Redactor) Redact(text string) string { return r.replacer.Replace(text) }

// RedactCut is Redact for a text whose end was cut off: an end that may be the
// beginning of a secret is left out too.
func (r *Redactor) RedactCut(text string) string {
	text = r.Redact(text)
	drop := 0
	for _, f := range r.forms {
		for n := min(len(f)-1, len(text)); n > drop; n-- {
			if strings.HasSuffix(text, f[:n]) {
				drop = n
			}
		}
	}
	return text[:len(text)-drop]
}

var percentHex = regexp.MustCompile(`%[0-9A-F]{2}`)

// pieces returns the secret and what of it may be echoed on its own: where it is
// a URL or a path, the part behind the host, and each segment or query value
// that is too long to be a common word.
func pieces(s string) []string {
	const telling = 8
	all := []string{s}
	if _, rest, ok := strings.Cut(s, "://"); ok {
		if i := strings.IndexAny(rest, "/?"); i >= 0 && len(rest)-i >= telling {
			all = append(all, rest[i:])
		}
	}
	separator := func(r rune) bool { return strings.ContainsRune("/?&=#", r) }
	for _, piece := range strings.FieldsFunc(s, separator) {
		if len(piece) >= telling {
			all = append(all, piece)
		}
	}
	return all
}

// formsOf returns how others may write a secret.
func formsOf(s string) []string {
	query, path := url.QueryEscape(s), url.PathEscape(s)
	return []string{
		s,
		query, percentHex.ReplaceAllStringFunc(query, strings.ToLower),
		path, percentHex.ReplaceAllStringFunc(path, strings.ToLower),
		inJSON(s, true), inJSON(s, false),
		unquote(strconv.Quote(s)),
		html.EscapeString(s),
		base64.RawStdEncoding.EncodeToString([]byte(s)),
		base64.RawURLEncoding.EncodeToString([]byte(s)),
	}
}

func inJSON(s string, escapeHTML bool) string {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(escapeHTML)
	_ = e.Encode(s) // a string can't fail
	return unquote(strings.TrimSuffix(b.String(), "\n"))
}

func unquote(s string) string { return s[1 : len(s)-1] }
