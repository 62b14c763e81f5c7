package httpsend_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/millrace-io/millrace/pipeline/httpsend"
	"github.com/millrace-io/millrace/pipeline/pipelinetest"
	"github.com/millrace-io/millrace/pipeline/secret"
)

// The secrets of a rotation, and one that nobody has.
var (
	oldSecret    = "whsec_" + base64.StdEncoding.EncodeToString([]byte("the old key, of 24 bytes"))
	newSecret    = "whsec_" + base64.StdEncoding.EncodeToString([]byte("the new key, which is longer: 64 bytes, the most that may be. ::"))
	foreignKey   = "whsec_" + base64.StdEncoding.EncodeToString([]byte("somebody else's key, 32 bytes..."))
	signedBodies = []string{`{"a":1}`, `{"text":"é \u0000 and a long one ` + strings.Repeat("x", 100_000) + `"}`, ``}
)

// TestSignaturesVerify has calls checked by the packages that receivers use, of
// Go and of npm: what was signed with one secret or, during a rotation, with
// both.
func TestSignaturesVerify(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		values   map[string]string
		signing  httpsend.Signing
		verifies []string // the secrets of receivers
	}{
		"before":   {map[string]string{"NOW": oldSecret}, httpsend.Signing{Secret: reference(t, "${env:MILLRACE_SECRET_NOW}")}, []string{oldSecret}},
		"bare":     {map[string]string{"NOW": oldSecret[6:]}, httpsend.Signing{Secret: reference(t, "whsec_${env:MILLRACE_SECRET_NOW}")}, []string{oldSecret}},
		"rotation": {map[string]string{"NOW": newSecret, "OLD": oldSecret}, httpsend.Signing{Secret: reference(t, "${env:MILLRACE_SECRET_NOW}"), Previous: reference(t, "${env:MILLRACE_SECRET_OLD}")}, []string{oldSecret, newSecret}},
		"after":    {map[string]string{"NOW": newSecret}, httpsend.Signing{Secret: reference(t, "${env:MILLRACE_SECRET_NOW}")}, []string{newSecret}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := pipelinetest.Receiver(t)
			s := sender(t, client(t, httpsend.Options{Allow: local, Secrets: secrets(c.values)}), httpsend.Target{URL: e.URL, Signing: c.signing})
			for i, body := range signedBodies {
				if r := s.Send(t.Context(), httpsend.Call{ID: fmt.Sprint("d", i), Body: []byte(body)}); r.Outcome != httpsend.Success {
					t.Fatalf("%+v", r)
				}
			}
			var received []signed
			var want []bool
			for _, call := range e.Calls() {
				for _, key := range []string{oldSecret, newSecret, foreignKey} {
					received, want = append(received, signed{key, headers(&call), call.Body}), append(want, slices.Contains(c.verifies, key))
				}
				received, want = append(received, signed{c.verifies[0], headers(&call), append(slices.Clone(call.Body), ' ')}), append(want, false)
				if n := len(strings.Fields(call.Header.Get("webhook-signature"))); n != len(c.verifies) {
					t.Errorf("%d signatures", n)
				}
			}
			for _, receiver := range []struct {
				language string
				verifies func(*testing.T, []signed) []bool
			}{{"Go", verifiesInGo}, {"Node.js", verifiesInNode}} {
				t.Run(receiver.language, func(t *testing.T) {
					t.Parallel()
					for i, verifies := range receiver.verifies(t, received) {
						if r := received[i]; verifies != want[i] {
							t.Errorf("%s with the key %s verifies: %v, expected %v", r.Headers["webhook-id"], r.Key, verifies, want[i])
						}
					}
				})
			}
		})
	}
}

// signed is a call as a receiver with this key gets it.
type signed struct {
	Key     string            `json:"key"`
	Headers map[string]string `json:"headers"`
	Body    []byte            `json:"body"`
}

func headers(call *pipelinetest.Call) map[string]string {
	out := map[string]string{}
	for _, name := range []string{"webhook-id", "webhook-timestamp", "webhook-signature"} {
		out[name] = call.Header.Get(name)
	}
	return out
}

func verifiesInGo(t *testing.T, received []signed) (out []bool) {
	for _, r := range received {
		h := http.Header{}
		for name, value := range r.Headers {
			h.Set(name, value)
		}
		w, err := standardwebhooks.NewWebhook(r.Key)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, w.Verify(r.Body, h) == nil)
	}
	return out
}

func verifiesInNode(t *testing.T, received []signed) (out []bool) {
	const dir = "testdata/npm"
	if _, err := os.Stat(filepath.Join(dir, "node_modules")); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip("needs Node.js, and: make npm")
	}
	in, err := json.Marshal(received)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "node", "verify.js")
	cmd.Dir, cmd.Stdin, cmd.Stderr = dir, bytes.NewReader(in), t.Output()
	text, err := cmd.Output()
	if err == nil {
		err = json.Unmarshal(text, &out)
	}
	if err != nil || len(out) != len(received) {
		t.Fatalf("%d answers, %v: %s", len(out), err, text)
	}
	return out
}

func verify(t *testing.T, key string, call *pipelinetest.Call, body []byte) error {
	t.Helper()
	w, err := standardwebhooks.NewWebhook(key)
	if err != nil {
		t.Fatal(err)
	}
	return w.Verify(body, call.Header)
}

// With GET there is no body, and with a time of its own an attempt is signed for
// that time.
func TestSignatureOfGet(t *testing.T) {
	t.Parallel()
	e := pipelinetest.Receiver(t)
	s := sender(t, client(t, httpsend.Options{Allow: local, Secrets: secrets(map[string]string{"NOW": newSecret})}), httpsend.Target{
		Method: "GET", URL: e.URL, Signing: httpsend.Signing{Secret: reference(t, "${env:MILLRACE_SECRET_NOW}")},
	})
	at := time.Now().Add(-time.Minute)
	if r := s.Send(t.Context(), httpsend.Call{ID: "1", Query: []byte("a=b"), At: at}); r.Outcome != httpsend.Success {
		t.Fatalf("%+v", r)
	}
	call := e.Calls()[0]
	if err := verify(t, newSecret, &call, nil); err != nil || call.Header.Get("webhook-timestamp") != fmt.Sprint(at.Unix()) {
		t.Errorf("%v, %v", err, call.Header)
	}
}

// What is signed is the body as it is sent, with a property of authentication.
func TestSignatureCoversTheProperty(t *testing.T) {
	t.Parallel()
	e := pipelinetest.Receiver(t)
	s := sender(t, client(t, httpsend.Options{Allow: local, Secrets: secrets(map[string]string{"NOW": newSecret, "KEY": "k"})}), httpsend.Target{
		URL: e.URL, Signing: httpsend.Signing{Secret: reference(t, "${env:MILLRACE_SECRET_NOW}")},
		Auth: httpsend.InProperty{Name: "key", Value: reference(t, "${env:MILLRACE_SECRET_KEY}")},
	})
	if r := s.Send(t.Context(), httpsend.Call{ID: "1", Body: []byte(`{}`)}); r.Outcome != httpsend.Success {
		t.Fatalf("%+v", r)
	}
	call := e.Calls()[0]
	if err := verify(t, newSecret, &call, []byte(`{"key":"k"}`)); err != nil {
		t.Errorf("%v, %s", err, call.Body)
	}
}

// A secret that can't sign is waited for, named and not shown.
func TestSigningWaitsForItsSecrets(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		values map[string]string
		want   string
	}{
		"missing":           {map[string]string{"OLD": oldSecret}, "secret ${env:MILLRACE_SECRET_NOW} is missing"},
		"previous missing":  {map[string]string{"NOW": newSecret}, "secret ${env:MILLRACE_SECRET_OLD} is missing"},
		"no prefix":         {map[string]string{"NOW": newSecret[6:], "OLD": oldSecret}, "signing with ${env:MILLRACE_SECRET_NOW}: expected a secret that begins with whsec_"},
		"no base64":         {map[string]string{"NOW": newSecret, "OLD": "whsec_pl4nted!"}, "signing with ${env:MILLRACE_SECRET_OLD}: expected base64"},
		"too short":         {map[string]string{"NOW": "whsec_cGw0bnRlZA==", "OLD": oldSecret}, "found a key of 7 bytes"},
		"prefix given only": {map[string]string{"NOW": "whsec_", "OLD": oldSecret}, "found a key of 0 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := pipelinetest.Receiver(t)
			s := sender(t, client(t, httpsend.Options{Allow: local, Secrets: secrets(c.values)}), httpsend.Target{
				URL: e.URL, Signing: httpsend.Signing{Secret: reference(t, "${env:MILLRACE_SECRET_NOW}"), Previous: reference(t, "${env:MILLRACE_SECRET_OLD}")},
			})
			r := s.Send(t.Context(), httpsend.Call{ID: "1"})
			if r.Outcome != httpsend.NotSent || r.Class != httpsend.ClassSecret || e.Count() != 0 {
				t.Fatalf("%+v", r)
			}
			for _, err := range []error{r.Err, s.Ready()} {
				if err == nil || !strings.Contains(err.Error(), c.want) {
					t.Errorf("%v, expected %q", err, c.want)
				}
				for _, v := range c.values {
					if len(v) > 6 && strings.Contains(fmt.Sprint(err), v[6:]) {
						t.Errorf("a secret is seen in %v", err)
					}
				}
			}
			if _, missing := errors.AsType[*secret.MissingError](r.Err); missing != strings.Contains(c.want, "missing") {
				t.Errorf("%v", r.Err)
			}
		})
	}
}

// A destination that echoes a signing secret, which it has too, is not quoted.
func TestSigningSecretsAreNotShown(t *testing.T) {
	t.Parallel()
	e := pipelinetest.Receiver(t, pipelinetest.Answering(func(*pipelinetest.Call) pipelinetest.Answer {
		return pipelinetest.Answer{Status: 400, Body: []byte("expected a signature by " + newSecret + " or " + oldSecret[6:])}
	}))
	s := sender(t, client(t, httpsend.Options{Allow: local, Secrets: secrets(map[string]string{"NOW": newSecret, "OLD": oldSecret})}), httpsend.Target{
		URL: e.URL, Signing: httpsend.Signing{Secret: reference(t, "${env:MILLRACE_SECRET_NOW}"), Previous: reference(t, "${env:MILLRACE_SECRET_OLD}")},
	})
	r := s.Send(t.Context(), httpsend.Call{ID: "1"})
	if got := string(r.Response); got != "expected a signature by [secret] or [secret]" {
		t.Errorf("%q", got)
	}
}
