package httpsend

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/millrace-io/millrace/pipeline/secret"
)

// OAuth2 sends an access token that a token endpoint gives for credentials
// (RFC 6749, sections 4.4 and 6): those of the client alone, or with a refresh
// token. Tokens are fetched when they are first needed and again before they
// expire, and once more when the destination answers 401. As long as the
// endpoint gives none, nothing is sent.
type OAuth2 struct {
	// TokenURL is http or https, under the same guard against private addresses as
	// the destination, and called with its TLS. At another host than the
	// destination's, it may also be known by the system's authorities, and goes by
	// its own name.
	TokenURL     string
	ClientID     secret.Reference
	ClientSecret secret.Reference // may be empty with a refresh token
	Scopes       []string
	Audience     string
	// RefreshToken is where to begin; when the endpoint gives another, that one is
	// used, for as long as the process lasts. Empty: the grant is
	// client_credentials.
	RefreshToken secret.Reference
}

func (OAuth2) header() string { return authorization }

func (o OAuth2) references() []secret.Reference {
	return []secret.Reference{o.ClientID, o.ClientSecret, o.RefreshToken}
}

// check says what is wrong with the token endpoint.
func (o OAuth2) check() error {
	u, err := parseURL(o.TokenURL)
	if err == nil && (u.Fragment != "" || strings.ContainsAny(o.TokenURL, "{}")) {
		err = errors.New("it can't have a fragment, an expression or a secret")
	}
	if err != nil {
		return fmt.Errorf("token_url: %w", err)
	}
	return nil
}

func (o OAuth2) apply(found []string, b *builder) {
	u, err := parseURL(o.TokenURL)
	if err != nil { // Target has checked it
		b.errs = append(b.errs, err)
		return
	}
	e := &endpoint{
		url: u, id: found[0], secret: found[1], refresh: found[2], form: o.form(),
		transport: b.sender.transport(b.securedFor(u)), timeout: max(b.sender.timeout, b.sender.client.tokenTimeout), userAgent: b.sender.client.userAgent,
		onFetch: b.sender.client.onFetch,
	}
	for _, s := range found[1:] {
		b.secrets = append(b.secrets, secret.New(s))
	}
	pair := base64.StdEncoding.EncodeToString([]byte(url.QueryEscape(e.id) + ":" + url.QueryEscape(e.secret)))
	e.secrets = append(slices.Clone(b.secrets), secret.New(strings.TrimRight(pair, "=")))
	e.tokens = b.sender.client.tokensFor(e.key(b.sender.tls))
	b.endpoint = e
}

func (o OAuth2) show() string {
	with := o.ClientSecret
	if o.RefreshToken.String() != "" {
		with = o.RefreshToken
	}
	return "Bearer token(" + o.TokenURL + ", " + with.Masked() + ")"
}

// form is what each request for a token says, beside the credentials.
func (o OAuth2) form() url.Values {
	form := url.Values{"grant_type": {"client_credentials"}}
	if o.RefreshToken.String() != "" {
		form.Set("grant_type", "refresh_token")
	}
	if len(o.Scopes) > 0 {
		form.Set("scope", strings.Join(o.Scopes, " "))
	}
	if o.Audience != "" {
		form.Set("audience", o.Audience)
	}
	return form
}

// endpoint asks for tokens with credentials that were looked up.
type endpoint struct {
	*tokens
	url                 *url.URL
	id, secret, refresh string
	form                url.Values
	secrets             []secret.Value
	transport           *http.Transport
	timeout             time.Duration
	userAgent           string
	onFetch             func(result string)
}

// grantKey tells sets of credentials apart.
type grantKey [sha256.Size]byte

// key has of the TLS what the definition says and not what stands behind its
// references: a certificate that is rotated is no reason to forget a refresh
// token.
func (e *endpoint) key(t TLS) grantKey {
	return sha256.Sum256(fmt.Appendf(nil, "%q", []string{
		e.url.String(), e.id, e.secret, e.refresh, e.form.Encode(),
		t.CA.String(), t.Cert.String(), t.Key.String(), t.ServerName, strconv.FormatBool(t.PartialChain),
	}))
}

// tokensFor returns the tokens of a set of credentials. They are never dropped:
// a refresh token that the endpoint has replaced would be lost.
func (c *Client) tokensFor(key grantKey) *tokens {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.grants[key]
	if t == nil {
		t = &tokens{}
		c.grants[key] = t
	}
	return t
}

// What comes of a fetch of an access token: see Options.OnFetch.
const (
	FetchGiven   = "given"
	FetchRefused = "refused" // by an answer that asking again won't change
	FetchFailed  = "failed"
)

// ask fetches a token.
func (e *endpoint) ask(refresh string) (grant, *tokenError) {
	got, err := e.fetch(refresh)
	result := FetchGiven
	switch {
	case err != nil && err.refused:
		result = FetchRefused
	case err != nil:
		result = FetchFailed
	}
	if e.onFetch != nil {
		e.onFetch(result)
	}
	return got, err
}

// fetch asks the endpoint. Where to put the client's secret is for the endpoint to
// choose, and it does not say; so both places are tried, the header first, as
// RFC 6749 prefers.
func (e *endpoint) fetch(refresh string) (grant, *tokenError) {
	ctx, cancel := context.WithTimeout(context.Background(), e.timeout)
	defer cancel()
	if refresh == "" {
		refresh = e.refresh
	}
	inBody := e.secret == "" || e.inBody.Load()
	got, err := e.post(ctx, refresh, inBody)
	if err == nil || inBody || !err.misplaced() {
		return got, err.shown(e, refresh)
	}
	got, second := e.post(ctx, refresh, true)
	if second == nil {
		e.inBody.Store(true)
		return got, nil
	}
	if second.text != err.text {
		err.text += "; with client_id and client_secret in the body: " + second.text
		err.given = append(err.given, second.given...)
	}
	return got, err.shown(e, refresh)
}

// rejection is why a token endpoint gave no token, as it came.
type rejection struct {
	text   string
	status int    // 0: there was no answer
	code   string // such as invalid_client
	after  time.Duration
	given  []string // tokens that came all the same
}

// misplaced says whether the endpoint may have missed the client's secret. Some
// say so with the status 200.
func (r *rejection) misplaced() bool {
	switch r.status {
	case http.StatusBadRequest, http.StatusUnauthorized, http.StatusForbidden:
		return r.code == "" || r.code == "invalid_client" || r.code == "invalid_request"
	}
	return r.code == "invalid_client"
}

// shown is the rejection as it may be shown.
func (r *rejection) shown(e *endpoint, refresh string) *tokenError {
	if r == nil {
		return nil
	}
	secrets := append(slices.Clone(e.secrets), secret.New(refresh))
	for _, token := range r.given {
		secrets = append(secrets, secret.New(token))
	}
	redact := secret.NewRedactor(secrets...)
	text := redact.Redact(r.text)
	if r.status == 0 { // it may quote a part of what came
		text = redact.RedactCut(r.text)
	}
	refused := r.status >= 400 && r.status <= 499 && verdict(r.status) != Retry
	return &tokenError{
		text:    fmt.Sprintf("no token from %s: %s", e.place(), oneLine(text)),
		refused: refused, after: r.after,
	}
}

// place is where the endpoint is, without what may be a secret.
func (e *endpoint) place() string {
	u := url.URL{Scheme: e.url.Scheme, Host: e.url.Host, Path: e.url.Path}
	return u.String()
}

// maxTokenAnswer is how much of an endpoint's answer is read.
const maxTokenAnswer = 64 << 10

func (e *endpoint) post(ctx context.Context, refresh string, inBody bool) (grant, *rejection) {
	resp, err := e.transport.RoundTrip(e.request(ctx, refresh, inBody))
	if err != nil {
		return grant{}, &rejection{text: fmt.Sprintf("%s: %s", classify(context.Background(), ctx, err), plainly(err))}
	}
	defer resp.Body.Close()
	r := &rejection{status: resp.StatusCode, text: strings.TrimSpace(fmt.Sprintf("it responded %d %s", resp.StatusCode, http.StatusText(resp.StatusCode)))}
	if resp.StatusCode == http.StatusSwitchingProtocols { // its body has no end
		return grant{}, r
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxTokenAnswer+1))
	switch {
	case len(body) > maxTokenAnswer:
		r.text += fmt.Sprintf(" with more than %d bytes", maxTokenAnswer)
	case err != nil:
		r.text += fmt.Sprintf(" and broke off: %s", classify(context.Background(), ctx, err))
	default:
		return e.read(resp, body, r)
	}
	return grant{}, r
}

func (e *endpoint) request(ctx context.Context, refresh string, inBody bool) *http.Request {
	form := maps.Clone(e.form)
	if refresh != "" {
		form.Set("refresh_token", refresh)
	}
	if inBody {
		form.Set("client_id", e.id)
	}
	if inBody && e.secret != "" {
		form.Set("client_secret", e.secret)
	}
	body := form.Encode()
	req := (&http.Request{
		Method: http.MethodPost, URL: e.url, Host: e.url.Host,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{
			"Content-Type": {"application/x-www-form-urlencoded"},
			"Accept":       {"application/json"},
			"User-Agent":   {e.userAgent},
		},
		ContentLength: int64(len(body)),
	}).WithContext(ctx)
	req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(body)), nil }
	req.Body, _ = req.GetBody()
	if !inBody { // both are escaped: RFC 6749, section 2.3.1
		req.SetBasicAuth(url.QueryEscape(e.id), url.QueryEscape(e.secret))
	}
	return req
}

// read reads the answer of an endpoint, whatever its status; r is what to add to
// where it is no token.
func (e *endpoint) read(resp *http.Response, body []byte, r *rejection) (grant, *rejection) {
	var answer struct {
		AccessToken      string          `json:"access_token"`
		TokenType        string          `json:"token_type"`
		ExpiresIn        json.RawMessage `json:"expires_in"`
		RefreshToken     string          `json:"refresh_token"`
		Error            string          `json:"error"`
		ErrorDescription string          `json:"error_description"`
	}
	wrong := json.Unmarshal(body, &answer)
	wrongType, _ := errors.AsType[*json.UnmarshalTypeError](wrong)
	r.given = []string{answer.AccessToken, answer.RefreshToken}
	succeeded := resp.StatusCode >= 200 && resp.StatusCode <= 299
	switch {
	case wrong != nil && !succeeded:
		r.after = retryAfter(resp.Header.Get("Retry-After"), time.Now())
	case wrongType != nil && wrongType.Field != "":
		r.text += fmt.Sprintf(" with %s of the wrong type, expected text", wrongType.Field)
	case wrong != nil:
		r.text += fmt.Sprintf(" with %q, expected JSON", resp.Header.Get("Content-Type"))
	case !succeeded || answer.Error != "":
		r.after = retryAfter(resp.Header.Get("Retry-After"), time.Now())
		r.code = answer.Error
		for _, more := range []string{answer.Error, answer.ErrorDescription} {
			if more != "" {
				r.text += ": " + more
			}
		}
	case answer.AccessToken == "":
		r.text += " without an access_token"
	case !validHeaderValue(answer.AccessToken):
		r.text += " with an access_token that holds control characters"
	case answer.TokenType != "" && !strings.EqualFold(answer.TokenType, "bearer"):
		r.text += fmt.Sprintf(" with the token_type %q, expected bearer", answer.TokenType)
	default:
		got := grant{token: answer.AccessToken, refresh: e.rotated(answer.RefreshToken), lifetime: lifetime(answer.ExpiresIn)}
		if got.lifetime == 0 || got.lifetime >= minLife {
			return got, nil
		}
		r.text += fmt.Sprintf(" with a token that expires after %v", got.lifetime)
		return grant{refresh: got.refresh}, r
	}
	return grant{}, r
}

// rotated is the refresh token to use from now on. With client_credentials there
// is none, whatever the endpoint says.
func (e *endpoint) rotated(refresh string) string {
	if e.refresh == "" {
		return ""
	}
	return refresh
}

// maxLifetime is the longest life of a token that is told from an endless one.
const maxLifetime = 365 * 24 * time.Hour

// lifetime reads expires_in: seconds, which some write as text. Anything else is
// taken for no answer.
func lifetime(raw json.RawMessage) time.Duration {
	seconds, err := strconv.ParseFloat(strings.Trim(string(raw), `"`), 64)
	if err != nil || !(seconds > 0) || seconds > maxLifetime.Seconds() {
		return 0
	}
	return time.Duration(seconds * float64(time.Second))
}

// authorized is p with a token.
func (s *Sender) authorized(p *prepared, t *token) *prepared {
	if a := s.granted.Load(); a != nil && a.base == p && a.token == t {
		return a.with
	}
	with := *p
	with.header = maps.Clone(p.header)
	with.header[authorization] = []string{"Bearer " + t.text}
	with.redactor = secret.NewRedactor(append(slices.Clone(p.secrets), secret.New(t.text))...)
	s.granted.Store(&granted{p, t, &with})
	return &with
}

// granted is what was prepared for one token.
type granted struct {
	base  *prepared
	token *token
	with  *prepared
}

// sendWithToken makes a call with an access token. A call that is answered 401
// is made again with a new token, once.
func (s *Sender) sendWithToken(caller, ctx context.Context, p *prepared, call *Call) Result {
	t, failed := s.token(caller, ctx, p, s.doubted())
	if failed != nil {
		return *failed
	}
	result := s.attemptWith(caller, ctx, p, call, t)
	if !refuses(&result) {
		return result
	}
	next, failed := s.renewed(caller, ctx, p, t)
	switch {
	case failed == nil:
		return s.attemptWith(caller, ctx, p, call, next)
	case errors.Is(failed.Err, errRenewed) && s.accepted.Load() != t: // a new one, and never good for anything here
		return result
	}
	return *failed
}

// renewed waits for a token in the place of one that was refused, for as long as
// that leaves time for another call.
func (s *Sender) renewed(caller, ctx context.Context, p *prepared, refused *token) (*token, *Result) {
	t, failed := s.token(caller, ctx, p, refused)
	deadline, _ := ctx.Deadline()
	switch {
	case failed == nil && time.Until(deadline) >= s.timeout/4:
		return t, nil
	case failed == nil: // the token is there, so the next time it goes fast
		return nil, &Result{Outcome: NotSent, Class: ClassToken, Err: errLateToken, RetryAfter: firstPause}
	case !errors.Is(failed.Err, errRenewed): // else other calls go on: the token may be good enough for them
		s.doubt.Store(&doubt{refused, time.Now().Add(doubtTime)})
	}
	return nil, failed
}

// doubted is a token that is not to be sent; nil where there is none.
func (s *Sender) doubted() *token {
	if d := s.doubt.Load(); d != nil && time.Now().Before(d.until) {
		return d.token
	}
	return nil
}

func (s *Sender) attemptWith(caller, ctx context.Context, p *prepared, call *Call, t *token) Result {
	result := s.attempt(caller, ctx, s.authorized(p, t), call)
	if result.Status == 0 || refuses(&result) {
		return result
	}
	if s.accepted.Load() != t {
		s.accepted.Store(t)
	}
	if s.doubt.Load() != nil {
		s.doubt.Store(nil)
	}
	return result
}

// refuses says whether a response is about the token. A destination may have
// been said to mean something else by its 401.
func refuses(r *Result) bool {
	return r.Status == http.StatusUnauthorized && r.Outcome != Success
}

// token waits for a token, for at most half of the time that is left: the other
// half is for the call. Without one, nothing is sent.
func (s *Sender) token(caller, ctx context.Context, p *prepared, refused *token) (*token, *Result) {
	deadline, _ := ctx.Deadline()
	waiting, cancel := context.WithTimeout(ctx, time.Until(deadline)/2)
	defer cancel()
	t, err := p.endpoint.get(waiting, p.endpoint.ask, refused)
	switch {
	case err == nil:
		return t, nil
	case caller.Err() != nil:
		return nil, &Result{Outcome: Retry, Class: ClassCanceled, Err: errSlowToken}
	case errors.Is(err, errSlowToken):
		err = fmt.Errorf("no token from %s: %w", p.endpoint.place(), err)
	}
	return nil, &Result{Outcome: NotSent, Class: ClassToken, Err: err, RetryAfter: p.endpoint.wait(err)}
}
