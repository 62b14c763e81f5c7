package secret

import (
	"encoding/base64"
	"net/url"
	"slices"
	"strings"
	"sync"
	"unicode/utf8"
)

// Redactor replaces known secrets by Mask in texts that others wrote: responses
// that echo a request, errors that quote it. It knows each secret as it is and
// with its characters escaped as in a URL, in JSON, in HTML or by Go, whichever of
// them, and if need be by one in the other; and in base64 and hexadecimal digits,
// alone or within a text. What it takes is about linear in the text, whatever the
// secret. It is safe for concurrent use.
type Redactor struct {
	// Made when it is needed first: most calls have nothing to redact. It is a
	// function for the reason that Value has.
	forms func() *forms
}

// forms is what a Redactor looks for.
type forms struct {
	*automaton
	shortest int // of what is looked for in digits; 0: nothing is
}

// NewRedactor returns a Redactor for what is secret in the values.
func NewRedactor(values ...Value) *Redactor {
	values = slices.Clone(values)
	return &Redactor{sync.OnceValue(func() *forms { return formsOf(values) })}
}

// Redact returns the text with every known secret replaced.
func (r *Redactor) Redact(text string) string {
	s := search{forms: r.forms()}
	s.look(text)
	return s.masked(text)
}

// RedactCut is Redact for a text whose end was cut off: an end that may be the
// beginning of a secret is left out too, even if a piece of the secret in it could
// be replaced; and again, since what is left may end within another one. Errors
// quote what was cut off, so a quotation mark at the end does not count.
func (r *Redactor) RedactCut(text string) string {
	s := r.search(text)
	end := s.uncut()
	if inside, quoted := strings.CutSuffix(text, `"`); quoted && end == len(text) {
		s = r.search(inside)
		return s.masked(inside[:s.uncut()]) + `"`
	}
	return s.masked(text[:end])
}

func (r *Redactor) search(cut string) *search {
	s := &search{forms: r.forms(), begins: make([]int, len(cut)+1)}
	for i := range s.begins {
		s.begins[i] = i
	}
	s.look(cut)
	return s
}

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

// formsOf returns what to look for.
func formsOf(values []Value) *forms {
	f := &forms{automaton: newAutomaton()}
	for _, v := range values {
		_, secrets := v.reveal()
		for _, s := range secrets {
			for _, piece := range pieces(s) {
				f.addPiece(piece)
			}
		}
	}
	f.finish()
	return f
}

func (f *forms) addPiece(s string) {
	f.addText(s)
	f.addText(string([]rune(s))) // as JSON has it where it is not valid UTF-8
	for _, e := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
		if len(s) < blind {
			f.add(e.EncodeToString([]byte(s)), true)
			continue
		}
		// Its first bytes, of which there are too few to look for them blindly.
		f.add(e.EncodeToString([]byte(s[:blindBegun])), false)
	}
}

func (f *forms) addText(s string) {
	all := []string{s}
	// A second backslash may keep what is around the first from being an escape.
	for _, text := range []string{s, strings.ReplaceAll(s, `\`, `\\`)} {
		if u, escaped := unescape([]byte(text)); escaped {
			all = append(all, string(u.text))
		}
	}
	for _, text := range all {
		f.add(text, true)
		if len(text) >= blind && (f.shortest == 0 || len(text) < f.shortest) {
			f.shortest = len(text)
		}
	}
}
