package httpsend

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/millrace-io/millrace/pipeline/secret"
)

// Sender makes the calls to one destination. It is safe for concurrent use, and
// needs no closing.
type Sender struct {
	client      *Client
	wire        wire
	method      string
	url         secret.Reference // up to the first expression
	dynamic     bool             // whether there is one
	wholeURL    string           // as it was given
	urlSecrets  []string         // placeholders of the whole URL
	secretParts [][2]int         // of the whole URL, that are secrets written out
	headers     []header
	typed       bool // Content-Type is among them
	place       secret.Place
	auth        Auth
	signing     Signing
	tls         TLS
	verdicts    verdicts
	timeout     time.Duration
	maxBody     int
	maxResponse int

	prepared  atomic.Pointer[prepared]
	granted   atomic.Pointer[granted] // what was prepared with the newest access token
	accepted  atomic.Pointer[token]   // the access token that the destination took last
	doubt     atomic.Pointer[doubt]   // nil: none
	preparing sync.Mutex
	secured   *secured // what tls was last
}

// prepared is what calls have in common once secrets are looked up.
type prepared struct {
	err      error // nothing can be sent: a secret is missing or unfit
	url      *url.URL
	fill     *strings.Replacer // puts secrets in the place of urlSecrets
	header   http.Header
	keys     [][]byte  // to sign with
	property *property // to put into each call; may be nil
	endpoint *endpoint // where access tokens come from; nil: there are none
	secrets  []secret.Value
	redactor *secret.Redactor // of the secrets
	until    time.Time        // look up again then; zero: never
	// transport is the one for these secrets.
	transport *http.Transport
}

// Ready says whether all secrets are there, that for the proxy too, and whether
// there is an access token if one was wanted; the error names what is not.
func (s *Sender) Ready() error {
	p := s.current(time.Now())
	if p.err != nil {
		return p.err
	}
	if err := s.client.proxy.ready(p.url.Hostname()); err != nil || p.endpoint == nil {
		return err
	}
	var refused *token
	if d := s.doubt.Load(); d != nil {
		refused = d.token
	}
	return p.endpoint.ready(p.endpoint.ask, refused)
}

func (s *Sender) current(now time.Time) *prepared {
	p := s.prepared.Load()
	if p.fresh(now) {
		return p
	}
	s.preparing.Lock()
	defer s.preparing.Unlock()
	if p := s.prepared.Load(); p.fresh(now) {
		return p
	}
	p = s.prepare(now)
	if s.hasSecrets() {
		p.until = now.Add(secret.Fresh)
	}
	if old := s.prepared.Swap(p); !s.tls.isZero() && old != nil && old.transport != nil && old.transport != p.transport {
		old.closeIdle() // they were made under certificates that have been replaced
	}
	return p
}

func (p *prepared) closeIdle() {
	p.transport.CloseIdleConnections()
	if p.endpoint != nil {
		p.endpoint.transport.CloseIdleConnections()
	}
}

func (p *prepared) fresh(now time.Time) bool {
	return p != nil && (p.until.IsZero() || now.Before(p.until))
}

func (s *Sender) hasSecrets() bool {
	refs := s.tls.references()
	for _, h := range s.headers {
		refs = append(refs, h.values...)
	}
	if s.auth != nil {
		refs = append(refs, s.auth.references()...)
	}
	refs = append(refs, s.signing.references()...)
	named := func(r secret.Reference) bool { return !r.Literal() }
	return len(s.urlSecrets) > 0 || slices.ContainsFunc(refs, named)
}

func (s *Sender) prepare(now time.Time) *prepared {
	b := &builder{sender: s, header: http.Header{}}
	fill, u := b.url(s.url, s.urlSecrets)
	b.target = u
	for _, part := range s.secretParts { // such as `millrace test -f` has
		b.secrets = append(b.secrets, secret.New(s.wholeURL[part[0]:part[1]]))
	}
	b.secured = b.secure(s, now)
	for _, h := range s.headers {
		for _, v := range h.values {
			text := b.resolve(v)
			b.add(h.name, text)
			if SecretHeader(h.name) { // also what was written out, as `millrace test -f` may have it
				_, credentials, _ := strings.Cut(text, " ")
				b.secrets = append(b.secrets, secret.New(text), secret.New(credentials))
			}
		}
	}
	if s.auth != nil {
		b.authorize(s.auth)
	}
	keys := b.sign(s.signing)
	if u != nil && u.Scheme == "http" && !s.tls.isZero() {
		b.errs = append(b.errs, errors.New("tls is set, but the URL begins with http://"))
	}
	if err := errors.Join(b.differing()...); err != nil {
		return &prepared{err: err}
	}
	return &prepared{
		url: u, fill: fill, header: b.header, keys: keys, property: b.property, endpoint: b.endpoint,
		secrets: b.secrets, redactor: secret.NewRedactor(b.secrets...), transport: s.transport(b.secured),
	}
}

// transport is the one for a TLS; nil is the usual.
func (s *Sender) transport(secured *secured) *http.Transport {
	if secured == nil {
		return s.client.transport(s.wire)
	}
	w := s.wire
	w.secured = secured.id
	return s.client.transportFor(w, secured.config)
}

// builder collects what a request is made of, the secrets in it, and what is
// wrong with them.
type builder struct {
	sender   *Sender
	header   http.Header
	property *property
	endpoint *endpoint
	target   *url.URL // nil: it can't be used
	secured  *secured // nil: the usual
	secrets  []secret.Value
	errs     []error
}

// differing are the errors, each once: one secret may be missing in many places.
func (b *builder) differing() (errs []error) {
	said := map[string]bool{}
	for _, err := range b.errs {
		if !said[err.Error()] {
			said[err.Error()] = true
			errs = append(errs, err)
		}
	}
	return errs
}

func (b *builder) resolve(ref secret.Reference) string {
	v, err := b.sender.client.secrets.Resolve(ref)
	if err != nil {
		b.errs = append(b.errs, err)
		return ""
	}
	b.secrets = append(b.secrets, v)
	return v.Reveal()
}

func (b *builder) add(name, value string) {
	if !validHeaderValue(value) {
		b.errs = append(b.errs, fmt.Errorf("header %q: its secret holds control characters", name))
		return
	}
	b.header[name] = append(b.header[name], value)
}

func (b *builder) authorize(a Auth) {
	var found []string
	before := len(b.errs)
	for _, ref := range a.references() {
		found = append(found, b.resolve(ref))
	}
	if len(b.errs) > before {
		return
	}
	a.apply(found, b)
}

// url looks up what a URL names, and parses its first part.
func (b *builder) url(first secret.Reference, names []string) (*strings.Replacer, *url.URL) {
	before := len(b.errs)
	var pairs []string
	for _, name := range names {
		ref, err := secret.Parse(name)
		if err != nil {
			b.errs = append(b.errs, err)
			continue
		}
		pairs = append(pairs, name, b.resolve(ref.In(b.sender.in("request.url"))))
	}
	if len(b.errs) > before {
		return nil, nil
	}
	fill := strings.NewReplacer(pairs...)
	text := fill.Replace(first.String())
	u, err := parseURL(text)
	if err == nil && b.sender.dynamic && !hasOrigin(text) {
		err = errOpenOrigin
	}
	if err != nil {
		b.errs = append(b.errs, fmt.Errorf("url with its secrets: %w", err))
	}
	return fill, u
}
