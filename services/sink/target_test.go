package sink

import (
	"encoding/base64"
	"net/http"
	"strings"
	"testing"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/millrace-io/millrace/pipeline"
	"github.com/millrace-io/millrace/pipeline/httpsend"
	"github.com/millrace-io/millrace/pipeline/pipelinetest"
	"github.com/millrace-io/millrace/pipeline/secret"
)

// TestCallsAreAsTheDestinationSays has destinations with each key that shapes a
// call, and looks at what arrives.
func TestCallsAreAsTheDestinationSays(t *testing.T) {
	t.Parallel()
	newer, older := "whsec_"+base64.StdEncoding.EncodeToString(make([]byte, 24)), "whsec_"+base64.StdEncoding.EncodeToString([]byte("0123456789abcdef01234567"))
	values := map[string]string{"MILLRACE_SECRET_T": "t0ken", "MILLRACE_SECRET_NEW": newer, "MILLRACE_SECRET_OLD": older}
	signed := func(t *testing.T, key string, c *pipelinetest.Call) {
		t.Helper()
		w, err := standardwebhooks.NewWebhook(key)
		if err == nil {
			err = w.Verify(c.Body, c.Header)
		}
		if err != nil {
			t.Errorf("the signature does not verify: %v", err)
		}
	}
	has := func(name, want string) func(*testing.T, *pipelinetest.Call) {
		return func(t *testing.T, c *pipelinetest.Call) {
			t.Helper()
			if got := c.Header.Get(name); got != want {
				t.Errorf("%s is %q, expected %q", name, got, want)
			}
		}
	}
	for name, c := range map[string]struct {
		more string
		look func(*testing.T, *pipelinetest.Call)
	}{
		"no auth":  {"", has("Authorization", "")},
		"bearer":   {"auth: {type: bearer, token: '${env:MILLRACE_SECRET_T}'}", has("Authorization", "Bearer t0ken")},
		"basic":    {"auth: {type: basic, username: me, password: '${env:MILLRACE_SECRET_T}'}", has("Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte("me:t0ken")))},
		"header":   {"auth: {type: header, name: X-Api-Key, value: '${env:MILLRACE_SECRET_T}'}", has("X-Api-Key", "t0ken")},
		"unsigned": {"", has("Webhook-Signature", "")},
		"signed": {"signing: {secret: '${env:MILLRACE_SECRET_NEW}', previous_secret: '${env:MILLRACE_SECRET_OLD}'}", func(t *testing.T, c *pipelinetest.Call) {
			signed(t, newer, c)
			signed(t, older, c)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := pipelinetest.Receiver(t)
			h := build(t, strings.Replace(hooked("crm", c.more), "https://crm.example", r.URL, 1))
			h.overHTTPWith(httpsend.Options{Secrets: &secret.Resolver{Env: func(name string) (string, bool) { v, ok := values[name]; return v, ok }}})
			if got := h.became(h.takes(t.Context(), h.slipOf(h.delivery("crm")))); got.ending != pipeline.Delivered {
				t.Fatalf("it became %+v", got)
			}
			c.look(t, &r.Calls()[0])
		})
	}
}

// TestResponsesMeanWhatTheDestinationSays overrides what statuses mean.
func TestResponsesMeanWhatTheDestinationSays(t *testing.T) {
	t.Parallel()
	for status, want := range map[int]pipeline.Ending{
		http.StatusNotFound: pipeline.Delivered, http.StatusBadGateway: pipeline.DeadLettered, http.StatusConflict: "", http.StatusOK: pipeline.Delivered,
	} {
		r := pipelinetest.Receiver(t, pipelinetest.Answering(func(*pipelinetest.Call) pipelinetest.Answer {
			return pipelinetest.Answer{Status: status}
		}))
		text := hooked("crm", "responses: {404: success, 4xx: retry, 5xx: dead_letter}")
		h := build(t, strings.Replace(text, "https://crm.example", r.URL, 1))
		h.overHTTP()
		if got := h.became(h.takes(t.Context(), h.slipOf(h.delivery("crm")))); got.ending != want {
			t.Errorf("%d: it became %+v, expected %q", status, got, want)
		}
	}
}
