package secret

import (
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// EnvPrefix begins the name of every environment variable that a reference may
// name: a definition must not be able to read the rest of the environment.
const EnvPrefix = "MILLRACE_SECRET_"

// Reference is a text in which ${env:NAME}, ${file:PATH} and ${sealed:TEXT} stand
// for secrets, such as "Bearer ${env:MILLRACE_SECRET_HEAP}". Placeholders say
// where secrets are and show none. What stands beside them may be a secret that
// is written out: see Sealable. The zero Reference is the empty text.
type Reference struct {
	text  string
	parts []part
	place Place
}

// part is a literal text or a placeholder.
type part struct {
	source source
	text   string // the literal, the variable's name, the file's path or the seal
}

type source string

const (
	literal source = ""
	env     source = "env"
	file    source = "file"
	sealed  source = "sealed"
)

func (p part) String() string {
	if p.source == literal {
		return p.text
	}
	return fmt.Sprintf("${%s:%s}", p.source, p.text)
}

// name is the part for people: of a seal, the end is enough to tell it from
// others. What is none may be a secret that somebody took to be sealed by that.
func (p part) name() string {
	if p.source != sealed {
		return p.String()
	}
	if _, err := parseSeal(p.text); err != nil {
		return "${sealed:…}"
	}
	const telling = 6
	return "${sealed:…" + p.text[len(p.text)-telling:] + "}"
}

// Error is what is wrong with a reference. It never quotes the text around a
// placeholder, since that may be a secret that was written down as it is.
type Error struct {
	Offset int // bytes before the placeholder
	Err    error
}

func (e *Error) Error() string {
	return fmt.Sprintf("parsing secret reference at byte %d: %v", e.Offset+1, e.Err)
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Parse parses a reference. NAME begins with EnvPrefix and goes on with
// letters, digits and _; PATH is relative to the directory of secrets and never
// leaves it; TEXT is base64: what it holds is for CheckSealed to say. A "${" that
// begins none of them is an error, lest a slip be sent to a third party. The
// error is an *Error.
func Parse(text string) (Reference, error) {
	r := Reference{text: text}
	for at := 0; at < len(text); {
		start := strings.Index(text[at:], "${")
		if start < 0 {
			r.parts = append(r.parts, part{literal, text[at:]})
			break
		}
		if start > 0 {
			r.parts = append(r.parts, part{literal, text[at : at+start]})
		}
		at += start
		p, n, err := parsePlaceholder(text[at:])
		if err != nil {
			return Reference{}, &Error{at, err}
		}
		r.parts = append(r.parts, p)
		at += n
	}
	return r, nil
}

var errPlaceholder = errors.New("expected ${env:" + EnvPrefix + "…}, ${file:…} or ${sealed:…}")

// parsePlaceholder parses the placeholder that text begins with and returns its
// length.
func parsePlaceholder(text string) (part, int, error) {
	end := strings.IndexByte(text, '}')
	if end < 0 {
		return part{}, 0, fmt.Errorf("%w, found no closing }", errPlaceholder)
	}
	kind, name, ok := strings.Cut(text[len("${"):end], ":")
	p := part{source(kind), name}
	switch {
	case ok && p.source == env:
		return p, end + 1, checkEnv(name)
	case ok && p.source == file:
		return p, end + 1, checkPath(name)
	case ok && p.source == sealed:
		return p, end + 1, checkSealForm(name)
	}
	return part{}, 0, errPlaceholder
}

func checkEnv(name string) error {
	rest, ok := strings.CutPrefix(name, EnvPrefix)
	switch {
	case ok && rest != "" && !strings.ContainsFunc(rest, notName):
		return nil
	case variableForm.MatchString(name):
		return fmt.Errorf("environment variable %q: expected %s followed by letters, digits and _", name, EnvPrefix)
	}
	return fmt.Errorf("environment variable: expected %s followed by letters, digits and _", EnvPrefix)
}

// variableForm is how variables are called. What is not called so may be a secret
// that was put where its name belongs.
var variableForm = regexp.MustCompile(`^[A-Z_][A-Z0-9_]*$`)

func notName(r rune) bool {
	return r != '_' && (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z')
}

func checkPath(path string) error {
	outside := !filepath.IsLocal(path) || slices.Contains(strings.Split(filepath.ToSlash(path), "/"), "..")
	if outside || strings.ContainsFunc(path, notPath) {
		return fmt.Errorf("file %q: expected a path relative to the directory of secrets, without .. and ${", path)
	}
	return nil
}

func checkSealForm(text string) error {
	if len(text) > maxSeal || !sealForm.MatchString(text) {
		return errors.New("expected what was sealed between ${sealed: and }, all of it and nothing else")
	}
	return nil
}

// notPath also keeps placeholders from being nested.
func notPath(r rune) bool { return r < ' ' || r == 0x7f || r == '$' || r == '{' }

// In returns the reference as it stands in a place: sealed secrets can be opened
// only in theirs.
func (r Reference) In(p Place) Reference {
	r.place = p
	return r
}

// String returns the text of the reference, placeholders and all.
func (r Reference) String() string { return r.text }

// Short is the text for people: what is sealed is cut short.
func (r Reference) Short() string {
	var b strings.Builder
	for _, p := range r.parts {
		b.WriteString(p.name())
	}
	return b.String()
}

// Masked is Short for a field that is meant for secrets: what is written out there
// is not shown.
func (r Reference) Masked() string {
	var b strings.Builder
	for i, p := range r.parts {
		name := p.name()
		if p.source == literal {
			if plain := p.sealable(i == 0); plain != "" {
				name = strings.TrimSuffix(name, plain) + Mask
			}
		}
		b.WriteString(name)
	}
	return b.String()
}

// Names returns the placeholders as Short has them.
func (r Reference) Names() []string { return r.placeholders(part.name) }

// Literal says whether the text has no placeholder at all. In a field that is
// meant for a secret, such a text is the secret itself.
func (r Reference) Literal() bool { return len(r.Placeholders()) == 0 }

// Placeholders returns the placeholders, such as "${file:heap/token}", in the
// order of the text.
func (r Reference) Placeholders() []string { return r.placeholders(part.String) }

func (r Reference) placeholders(text func(part) string) []string {
	var all []string
	for _, p := range r.parts {
		if p.source != literal {
			all = append(all, text(p))
		}
	}
	return all
}
