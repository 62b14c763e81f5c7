package secret_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/pipeline/secret"
)

func TestParse(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		text         string
		placeholders []string
	}{
		{"", nil},
		{"application/json", nil},
		{"costs $5 {{ x }} $", nil},
		{"${env:MILLRACE_SECRET_A}", []string{"${env:MILLRACE_SECRET_A}"}},
		{"Bearer ${env:MILLRACE_SECRET_a1}", []string{"${env:MILLRACE_SECRET_a1}"}},
		{"${file:heap/token}${env:MILLRACE_SECRET_B}!", []string{"${file:heap/token}", "${env:MILLRACE_SECRET_B}"}},
		{"${file:..data/token}", []string{"${file:..data/token}"}},
		{"Bearer ${sealed:AQ-_09}", []string{"${sealed:AQ-_09}"}},
	} {
		r, err := secret.Parse(c.text)
		if err != nil {
			t.Errorf("Parse(%q): %v", c.text, err)
			continue
		}
		if r.String() != c.text || !slices.Equal(r.Placeholders(), c.placeholders) || r.Literal() != (c.placeholders == nil) {
			t.Errorf("Parse(%q) = %q, placeholders %q, literal %v", c.text, r, r.Placeholders(), r.Literal())
		}
	}
}

func TestParseRefuses(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"pass${word}":                   "at byte 5: expected ${env:MILLRACE_SECRET_…}, ${file:…} or ${sealed:…}",
		"${env:MILLRACE_SECRET_A":       "found no closing }",
		"${}":                           "expected ${env:",
		"${env}":                        "expected ${env:",
		"${vault:x}":                    "expected ${env:",
		"${env:HOME}":                   `environment variable "HOME"`,
		"${env:MILLRACE_SECRET_}":       "letters, digits and _",
		"${env:MILLRACE_SECRET_A B}":    "letters, digits and _",
		"${env: MILLRACE_SECRET_A}":     "environment variable",
		"${env:MILLRACE_SECRET_${x}}":   "letters, digits and _",
		"${file:}":                      "relative to the directory of secrets",
		"${file:/etc/passwd}":           "relative to the directory of secrets",
		"${file:../token}":              "relative to the directory of secrets",
		"${file:a/../token}":            "relative to the directory of secrets",
		"${file:a/..}":                  "relative to the directory of secrets",
		"${file:a\nb}":                  "relative to the directory of secrets",
		"${sealed:}":                    "expected what was sealed between ${sealed: and }",
		"${sealed:a+b}":                 "expected what was sealed between ${sealed: and }",
		"${sealed:a b}":                 "expected what was sealed between ${sealed: and }",
		"${sealed:${sealed:a}}":         "expected what was sealed between ${sealed: and }",
		"ok ${file:a} bad ${file:/abs}": "at byte 18",
	} {
		_, err := secret.Parse(text)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Parse(%q): %v, want %q in it", text, err, want)
		}
	}
}

// What stands around a placeholder may be a secret that somebody typed in.
func TestParseErrorsDoNotQuoteTheText(t *testing.T) {
	t.Parallel()
	for _, text := range []string{planted + "${", planted + "${x}", "${" + planted, "${" + planted + "}", "${a:" + planted + "}", "${sealed:" + planted + "+}"} {
		_, err := secret.Parse(text)
		if err == nil || strings.Contains(err.Error(), planted) {
			t.Errorf("Parse(%q): %v", text, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"", "${", "${env:MILLRACE_SECRET_A}", "${file:a/b}x${file:c}", "a}${b", "${file:a\x00}", "${sealed:AQ}x${sealed:-_}"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		r, err := secret.Parse(text)
		if err != nil {
			return
		}
		if r.String() != text {
			t.Errorf("String() = %q, want %q", r, text)
		}
		if got := strings.Count(text, "${"); got != len(r.Placeholders()) {
			t.Errorf("%q has %d placeholders, found %q", text, got, r.Placeholders())
		}
		for _, p := range r.Placeholders() {
			if !strings.Contains(text, p) {
				t.Errorf("placeholder %q is not in %q", p, text)
			}
		}
	})
}
