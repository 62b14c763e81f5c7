package secret_test

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"html"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/millrace-io/millrace/pipeline/secret"
)

// eachRune writes each character of a text in some way.
func eachRune(s string, write func(r rune) string) string {
	var b strings.Builder
	for _, r := range s {
		b.WriteString(write(r))
	}
	return b.String()
}

// inUnits writes a character as JSON does that knows ASCII alone.
func inUnits(r rune, format string) string {
	var b strings.Builder
	for _, unit := range utf16.Encode([]rune{r}) {
		fmt.Fprintf(&b, format, unit)
	}
	return b.String()
}

func jsonOf(s, backslashed, coded, format string) string {
	return eachRune(s, func(r rune) string {
		switch {
		case r == '\n':
			return `\n`
		case strings.ContainsRune(backslashed, r):
			return `\` + string(r)
		case r < ' ', r >= utf8.RuneSelf, strings.ContainsRune(coded, r):
			return inUnits(r, format)
		}
		return string(r)
	})
}

func phpJSON(s string) string    { return jsonOf(s, `"\/`, "", `\u%04x`) }
func pythonJSON(s string) string { return jsonOf(s, `"\`, "", `\u%04x`) }
func dotnetJSON(s string) string { return jsonOf(s, `\`, "\"&'+<>`", `\u%04X`) }

func goJSON(s string) string {
	b, _ := json.Marshal(s) // a text can be marshalled
	return string(b[1 : len(b)-1])
}

// percent escapes all bytes but letters, digits and these.
func percent(s, but, format string) string {
	var b strings.Builder
	for _, c := range []byte(s) {
		if c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'z' || strings.IndexByte(but, c) >= 0 {
			b.WriteByte(c)
			continue
		}
		fmt.Fprintf(&b, format, c)
	}
	return b.String()
}

func jsURI(s string) string       { return percent(s, "-_.!~*'()", "%%%02X") }
func pythonQuote(s string) string { return percent(s, "-_.~/", "%%%02X") }

func inHTML(pairs ...string) func(string) string {
	return strings.NewReplacer(append(pairs, "&", "&amp;", "<", "&lt;", ">", "&gt;", `"`, "&quot;")...).Replace
}

var (
	phpHTML    = inHTML("'", "&#039;")
	pythonHTML = inHTML("'", "&#x27;")
	inXML      = inHTML("'", "&apos;")
)

func quoted(s string) string {
	q := strconv.QuoteToASCII(s)
	return q[1 : len(q)-1]
}

// reprOf writes bytes as Python does.
func reprOf(s string) string {
	return percent(strings.ReplaceAll(s, `\`, `\\`), " !\"#$%&()*+,-./:;<=>?@[\\]^_`{|}~", `\x%02x`)
}

// escapers write each character on its own, so that nothing of a secret is to be
// left.
var escapers = map[string]func(string) string{
	"as it is":              func(s string) string { return s },
	"PHP json_encode":       phpJSON,
	"Python json":           pythonJSON,
	".NET JSON":             dotnetJSON,
	"Go JSON":               goJSON,
	"JSON of all":           func(s string) string { return eachRune(s, func(r rune) string { return inUnits(r, `\u%04x`) }) },
	"JSON in JSON":          func(s string) string { return goJSON(goJSON(s)) },
	"JSON in JSON, PHP":     func(s string) string { return phpJSON(phpJSON(s)) },
	"JSON thrice":           func(s string) string { return pythonJSON(phpJSON(dotnetJSON(s))) },
	"htmlspecialchars":      phpHTML,
	"Python html.escape":    pythonHTML,
	"Go HTML":               html.EscapeString,
	"XML":                   inXML,
	"HTML, hexadecimal":     func(s string) string { return eachRune(s, func(r rune) string { return fmt.Sprintf("&#x%X;", r) }) },
	"HTML of HTML":          func(s string) string { return phpHTML(pythonHTML(s)) },
	"HTML of JSON":          func(s string) string { return phpHTML(goJSON(s)) },
	"JSON of HTML":          func(s string) string { return dotnetJSON(html.EscapeString(s)) },
	"encodeURIComponent":    jsURI,
	"Python quote":          pythonQuote,
	"Python quote_plus":     func(s string) string { return strings.ReplaceAll(percent(s, "-_.~ ", "%%%02X"), " ", "+") },
	"curl":                  func(s string) string { return percent(s, "", "%%%02x") },
	"percent twice":         func(s string) string { return jsURI(jsURI(s)) },
	"percent thrice":        func(s string) string { return jsURI(jsURI(jsURI(s))) },
	"Go query":              url.QueryEscape,
	"Go path":               url.PathEscape,
	"JSON in a URL":         func(s string) string { return jsURI(phpJSON(s)) },
	"URL in JSON":           func(s string) string { return phpJSON(pythonQuote(s)) },
	"JavaScript's escape":   func(s string) string { return eachRune(s, func(r rune) string { return inUnits(r, "%%u%04X") }) },
	"Go %+q":                quoted,
	"Go %+q of JSON":        func(s string) string { return quoted(pythonJSON(s)) },
	"Python repr of bytes":  reprOf,
	"addslashes, twice":     func(s string) string { return strings.NewReplacer(`"`, `\\\"`, "'", `\\\'`, `\`, `\\\\`).Replace(s) },
	"percent of a byte two": func(s string) string { return percent(s, "", "%%25%02x") },
}

// coder writes the bytes of a text, and what is around it, as digits.
type coder struct {
	before, after string
	inside        func(string) string
	write         func(string) string
}

func (c coder) code(s string) string { return c.write(c.before + c.inside(s) + c.after) }

// around is the most that may be left beside a secret: it may stand otherwise, and
// have = behind it.
func (c coder) around() int { return len(c.write(c.before)) + len(c.write(c.after)) + len("%3D%3D") }

var coders = func() map[string]coder {
	bare := escapers["as it is"]
	std, forURLs := base64.StdEncoding, base64.RawURLEncoding
	in := func(e *base64.Encoding) func(string) string {
		return func(s string) string { return e.EncodeToString([]byte(s)) }
	}
	capital := func(s string) string { return fmt.Sprintf("%X", s) }
	small := func(s string) string { return hex.EncodeToString([]byte(s)) }
	return map[string]coder{
		"base64":               {"", "", bare, in(std)},
		"base64 for URLs":      {"", "", bare, in(forURLs)},
		"base64, of a body":    {`{"k":"`, `"}`, bare, in(std)},
		"base64, one behind":   {"x", "y", bare, in(std)},
		"base64, two behind":   {"xy", ">>?", bare, in(forURLs)},
		"base64 of JSON":       {`{"ke":"`, `"}`, phpJSON, in(std)},
		"base64 of HTML":       {`<b>"`, `</b>`, phpHTML, in(forURLs)},
		"base64 of a URL":      {"GET /", " HTTP", jsURI, in(std)},
		"base64 in JSON":       {"??", "???", bare, func(s string) string { return phpJSON(in(std)(s)) }},
		"base64 in a URL":      {"?", ">>>", bare, func(s string) string { return jsURI(in(std)(s)) }},
		"base64 in a path":     {"?", ">>>", bare, func(s string) string { return "/a/b/" + in(forURLs)(s) }},
		"hexadecimal":          {"", "", bare, small},
		"hexadecimal, capital": {"", "", bare, capital},
		"hexadecimal of JSON":  {`{"k":"`, `"}`, phpJSON, small},
	}
}()

// awkwardSecrets are secrets that common platforms write in ways of their own.
var awkwardSecrets = []string{
	awkward, "wJalrXU/K7MDENG/bPxRfiC", "Zürich-geheim", "ab+cd/efg+hij", "a&b<c>d", `pa"ss'wd`, "p@ss!w*rd", "ab/cd+ef/gh", "a-b_c.d",
	`pa"ss\wd`, "s3cret-key-1", "a\u00adbcd", "a&b c", "emoji\U0001F600 word", "line\nline\tline", `tra%2Fp\u0041\nd &amp; &#39;`, `back\\\\slash`,
	"\u2028пароль", "inv\xffalid/utf8",
}

// However common platforms write a secret, nothing of it is left.
func TestRedactEscapes(t *testing.T) {
	t.Parallel()
	for _, s := range awkwardSecrets {
		r := secret.NewRedactor(secret.New(s))
		for name, escape := range escapers {
			if got := r.Redact("it was '" + escape(s) + "', so"); got != "it was '[secret]', so" {
				t.Errorf("%s of %q, %q: %q", name, s, escape(s), got)
			}
		}
	}
}

// Nor is it in what is decoded.
func TestRedactDigits(t *testing.T) {
	t.Parallel()
	for _, s := range awkwardSecrets {
		r := secret.NewRedactor(secret.New(s))
		for name, c := range coders {
			got := r.Redact("it was '" + c.code(s) + "', so")
			if left := strings.Replace(got, secret.Mask, "", 1); got == left || len(left) > len("it was '', so")+c.around() {
				t.Errorf("%s of %q, %q: %q", name, s, c.code(s), got)
			}
		}
	}
}

// Where what was written is cut, nothing of the secret is left but what may be the
// beginning of its first character, or in digits of two.
func TestRedactCutEscapes(t *testing.T) {
	t.Parallel()
	const before = "it was '"
	for _, s := range awkwardSecrets {
		r := secret.NewRedactor(secret.New(s))
		cutAnywhere := func(name, whole string, least, most int) {
			for cut := least; cut < len(whole); cut++ {
				got := strings.Replace(r.RedactCut(before+whole[:cut]), secret.Mask, "", 1)
				if len(got) > len(before)+most {
					t.Errorf("%s of %q, cut at %d, %q: %q", name, s, cut, whole[:cut], got)
				}
			}
		}
		_, one := utf8.DecodeRuneInString(s)
		_, two := utf8.DecodeRuneInString(s[one:])
		for name, escape := range escapers {
			cutAnywhere(name, escape(s), 0, len(escape(s[:one]))-1)
		}
		for name, c := range coders {
			cutAnywhere(name, c.write(c.before+c.inside(s)), 0, max(c.around(), len(c.write(c.before+c.inside(s[:one+two])))))
		}
	}
}

// A hostile destination chooses what is slow to search: no more time goes by for
// that, however long the secret is.
func TestRedactTakesNoLonger(t *testing.T) {
	t.Parallel()
	const size = 128 << 10
	long := strings.Repeat("e", secret.MaxSize-1)
	for name, c := range map[string]struct{ secret, text string }{
		"its first letter":     {"eyJhbGciOiJSUzI1NiJ9." + strings.Repeat("Ab3-_", secret.MaxSize/5), strings.Repeat("e", size)},
		"nearly the secret":    {long + "x", strings.Repeat("e", size)},
		"the secret, moved":    {long, strings.Repeat("e", size)},
		"many words":           {strings.Repeat("abcdefgh abcdefgi ", secret.MaxSize/18), strings.Repeat("abcdefg", size/7)},
		"escapes of escapes":   {"%25" + long, "%" + strings.Repeat("25", size/2)},
		"backslashes":          {`\x` + long, strings.Repeat(`\`, size)},
		"entities":             {"&amp;" + long, strings.Repeat(";", size/2) + strings.Repeat("&amp;", size/10)},
		"surrogates":           {"\U0001F600" + long, strings.Repeat(`\ud83d`, size/6)},
		"beginnings in digits": {long + "x", strings.Repeat("ZWVl", size/4)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			start := time.Now()
			r := secret.NewRedactor(secret.New(c.secret))
			r.Redact(c.text)
			r.RedactCut(c.text)
			if took := time.Since(start); took > 20*time.Second {
				t.Errorf("it took %v", took)
			}
		})
	}
}
