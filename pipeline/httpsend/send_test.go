package httpsend_test

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/millrace-io/millrace/pipeline"
	"github.com/millrace-io/millrace/pipeline/httpsend"
	"github.com/millrace-io/millrace/pipeline/pipelinetest"
	"github.com/millrace-io/millrace/pipeline/secret"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// local opens what test servers listen on.
var local = []string{"127.0.0.0/8"}

func sender(t *testing.T, c *httpsend.Client, target httpsend.Target) *httpsend.Sender {
	t.Helper()
	s, err := c.Target(target)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func reference(t *testing.T, text string) secret.Reference {
	t.Helper()
	r, err := secret.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// secrets finds each value under the name MILLRACE_SECRET_ and its key.
func secrets(values map[string]string) *secret.Resolver {
	return &secret.Resolver{Env: func(name string) (string, bool) {
		v, ok := values[strings.TrimPrefix(name, secret.EnvPrefix)]
		return v, ok
	}}
}

func TestSendRequest(t *testing.T) {
	t.Parallel()
	e := pipelinetest.Receiver(t)
	at := time.Date(2026, 3, 4, 5, 6, 7, 890, time.UTC)
	for name, c := range map[string]struct {
		target        httpsend.Target
		call          httpsend.Call
		method, query string
		path, body    string
		header        map[string]string
	}{
		"plain": {
			target: httpsend.Target{URL: e.URL + "/in"},
			call:   httpsend.Call{Body: []byte(`{"a":1}`)},
			method: "POST", path: "/in", body: `{"a":1}`,
			header: map[string]string{"Content-Type": "application/json", "User-Agent": "Millrace/test", "Content-Length": "7"},
		},
		"headers": {
			target: httpsend.Target{
				Method: "PUT", URL: e.URL, Headers: []httpsend.Header{
					{"content-type", "text/plain"},
					{"X-Two", "1"},
					{"x-two", "2"},
					{"user-agent", "mine"},
					{"X-Key", "k ${env:MILLRACE_SECRET_A}"},
					{"X-Idempotency-Key", "other"},
				},
			},
			call:   httpsend.Call{Body: []byte("x"), Header: []httpsend.Header{{"Traceparent", "00-ab-cd-01"}, {"webhook-id", "forged"}}},
			method: "PUT", path: "/", body: "x",
			header: map[string]string{
				"Content-Type": "text/plain", "User-Agent": "mine", "X-Two": "1,2", "X-Key": "k s3cr/t",
				"Traceparent": "00-ab-cd-01", "X-Idempotency-Key": "other", "Authorization": "",
			},
		},
		"bearer": {
			target: httpsend.Target{Method: "PATCH", URL: e.URL, Auth: httpsend.Bearer{Token: reference(t, "${env:MILLRACE_SECRET_A}")}},
			method: "PATCH", path: "/",
			header: map[string]string{"Authorization": "Bearer s3cr/t", "Content-Length": "0", "Content-Type": ""},
		},
		"basic": {
			target: httpsend.Target{URL: e.URL, Auth: httpsend.Basic{
				Username: reference(t, "${env:MILLRACE_SECRET_USER}/token"), Password: reference(t, "${env:MILLRACE_SECRET_A}"),
			}},
			method: "POST", path: "/",
			header: map[string]string{"Authorization": "Basic bWUvdG9rZW46czNjci90"},
		},
		"header": {
			target: httpsend.Target{URL: e.URL, Auth: httpsend.InHeader{Name: "x-api-key", Value: reference(t, "key ${env:MILLRACE_SECRET_A}")}},
			method: "POST", path: "/",
			header: map[string]string{"X-Api-Key": "key s3cr/t", "Authorization": ""},
		},
		"property": {
			target: httpsend.Target{URL: e.URL, Auth: httpsend.InProperty{Name: "/a/0/key", Value: reference(t, "k ${env:MILLRACE_SECRET_A}")}},
			call:   httpsend.Call{Body: []byte(`{"a":[{"b":1}]}`)},
			method: "POST", path: "/", body: `{"a":[{"b":1,"key":"k s3cr/t"}]}`,
			header: map[string]string{"Authorization": "", "Content-Length": "32"},
		},
		"property, get": {
			target: httpsend.Target{Method: "GET", URL: e.URL + "/?x=1", Auth: httpsend.InProperty{Name: "key", Value: reference(t, "${env:MILLRACE_SECRET_A}")}},
			call:   httpsend.Call{Query: []byte("a=b&key=theirs")},
			method: "GET", path: "/", query: "x=1&a=b&key=s3cr%2Ft",
		},
		"get": {
			target: httpsend.Target{Method: "GET", URL: e.URL + "/q?k=${env:MILLRACE_SECRET_A}"},
			call:   httpsend.Call{Query: []byte("a=b&c=%20")},
			method: "GET", path: "/q", query: "k=s3cr/t&a=b&c=%20",
			header: map[string]string{"Content-Type": "", "Content-Length": ""},
		},
		"expressions": {
			target: httpsend.Target{URL: e.URL + `/u/{{ event.user }}/${env:MILLRACE_SECRET_A}`},
			call:   httpsend.Call{URL: e.URL + "/u/a%2Fb/${env:MILLRACE_SECRET_A}?x=1", Query: []byte("y=2")},
			method: "POST", path: "/u/a/b/s3cr/t", query: "x=1&y=2",
		},
		"expressions, elsewhere since": {
			target: httpsend.Target{URL: e.URL + `/u/{{ event.user }}`},
			call:   httpsend.Call{URL: "https://other.example:9/u/7"},
			method: "POST", path: "/u/7",
		},
		"no expressions any more": {
			target: httpsend.Target{URL: e.URL + `/static`},
			call:   httpsend.Call{URL: "https://other.example/u/7"},
			method: "POST", path: "/static",
		},
		"the whole URL is secret": {
			target: httpsend.Target{URL: "${env:MILLRACE_SECRET_URL}"},
			method: "POST", path: "/services/T/B",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			found := secrets(map[string]string{"A": "s3cr/t", "USER": "me", "URL": e.URL + "/services/T/B"})
			s := sender(t, client(t, httpsend.Options{Allow: local, UserAgent: "Millrace/test", Secrets: found}), c.target)
			c.call.ID, c.call.At = "id "+name, at
			if r := s.Send(t.Context(), c.call); r.Outcome != httpsend.Success || r.Err != nil || r.Latency <= 0 || r.Response != nil {
				t.Fatalf("%+v", r)
			}
			var got *pipelinetest.Call
			for _, call := range e.Calls() {
				if call.ID() == c.call.ID {
					got = &call
				}
			}
			if got == nil || got.Method != c.method || got.Path != c.path || got.Query != c.query || string(got.Body) != c.body {
				t.Fatalf("sent %+v", got)
			}
			for name, want := range c.header {
				if have := strings.Join(got.Header.Values(name), ","); have != want {
					t.Errorf("%s: %q, want %q", name, have, want)
				}
			}
			if got.Header.Get("Idempotency-Key") != c.call.ID || got.Header.Get("webhook-timestamp") != fmt.Sprint(at.Unix()) {
				t.Errorf("headers %v", got.Header)
			}
		})
	}
}

func TestTargetRefuses(t *testing.T) {
	t.Parallel()
	c := client(t, httpsend.Options{})
	token := httpsend.Bearer{Token: reference(t, "${env:MILLRACE_SECRET_A}")}
	for want, target := range map[string]httpsend.Target{
		`method is "DELETE"`:                {Method: "DELETE"},
		"expected http://host":              {URL: "ftp://x/"},
		"url: expected http":                {URL: ""},
		"or https://host/…":                 {URL: "/path"},
		"can't be parsed":                   {URL: "http://x/%zz"},
		"url: it can't":                     {URL: "http:opaque"},
		"belong into auth":                  {URL: "http://user:pass@x/"},
		"its query holds white space":       {URL: "http://x/?a b"},
		"parsing secret reference":          {URL: "http://x/${HOME}"},
		"url: parsing secret":               {URL: "http://x/{{ a }}/${env:HOME}"},
		"can't stand in scheme":             {URL: "https://x.{{ a }}.example/"},
		"expected http://host/…":            {URL: "ftp://x/${env:MILLRACE_SECRET_A}"},
		`header "Webhook-ID": can't`:        {Headers: []httpsend.Header{{"Webhook-ID", "x"}}},
		`header "webhook-timestamp": can't`: {Headers: []httpsend.Header{{"webhook-timestamp", "x"}}},
		`header "idempotency-key": can't`:   {Headers: []httpsend.Header{{"idempotency-key", "x"}}},
		`it comes from the URL`:             {Headers: []httpsend.Header{{"host", "x"}}},
		`it belongs to the connection`:      {Headers: []httpsend.Header{{"transfer-encoding", "chunked"}}},
		`is no header name`:                 {Headers: []httpsend.Header{{"a b", "x"}}},
		`header "": is no header name`:      {Headers: []httpsend.Header{{"", "x"}}},
		`header "X-Ä": is no header name`:   {Headers: []httpsend.Header{{"X-Ä", "x"}}},
		`a user name can't have a colon`:    {Auth: httpsend.Basic{Username: reference(t, "${env:MILLRACE_SECRET_A}:b")}},
		`holds control characters`:          {Headers: []httpsend.Header{{"X", "a\r\nHost: b"}}},
		`header "X": parsing secret`:        {Headers: []httpsend.Header{{"X", "${x}"}}},
		`auth sets it`:                      {Headers: []httpsend.Header{{"authorization", "x"}}, Auth: token},
		`header "x-key": auth sets it`:      {Headers: []httpsend.Header{{"X-Key", "x"}}, Auth: httpsend.InHeader{Name: "x-key"}},
		`header "host": can't be set`:       {Auth: httpsend.InHeader{Name: "host"}},
		`auth sets has no name`:             {Auth: httpsend.InProperty{}},
		`header "a b": is no header name`:   {Auth: httpsend.InHeader{Name: "a b"}},
	} {
		if target.URL == "" && !strings.HasPrefix(want, "url") {
			target.URL = "https://x/"
		}
		if _, err := c.Target(target); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", target, err, want)
		}
	}
	_, err := c.Target(httpsend.Target{Method: "X", URL: "x", Headers: []httpsend.Header{{"Host", ""}}})
	if n := strings.Count(fmt.Sprint(err), "\n"); n != 2 {
		t.Errorf("not all that is wrong is said: %v", err)
	}
}

// No event may have a say in where a call goes, whatever secrets stand beside it.
func TestExpressionsAreNotInTheOrigin(t *testing.T) {
	t.Parallel()
	values := map[string]string{"HOST": "x.example", "BASE": "https://x.example", "PATH": "https://x.example/api?v="}
	c := client(t, httpsend.Options{Secrets: secrets(values)})
	const origin = "an expression can't stand in scheme, host or port"
	for url, want := range map[string]string{ // want is of Target, or of Ready
		"https://{{ a }}/":                                   origin,
		"https://x.{{ a }}.example/":                         origin,
		"https://x.example{{ a }}/":                          origin,
		"https://x.example:8{{ a }}/":                        origin,
		"http{{ a }}://x.example/":                           origin,
		"{{ a }}":                                            origin,
		"https://${env:MILLRACE_SECRET_HOST}{{ a }}/":        origin,
		"https://${env:MILLRACE_SECRET_HOST}:{{ a }}/":       origin,
		"${env:MILLRACE_SECRET_BASE}{{ a }}":                 "url with its secrets: " + origin,
		"${env:MILLRACE_SECRET_BASE}:8{{ a }}/":              "url with its secrets: " + origin,
		"${env:MILLRACE_SECRET_PATH}{{ a }}":                 "",
		"${env:MILLRACE_SECRET_BASE}/{{ a }}":                "",
		"${env:MILLRACE_SECRET_BASE}?a={{ a }}":              "",
		"https://${env:MILLRACE_SECRET_HOST}/{{ a }}":        "",
		"https://x.example:80/{{ a }}":                       "",
		"https://x.example?a={{ a }}":                        "",
		"https://x.example/{{ a }}.{{ b }}":                  "",
		"https://x.example/${env:MILLRACE_SECRET_HOST}{{a}}": "",
	} {
		s, err := c.Target(httpsend.Target{URL: url})
		if err == nil {
			err = s.Ready()
		}
		if (err == nil) != (want == "") || err != nil && (!strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "x.example")) {
			t.Errorf("%s: %v, want %q", url, err, want)
		}
	}
}

func TestSendInvalid(t *testing.T) {
	t.Parallel()
	e := pipelinetest.Receiver(t)
	c := client(t, httpsend.Options{Allow: local, Secrets: secrets(map[string]string{"A": "a", "B": "b"})})
	static := sender(t, c, httpsend.Target{URL: e.URL, MaxBody: 10})
	dynamic := sender(t, c, httpsend.Target{URL: e.URL + "/{{ event.user }}/${env:MILLRACE_SECRET_A}"})
	inside := sender(t, c, httpsend.Target{URL: e.URL, MaxBody: 10, Auth: httpsend.InProperty{Name: "/k/a", Value: reference(t, "${env:MILLRACE_SECRET_A}")}})
	for name, x := range map[string]struct {
		sender *httpsend.Sender
		call   httpsend.Call
		class  httpsend.Class
		reason pipeline.Reason
	}{
		"body":              {static, httpsend.Call{Body: make([]byte, 11)}, httpsend.ClassTooLarge, pipeline.TooLarge},
		"body + query":      {static, httpsend.Call{Body: make([]byte, 6), Query: []byte("a=bcd")}, httpsend.ClassTooLarge, pipeline.TooLarge},
		"body + property":   {inside, httpsend.Call{Body: []byte("{}")}, httpsend.ClassTooLarge, pipeline.TooLarge},
		"no room":           {inside, httpsend.Call{Body: []byte(`{"k":1}`)}, httpsend.ClassInvalid, pipeline.InvalidRequest},
		"query":             {static, httpsend.Call{Query: []byte("a b")}, httpsend.ClassInvalid, pipeline.InvalidRequest},
		"query line":        {static, httpsend.Call{Query: []byte("a\r\nb")}, httpsend.ClassInvalid, pipeline.InvalidRequest},
		"header":            {static, httpsend.Call{Header: []httpsend.Header{{"Traceparent", "a\nb"}}}, httpsend.ClassInvalid, pipeline.InvalidRequest},
		"id":                {static, httpsend.Call{ID: "a\nb"}, httpsend.ClassInvalid, pipeline.InvalidRequest},
		"no URL":            {dynamic, httpsend.Call{}, httpsend.ClassInvalid, pipeline.InvalidRequest},
		"URL":               {dynamic, httpsend.Call{URL: "http://x/%zz"}, httpsend.ClassInvalid, pipeline.InvalidRequest},
		"URL query":         {dynamic, httpsend.Call{URL: "http://x/?a b"}, httpsend.ClassInvalid, pipeline.InvalidRequest},
		"placeholder":       {dynamic, httpsend.Call{URL: "http://x/${x}"}, httpsend.ClassInvalid, pipeline.InvalidRequest},
		"other secret":      {dynamic, httpsend.Call{URL: "http://x/${env:MILLRACE_SECRET_B}"}, httpsend.ClassInvalid, pipeline.InvalidRequest},
		"missing, not ours": {dynamic, httpsend.Call{URL: "http://x/${file:c}"}, httpsend.ClassInvalid, pipeline.InvalidRequest},
	} {
		r := x.sender.Send(t.Context(), x.call)
		p, ok := pipeline.IsPermanent(r.Err)
		if r.Outcome != httpsend.DeadLetter || r.Class != x.class || !ok || p.Reason != x.reason {
			t.Errorf("%s: %+v", name, r)
		}
	}
	if e.Count() != 0 {
		t.Errorf("%d calls were made", e.Count())
	}
	if r := static.Send(t.Context(), httpsend.Call{Body: make([]byte, 10)}); r.Outcome != httpsend.Success {
		t.Errorf("a body of max_body: %+v", r)
	}
}

func TestSendEveryStatus(t *testing.T) {
	t.Parallel()
	e := pipelinetest.Receiver(t, pipelinetest.Answering(func(c *pipelinetest.Call) pipelinetest.Answer {
		var status int
		_, _ = fmt.Sscan(c.Query, &status)
		return pipelinetest.Answer{Status: status, Body: []byte("because"), Header: http.Header{
			"Retry-After": {"7"}, "Location": {"/elsewhere"},
		}}
	}))
	s := sender(t, client(t, httpsend.Options{Allow: local}), httpsend.Target{URL: e.URL})
	for status := 200; status <= 599; status++ {
		r := s.Send(t.Context(), httpsend.Call{Query: fmt.Append(nil, status)})
		if r.Status != status || r.Class != httpsend.Answered {
			t.Fatalf("%d: %+v", status, r)
		}
		if (r.RetryAfter == 7*time.Second) != (r.Outcome == httpsend.Retry) {
			t.Errorf("%d: retry after %v", status, r.RetryAfter)
		}
		p, permanent := pipeline.IsPermanent(r.Err)
		if permanent != (r.Outcome == httpsend.DeadLetter) || permanent && p.Reason != pipeline.FinalResponse {
			t.Errorf("%d: %v", status, r.Err)
		}
		if ok := r.Outcome == httpsend.Success; ok != (status < 300) || ok != (r.Err == nil) || ok && r.Response != nil {
			t.Errorf("%d: %+v", status, r)
		}
		bodiless := status < 300 || status == http.StatusNotModified
		if !bodiless && (string(r.Response) != "because" || !strings.Contains(r.Err.Error(), fmt.Sprint(status))) {
			t.Errorf("%d: response %q, %v", status, r.Response, r.Err)
		}
	}
	if e.Count() != 400 {
		t.Errorf("%d calls for 400: something was followed or repeated", e.Count())
	}
}

func TestSendWaitsForSecrets(t *testing.T) {
	t.Parallel()
	e := pipelinetest.Receiver(t)
	dir := t.TempDir()
	c := client(t, httpsend.Options{Allow: local, Secrets: &secret.Resolver{Dir: dir}})
	token := filepath.Join(dir, "token")
	now := sender(t, c, httpsend.Target{URL: e.URL + "/x", Auth: httpsend.Bearer{Token: reference(t, "${file:token}")}})
	r := now.Send(t.Context(), httpsend.Call{ID: "1"})
	missing, ok := errors.AsType[*secret.MissingError](r.Err)
	if r.Outcome != httpsend.NotSent || r.Class != httpsend.ClassSecret || !ok || missing.Placeholder != "${file:token}" {
		t.Fatalf("%+v", r)
	}
	if err := now.Ready(); err == nil || !strings.Contains(err.Error(), "${file:token}") {
		t.Errorf("Ready: %v", err)
	}
	if e.Count() != 0 {
		t.Error("a call was made")
	}
	synctest.Test(t, func(t *testing.T) { // for its clock: a Sender looks again after a while
		s := sender(t, c, httpsend.Target{URL: e.URL + "/x", Auth: httpsend.Bearer{Token: reference(t, "${file:token}")}})
		ready := func(want bool) {
			t.Helper()
			time.Sleep(2 * secret.Fresh)
			if err := s.Ready(); (err == nil) != want {
				t.Errorf("Ready: %v, want %v", err, want)
			}
		}
		ready(false)
		write(t, token, "one\n")
		ready(true)
		write(t, token, "two\nlines")
		ready(false) // no header can hold it
		write(t, token, "three")
		ready(true)
	})
	s := sender(t, c, httpsend.Target{URL: e.URL + "/x", Auth: httpsend.Bearer{Token: reference(t, "${file:token}")}})
	if r := s.Send(t.Context(), httpsend.Call{}); r.Outcome != httpsend.Success || e.Calls()[0].Header.Get("Authorization") != "Bearer three" {
		t.Errorf("%+v, %v", r, e.Calls())
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestReadyNamesEverythingUnfit(t *testing.T) {
	t.Parallel()
	c := client(t, httpsend.Options{Secrets: secrets(map[string]string{"URL": "nonsense-pl4nted", "LINES": "a\npl4nted", "LATIN": "pl4nted\xe9"})})
	s := sender(t, c, httpsend.Target{
		URL:     "${env:MILLRACE_SECRET_URL}",
		Headers: []httpsend.Header{{"X-A", "${env:MILLRACE_SECRET_LINES}"}, {"X-B", "${env:MILLRACE_SECRET_GONE}"}},
		Auth:    httpsend.InProperty{Name: "key", Value: reference(t, "${env:MILLRACE_SECRET_LATIN}")},
	})
	err := s.Ready()
	for _, want := range []string{"url with its secrets: expected http", `header "X-A": its secret holds control`, "${env:MILLRACE_SECRET_GONE}", `property "key": its secret is not valid UTF-8`} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: want %q in it", err, want)
		}
	}
	if strings.Contains(fmt.Sprint(err), "pl4nted") {
		t.Error(err)
	}
	if r := s.Send(t.Context(), httpsend.Call{}); r.Outcome != httpsend.NotSent {
		t.Errorf("%+v", r)
	}
}

// A slow destination with many open calls takes nothing from another.
func TestSlowDestinationsDelayNobody(t *testing.T) {
	t.Parallel()
	const open = 200
	slow := pipelinetest.Receiver(t, pipelinetest.Answering(func(*pipelinetest.Call) pipelinetest.Answer {
		return pipelinetest.Answer{Delay: time.Hour}
	}))
	quick := pipelinetest.Receiver(t)
	c := client(t, httpsend.Options{Allow: local, MaxIdle: 10})
	stuck := sender(t, c, httpsend.Target{URL: slow.URL, Timeout: time.Minute})
	free := sender(t, c, httpsend.Target{URL: quick.URL})
	var calls sync.WaitGroup
	for range open {
		calls.Go(func() {
			if r := stuck.Send(t.Context(), httpsend.Call{}); r.Outcome != httpsend.Retry {
				t.Errorf("%+v", r)
			}
		})
	}
	slow.Wait(t, open)
	for range 100 {
		if r := free.Send(t.Context(), httpsend.Call{}); r.Outcome != httpsend.Success {
			t.Fatalf("%+v", r)
		}
	}
	slow.Refuse()
	calls.Wait()
}

func TestResultsHoldNoCause(t *testing.T) {
	t.Parallel()
	e := pipelinetest.Receiver(t)
	e.Refuse()
	s := sender(t, client(t, httpsend.Options{Allow: local}), httpsend.Target{URL: e.URL})
	r := s.Send(t.Context(), httpsend.Call{})
	if r.Class != httpsend.ClassConnect || errors.Unwrap(r.Err) != nil {
		t.Errorf("%+v wraps %v of %v", r, errors.Unwrap(r.Err), reflect.TypeOf(r.Err))
	}
}
