package httpsend_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/millrace-io/millrace/pipeline/httpsend"
	"github.com/millrace-io/millrace/pipeline/pipelinetest"
)

// TestPreviewIsWhatIsSent compares what is shown with what arrives.
func TestPreviewIsWhatIsSent(t *testing.T) {
	t.Parallel()
	e := pipelinetest.Receiver(t)
	at := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	for name, c := range map[string]struct {
		target httpsend.Target
		call   httpsend.Call
	}{
		"POST": {
			httpsend.Target{URL: e.URL + "/a?b=c", Headers: []httpsend.Header{{"X-One", "1"}, {"x-one", "2"}, {"User-Agent", "me"}}},
			httpsend.Call{Body: []byte(`{"a":1}`), Header: []httpsend.Header{{"Traceparent", "00-1"}}},
		},
		"another type": {
			httpsend.Target{URL: e.URL + "/", Method: http.MethodPut, Headers: []httpsend.Header{{"Content-Type", "text/plain"}}},
			httpsend.Call{Body: []byte(`x`)},
		},
		"GET":            {httpsend.Target{URL: e.URL + "/a", Method: http.MethodGet}, httpsend.Call{Query: []byte("a=1&b=2")}},
		"GET with query": {httpsend.Target{URL: e.URL + "/a?x=y", Method: http.MethodGet}, httpsend.Call{Query: []byte("a=1")}},
		"dynamic":        {httpsend.Target{URL: e.URL + "/{{ event.user }}"}, httpsend.Call{URL: e.URL + "/u-1?z=1", Body: []byte("{}")}},
	} {
		t.Run(name, func(t *testing.T) {
			s := sender(t, client(t, httpsend.Options{Allow: local}), c.target)
			c.call.ID, c.call.At = "id-of-"+strings.ReplaceAll(name, " ", "-"), at
			p, err := s.Preview(c.call)
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Check(c.call); err != nil {
				t.Errorf("it can't be sent: %v", err)
			}
			if r := s.Send(t.Context(), c.call); r.Outcome != httpsend.Success {
				t.Fatalf("sending: %+v", r)
			}
			calls := e.Calls()
			got := calls[len(calls)-1]
			url := e.URL + got.Path
			if got.Query != "" {
				url += "?" + got.Query
			}
			if p.Method != got.Method || p.URL != url || string(p.Body) != string(got.Body) {
				t.Errorf("shown is %s %s %s, sent was %s %s %s", p.Method, p.URL, p.Body, got.Method, url, got.Body)
			}
			if shown := headersOf(p); fmt.Sprint(shown) != fmt.Sprint(got.Header) {
				t.Errorf("shown are\n%v, sent were\n%v", shown, got.Header)
			}
		})
	}
}

func headersOf(r httpsend.Request) http.Header {
	h := http.Header{}
	for _, one := range r.Header {
		h.Add(one.Name, one.Value)
	}
	return h
}

// TestPreviewHidesPartsOfURLs has secrets that are written out in a URL.
func TestPreviewHidesPartsOfURLs(t *testing.T) {
	t.Parallel()
	for url, c := range map[string]struct{ filled, want string }{
		"https://a.example/x?key=<hush>&b=1":                                        {"", "https://a.example/x?key=[secret]&b=1"},
		"https://a.example/<hush>/${env:MILLRACE_SECRET_A}?key=<hush>":              {"", "https://a.example/[secret]/${env:MILLRACE_SECRET_A}?key=[secret]"},
		"https://a.example/{{ event.user }}?key=<hush>&b={{ event.id }}":            {"https://a.example/hush?key=hush&b=hush", "https://a.example/hush?key=[secret]&b=hush"},
		"https://a.example/s/<hush>?a={{ event.id }}&sig=<hush>&b={{ event.user }}": {"https://a.example/s/hush?a=&sig=hush&b=%26sig%3Dhush", "https://a.example/s/[secret]?a=&sig=[secret]&b=%26sig%3Dhush"},
		"https://a.example/{{ event.user }}/s/<hush>":                               {"https://a.example/u-1/s/hush", "https://a.example/u-1/s/[secret]"},
	} {
		target := httpsend.Target{}
		for rest := url; rest != ""; {
			plain, more, _ := strings.Cut(rest, "<")
			target.URL += plain
			part, after, found := strings.Cut(more, ">")
			if found {
				target.SecretParts = append(target.SecretParts, [2]int{len(target.URL), len(target.URL) + len(part)})
			}
			target.URL += part
			rest = after
		}
		p, err := sender(t, client(t, httpsend.Options{}), target).Preview(httpsend.Call{ID: "1", URL: c.filled})
		if err != nil || p.URL != c.want {
			t.Errorf("%s is shown as %s, %v, expected %s", url, p.URL, err, c.want)
		}
	}
}

// Telling names are those of secrets, and not those that only look like it.
func TestTellingNames(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]bool{
		"Authorization": true, "Proxy-Authorisation": true, "X-Auth": true, "xauth": true, "X-OAuth-Token": true, "auth_code": true, "authn": true,
		"Cookie": true, "X-Api-Key": true, "apikey": true, "Password": true, "X-Passwd": true, "pass": true, "x_pass": true, "X-PWD": true,
		"client_secret": true, "access-token": true, "X-Signature": true, "sig": true, "X-Hub-Sig": true, "urlSig": true, "X-Amz-Credential": true, "credentials": true,
		"X-Author": false, "authority": false, "keyword": false, "design": false, "Bypass": false, "passenger": false, "signed": false, "X-Team": false, "Content-Type": false, "code": false, "": false,
	} {
		if httpsend.SecretHeader(name) != want || httpsend.SecretParameter(name) != want {
			t.Errorf("%q: header %v, parameter %v, expected %v", name, httpsend.SecretHeader(name), httpsend.SecretParameter(name), want)
		}
	}
	if httpsend.SecretHeader("Idempotency-Key") {
		t.Error("Idempotency-Key is taken for a secret")
	}
}

// TestPreviewHoldsNoSecret: a secret that was written out is not shown; how others
// are is TestPreviewNamesKeysAndCredentials.
func TestPreviewHoldsNoSecret(t *testing.T) {
	t.Parallel()
	literal := httpsend.Target{
		URL: "https://platform.example", Headers: []httpsend.Header{{"X-Api-Key", "t0ken"}, {"Cookie", "p4ss"}},
		Auth: httpsend.Basic{Username: reference(t, "me"), Password: reference(t, "w0rd")},
	}
	p, err := sender(t, client(t, httpsend.Options{}), literal).Preview(httpsend.Call{ID: "1"})
	if text := fmt.Sprint(p); err != nil || strings.Contains(text, "t0ken") || strings.Contains(text, "p4ss") || strings.Contains(text, "w0rd") {
		t.Errorf("a secret that was written down is shown in %+v (%v)", p, err)
	}
}

func TestCheck(t *testing.T) {
	t.Parallel()
	c := client(t, httpsend.Options{Secrets: secrets(nil)})
	missing := sender(t, c, httpsend.Target{URL: "https://platform.example/${env:MILLRACE_SECRET_NONE}"})
	fine := sender(t, c, httpsend.Target{URL: "https://platform.example/", MaxBody: 5})
	for says, err := range map[string]error{
		"MILLRACE_SECRET_NONE": missing.Check(httpsend.Call{ID: "1"}),
		"max_body":             fine.Check(httpsend.Call{ID: "1", Body: []byte("123456")}),
		"control characters":   fine.Check(httpsend.Call{ID: "\n"}),
	} {
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("expected %q, got %v", says, err)
		}
	}
	if err := fine.Check(httpsend.Call{ID: "1", Body: []byte("12345")}); err != nil {
		t.Error(err)
	}
	if _, err := fine.Preview(httpsend.Call{ID: "\n"}); err == nil {
		t.Error("a request is shown that can't be made")
	}
}

// TestPreviewNamesKeysAndCredentials: what is worked out of secrets is shown with
// their names.
func TestPreviewNamesKeysAndCredentials(t *testing.T) {
	t.Parallel()
	target := httpsend.Target{
		URL: "https://platform.example",
		Auth: httpsend.OAuth2{
			TokenURL: "https://id.example/token", ClientID: reference(t, "me"), ClientSecret: reference(t, "${env:MILLRACE_SECRET_CLIENT}"),
		},
		Signing: httpsend.Signing{
			Secret: reference(t, "${env:MILLRACE_SECRET_NEW}"), Previous: reference(t, "${env:MILLRACE_SECRET_OLD}"),
		},
	}
	p, err := sender(t, client(t, httpsend.Options{}), target).Preview(httpsend.Call{ID: "1"})
	if err != nil {
		t.Fatal(err)
	}
	h := headersOf(p)
	if got, want := h.Get("Authorization"), "Bearer token(https://id.example/token, ${env:MILLRACE_SECRET_CLIENT})"; got != want {
		t.Errorf("found %q, expected %q", got, want)
	}
	if got, want := h.Get("Webhook-Signature"), "v1,hmac(${env:MILLRACE_SECRET_NEW}) v1,hmac(${env:MILLRACE_SECRET_OLD})"; got != want {
		t.Errorf("found %q, expected %q", got, want)
	}
}

// A key in the body or the query is shown in its place, by its name.
func TestPreviewShowsKeysInTheirPlace(t *testing.T) {
	t.Parallel()
	c := client(t, httpsend.Options{})
	for _, x := range []struct {
		value     string
		call      httpsend.Call
		url, body string
	}{
		{"${env:MILLRACE_SECRET_A}", httpsend.Call{Body: []byte(`{"k":{"b":1}}`)}, "https://x.example", `{"k":{"b":1,"a":"${env:MILLRACE_SECRET_A}"}}`},
		{"pl4nted", httpsend.Call{Body: []byte(`{}`)}, "https://x.example", `{"k":{"a":"[secret]"}}`},
	} {
		s := sender(t, c, httpsend.Target{URL: "https://x.example", Auth: httpsend.InProperty{Name: "/k/a", Value: reference(t, x.value)}})
		if p, err := s.Preview(x.call); err != nil || p.URL != x.url || string(p.Body) != x.body {
			t.Errorf("%+v, %s, %v", p, p.Body, err)
		} else if length := headersOf(p).Get("Content-Length"); length != "" {
			t.Errorf("the length of what is sent is not that of what is shown, %s", length)
		}
	}
	get := sender(t, c, httpsend.Target{Method: "GET", URL: "https://x.example/", Auth: httpsend.InProperty{Name: "k", Value: reference(t, "${env:MILLRACE_SECRET_A}")}})
	if p, err := get.Preview(httpsend.Call{Query: []byte("a=1&k=2")}); err != nil || p.URL != "https://x.example/?a=1&k=${env:MILLRACE_SECRET_A}" {
		t.Errorf("%+v, %v", p, err)
	}
	if _, err := get.Preview(httpsend.Call{}); err != nil {
		t.Error(err)
	}
	post := sender(t, c, httpsend.Target{URL: "https://x.example/", Auth: httpsend.InProperty{Name: "k", Value: reference(t, "${env:MILLRACE_SECRET_A}")}})
	if _, err := post.Preview(httpsend.Call{Body: []byte("1")}); err == nil {
		t.Error("there is no room for the key, and nothing is said")
	}
}
