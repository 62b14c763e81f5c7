package mapping

import (
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/millrace-io/millrace/pipeline/expression"
)

// CompileURL checks a URL and prepares it: http or https, a host, and what
// depends on the event only in the path and the query. A secret is taken for
// what stands in its place, whatever characters it holds. Delivery is in scope whether s says so or not. The error is an *expression.Error or
// several, joined, each with its place in text.
func CompileURL(text string, s expression.Scope) (*URL, error) {
	s.Delivery = true
	c := &urlCompiler{text: text, scope: s}
	switch {
	case len(text) > MaxURL:
		c.report(0, "the URL has %d bytes; at most %d", len(text), MaxURL)
	case !utf8.ValidString(text):
		c.report(0, "the URL is not valid UTF-8")
	default:
		c.scan()
	}
	if len(c.errs) > 0 {
		return nil, c.err()
	}
	path, query := c.checkPlaces()
	if len(c.errs) > 0 {
		return nil, c.err()
	}
	return c.build(path, query), nil
}

// MaskURL returns the text with each byte of a {{ }} and of a ${ } replaced: what
// is left is written out.
func MaskURL(text string, mask byte) string {
	out := []byte(text)
	for i := 0; i < len(text); {
		end := i + holeLength(text[i:])
		if end == i {
			i++
			continue
		}
		for ; i < end; i++ {
			out[i] = mask
		}
	}
	return string(out)
}

// holeLength is the length of the {{ }} or ${ } that s starts with: all of s where
// it is not closed, 0 where there is none.
func holeLength(s string) int {
	switch {
	case strings.HasPrefix(s, "{{"):
		if n := expressionLength(s[2:]); n >= 0 {
			return n + len("{{}}")
		}
		return len(s)
	case strings.HasPrefix(s, "${"):
		return min(indexAny(s, 0, "}")+1, len(s))
	}
	return 0
}

// urlCompiler works on a mask of the text: as long as the text, but every
// {{ }} and ${ } is a run of x. What the URL is made of shows in the mask,
// whatever expressions and secrets hold.
type urlCompiler struct {
	text  string
	scope expression.Scope
	mask  []byte
	holes []hole
	errs  []error
}

// hole is a {{ }} or, without a program, a ${ }.
type hole struct {
	start, end int
	secret     bool
	program    *expression.Program
}

func (c *urlCompiler) report(at int, format string, args ...any) {
	line, column := position(c.text, at)
	c.errs = append(c.errs, &expression.Error{Line: line, Column: column, Message: fmt.Sprintf(format, args...)})
}

func (c *urlCompiler) err() error {
	if len(c.errs) == 1 {
		return c.errs[0]
	}
	return errors.Join(c.errs...)
}

// position counts lines and characters from 1.
func position(text string, at int) (line, column int) {
	before := text[:at]
	start := strings.LastIndexByte(before, '\n') + 1
	return 1 + strings.Count(before, "\n"), 1 + utf8.RuneCountInString(before[start:])
}

// scan finds the holes and checks all other characters.
func (c *urlCompiler) scan() {
	c.mask = []byte(c.text)
	for i := 0; i < len(c.text); {
		var h hole
		switch rest := c.text[i:]; {
		case strings.HasPrefix(rest, "{{"):
			h = c.expression(i)
		case strings.HasPrefix(rest, "${"):
			h = c.secret(i)
		default:
			i = c.static(i)
			continue
		}
		if h.end == 0 {
			return // where it ends is unknown, and so is what follows
		}
		for j := h.start; j < h.end; j++ {
			c.mask[j] = 'x'
		}
		c.holes = append(c.holes, h)
		i = h.end
	}
}

// expression compiles the {{ }} that starts at i.
func (c *urlCompiler) expression(i int) hole {
	length := expressionLength(c.text[i+2:])
	if length < 0 {
		c.report(i, "{{ is not closed by }}")
		return hole{}
	}
	start := i + 2
	program, _, err := expression.Compile(c.text[start:start+length], c.scope)
	if err != nil {
		line, column := position(c.text, start)
		for _, e := range expression.All(err) {
			if e.Line == 1 {
				e.Column += column - 1
			}
			e.Line += line - 1
			c.errs = append(c.errs, e)
		}
	}
	return hole{start: i, end: start + length + 2, program: program}
}

// expressionLength is how far the }} is that ends an expression: not one inside
// a string, nor one that closes a brace. It is -1 where there is none.
func expressionLength(s string) int {
	depth := 0
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '"', '\'', '`':
			i += stringLength(s[i:]) - 1
		case '{':
			depth++
		case '}':
			if depth == 0 && strings.HasPrefix(s[i:], "}}") {
				return i
			}
			depth = max(depth-1, 0)
		}
	}
	return -1
}

// stringLength is the length of the string literal that s starts with, or all
// of s where it is not closed. A ` that is doubled, and so part of its string,
// is seen as the end of one string and the start of the next: the same length.
func stringLength(s string) int {
	quote := s[0]
	for i := 1; i < len(s); i++ {
		switch {
		case s[i] == quote:
			return i + 1
		case s[i] == '\\' && quote != '`':
			i++
		}
	}
	return len(s)
}

// secret reads the placeholder that starts at i.
func (c *urlCompiler) secret(i int) hole {
	name, _, closed := strings.Cut(c.text[i+2:], "}")
	end := i + 2 + len(name) + 1
	switch kind, key, _ := strings.Cut(name, ":"); {
	case !closed:
		c.report(i, "${ is not closed by }")
		return hole{}
	case kind != "env" && kind != "file" && kind != "sealed", key == "", strings.ContainsFunc(key, notSecret):
		c.report(i, "a secret is written ${env:NAME} or ${file:PATH}")
	}
	return hole{start: i, end: end, secret: true}
}

// notSecret also keeps placeholders from being nested.
func notSecret(r rune) bool { return r < ' ' || r == 0x7f || r == '$' || r == '{' }

// static checks the character at i and returns where the next one starts.
func (c *urlCompiler) static(i int) int {
	r, size := utf8.DecodeRuneInString(c.text[i:])
	switch {
	case r == '{' || r == '}':
		c.report(i, "%c can't stand in a URL: an expression is written {{ }}, the character itself %%%X", r, r)
	case r <= ' ' || r >= 0x7f || strings.ContainsRune("\"<>\\^`|", r):
		c.report(i, "%q can't stand in a URL: write %s", r, url.PathEscape(c.text[i:i+size]))
	case r == '#':
		c.report(i, "a fragment is never sent; the character itself is written %%23")
	case r == '%' && (len(c.text) < i+3 || !isHex(c.text[i+1]) || !isHex(c.text[i+2])):
		c.report(i, "after %% two hexadecimal digits are expected; the character itself is written %%25")
	}
	return i + size
}

func isHex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}

// checkPlaces checks the parts of the URL and returns where its path starts and
// its query, if any, does.
func (c *urlCompiler) checkPlaces() (path, query int) {
	host, mask := c.origin()
	if host < 0 {
		c.report(0, "a URL must start with https:// or http:// or with a secret that does")
		return 0, 0
	}
	path = indexAny(mask, host, "/?")
	query = indexAny(mask, path, "?")
	if c.checkHost(host, path); len(c.errs) == 0 {
		if _, err := url.Parse("https://" + mask[host:]); err != nil {
			c.report(0, "%v", errors.Unwrap(err)) // without the text around it
		}
	}
	at := path
	for segment := range strings.SplitSeq(mask[path:query], "/") {
		if leadsElsewhere(segment) {
			c.report(at, "the path segment %s leads elsewhere; write the path it leads to", segment)
		}
		at += len(segment) + 1
	}
	return path, query
}

// origin returns where the host starts, or -1. A secret at the start holds the
// scheme, and the host as far as it is not written behind it.
func (c *urlCompiler) origin() (host int, mask string) {
	mask = string(c.mask)
	if len(c.holes) > 0 && c.holes[0].secret && c.holes[0].start == 0 {
		return 0, mask
	}
	scheme, _, found := strings.Cut(mask, "://")
	if !found || !strings.EqualFold(scheme, "https") && !strings.EqualFold(scheme, "http") {
		return -1, mask
	}
	return len(scheme) + len("://"), mask
}

// indexAny is strings.IndexAny from an offset, with the end for "not found".
func indexAny(s string, from int, chars string) int {
	if i := strings.IndexAny(s[from:], chars); i >= 0 {
		return from + i
	}
	return len(s)
}

// checkHost checks what stands between :// and the path. It decides where the
// call goes, so no event may have a say in it. A secret may: the sink checks
// the whole when it knows it.
func (c *urlCompiler) checkHost(start, end int) {
	for _, h := range c.holes {
		if h.start < end && !h.secret {
			c.report(h.start, "an expression can't stand in the scheme, host or port, only in the path or the query")
		}
	}
	authority := string(c.mask[start:end])
	switch {
	case strings.Contains(authority, "@"):
		c.report(start, "user and password can't stand in a URL: use auth with type basic")
		return
	case strings.Contains(authority, "%"):
		c.report(start, "%% can't stand in a host; a name outside ASCII is written in Punycode, xn--…")
		return
	}
	u := url.URL{Host: authority}
	if u.Hostname() == "" {
		c.report(start, "the host is missing")
	}
	if port := u.Port(); port != "" || strings.HasSuffix(authority, ":") {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			c.report(start, "a port is a number from 1 to 65535")
		}
	}
}

// build cuts the text into chunks.
func (c *urlCompiler) build(path, query int) *URL {
	u := &URL{}
	from := 0
	for start := path; start < query; {
		end := min(indexAny(string(c.mask), start, "/"), query)
		if segment := c.chunk(start, end, query); segment.dynamic() {
			segment.segment = true
			u.chunks = append(u.chunks, c.chunk(from, start, query), segment)
			from = end
		}
		start = end + 1
	}
	u.chunks = append(u.chunks, c.chunk(from, len(c.text), query))
	return u
}

// chunk makes one chunk of a range of the text.
func (c *urlCompiler) chunk(from, to, query int) chunk {
	var out chunk
	for _, h := range c.holes {
		if h.secret || h.start < from || h.start >= to {
			continue
		}
		out.parts = append(out.parts,
			part{static: c.text[from:h.start]},
			part{program: h.program, text: strings.TrimSpace(c.text[h.start+2 : h.end-2]), query: h.start >= query})
		from = h.end
	}
	out.parts = append(out.parts, part{static: c.text[from:to]})
	return out
}
