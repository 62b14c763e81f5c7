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
	"unicode/utf8"
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
// beginning of a secret is left out too. That is done first, lest a piece of the
// secret be replaced within it and the rest be left; and again, since what is
// left may end within another one. Errors quote what was cut off, so a quotation
// mark at the end does not count.
func (r *Redactor) RedactCut(text string) string {
	text, quoted := strings.CutSuffix(text, `"`)
	for n := r.begun(text); n > 0; n = r.begun(text) {
		text = text[:len(text)-n]
	}
	if quoted {
		text += `"`
	}
	return r.Redact(text)
}

// begun is how long the longest end of the text is with which a secret begins.
func (r *Redactor) begun(text string) (longest int) {
	for _, f := range r.forms {
		for n := min(len(f)-1, len(text)); n > longest; n-- {
			if strings.HasSuffix(text, f[:n]) {
				longest = n
			}
		}
	}
	return longest
}

var percentHex = regexp.MustCompile(`%[0-9A-F]{2}`)

// telling is how long a piece of a secret has to be for it to be no common word.
const telling = 8

// pieces returns the secret and what of it may be echoed on its own: what a
// URL's escapes in it stand for; where it is base64 of a text, such as user name
// and password for a header, that text; where it is a URL or a path, the part
// behind the host; and of all these each segment, value or word that is telling.
func pieces(s string) (all []string) {
	for _, text := range plain(s) {
		all = append(all, text)
		if _, rest, ok := strings.Cut(text, "://"); ok {
			all = append(all, behindHost(rest)...)
		}
		separator := func(r rune) bool { return strings.ContainsRune("/?&=#: ", r) }
		for _, piece := range strings.FieldsFunc(text, separator) {
			if len(piece) >= telling {
				all = append(all, piece)
			}
		}
	}
	return all
}

// behindHost returns path and query of a URL without its scheme, and the path, if
// they are telling.
func behindHost(rest string) (all []string) {
	i := strings.IndexAny(rest, "/?")
	if i < 0 {
		return nil
	}
	path, _, _ := strings.Cut(rest[i:], "?")
	for _, text := range []string{rest[i:], path} {
		if len(text) >= telling {
			all = append(all, text)
		}
	}
	return all
}

// plain returns the secret, and what it says where it is encoded.
func plain(s string) []string {
	all := []string{s}
	for _, unescape := range []func(string) (string, error){url.PathUnescape, url.QueryUnescape} {
		if text, err := unescape(s); err == nil && text != s {
			all = append(all, text)
		}
	}
	text, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(s, "="))
	if err == nil && len(text) >= telling && utf8.Valid(text) {
		all = append(all, string(text))
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
