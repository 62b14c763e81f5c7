package main

import (
	"encoding/base64"
	"fmt"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/millrace-io/millrace/pipeline/secret"
)

// vault is the planted secrets: each in a file of its own, and in the environment
// if its name is in capitals.
type vault struct {
	dir    string
	values map[string]string
	marks  map[string][]string
}

// plantedSecrets are awkward in their own ways, by their names. Each has words with
// a digit that no other has, and that are written alike in a URL, in JSON, in
// HTML: these are looked for.
func plantedSecrets() map[string]string {
	return map[string]string{
		"header":       `h34der11 "quoted11" <&> \ end11111x`,
		"QUERY":        "qu3ry111+with/sl4sh111&m0re1111=",
		"path":         "p4th1111%2Fsegm3nt11",
		"host":         "h0st1111.s3cret11.invalid",
		"sig":          "s1gnatur3-of-a-url1111",
		"bearer":       "t0ken111-of-the-b34rer11",
		"user":         "us3r11111@ex4mple1.com",
		"password":     "p4ss1111:w0rd1111/é",
		"body":         `b0dy1111-"quot3d11"<&>\end11111b`,
		"basic":        base64.StdEncoding.EncodeToString([]byte("wr1tekey11-0f-s0urce111:")),
		"client":       "cl1ent1111xyz:s3/é-cl1ent2222xyz",
		"refresh":      "r3fresh1-t0ken222",
		"rotated":      "r0tated1-t0ken333",
		"access-token": "4ccess11-t0ken444+/x",
		"signing":      "whsec_" + base64.StdEncoding.EncodeToString([]byte("s1gning-key-of-32-bytes-in-all!!")),
		"signed-before": "whsec_" + base64.StdEncoding.EncodeToString(
			[]byte("the key b3fore that, in 31 byte")),
		"short-path": "a%2Fb+c%22d",
		"short":      "a:b+c=d\"e<f>&\u200b\\g/h i", // no word of it tells anything

		"proxy":    "pr0xy111:p4ssw0rd1",
		"registry": "r3gistry1:p4ssw0rd2",
		"kafka":    "k4fka111-p4ssw0rd3",
		"otlp":     "0tlp1111-t0ken555",

		// These can't be used, and are not quoted to say so.
		"unfit-header":   "unf1thead-3r11\nsec0nd11",
		"unfit-url":      "http://us3rinfo1:p4ssinfo1@127.0.0.1/",
		"unfit-escape":   "http://127.0.0.1/unf1tesc1%zz",
		"unfit-query":    "unf1tquery1 with sp4ce1111",
		"unfit-signing":  "whsec_unf1tsign1-no-b4se64xx",
		"unfit-property": "unf1tprop1-utf8\xff-b4dutf81",
		"unfit-key":      "-----BEGIN PRIVATE KEY-----\nunf1tkey11b4se64pem11\n-----END PRIVATE KEY-----",
	}
}

func newVault(t *testing.T) *vault {
	t.Helper()
	v := &vault{dir: t.TempDir(), values: map[string]string{}, marks: map[string][]string{}}
	for name, value := range plantedSecrets() {
		v.plant(t, name, value)
	}
	keys, err := secret.NewKeys()
	if err != nil {
		t.Fatal(err)
	}
	keyset, err := keys.Reveal()
	if err != nil {
		t.Fatal(err)
	}
	v.plant(t, "keyset", string(keyset))
	_, key, _ := strings.Cut(string(keyset), `"value":"`)
	key, _, _ = strings.Cut(key, `"`)
	v.marks["keyset"] = []string{key[len(key)-40:]} // the private key stands at its end
	v.marks["short-path"] = append(v.marks["short-path"], v.value("short-path"), `a/b+c"d`)
	for _, encode := range encoders {
		v.marks["short"] = append(v.marks["short"], encode(v.value("short")))
	}
	for name, pair := range map[string]string{
		"password": v.value("user") + ":" + v.value("password"), "client": "me:" + url.QueryEscape(v.value("client")),
		"proxy": "me:" + v.value("proxy"), "registry": "reader:" + v.value("registry"),
	} {
		v.marks[name] = append(v.marks[name], base64.StdEncoding.EncodeToString([]byte(pair)[:len(pair)/3*3]))
	}
	return v
}

func (v *vault) plant(t *testing.T, name, value string) {
	t.Helper()
	v.values[name], v.marks[name] = value, marksOf(value)
	if strings.ToUpper(name) == name {
		t.Setenv("MILLRACE_SECRET_"+name, value)
	}
	if err := os.WriteFile(v.file(name), []byte(value), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (v *vault) file(name string) string { return filepath.Join(v.dir, name) }

func (v *vault) value(name string) string { return v.values[name] }

var word = regexp.MustCompile(`[A-Za-z0-9]{8,}`)

// marksOf returns what a text would have to have in it to show a secret, or a
// good part of it.
func marksOf(value string) (marks []string) {
	for _, w := range word.FindAllString(value, -1) {
		if strings.ContainsFunc(w, unicode.IsDigit) {
			marks = append(marks, w[:8]) // also where it is cut
		}
	}
	whole := []byte(value)[:len(value)/3*3] // the rest depends on what comes behind
	for _, e := range []*base64.Encoding{base64.StdEncoding, base64.URLEncoding} {
		marks = append(marks, e.EncodeToString(whole))
		for _, before := range []string{"x", "xy"} { // nor are the first digits the secret's alone
			marks = append(marks, e.EncodeToString([]byte(before + value)[:len(before+value)/3*3])[len(before)+1:])
		}
	}
	marks = append(marks, fmt.Sprintf("%x", value), fmt.Sprintf("%X", value))
	if plain, err := base64.StdEncoding.DecodeString(value); err == nil && utf8.Valid(plain) {
		marks = append(marks, marksOf(string(plain))...)
	}
	return marks
}

// heldBy returns the secrets that stand in a text as they are.
func (v *vault) heldBy(text string) (held []string) {
	for _, name := range slices.Sorted(maps.Keys(v.values)) {
		if value := v.values[name]; strings.Contains(text, value) {
			held = append(held, value)
		}
	}
	return held
}

// inSight returns the names of the secrets that a text shows, and what of them.
func (v *vault) inSight(text string) map[string]string {
	text = strings.NewReplacer("\x00", "", `\u0000`, "", `\x00`, "").Replace(text)
	found := map[string]string{}
	for name, marks := range v.marks {
		for _, m := range marks {
			if i := strings.Index(text, m); i >= 0 {
				found[name] = text[max(0, i-80):min(len(text), i+len(m)+40)]
			}
		}
	}
	return found
}
