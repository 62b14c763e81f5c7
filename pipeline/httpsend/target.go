package httpsend

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/millrace-io/millrace/pipeline/secret"
)

// Target is what calls to one destination have in common. Zero numbers mean the
// defaults.
type Target struct {
	Method string // default POST
	// URL may hold references to secrets, which are put in as they are, and
	// {{ }} expressions, not in scheme, host or port; with the latter, each Call
	// brings its own URL.
	URL string
	// SecretParts are the parts of URL that are secrets though they are written
	// out: where each begins and ends, in their order.
	SecretParts [][2]int
	Headers     []Header // values may hold references to secrets; a name may repeat
	// Place is what sealed secrets in URL and Headers were sealed for, apart from
	// the field: that is request.url, or request.headers. and the name.
	Place          secret.Place
	Auth           Auth
	TLS            TLS // beside the usual; only for https
	Signing        Signing
	Responses      map[string]string // what a status, "4xx" or "5xx" means, by the names of outcomes; default: see verdict
	Meanings       []Meaning         // what responses mean of which Responses says nothing; the first that fits counts
	Timeout        time.Duration     // of the whole call, response included; default 10 s
	ConnectTimeout time.Duration     // of DNS, TCP and TLS together; default 3 s
	MaxBody        int               // bytes of body and query, a property of auth included; more is not sent; default 256 KiB
	MaxResponse    int               // bytes read of a response's body; default 64 KiB
}

// Header is one header of a request.
type Header struct{ Name, Value string }

const (
	defaultTimeout        = 10 * time.Second
	defaultConnectTimeout = 3 * time.Second
	defaultMaxBody        = 256 << 10
	defaultMaxResponse    = 64 << 10
)

// The headers that calls have, in the spelling they are sent in. Small
// letters on purpose: net/http repeats a POST by itself, several times even, if
// it finds the key "Idempotency-Key", and a repeat must be an attempt that is
// counted.
const (
	headerID             = "webhook-id"
	headerTimestamp      = "webhook-timestamp"
	headerSignature      = "webhook-signature"
	headerIdempotencyKey = "idempotency-key"
)

// refused are the headers that a target can't set, in canonical form, and why.
var refused = map[string]string{
	"Webhook-Id":          "Millrace sets it",
	"Webhook-Timestamp":   "Millrace sets it",
	"Webhook-Signature":   "signing sets it",
	"Idempotency-Key":     "Millrace sets it",
	"Host":                "it comes from the URL",
	"Content-Length":      "it comes from the body",
	"Transfer-Encoding":   "it belongs to the connection",
	"Connection":          "it belongs to the connection",
	"Keep-Alive":          "it belongs to the connection",
	"Proxy-Connection":    "it belongs to the connection",
	"Proxy-Authorization": "it belongs to the connection",
	"Te":                  "it belongs to the connection",
	"Trailer":             "it belongs to the connection",
	"Upgrade":             "it belongs to the connection",
	"Expect":              "it belongs to the connection",
}

// Target prepares calls to a destination. The error joins all that is wrong with
// t; secrets that are missing are not, since they may come later: see
// Sender.Ready.
func (c *Client) Target(t Target) (*Sender, error) {
	s := &Sender{
		client:      c,
		method:      cmp.Or(t.Method, http.MethodPost),
		place:       t.Place,
		auth:        t.Auth,
		signing:     t.Signing,
		tls:         t.TLS,
		timeout:     cmp.Or(t.Timeout, defaultTimeout),
		maxBody:     cmp.Or(t.MaxBody, defaultMaxBody),
		maxResponse: cmp.Or(t.MaxResponse, defaultMaxResponse),
	}
	var unknown error
	s.verdicts, unknown = newVerdicts(t.Responses, t.Meanings)
	err := errors.Join(
		checkMethod(s.method),
		unknown,
		s.setURL(t.URL, t.SecretParts),
		s.setHeaders(t.Headers, c.userAgent),
		t.TLS.validate(),
	)
	if err != nil {
		return nil, err
	}
	s.client, s.wire = c, wire{connectTimeout: cmp.Or(t.ConnectTimeout, defaultConnectTimeout)}
	return s, nil
}

func checkMethod(m string) error {
	switch m {
	case http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch:
		return nil
	}
	return fmt.Errorf("method is %q, expected GET, POST, PUT or PATCH", m)
}

// setURL takes the URL apart. The part before the first expression holds the
// origin; if no reference comes before its end, it can be checked at once.
func (s *Sender) setURL(text string, secretParts [][2]int) error {
	s.wholeURL, s.secretParts = text, secretParts
	all, err := secret.Parse(text)
	if err != nil {
		return fmt.Errorf("url: %w", err)
	}
	first, _, dynamic := strings.Cut(text, "{{")
	if s.url, err = secret.Parse(first); err != nil {
		return fmt.Errorf("url: %w", err)
	}
	s.dynamic, s.urlSecrets = dynamic, all.Placeholders()
	shape := first
	for _, name := range s.url.Placeholders() {
		shape = strings.ReplaceAll(shape, name, "x")
	}
	secretOrigin := strings.HasPrefix(first, "${") && !strings.Contains(shape, "://")
	if dynamic && !secretOrigin && !hasOrigin(shape) {
		return fmt.Errorf("url: %w", errOpenOrigin)
	}
	known, _, _ := strings.Cut(first, "${")
	if !s.url.Literal() && !hasOrigin(known) {
		return nil // the origin is a secret: known once it is looked up
	}
	if _, err := parseURL(known); err != nil {
		return fmt.Errorf("url: %w", err)
	}
	return nil
}

var errOpenOrigin = errors.New("an expression can't stand in scheme, host or port")

// hasOrigin says whether text holds scheme, host and port to their end.
func hasOrigin(text string) bool {
	_, rest, ok := strings.Cut(text, "://")
	return ok && strings.ContainsAny(rest, "/?#")
}

// parseURL parses a URL that can be called. Its errors never quote it: it may
// hold secrets.
func parseURL(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	switch {
	case err != nil, u.Opaque != "":
		return nil, errors.New("it can't be parsed as a URL")
	case u.Scheme != "http" && u.Scheme != "https", u.Hostname() == "":
		return nil, errors.New("expected http://host/… or https://host/…")
	case u.User != nil:
		return nil, errors.New("user name and password belong into auth, not into the URL")
	case strings.ContainsFunc(u.RawQuery, notInQuery):
		return nil, errors.New("its query holds white space or control characters")
	}
	return u, nil
}

func notInQuery(r rune) bool { return r <= ' ' || r == 0x7f }

// header is a header of a target: the values of one name.
type header struct {
	name   string // as net/http wants it
	values []secret.Reference
}

func (s *Sender) setHeaders(headers []Header, userAgent string) error {
	var errs []error
	for _, h := range headers {
		if err := s.addHeader(h); err != nil {
			errs = append(errs, fmt.Errorf("header %q: %w", h.Name, err))
		}
	}
	errs = append(errs, s.checkAuth())
	if !s.has("User-Agent") {
		errs = append(errs, s.addHeader(Header{"User-Agent", userAgent}))
	}
	s.typed = s.has("Content-Type")
	return errors.Join(errs...)
}

func (s *Sender) addHeader(h Header) error {
	name, err := headerName(h.Name)
	if err != nil {
		return err
	}
	value, err := secret.Parse(h.Value)
	if err != nil {
		return err
	}
	value = value.In(s.in("request.headers." + h.Name))
	if !validHeaderValue(h.Value) {
		return errors.New("its value holds control characters")
	}
	if i := s.indexHeader(name); i >= 0 {
		s.headers[i].values = append(s.headers[i].values, value)
		return nil
	}
	s.headers = append(s.headers, header{name, []secret.Reference{value}})
	return nil
}

// headerName is the name of a header as it is sent, if a target may set it.
func headerName(text string) (string, error) {
	name := http.CanonicalHeaderKey(text)
	if why, ok := refused[name]; ok {
		return "", fmt.Errorf("can't be set: %s", why)
	}
	if text == "" || strings.ContainsFunc(text, notToken) {
		return "", errors.New("is no header name")
	}
	if name == "X-Idempotency-Key" { // net/http looks for this one too
		name = strings.ToLower(name)
	}
	return name, nil
}

// in is the place of a text of the target.
func (s *Sender) in(field string) secret.Place {
	p := s.place
	p.Field = field
	return p
}

func (s *Sender) has(name string) bool { return s.indexHeader(name) >= 0 }

func (s *Sender) indexHeader(name string) int {
	return slices.IndexFunc(s.headers, func(h header) bool { return h.name == name })
}

// notToken tells what a header's name can't hold, by RFC 9110.
func notToken(r rune) bool {
	switch {
	case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9':
		return false
	}
	return !strings.ContainsRune("!#$%&'*+-.^_`|~", r)
}

func validHeaderValue(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}
