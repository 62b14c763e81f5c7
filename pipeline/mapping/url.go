package mapping

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/millrace-io/millrace/pipeline"
	"github.com/millrace-io/millrace/pipeline/expression"
)

// MaxURL is how many bytes a URL may have, as written and as sent: what servers
// commonly take.
const MaxURL = 8 << 10

// URL is a destination's URL with {{ expressions }} in its path or query. It is
// immutable and safe for concurrent use.
//
// Every value is escaped for its place, so that no value leads to another host
// or path: a slash in a value stays inside its segment, an & inside its query
// parameter. The result is printable ASCII without a fragment. Placeholders
// such as ${env:NAME} stay in it as they were written; no value can form one,
// since { and } are escaped.
type URL struct {
	chunks []chunk
}

// chunk is a stretch of the URL: one path segment that depends on the event, or
// anything else.
type chunk struct {
	segment bool
	parts   []part
}

// part is text as it is, or an expression.
type part struct {
	static  string
	program *expression.Program
	text    string // of the expression, for errors
	query   bool   // in the query, not in the path
}

// Dynamic says whether the URL depends on the event.
func (u *URL) Dynamic() bool { return len(u.chunks) > 1 || u.chunks[0].dynamic() }

// Append appends the URL for an event. A null is empty in the query and no
// request can be made of it in the path; nor of a path segment that ends up
// empty or ".", or holds "..", which would lead elsewhere. When it fails dst comes back
// as it was, with a Permanent InvalidRequest that names the expression.
func (u *URL) Append(dst []byte, in *expression.Input) ([]byte, error) {
	out := dst
	for i := range u.chunks {
		var err error
		if out, err = u.chunks[i].append(out, in); err != nil {
			return dst, pipeline.Permanent(pipeline.InvalidRequest, fmt.Errorf("making the URL: %w", err))
		}
	}
	if n := len(out) - len(dst); n > MaxURL {
		return dst, pipeline.Permanent(pipeline.InvalidRequest, fmt.Errorf("making the URL: it has %d bytes; at most %d", n, MaxURL))
	}
	return out, nil
}

func (c *chunk) dynamic() bool {
	for i := range c.parts {
		if c.parts[i].program != nil {
			return true
		}
	}
	return false
}

func (c *chunk) append(dst []byte, in *expression.Input) ([]byte, error) {
	out := dst
	for i := range c.parts {
		p := &c.parts[i]
		if p.program == nil {
			out = append(out, p.static...)
			continue
		}
		value, err := p.value(in)
		if err != nil {
			return dst, fmt.Errorf("{{ %s }}: %w", p.text, err)
		}
		out = append(out, value...)
	}
	if segment := string(out[len(dst):]); c.segment && (segment == "" || leadsElsewhere(segment)) {
		return dst, fmt.Errorf("%s makes the path segment %q, which leads elsewhere", c.expressions(), segment)
	}
	return out, nil
}

// value is the expression's value, escaped for its place.
func (p *part) value(in *expression.Input) (string, error) {
	v, err := p.program.Run(in)
	switch {
	case err != nil:
		return "", err
	case v == nil && p.query:
		return "", nil
	case v == nil:
		return "", errors.New("the value is null, which can't stand in a path")
	}
	s, err := text(v)
	if err != nil {
		return "", err
	}
	s = strings.ToValidUTF8(s, "\uFFFD")
	if p.query {
		return url.QueryEscape(s), nil
	}
	return url.PathEscape(s), nil
}

func (c *chunk) expressions() string {
	var all []string
	for _, p := range c.parts {
		if p.program != nil {
			all = append(all, "{{ "+p.text+" }}")
		}
	}
	return strings.Join(all, " with ")
}

// leadsElsewhere says whether some reader of URLs may take the segment for this
// or the parent directory: they unescape dots before they look, and some unescape
// slashes.
func leadsElsewhere(segment string) bool {
	plain, err := url.PathUnescape(segment)
	if err != nil { // a % inside a placeholder
		plain = segment
	}
	slash := func(r rune) bool { return r == '/' || r == '\\' }
	return plain == "." || strings.Contains(plain, "..") && slices.Contains(strings.FieldsFunc(plain, slash), "..")
}
