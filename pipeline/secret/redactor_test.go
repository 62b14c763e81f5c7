package secret_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"html"
	"net/url"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/millrace-io/millrace/pipeline/secret"
)

const awkward = "p&ss w/rd\"<é>\\\n+%="

func TestRedact(t *testing.T) {
	t.Parallel()
	inJSON, err := json.Marshal(awkward)
	if err != nil {
		t.Fatal(err)
	}
	r := secret.NewRedactor(secret.New(awkward), secret.New("Zm9v"), secret.Value{})
	for name, form := range map[string]string{
		"as it is":        awkward,
		"query":           url.QueryEscape(awkward),
		"path":            url.PathEscape(awkward),
		"JSON":            string(inJSON),
		"JSON, HTML kept": strings.NewReplacer(`\u0026`, "&", `\u003c`, "<", `\u003e`, ">").Replace(string(inJSON)),
		"quoted":          fmt.Sprintf("%q", awkward),
		"HTML":            html.EscapeString(awkward),
		"base64":          base64.StdEncoding.EncodeToString([]byte(awkward)),
		"base64 of URLs":  base64.URLEncoding.EncodeToString([]byte(awkward)),
		"another secret":  "Zm9v",
	} {
		got := r.Redact("before " + form + " after")
		rest := strings.NewReplacer("before ", "", " after", "", secret.Mask, "", `"`, "", "=", "").Replace(got)
		if rest != "" {
			t.Errorf("%s: %q", name, got)
		}
	}
	if got := r.Redact("nothing to see"); got != "nothing to see" {
		t.Errorf("Redact changes an innocent text: %q", got)
	}
}

func TestRedactLowerCaseHex(t *testing.T) {
	t.Parallel()
	r := secret.NewRedactor(secret.New("a/b+c"))
	if got := r.Redact("?x=a%2fb%2bc&y=a%2Fb%2Bc"); got != "?x=[secret]&y=[secret]" {
		t.Errorf("Redact = %q", got)
	}
}

func TestRedactPrefersTheLongest(t *testing.T) {
	t.Parallel()
	r := secret.NewRedactor(secret.New("abc"), secret.New("abcdef"))
	if got := r.Redact("abcdef abc"); got != "[secret] [secret]" {
		t.Errorf("Redact = %q", got)
	}
}

// Of a text around a secret, the secret alone is redacted.
func TestRedactResolved(t *testing.T) {
	t.Parallel()
	res := &secret.Resolver{Env: environment(map[string]string{"MILLRACE_SECRET_A": planted})}
	v, err := res.Resolve(parse(t, "Bearer ${env:MILLRACE_SECRET_A}"))
	if err != nil {
		t.Fatal(err)
	}
	if got := secret.NewRedactor(v).Redact("got Bearer " + planted); got != "got Bearer [secret]" {
		t.Errorf("Redact = %q", got)
	}
}

func TestRedactCut(t *testing.T) {
	t.Parallel()
	r := secret.NewRedactor(secret.New("abcdef"), secret.New("xbcdef"))
	for text, want := range map[string]string{
		"":               "",
		"fine.":          "fine.",
		"echo abcdef":    "echo [secret]",
		"echo abcde":     "echo ",
		"echo a":         "echo ",
		"abcdef and xbc": "[secret] and ",
		"echo abcdeg":    "echo abcdeg",
		`bad "echo abc"`: `bad "echo "`,
		`an "abcdef"`:    `an "[secret]"`,
	} {
		if got := r.RedactCut(text); got != want {
			t.Errorf("RedactCut(%q) = %q, want %q", text, got, want)
		}
	}
}

// A piece that is replaced on its own leaves nothing of a secret that is cut.
func TestRedactCutAroundPieces(t *testing.T) {
	t.Parallel()
	const planted = "telling-1/ab/telling-2 cd"
	r := secret.NewRedactor(secret.New(planted))
	for cut := 1; cut < len(planted); cut++ {
		if got := r.RedactCut("no " + planted[:cut]); got != "no " {
			t.Errorf("RedactCut of %q = %q", planted[:cut], got)
		}
	}
}

// A header may hold user name and password in base64, which others take apart.
func TestRedactWhatIsInBase64(t *testing.T) {
	t.Parallel()
	r := secret.NewRedactor(secret.New(base64.StdEncoding.EncodeToString([]byte("write-key-1:me"))))
	if got := r.Redact("me: no such key write-key-1 (write-key-1:me)"); got != "me: no such key [secret] ([secret])" {
		t.Errorf("Redact = %q", got)
	}
}

// However short secrets are, they are found; in digits from four bytes on, where
// fewer are found by chance.
func TestRedactShortSecrets(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ secret, text, want string }{
		{"q", "a q, a cXg and a cQ", "a [secret], a cXg and a [secret]"},
		{"/é", `a \/\u00e9 or %2F%c3%A9`, "a [secret] or [secret]"},
		{"z9-", "z9- eno5LSA ejkt 7a392d", "[secret] eno5LSA [secret] 7a392d"},
		{"z9-1", "z9-1 eHo5LTF4 ejktMQ== 7A392D31", "[secret] e[secret]4 [secret]== [secret]"},
		{"+7?", "b+7?c and b 7?c", "b[secret]c and b[secret]c"},
		{`\`, `a\b`, `a[secret]b`},
	} {
		if got := secret.NewRedactor(secret.New(c.secret)).Redact(c.text); got != c.want {
			t.Errorf("%q in %q: %q, want %q", c.secret, c.text, got, c.want)
		}
	}
}

// What only looks like a part of an echo stays.
func TestRedactLeavesOthers(t *testing.T) {
	t.Parallel()
	r := secret.NewRedactor(secret.New("s3cret/key-1"), secret.New("pl4nted"))
	for _, text := range []string{
		"", `{"a":"b\/c\u00e9\\","d":"%2F%zz%","e":"&amp;&lt&bogus;&#xffffffff;"}`, `\`, `\u12`, `\ud83d`, `\ud83d\ud83d\ude00`,
		"\xff\xed\xa0\xbd", "s3cret/key-2", "s3cret key-1", `s3cret\\\u002fkey%2D2`, "c2VjcmV0L2tleS0x",
		"9f2b7c1d4e5f60718293a4b5c6d7e8f9", strings.Repeat("&", 100) + ";",
	} {
		if got := r.Redact(text); got != text {
			t.Errorf("Redact(%q) = %q", text, got)
		}
	}
}

// A secret that is whole before a text was cut is masked, also where its end may be
// the beginning of another one.
func TestRedactCutBehindWholeSecrets(t *testing.T) {
	t.Parallel()
	r := secret.NewRedactor(secret.New("line\nline\tline"), secret.New("cabcü"))
	for text, want := range map[string]string{
		"no bGluZQpsaW5lCWxpbmU": "no [secret]",
		`no cabc\u00fc`:          "no [secret]",
		`no cabc\u00fcc`:         "no [secret]",
		`no line\nline\tlin`:     "no ",
		`no cabc\u00f`:           "no ",
		`no cabc\`:               "no ",
		`no cabc%C3%`:            "no ",
		`no xbc%C3%`:             "no xbc%C3%",
	} {
		if got := r.RedactCut(text); got != want {
			t.Errorf("RedactCut(%q) = %q, want %q", text, got, want)
		}
	}
}

func FuzzRedact(f *testing.F) {
	f.Add("secret", "a secret b", 5)
	f.Add(awkward, "x", 3)
	for i, s := range awkwardSecrets {
		f.Add(s, `{"\u00`, i)
	}
	f.Fuzz(func(t *testing.T, s, around string, cut int) {
		if len(s) < 3 || strings.Contains(secret.Mask, s) {
			return // the mask itself would hold it
		}
		r := secret.NewRedactor(secret.New(s))
		text := around + s + around
		if got := strings.ReplaceAll(r.Redact(text), secret.Mask, ""); strings.Contains(got, s) && !strings.Contains(around+around, s[:1]) {
			t.Errorf("Redact(%q) = %q", text, got)
		}
		if cut >= 0 && cut < len(s) {
			if got := r.RedactCut(s[:cut]); got != "" {
				t.Errorf("RedactCut(%q) = %q", s[:cut], got)
			}
		}
		if secret.EndsInBackslash(s) {
			return // that may be left
		}
		for name, escape := range escapers {
			checkEcho(t, r, name, s, around, escape(s), 0, cut)
		}
		if len(secret.Unescaped(s)) < 4 {
			return // not looked for in digits
		}
		for name, c := range coders {
			checkEcho(t, r, name, s, around, c.code(s), c.around(), cut)
		}
	})
}

// checkEcho has a secret echoed in some way, within something else, whole and cut.
func checkEcho(t *testing.T, r *secret.Redactor, name, s, around, echo string, more, cut int) {
	t.Helper()
	text := around + `"` + echo + `"` + around
	got := r.Redact(text)
	if left := strings.ReplaceAll(got, secret.Mask, ""); len(left) > 2*len(around)+len(`""`)+more {
		t.Errorf("%s of %q: Redact(%q) = %q", name, s, text, got)
	}
	// A secret with a bracket may go together with a mask.
	plain := secret.Unescaped(s)
	if again := r.Redact(got); again != got && !strings.ContainsAny(s+plain, "[]") && !strings.Contains("secret", plain) {
		t.Errorf("%s of %q: Redact(%q) = %q, and once more %q", name, s, text, got, again)
	}
	if utf8.ValidString(text) && utf8.ValidString(plain) && !utf8.ValidString(got) {
		t.Errorf("%s of %q: Redact(%q) = %q", name, s, text, got)
	}
	if cut < 0 || cut > len(text) {
		return
	}
	cutOff := r.RedactCut(text[:cut])
	if utf8.ValidString(text[:cut]) && utf8.ValidString(plain) && !utf8.ValidString(cutOff) {
		t.Errorf("%s of %q: RedactCut(%q) = %q", name, s, text[:cut], cutOff)
	}
	const begun = len(`&CounterClockwiseContourIntegral`) // of its first characters
	if left := strings.ReplaceAll(cutOff, secret.Mask, ""); cut < len(around)+len(`"`+echo) && len(left) > len(around)+begun+more {
		t.Errorf("%s of %q: RedactCut(%q) = %q", name, s, text[:cut], cutOff)
	}
}
