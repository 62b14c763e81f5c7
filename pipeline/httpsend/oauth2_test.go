package httpsend_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/millrace-io/millrace/pipeline/httpsend"
	"github.com/millrace-io/millrace/pipeline/pipelinetest"
)

// issuer is an authorization server: it gives tokens for the credentials
// "client" and "s3cret", and knows which of them are valid.
type issuer struct {
	*pipelinetest.Endpoint
	secretIn string // "header", "body"; empty: either
	lifetime int    // of tokens, in seconds; 0: it does not say
	refresh  string // expected; each use replaces it by another

	mu     sync.Mutex
	issued int
	valid  map[string]bool
}

func newIssuer(t *testing.T) *issuer {
	t.Helper()
	i := &issuer{valid: map[string]bool{}}
	i.Endpoint = pipelinetest.Receiver(t, pipelinetest.Answering(i.issue))
	return i
}

func (i *issuer) issue(c *pipelinetest.Call) pipelinetest.Answer {
	i.mu.Lock()
	defer i.mu.Unlock()
	form, err := url.ParseQuery(string(c.Body))
	switch {
	case err != nil, c.Method != http.MethodPost, c.Header.Get("Content-Type") != "application/x-www-form-urlencoded":
		return answer(400, "invalid_request", "")
	case !i.knows(c, form):
		return answer(401, "invalid_client", "")
	case i.refresh != "" && (form.Get("grant_type") != "refresh_token" || form.Get("refresh_token") != i.refresh):
		return answer(400, "invalid_grant", "the refresh token is used up")
	case i.refresh == "" && form.Get("grant_type") != "client_credentials":
		return answer(400, "unsupported_grant_type", "")
	}
	i.issued++
	given := map[string]any{"access_token": fmt.Sprint("t0ken-", i.issued), "token_type": "Bearer"}
	i.valid[fmt.Sprint("t0ken-", i.issued)] = true
	if i.lifetime > 0 {
		given["expires_in"] = i.lifetime
	}
	if i.refresh != "" {
		i.refresh = fmt.Sprint("r3fresh-", i.issued)
		given["refresh_token"] = i.refresh
	}
	body, _ := json.Marshal(given) // can't fail
	return pipelinetest.Answer{Body: body}
}

func (i *issuer) knows(c *pipelinetest.Call, form url.Values) bool {
	inHeader := c.Header.Get("Authorization") == "Basic "+base64.StdEncoding.EncodeToString([]byte("client:s3cret"))
	inBody := form.Get("client_id") == "client" && form.Get("client_secret") == "s3cret"
	return inHeader && !inBody && i.secretIn != "body" || inBody && !inHeader && i.secretIn != "header"
}

func answer(status int, code, description string) pipelinetest.Answer {
	body, _ := json.Marshal(map[string]string{"error": code, "error_description": description}) // can't fail
	return pipelinetest.Answer{Status: status, Body: body}
}

// revoke makes all tokens invalid.
func (i *issuer) revoke() {
	i.mu.Lock()
	defer i.mu.Unlock()
	clear(i.valid)
}

// guarded is a destination that takes calls with a token of the issuer.
func guarded(t *testing.T, i *issuer) *pipelinetest.Endpoint {
	t.Helper()
	return pipelinetest.Receiver(t, pipelinetest.Answering(func(c *pipelinetest.Call) pipelinetest.Answer {
		i.mu.Lock()
		defer i.mu.Unlock()
		if token, ok := strings.CutPrefix(c.Header.Get("Authorization"), "Bearer "); ok && i.valid[token] {
			return pipelinetest.Answer{}
		}
		return pipelinetest.Answer{Status: http.StatusUnauthorized}
	}))
}

// credentials are those that the issuer knows, if CLIENT is s3cret.
func credentials(t *testing.T, tokenURL string) httpsend.OAuth2 {
	t.Helper()
	return httpsend.OAuth2{TokenURL: tokenURL, ClientID: reference(t, "client"), ClientSecret: reference(t, "${env:MILLRACE_SECRET_CLIENT}")}
}

func authorizedSender(t *testing.T, values map[string]string, target httpsend.Target) *httpsend.Sender {
	t.Helper()
	if values == nil {
		values = map[string]string{"CLIENT": "s3cret", "REFRESH": "r3fresh-0"}
	}
	return sender(t, client(t, httpsend.Options{Allow: local, Secrets: secrets(values)}), target)
}

// sendMany makes calls at once, and counts the outcomes.
func sendMany(t *testing.T, s *httpsend.Sender, n int) map[httpsend.Outcome]int {
	t.Helper()
	var mu sync.Mutex
	var all sync.WaitGroup
	outcomes := map[httpsend.Outcome]int{}
	for i := range n {
		all.Go(func() {
			r := s.Send(t.Context(), httpsend.Call{ID: fmt.Sprint("d", i), Body: []byte("{}")})
			mu.Lock()
			defer mu.Unlock()
			outcomes[r.Outcome]++
		})
	}
	all.Wait()
	return outcomes
}

func expectOutcomes(t *testing.T, got map[httpsend.Outcome]int, want string) {
	t.Helper()
	if fmt.Sprint(got) != want {
		t.Errorf("outcomes %v, expected %s", got, want)
	}
}

// TestOAuth2Requests has what is asked of the token endpoint, which takes the
// client's secret where it likes.
func TestOAuth2Requests(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		secretIn, refresh string
		asked             int // for two tokens
		form              url.Values
	}{
		{"", "", 2, url.Values{"grant_type": {"client_credentials"}, "scope": {"a b"}, "audience": {"https://api.example"}}},
		{"header", "", 2, url.Values{"grant_type": {"client_credentials"}, "scope": {"a b"}, "audience": {"https://api.example"}}},
		{"body", "", 3, url.Values{
			"grant_type": {"client_credentials"}, "scope": {"a b"}, "audience": {"https://api.example"},
			"client_id": {"client"}, "client_secret": {"s3cret"},
		}},
		{"body", "r3fresh-0", 3, url.Values{
			"grant_type": {"refresh_token"}, "scope": {"a b"}, "audience": {"https://api.example"},
			"client_id": {"client"}, "client_secret": {"s3cret"}, "refresh_token": {"r3fresh-1"},
		}},
		{"", "r3fresh-0", 2, url.Values{
			"grant_type": {"refresh_token"}, "scope": {"a b"}, "audience": {"https://api.example"}, "refresh_token": {"r3fresh-1"},
		}},
	} {
		t.Run(c.secretIn+c.refresh, func(t *testing.T) {
			t.Parallel()
			i := newIssuer(t)
			i.secretIn, i.refresh = c.secretIn, c.refresh
			e := guarded(t, i)
			auth := credentials(t, i.URL+"/token?v=2")
			auth.Scopes, auth.Audience = []string{"a", "b"}, "https://api.example"
			if c.refresh != "" {
				auth.RefreshToken = reference(t, "${env:MILLRACE_SECRET_REFRESH}")
			}
			s := authorizedSender(t, nil, httpsend.Target{URL: e.URL, Auth: auth})
			expectOutcomes(t, sendMany(t, s, 1), "map[success:1]")
			i.revoke()
			expectOutcomes(t, sendMany(t, s, 1), "map[success:1]")
			calls := i.Calls()
			last := calls[len(calls)-1]
			form, err := url.ParseQuery(string(last.Body))
			if err != nil || fmt.Sprint(form) != fmt.Sprint(c.form) || last.Path != "/token" || last.Query != "v=2" {
				t.Errorf("%s?%s: %v, expected %v", last.Path, last.Query, form, c.form)
			}
			if i.Count() != c.asked || last.Header.Get("Accept") != "application/json" {
				t.Errorf("it was asked %d times, expected %d", i.Count(), c.asked)
			}
		})
	}
}

// Some endpoints say with 200 that they have missed the client's secret.
func TestOAuth2InvalidClientAtAnyStatus(t *testing.T) {
	t.Parallel()
	e := pipelinetest.Receiver(t)
	for _, status := range []int{200, 400, 401, 422, 500} {
		i := pipelinetest.Receiver(t, pipelinetest.Answering(func(c *pipelinetest.Call) pipelinetest.Answer {
			if strings.Contains(string(c.Body), "client_secret=s3cret") {
				return pipelinetest.Answer{Body: []byte(`{"access_token":"x"}`)}
			}
			return answer(status, "invalid_client", "")
		}))
		s := authorizedSender(t, nil, httpsend.Target{URL: e.URL, Auth: credentials(t, i.URL)})
		expectOutcomes(t, sendMany(t, s, 1), "map[success:1]")
		if i.Count() != 2 {
			t.Errorf("%d: it was asked %d times", status, i.Count())
		}
	}
}

// Tokens that have expired when they come are no tokens: not one for each call,
// and what is behind them is left alone.
func TestOAuth2ShortLives(t *testing.T) {
	t.Parallel()
	e := pipelinetest.Receiver(t)
	i := pipelinetest.Receiver(t, pipelinetest.Answering(func(*pipelinetest.Call) pipelinetest.Answer {
		return pipelinetest.Answer{Body: []byte(`{"access_token":"x","refresh_token":"r3fresh-1","expires_in":0.5}`)}
	}))
	auth := credentials(t, i.URL)
	auth.RefreshToken = reference(t, "${env:MILLRACE_SECRET_REFRESH}")
	s := authorizedSender(t, nil, httpsend.Target{URL: e.URL, Auth: auth})
	for range 100 {
		expectOutcomes(t, sendMany(t, s, 1), "map[not_sent:1]")
	}
	if i.Count() > 4 || e.Count() > 0 { // one, unless this takes seconds
		t.Errorf("%d fetches and %d calls", i.Count(), e.Count())
	}
}

// TestOAuth2PublicClient has a client without a secret: it names itself in the
// body.
func TestOAuth2PublicClient(t *testing.T) {
	t.Parallel()
	e := pipelinetest.Receiver(t)
	i := pipelinetest.Receiver(t, pipelinetest.Answering(func(c *pipelinetest.Call) pipelinetest.Answer {
		if string(c.Body) == "client_id=client&grant_type=refresh_token&refresh_token=r3fresh-0" && c.Header.Get("Authorization") == "" {
			return pipelinetest.Answer{Body: []byte(`{"access_token":"x","expires_in":"3600"}`)}
		}
		return answer(400, "invalid_request", "")
	}))
	auth := httpsend.OAuth2{TokenURL: i.URL, ClientID: reference(t, "client"), RefreshToken: reference(t, "${env:MILLRACE_SECRET_REFRESH}")}
	expectOutcomes(t, sendMany(t, authorizedSender(t, nil, httpsend.Target{URL: e.URL, Auth: auth}), 10), "map[success:10]")
	if i.Count() != 1 {
		t.Errorf("%d requests for a token", i.Count())
	}
}

// TestOAuth2NoStampede has 64 calls at once when there is no token yet, when it
// was revoked, when it is wrong for good, and when there is none to be had: how
// often the token endpoint is asked.
func TestOAuth2NoStampede(t *testing.T) {
	t.Parallel()
	i := newIssuer(t)
	e := guarded(t, i)
	s := authorizedSender(t, nil, httpsend.Target{URL: e.URL, Auth: credentials(t, i.URL)})
	asked := func(want int) {
		t.Helper()
		if i.Count() != want {
			t.Errorf("the token endpoint was asked %d times, expected %d", i.Count(), want)
		}
	}
	expectOutcomes(t, sendMany(t, s, 64), "map[success:64]")
	asked(1)
	i.revoke()
	expectOutcomes(t, sendMany(t, s, 64), "map[success:64]")
	asked(2)
	if n := e.Count(); n > 64+64+64 {
		t.Errorf("%d calls for 128 deliveries", n)
	}
	e.Answer(func(*pipelinetest.Call) pipelinetest.Answer { return pipelinetest.Answer{Status: 401} })
	i = newIssuer(t)
	s = authorizedSender(t, nil, httpsend.Target{URL: e.URL, Auth: credentials(t, i.URL)})
	for range 2 {
		expectOutcomes(t, sendMany(t, s, 64), "map[pause:64]")
		if i.Count() < 2 || i.Count() > 4 { // two, unless this takes seconds
			t.Errorf("the token endpoint was asked %d times", i.Count())
		}
	}
	if err := s.Ready(); err != nil {
		t.Errorf("ready: %v", err)
	}

	i = newIssuer(t)
	wrong := authorizedSender(t, map[string]string{"CLIENT": "wr0ng"}, httpsend.Target{URL: e.URL, Auth: credentials(t, i.URL)})
	before := e.Count()
	expectOutcomes(t, sendMany(t, wrong, 64), "map[not_sent:64]")
	asked(2) // with the secret in the header, and in the body
	expectOutcomes(t, sendMany(t, wrong, 64), "map[not_sent:64]")
	asked(2)
	r := wrong.Send(t.Context(), httpsend.Call{ID: "1"})
	if r.Class != httpsend.ClassToken || r.RetryAfter < 20*time.Second || e.Count() != before {
		t.Errorf("%+v", r)
	}
	for _, err := range []error{r.Err, wrong.Ready()} {
		if text := fmt.Sprint(err); text != "no token from "+i.URL+": it responded 401 Unauthorized: invalid_client" {
			t.Error(text)
		}
	}
}

// Two destinations with the same credentials: what one of them refuses, the other
// may take, with the token endpoint and without.
func TestOAuth2RefusalsAreNobodyElses(t *testing.T) {
	t.Parallel()
	i := newIssuer(t)
	refuses := pipelinetest.Receiver(t, pipelinetest.Answering(func(*pipelinetest.Call) pipelinetest.Answer { return pipelinetest.Answer{Status: 401} }))
	takes := guarded(t, i)
	c := client(t, httpsend.Options{Allow: local, Secrets: secrets(map[string]string{"CLIENT": "s3cret"})})
	a := sender(t, c, httpsend.Target{URL: refuses.URL, Auth: credentials(t, i.URL)})
	b := sender(t, c, httpsend.Target{URL: takes.URL, Auth: credentials(t, i.URL)})
	for range 100 {
		expectOutcomes(t, sendMany(t, b, 1), "map[success:1]")
		expectOutcomes(t, sendMany(t, a, 1), "map[pause:1]")
	}
	if i.Count() > 6 { // two, and one after 1, 2, 4 s
		t.Errorf("%d tokens for two destinations", i.Count())
	}
	i.Refuse()
	for range 10 {
		sendMany(t, a, 1)
		expectOutcomes(t, sendMany(t, b, 1), "map[success:1]")
	}
	if err := b.Ready(); err != nil {
		t.Errorf("ready: %v", err)
	}
}

// A destination that answers some calls with 401 whatever the token is: those
// wait, the others don't, and no token is fetched for each.
func TestOAuth2RefusalsOfSomeCalls(t *testing.T) {
	t.Parallel()
	i := newIssuer(t)
	e := pipelinetest.Receiver(t, pipelinetest.Answering(func(c *pipelinetest.Call) pipelinetest.Answer {
		if c.Query == "bad" {
			return pipelinetest.Answer{Status: 401}
		}
		return pipelinetest.Answer{}
	}))
	s := authorizedSender(t, nil, httpsend.Target{URL: e.URL, Auth: credentials(t, i.URL)})
	for range 100 {
		expectOutcomes(t, sendMany(t, s, 1), "map[success:1]")
		r := s.Send(t.Context(), httpsend.Call{ID: "1", Query: []byte("bad"), Body: []byte("{}")})
		if r.Outcome != httpsend.Pause && (r.Outcome != httpsend.NotSent || r.Class != httpsend.ClassToken || r.RetryAfter < time.Second) {
			t.Errorf("%+v", r)
		}
	}
	if i.Count() > 6 { // two, and one after 1, 2, 4 s
		t.Errorf("%d tokens", i.Count())
	}
}

// Destinations with the same credentials, and revisions of one, have their
// tokens in common; a change of the secret is another set of credentials.
func TestOAuth2TokensOutliveSenders(t *testing.T) {
	t.Parallel()
	i := newIssuer(t)
	i.refresh = "r3fresh-0"
	e := guarded(t, i)
	values := map[string]string{"CLIENT": "s3cret", "REFRESH": "r3fresh-0", "OTHER": "r3fresh-0"}
	c := client(t, httpsend.Options{Allow: local, Secrets: secrets(values)})
	auth := credentials(t, i.URL)
	auth.RefreshToken = reference(t, "${env:MILLRACE_SECRET_REFRESH}")
	for n := range 3 {
		s := sender(t, c, httpsend.Target{URL: e.URL + fmt.Sprint("/", n), Auth: auth})
		expectOutcomes(t, sendMany(t, s, 5), "map[success:5]")
		if i.Count() != 1 {
			t.Fatalf("sender %d asks for a token of its own", n)
		}
	}
	auth.RefreshToken = reference(t, "${env:MILLRACE_SECRET_OTHER}x")
	s := sender(t, c, httpsend.Target{URL: e.URL, Auth: auth})
	expectOutcomes(t, sendMany(t, s, 5), "map[not_sent:5]")
}

// TestOAuth2BadEndpoints has what token endpoints answer instead of a token:
// nothing is sent, no attempt is used, the reason is clear and shows no secret.
func TestOAuth2BadEndpoints(t *testing.T) {
	t.Parallel()
	e := pipelinetest.Receiver(t)
	for want, reply := range map[string]http.HandlerFunc{
		`it responded 200 OK with "text/html; charset=utf-8", expected JSON`: says(200, "<html>Sign in</html>"),
		`it responded 500 Internal Server Error`:                             says(500, "<html>s3cret</html>"),
		`it responded 503 Service Unavailable: busy`:                         says(503, `{"error":"busy"}`),
		`it responded 302 Found`:                                             func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, e.URL, http.StatusFound) },
		`it responded 204 No Content with`:                                   says(204, ""),
		`it responded 200 OK without an access_token`:                        says(200, `{}`),
		`it responded 200 OK: invalid_scope: no [secret] here`:               says(200, `{"error":"invalid_scope","error_description":"no s3cret here"}`),
		`it responded 400 Bad Request: invalid_grant: [secret]`:              says(400, `{"error":"invalid_grant","error_description":"s3cret"}`),
		`it responded 400 Bad Request: a [secret] b`:                         says(400, `{"error":"a Y2xpZW50OnMzY3JldA b"}`),
		`with the token_type "mac", expected bearer`:                         says(200, `{"access_token":"not-this-one","token_type":"mac"}`),
		`it responded 200 OK with a token that expires after 1µs`:            says(200, `{"access_token":"not-this-one","expires_in":0.000001}`),
		`with an access_token that holds control characters`:                 says(200, `{"access_token":"a\nb"}`),
		`it responded 200 OK with "", expected JSON`: func(w http.ResponseWriter, _ *http.Request) {
			w.Header()["Content-Type"] = nil
			_, _ = io.WriteString(w, `access_token=x`)
		},
		`with more than 65536 bytes`: says(200, `{"access_token":"`+strings.Repeat("x", 1<<20)+`"}`),
		`network: EOF`:               cut(""),
		`protocol: net/http: HTTP/1.x transport connection broken: malformed HTTP response "[secret]"`: cut("s3cret\r\n\r\n"),
		`it responded 200 OK and broke off: network`:                                                   cut("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"access"),
		`it responded 101 Switching Protocols`:                                                         cut("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n"),
		`it responded 200 OK with access_token of the wrong type, expected text`:                       says(200, `{"access_token":5}`),
		`timeout: no answer in time`:                                                                   hang,
	} {
		t.Run(want, func(t *testing.T) {
			t.Parallel()
			i := httptest.NewServer(reply)
			t.Cleanup(i.Close)
			c := client(t, httpsend.Options{Allow: local, Secrets: secrets(map[string]string{"CLIENT": "s3cret"})})
			if strings.HasPrefix(want, "timeout") {
				c.TokenTimeout(time.Second / 2)
			}
			s := sender(t, c, httpsend.Target{URL: e.URL, Auth: credentials(t, i.URL+"/token?k=1"), Timeout: time.Second / 4})
			r := s.Send(t.Context(), httpsend.Call{ID: "1"})
			for r.Err != nil && strings.Contains(r.Err.Error(), "not answered in time") { // the first call does not wait for the fetch to end
				r = s.Send(t.Context(), httpsend.Call{ID: "1"})
			}
			if r.Outcome != httpsend.NotSent || r.Class != httpsend.ClassToken || r.RetryAfter < time.Second/2 {
				t.Errorf("%+v", r)
			}
			text := fmt.Sprint(r.Err)
			if !strings.HasPrefix(text, "no token from "+i.URL+"/token: ") || !strings.Contains(text, want) || strings.Contains(text, "s3cret") || strings.Contains(text, "\n") {
				t.Errorf("%q", text)
			}
		})
	}
	t.Cleanup(func() {
		if e.Count() > 0 {
			t.Errorf("%d calls came without a token", e.Count())
		}
	})
}

func says(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

// cut writes a text and hangs up.
func cut(text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		_, _ = io.WriteString(conn, text)
		_ = conn.Close()
	}
}

// hang reads the request, and says nothing as long as the caller waits.
func hang(_ http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	<-r.Context().Done()
}

// A token endpoint at a private address is not asked, whoever names it.
func TestOAuth2EndpointsAreGuarded(t *testing.T) {
	t.Parallel()
	i, e := newIssuer(t), pipelinetest.Receiver(t)
	_, port, err := net.SplitHostPort(strings.TrimPrefix(e.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	c := client(t, httpsend.Options{Allow: []string{"localhost"}, Secrets: secrets(map[string]string{"CLIENT": "s3cret"})})
	s := sender(t, c, httpsend.Target{URL: "http://localhost:" + port, Auth: credentials(t, i.URL)})
	r := s.Send(t.Context(), httpsend.Call{ID: "1"})
	if r.Outcome != httpsend.NotSent || !strings.Contains(fmt.Sprint(r.Err), "127.0.0.1 is a loopback address; the setting egress.allow") {
		t.Errorf("%+v", r)
	}
	if i.Count()+e.Count() > 0 {
		t.Error("a call was made")
	}
}

// TestOAuth2OutageAndExpiry has a token endpoint that goes down while calls are
// made. Those are made with the token there is, until it is refused; then they
// wait, and none is lost.
func TestOAuth2OutageAndExpiry(t *testing.T) {
	t.Parallel()
	i := newIssuer(t)
	e := guarded(t, i)
	s := authorizedSender(t, nil, httpsend.Target{URL: e.URL, Auth: credentials(t, i.URL)})
	expectOutcomes(t, sendMany(t, s, 64), "map[success:64]")
	i.Refuse()
	expectOutcomes(t, sendMany(t, s, 64), "map[success:64]")
	i.revoke()
	expectOutcomes(t, sendMany(t, s, 64), "map[not_sent:64]")
	calls := e.Count()
	expectOutcomes(t, sendMany(t, s, 64), "map[not_sent:64]")
	if e.Count() != calls {
		t.Error("calls are made with a token that was refused")
	}
	if err := s.Ready(); err == nil || !strings.Contains(err.Error(), "no token from "+i.URL+": ") {
		t.Errorf("ready: %v", err)
	}
	i.Accept(t)
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); {
		r := s.Send(t.Context(), httpsend.Call{ID: "1"})
		if r.Outcome == httpsend.Success {
			break
		}
		if r.Outcome != httpsend.NotSent {
			t.Fatalf("%+v", r)
		}
		<-time.After(50 * time.Millisecond)
	}
	expectOutcomes(t, sendMany(t, s, 64), "map[success:64]")
	if err := s.Ready(); err != nil || i.Count() != 2 {
		t.Errorf("ready: %v after %d tokens", err, i.Count())
	}
}

// A 401 that comes when there is hardly any time left is not the delivery's
// fault: it waits, and finds the new token.
func TestOAuth2LateRefusals(t *testing.T) {
	t.Parallel()
	i := newIssuer(t)
	e := guarded(t, i)
	s := authorizedSender(t, nil, httpsend.Target{URL: e.URL, Auth: credentials(t, i.URL), Timeout: 2 * time.Second})
	expectOutcomes(t, sendMany(t, s, 1), "map[success:1]")
	e.Answer(func(*pipelinetest.Call) pipelinetest.Answer {
		return pipelinetest.Answer{Status: 401, Delay: 1600 * time.Millisecond}
	})
	r := s.Send(t.Context(), httpsend.Call{ID: "1"})
	if r.Outcome != httpsend.NotSent || r.Class != httpsend.ClassToken || r.RetryAfter != time.Second || e.Count() != 2 {
		t.Errorf("%+v after %d calls", r, e.Count())
	}
	e.Answer(func(*pipelinetest.Call) pipelinetest.Answer { return pipelinetest.Answer{} })
	expectOutcomes(t, sendMany(t, s, 1), "map[success:1]")
	if i.Count() != 2 {
		t.Errorf("%d tokens", i.Count())
	}
}

// Where a 401 is said to mean success, it says nothing about the token.
func TestOAuth2TakesResponsesAsTheyAreMeant(t *testing.T) {
	t.Parallel()
	i := newIssuer(t)
	e := pipelinetest.Receiver(t, pipelinetest.Answering(func(*pipelinetest.Call) pipelinetest.Answer { return pipelinetest.Answer{Status: 401} }))
	for meaning, want := range map[string]string{"success": "map[success:1]", "dead_letter": "map[dead_letter:1]", "retry": "map[retry:1]"} {
		s := authorizedSender(t, nil, httpsend.Target{URL: e.URL, Auth: credentials(t, i.URL), Responses: map[string]string{"401": meaning}})
		before := i.Count()
		expectOutcomes(t, sendMany(t, s, 1), want)
		if asked := i.Count() - before; asked != 1 && meaning == "success" || asked != 2 && meaning != "success" {
			t.Errorf("%s: %d tokens", meaning, asked)
		}
	}
}

// A destination that echoes the token is not quoted.
func TestOAuth2TokensAreNotShown(t *testing.T) {
	t.Parallel()
	i := newIssuer(t)
	e := pipelinetest.Receiver(t, pipelinetest.Answering(func(c *pipelinetest.Call) pipelinetest.Answer {
		return pipelinetest.Answer{Status: 400, Body: []byte("not with " + c.Header.Get("Authorization") + " nor s3cret")}
	}))
	s := authorizedSender(t, nil, httpsend.Target{URL: e.URL, Auth: credentials(t, i.URL)})
	r := s.Send(t.Context(), httpsend.Call{ID: "1"})
	if got := string(r.Response); got != "not with Bearer [secret] nor [secret]" {
		t.Errorf("%q", got)
	}
	if text := shown(r) + fmt.Sprintf("%v %+v", s, s); strings.Contains(text, "t0ken") || strings.Contains(text, "s3cret") {
		t.Error(text)
	}
}

func TestOAuth2TargetRefuses(t *testing.T) {
	t.Parallel()
	c := client(t, httpsend.Options{})
	for tokenURL, want := range map[string]string{
		"":                                   "token_url: expected http",
		"ftp://x/":                           "token_url: expected http",
		"https://u:p@x/":                     "token_url: user name and password",
		"https://x/#f":                       "token_url: it can't have a fragment",
		"https://x/{{ event.id }}":           "token_url: it can't have a fragment",
		"https://x/${env:MILLRACE_SECRET_A}": "token_url: it can't have a fragment",
	} {
		if _, err := c.Target(httpsend.Target{URL: "https://x/", Auth: httpsend.OAuth2{TokenURL: tokenURL}}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, expected %q", tokenURL, err, want)
		}
	}
}
