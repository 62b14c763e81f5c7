package httpsend_test

import (
	"encoding/base64"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/millrace-io/millrace/pipeline/httpsend"
)

// What a destination, a proxy or a token endpoint may quote of what it is sent is
// tried in one place for all of Millrace: TestNoSecretIsShown in
// services/millrace. Here is what that can't reach.

// shown is everything that may be shown of a result.
func shown(r httpsend.Result) string {
	var log strings.Builder
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "result", r, "err", r.Err)
	return fmt.Sprintf("%v %+v %#v %q %s %s", r, r, r.Err, r.Response, r.Response, &log)
}

// A secret that is written out, or half of it, is one all the same: here
// definitions refuse it, or seal it.
func TestSecretsWithoutReferenceAreHidden(t *testing.T) {
	t.Parallel()
	told := map[string]string{"/oauth2": "pl4nted-client pl4nted-refresh"} // by its token endpoint
	e := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/token" {
			_, _ = io.WriteString(w, `{"access_token":"other"}`)
			return
		}
		user, password, _ := r.BasicAuth()
		body, _ := io.ReadAll(r.Body)
		w.WriteHeader(http.StatusBadRequest)
		_, _ = fmt.Fprintln(w, r.Header, user, password, string(body), told[r.URL.Path])
	}))
	t.Cleanup(e.Close)
	for name, auth := range map[string]httpsend.Auth{
		"bearer":   httpsend.Bearer{Token: reference(t, "pl4nted-${env:MILLRACE_SECRET_A}")},
		"basic":    httpsend.Basic{Username: reference(t, "me"), Password: reference(t, "pl4nted")},
		"header":   httpsend.InHeader{Name: "X-Key", Value: reference(t, "pl4nted")},
		"property": httpsend.InProperty{Name: "key", Value: reference(t, "pl4nted")},
		"oauth2": httpsend.OAuth2{
			TokenURL: e.URL + "/token", ClientID: reference(t, "me"), ClientSecret: reference(t, "pl4nted-client"), RefreshToken: reference(t, "pl4nted-refresh"),
		},
	} {
		c := client(t, httpsend.Options{Allow: local, Secrets: secrets(map[string]string{"A": "r3st"})})
		s := sender(t, c, httpsend.Target{URL: e.URL + "/" + name, Auth: auth})
		r := s.Send(t.Context(), httpsend.Call{Body: []byte("{}")})
		if text := shown(r); r.Status != http.StatusBadRequest || !strings.Contains(text, "[secret]") || strings.Contains(text, "pl4nted") || strings.Contains(text, "r3st") {
			t.Errorf("%s: %s", name, text)
		}
	}
}

// A user name with a colon would be sent as another one (RFC 7617): nothing is.
func TestBasicTakesNoColon(t *testing.T) {
	t.Parallel()
	c := client(t, httpsend.Options{Secrets: secrets(map[string]string{"USER": "pl4nted:b"})})
	s := sender(t, c, httpsend.Target{URL: "https://x.example", Auth: httpsend.Basic{
		Username: reference(t, "${env:MILLRACE_SECRET_USER}"), Password: reference(t, "c:d"),
	}})
	r := s.Send(t.Context(), httpsend.Call{ID: "1"})
	if r.Outcome != httpsend.NotSent || r.Class != httpsend.ClassSecret || !strings.Contains(r.Err.Error(), "can't have a colon") || strings.Contains(r.Err.Error(), "pl4nted") {
		t.Errorf("%+v", r)
	}
}

// Wherever max_response cuts an echo, no beginning of a secret is left over.
func TestResponsesAreCutAroundSecrets(t *testing.T) {
	t.Parallel()
	const token = "t0ken-of-the-bearer"
	e := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusBadRequest)
		_, _ = io.WriteString(w, "token "+r.Header.Get("Authorization")+" is wrong")
	}))
	t.Cleanup(e.Close)
	c := client(t, httpsend.Options{Allow: local, Secrets: secrets(map[string]string{"TOKEN": token})})
	whole := "token Bearer " + token
	for most := 1; most < len(whole); most++ {
		s := sender(t, c, httpsend.Target{
			URL: e.URL, MaxResponse: most, Auth: httpsend.Bearer{Token: reference(t, "${env:MILLRACE_SECRET_TOKEN}")},
		})
		r := s.Send(t.Context(), httpsend.Call{Body: []byte("{}")})
		if got := string(r.Response); !strings.HasPrefix("token Bearer [secret]", got) || r.Class != httpsend.ClassMaxResponse {
			t.Errorf("max_response %d: %q, %+v", most, got, r)
		}
	}
}

// A destination that answers with what may be the beginning of a long secret, over
// and over, does not make a call longer than its timeout.
func TestRedactionIsQuick(t *testing.T) {
	t.Parallel()
	const size = 128 << 10
	e := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusBadRequest)
		_, _ = io.WriteString(w, strings.Repeat("e", 2*size))
	}))
	t.Cleanup(e.Close)
	token := "eyJhbGciOiJSUzI1NiJ9." + strings.Repeat("Ab3-_", 12<<10)
	c := client(t, httpsend.Options{Allow: local, Secrets: secrets(map[string]string{"TOKEN": token})})
	const timeout = 20 * time.Second
	s := sender(t, c, httpsend.Target{
		URL: e.URL, MaxResponse: size, Timeout: timeout, Auth: httpsend.Bearer{Token: reference(t, "${env:MILLRACE_SECRET_TOKEN}")},
	})
	r := s.Send(t.Context(), httpsend.Call{Body: []byte("{}")})
	if r.Class != httpsend.ClassMaxResponse || r.Latency > timeout {
		t.Errorf("after %v: %+v", r.Latency, r)
	}
}

// A key that was put into a body or a query is found however it comes back.
func TestPropertiesAreHidden(t *testing.T) {
	t.Parallel()
	const key = `pl4/"<é>+& x`
	e := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.WriteHeader(http.StatusBadRequest)
		_, _ = fmt.Fprintf(w, "%s %q %x\n", body, body, body)
		_, _ = io.WriteString(w, r.URL.RawQuery+base64.StdEncoding.EncodeToString([]byte("?"+r.URL.RawQuery)))
	}))
	t.Cleanup(e.Close)
	for _, method := range []string{http.MethodPost, http.MethodGet} {
		s := sender(t, client(t, httpsend.Options{Allow: local}), httpsend.Target{URL: e.URL, Method: method, Auth: httpsend.InProperty{Name: "k", Value: reference(t, key)}})
		call := httpsend.Call{Body: []byte("{}")}
		if method == http.MethodGet {
			call = httpsend.Call{}
		}
		r := s.Send(t.Context(), call)
		text := string(r.Response)
		if !strings.Contains(text, "[secret]") || strings.Contains(text, "pl4") || strings.Contains(text, "cGw0") || strings.Contains(text, "706c34") {
			t.Errorf("%s: %s", method, text)
		}
	}
}
