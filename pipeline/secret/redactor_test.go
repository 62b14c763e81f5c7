package secret_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"html"
	"net/url"
	"strings"
	"testing"

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

func FuzzRedact(f *testing.F) {
	f.Add("secret", "a secret b", 5)
	f.Add(awkward, "x", 3)
	f.Fuzz(func(t *testing.T, s, around string, cut int) {
		if len(s) < 3 || strings.Contains(secret.Mask, s) {
			return // the mask itself would hold it
		}
		r := secret.NewRedactor(secret.New(s))
		text := around + s + around
		if got := strings.ReplaceAll(r.Redact(text), secret.Mask, ""); strings.Contains(got, s) && !strings.Contains(around+around, s[:1]) {
			t.Errorf("Redact(%q) = %q", text, got)
		}
		if cut < 0 || cut >= len(s) {
			return
		}
		if got := r.RedactCut(s[:cut]); got != "" {
			t.Errorf("RedactCut(%q) = %q", s[:cut], got)
		}
	})
}
