package secret_test

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/pipeline/secret"
)

// here is where the secrets of these tests stand.
var here = secret.Place{Owner: "Destination/crm", Field: "auth.token", Goes: "https://crm.example"}

func newKeys(t testing.TB) *secret.Keys {
	t.Helper()
	k, err := secret.NewKeys()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func rotated(t testing.TB, k *secret.Keys) *secret.Keys {
	t.Helper()
	k, err := k.Rotated()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// ringOf is a keyring with these keys.
func ringOf(k *secret.Keys) *secret.Keyring { return &secret.Keyring{Load: k.Reveal} }

func seal(t testing.TB, k *secret.Keys, text string, at secret.Place) secret.Reference {
	t.Helper()
	r, err := k.Public().Seal(parse(t, text).In(at))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestSeal(t *testing.T) {
	t.Parallel()
	keys := newKeys(t)
	r := &secret.Resolver{Keys: ringOf(keys), Env: environment(map[string]string{"MILLRACE_SECRET_A": "from-env"})}
	for _, c := range []struct{ text, shown, opens string }{
		{planted, "◊", planted},
		{"Bearer " + planted, "Bearer ◊", "Bearer " + planted},
		{"basic  " + planted, "basic  ◊", "basic  " + planted},
		{"whsec_" + planted, "whsec_◊", "whsec_" + planted},
		{"Bearer", "◊", "Bearer"},
		{"pl4 Bearer x", "◊", "pl4 Bearer x"},
		{planted + "${env:MILLRACE_SECRET_A}", "◊${env:MILLRACE_SECRET_A}", planted + "from-env"},
		{"Bearer " + planted + "${env:MILLRACE_SECRET_A}!", "Bearer ◊${env:MILLRACE_SECRET_A}◊", "Bearer " + planted + "from-env!"},
		{"Bearer ${env:MILLRACE_SECRET_A}", "Bearer ${env:MILLRACE_SECRET_A}", "Bearer from-env"},
		{"${env:MILLRACE_SECRET_A} ${env:MILLRACE_SECRET_A}", "${env:MILLRACE_SECRET_A} ${env:MILLRACE_SECRET_A}", "from-env from-env"},
		{"-----BEGIN\nlines\n", "◊", "-----BEGIN\nlines\n"},
		{"nul\x00\x80\x00", "◊", "nul\x00\x80\x00"},
		{"", "", ""},
	} {
		plain := parse(t, c.text)
		s := seal(t, keys, c.text, here)
		shown := s.Short()
		for _, name := range s.Names() {
			if strings.HasPrefix(name, "${sealed:…") {
				shown = strings.Replace(shown, name, "◊", 1)
			}
		}
		if shown != c.shown || plain.Sealable() != (c.text != s.String()) || s.Sealable() || shows(s.String()) {
			t.Errorf("%q is sealed as %q, expected %q", c.text, s.Short(), c.shown)
		}
		if plain.Masked() != strings.ReplaceAll(c.shown, "◊", secret.Mask) {
			t.Errorf("%q is shown as %q", c.text, plain.Masked())
		}
		again := parse(t, s.String()).In(here) // as it is stored
		v, err := r.Resolve(again)
		if err != nil || v.Reveal() != c.opens || again.CheckSealed(keys.Public()) != nil {
			t.Errorf("%q opens as %q, %v", c.text, v.Reveal(), err)
		}
		if redacted := secret.NewRedactor(v).Redact("it was " + v.Reveal()); shows(redacted) {
			t.Errorf("a redactor lets through %q", redacted)
		}
	}
}

func TestSealedTextsTellNothing(t *testing.T) {
	t.Parallel()
	keys := newKeys(t)
	one, two := seal(t, keys, "a", here), seal(t, keys, "a", here)
	if one.String() == two.String() {
		t.Error("the same text is sealed alike twice")
	}
	if long := seal(t, keys, strings.Repeat("a", 31), here); len(one.String()) != len(long.String()) {
		t.Errorf("sealed texts of 1 and 31 bytes have %d and %d", len(one.String()), len(long.String()))
	}
	if _, err := keys.Public().Seal(parse(t, strings.Repeat("x", secret.MaxSize+1)).In(here)); err == nil {
		t.Error("a secret that is too large is sealed")
	}
	large := strings.Repeat("x", secret.MaxSize)
	if v, err := (&secret.Resolver{Keys: ringOf(keys)}).Resolve(seal(t, keys, large, here)); err != nil || v.Reveal() != large {
		t.Errorf("the largest secret: %v", err)
	}
}

// swapped is the reference with one character of its seal replaced.
func swapped(text string, i int) string {
	with := "A"
	if text[i] == 'A' {
		with = "B"
	}
	return text[:i] + with + text[i+1:]
}

func TestSealedRefuses(t *testing.T) {
	t.Parallel()
	keys := newKeys(t)
	text := seal(t, keys, planted, here).String()
	newer := "${sealed:Ag" + text[len("${sealed:AQ"):]
	old := rotated(t, keys)
	other := here
	for name, c := range map[string]struct {
		text  string
		at    secret.Place
		ring  *secret.Keyring
		known *secret.PublicKeys // of whoever writes definitions
		want  string
		check bool // CheckSealed says so too
	}{
		"other destination": {text, secret.Place{Owner: "Destination/erp", Field: other.Field, Goes: other.Goes}, ringOf(keys), keys.Public(), "another destination or another field", true},
		"other field":       {text, secret.Place{Owner: other.Owner, Field: "auth.value", Goes: other.Goes}, ringOf(keys), keys.Public(), "another destination or another field", true},
		"other host":        {text, secret.Place{Owner: other.Owner, Field: other.Field, Goes: "https://evil.example"}, ringOf(keys), keys.Public(), "another scheme, host, port or token_url", true},
		"nowhere":           {text, secret.Place{}, ringOf(keys), keys.Public(), "another destination or another field", true},
		"cut short":         {text[:len(text)-9] + "}", here, ringOf(keys), keys.Public(), "damaged", true},
		"nearly nothing":    {"${sealed:AQ}", here, ringOf(keys), keys.Public(), "damaged", true},
		"no base64":         {"${sealed:A}", here, ringOf(keys), keys.Public(), "damaged", true},
		"newer":             {newer, here, ringOf(keys), keys.Public(), "a newer version of Millrace", true},
		"wrong keyset":      {text, here, ringOf(newKeys(t)), newKeys(t).Public(), "which", true},
		"not rotated yet":   {seal(t, old, planted, here).String(), here, ringOf(keys), old.Public(), "the keyset has no key", false},
		"no keyset":         {text, here, nil, nil, "there is no keyset to open it with", false},
		"keyset unreadable": {text, here, &secret.Keyring{Load: func() ([]byte, error) { return nil, errors.New("gone") }}, nil, "reading the keyset: gone", false},
		"keyset broken":     {text, here, &secret.Keyring{Load: func() ([]byte, error) { return []byte(planted), nil }}, nil, "none in tink's JSON format", false},
	} {
		ref := parse(t, c.text).In(c.at)
		v, err := (&secret.Resolver{Keys: c.ring}).Resolve(ref)
		missing, ok := errors.AsType[*secret.MissingError](err)
		if !ok || !strings.Contains(err.Error(), c.want) || shows(err.Error()) || v.Reveal() != "" {
			t.Errorf("%s: %v, expected %q", name, err, c.want)
			continue
		}
		if c.at.Field != "" && missing.Field != c.at.Field {
			t.Errorf("%s: the field is %q", name, missing.Field)
		}
		if err := ref.CheckSealed(c.known); (err != nil) != c.check || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: CheckSealed says %v", name, err)
		}
	}
}

// TestSealsAreBound changes every character of a seal, and the marks with their
// checksum put right: the ciphertext alone still keeps it in its place.
func TestSealsAreBound(t *testing.T) {
	t.Parallel()
	keys := newKeys(t)
	r := &secret.Resolver{Keys: ringOf(keys)}
	text := seal(t, keys, planted, here).String()
	for i := len("${sealed:"); i < len(text)-1; i++ {
		if v, err := r.Resolve(parse(t, swapped(text, i)).In(here)); err == nil {
			t.Errorf("with character %d changed it opens as %q", i, v.Reveal())
		}
	}
	elsewhere := here
	elsewhere.Goes = "https://evil.example"
	forged := secret.Forge(text, elsewhere)
	if err := parse(t, forged).In(elsewhere).CheckSealed(keys.Public()); err != nil {
		t.Fatalf("the forgery is not good enough: %v", err)
	}
	if v, err := r.Resolve(parse(t, forged).In(elsewhere)); err == nil || !strings.Contains(err.Error(), "does not open it") {
		t.Errorf("a forged seal opens as %q, %v", v.Reveal(), err)
	}
}

func TestPlacesAreNotMixedUp(t *testing.T) {
	t.Parallel()
	keys := newKeys(t)
	r := &secret.Resolver{Keys: ringOf(keys)}
	a := secret.Place{Owner: "a", Field: "b", Goes: "c"}
	s := seal(t, keys, planted, a).String()
	for _, b := range []secret.Place{{"a", `b""c`, ""}, {`a""b`, "", "c"}, {"ab", "", "c"}, {"a", "bc", ""}, {"", "ab", "c"}} {
		if _, err := r.Resolve(parse(t, secret.Forge(s, b)).In(b)); err == nil {
			t.Errorf("what was sealed for %+v opens in %+v", a, b)
		}
	}
	if _, err := r.Resolve(parse(t, s).In(a)); err != nil {
		t.Error(err)
	}
	if _, err := r.Resolve(parse(t, secret.Forge(s, secret.Place{})).In(secret.Place{})); err == nil {
		t.Error("what has been opened once opens elsewhere")
	}
}

func TestRotation(t *testing.T) {
	t.Parallel()
	first := newKeys(t)
	second := rotated(t, first)
	if a, b := first.Public().IDs(), second.Public().IDs(); len(a) != 1 || len(b) != 2 || a[0] != b[0] || second.Public().Primary() != b[1] {
		t.Errorf("keys are %v, then %v with the primary %d", a, b, second.Public().Primary())
	}
	before, after := seal(t, first, "before", here), seal(t, second, "after", here)
	r := &secret.Resolver{Keys: ringOf(second)}
	for _, ref := range []secret.Reference{before, after} {
		if _, err := r.Resolve(ref); err != nil {
			t.Error(err)
		}
	}
	if _, err := (&secret.Resolver{Keys: ringOf(first)}).Resolve(after); err == nil {
		t.Error("the old keyset opens what the new key sealed")
	}
	if err := before.CheckSealed(second.Public()); err != nil {
		t.Error(err)
	}
}

// FuzzSealed parses what somebody else may have written into a definition: it is
// opened only if it is what was sealed.
func FuzzSealed(f *testing.F) {
	keys, err := secret.NewKeys()
	if err != nil {
		f.Fatal(err)
	}
	r := &secret.Resolver{Keys: ringOf(keys)}
	good := seal(f, keys, planted, here).String()
	good = strings.TrimSuffix(strings.TrimPrefix(good, "${sealed:"), "}")
	for _, s := range []string{good, good[:40], "", "A", "AQ", "AQ==", strings.Repeat("A", 80), "Ag" + good[2:]} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		ref, err := secret.Parse("${sealed:" + text + "}")
		if err != nil {
			return
		}
		ref = ref.In(here)
		checked := ref.CheckSealed(keys.Public())
		v, err := r.Resolve(ref)
		if (err == nil) != (text == good) || err == nil && v.Reveal() != planted {
			t.Errorf("%q opens as %q, %v", text, v.Reveal(), err)
		}
		if err == nil && checked != nil || err != nil && strings.Contains(err.Error(), planted) {
			t.Errorf("%q: %v, %v", text, checked, err)
		}
		if ref.Short() == "" || len(ref.Names()) == 0 {
			t.Errorf("%q has no name", text)
		}
	})
}

func TestKeysNeverShow(t *testing.T) {
	t.Parallel()
	keys := newKeys(t)
	if _, err := (&secret.Resolver{Keys: ringOf(keys)}).Resolve(seal(t, keys, planted, here)); err != nil {
		t.Fatal(err)
	}
	text, err := keys.Reveal()
	if err != nil {
		t.Fatal(err)
	}
	_, private, _ := strings.Cut(string(text), `"value":"`)
	private, _, _ = strings.Cut(private, `"`)
	if len(private) < 80 {
		t.Fatalf("no key is found in %d bytes", len(text))
	}
	end := private[len(private)-40:] // where the private key stands
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x"} {
		if got := fmt.Sprintf(verb, keys) + fmt.Sprintf(verb, *keys); strings.Contains(got, end) || shows(got) {
			t.Errorf("%s shows keys: %s", verb, got)
		}
	}
	walk(t, reflect.ValueOf(*keys))
	for _, bad := range []string{planted, `{"primaryKeyId":"` + planted + `"}`, `{"` + planted + `":1}`, "{}", strings.Replace(string(text), private, private[:30]+planted, 1)} {
		if _, err := secret.ReadKeys([]byte(bad)); err == nil || shows(err.Error()) || strings.Contains(err.Error(), end) {
			t.Errorf("reading a broken keyset: %v", err)
		}
		if _, err := secret.ReadPublicKeys([]byte(bad)); err == nil || shows(err.Error()) || strings.Contains(err.Error(), end) {
			t.Errorf("reading a broken public keyset: %v", err)
		}
	}
	if _, err := secret.ReadPublicKeys(text); err == nil || !strings.Contains(err.Error(), "holds private keys") {
		t.Errorf("a private keyset is read as a public one: %v", err)
	}
	public, err := keys.Public().MarshalJSON()
	if err != nil || strings.Contains(string(public), end) {
		t.Errorf("the public keyset: %v", err)
	}
	if _, err := secret.ReadKeys(public); err == nil || !strings.Contains(err.Error(), "no private keys") {
		t.Errorf("a public keyset is read as a private one: %v", err)
	}
	if p, err := secret.ReadPublicKeys(public); err != nil || p.Primary() != keys.Public().Primary() {
		t.Errorf("the public keyset is read as %v, %v", p, err)
	}
}
