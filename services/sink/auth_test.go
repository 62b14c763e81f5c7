package sink

import (
	"net/http"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/pipeline/definition"
	"github.com/millrace-io/millrace/pipeline/event"
	"github.com/millrace-io/millrace/pipeline/httpsend"
	"github.com/millrace-io/millrace/pipeline/pipelinetest"
	"github.com/millrace-io/millrace/pipeline/secret"
)

// TestAuthentication has for each way to authenticate, from its definition to
// the server that it is for: what is right is let in, what is wrong is refused,
// and what is missing is waited for.
func TestAuthentication(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		auth  string // with ${env:MILLRACE_SECRET_KEY}
		right string // value of KEY
		lets  func(*pipelinetest.Call) bool
	}{
		"bearer": {
			auth: `{type: bearer, token: "${env:MILLRACE_SECRET_KEY}"}`, right: "t0ken",
			lets: func(c *pipelinetest.Call) bool { return c.Header.Get("Authorization") == "Bearer t0ken" },
		},
		"basic": {
			auth: `{type: basic, username: me, password: "${env:MILLRACE_SECRET_KEY}"}`, right: "p4ss",
			lets: func(c *pipelinetest.Call) bool { return c.Header.Get("Authorization") == "Basic bWU6cDRzcw==" },
		},
		"header": {
			auth: `{type: header, name: X-Api-Key, value: "key ${env:MILLRACE_SECRET_KEY}"}`, right: "s3cret",
			lets: func(c *pipelinetest.Call) bool {
				return c.Header.Get("X-Api-Key") == "key s3cret" && c.Header.Get("Authorization") == ""
			},
		},
		"property": {
			auth: `{type: property, name: /properties/token, value: "${env:MILLRACE_SECRET_KEY}"}`, right: "t0ken",
			lets: func(c *pipelinetest.Call) bool { return string(c.Body) == `{"properties":{"token":"t0ken"}}` },
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			receiver := pipelinetest.Receiver(t, pipelinetest.Answering(func(call *pipelinetest.Call) pipelinetest.Answer {
				if c.lets(call) {
					return pipelinetest.Answer{}
				}
				return pipelinetest.Answer{Status: http.StatusUnauthorized}
			}))
			text := "kind: Destination\nname: crm\nrequest: {url: \"" + receiver.URL + "\"}\nauth: " + c.auth + "\n"
			for value, want := range map[string]httpsend.Outcome{
				c.right: httpsend.Success, c.right + "-wrong": httpsend.Pause, "": httpsend.NotSent,
			} {
				r := senderOf(t, text, value).Send(t.Context(), httpsend.Call{ID: "1", Body: []byte(`{}`)})
				if r.Outcome != want {
					t.Errorf("with %q: %+v", value, r)
				}
				if r.Err != nil && strings.Contains(r.Err.Error(), c.right) {
					t.Errorf("with %q, the error shows it: %v", value, r.Err)
				}
			}
		})
	}
}

// senderOf is what makes the calls to the destination that a text defines, with
// a value for MILLRACE_SECRET_KEY.
func senderOf(t *testing.T, text, value string) *httpsend.Sender {
	t.Helper()
	catalog, err := event.BuiltinCatalog()
	if err != nil {
		t.Fatal(err)
	}
	def := after(t, definition.NewSnapshot(catalog), text, false).Destinations["crm"]
	client, err := httpsend.New(httpsend.Options{
		Allow:   []string{"127.0.0.1"},
		Secrets: &secret.Resolver{Env: func(name string) (string, bool) { return value, name == secret.EnvPrefix+"KEY" }},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	s, err := client.Target(target(def))
	if err != nil {
		t.Fatal(err)
	}
	return s
}
