package sink_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/millrace-io/millrace/pipeline"
	"github.com/millrace-io/millrace/pipeline/event"
	"github.com/millrace-io/millrace/pipeline/pipelinetest"
)

// TestRunOutlastsTokens has a token that stops being valid while deliveries are
// made, first with a token endpoint that works and then with one that fails for
// a while. No delivery is lost or uses up an attempt, and the endpoint is asked
// no more often than it has to be.
func TestRunOutlastsTokens(t *testing.T) {
	t.Parallel()
	const n = 100
	var valid atomic.Int64 // the number of the token that is valid
	give := func(*pipelinetest.Call) pipelinetest.Answer {
		body := fmt.Sprintf(`{"access_token":"t0ken-%d","token_type":"bearer","expires_in":3600}`, valid.Load())
		return pipelinetest.Answer{Body: []byte(body)}
	}
	issuer := pipelinetest.Receiver(t, pipelinetest.Answering(give))
	receiver := pipelinetest.Receiver(t, pipelinetest.Answering(func(c *pipelinetest.Call) pipelinetest.Answer {
		if c.Header.Get("Authorization") != fmt.Sprint("Bearer t0ken-", valid.Load()) {
			return pipelinetest.Answer{Status: http.StatusUnauthorized}
		}
		return pipelinetest.Answer{}
	}))
	text := strings.NewReplacer("URL", receiver.URL, "TOKENS", issuer.URL).Replace(`kind: Destination
name: crm
request: {url: "URL"}
auth:
  type: oauth2
  grant: client_credentials
  token_url: TOKENS/token
  client_id: millrace
  client_secret: "${env:MILLRACE_SECRET_CLIENT}"
retry: {attempts: 1}
---
kind: Webhook
name: crm
event: launcher.clicked
destination: crm
`)
	r := run(t, text)
	next := 0
	deliver := func() {
		t.Helper()
		for range n {
			r.deliver(id(next), "crm", `{}`)
			next++
		}
	}
	deliver()
	if got := r.ledger(n); got["crm delivered"] != n || issuer.Count() != 1 {
		t.Fatalf("the ledger is %v after %d tokens", got, issuer.Count())
	}
	valid.Add(1)
	deliver()
	if got := r.ledger(2 * n); got["crm delivered"] != 2*n || issuer.Count() != 2 {
		t.Fatalf("the ledger is %v after %d tokens", got, issuer.Count())
	}
	issuer.Answer(func(*pipelinetest.Call) pipelinetest.Answer {
		return pipelinetest.Answer{Status: 500, Body: []byte("<html>")}
	})
	valid.Add(1)
	deliver()
	issuer.Wait(t, 4) // it was tried again
	if asked := issuer.Count(); asked > 5 {
		t.Errorf("a failing token endpoint was asked %d times within seconds", asked-2)
	}
	issuer.Answer(give)
	if got := r.ledger(3 * n); got["crm delivered"] != 3*n {
		t.Errorf("the ledger is %v", got)
	}
	refused := receiver.Count() - 3*n
	if refused > 3*n || issuer.Count() > 7 {
		t.Errorf("%d calls were refused, %d tokens asked for", refused, issuer.Count())
	}
	attempts := 0
	r.read(func(record *pipeline.Record) bool {
		a, err := event.ParseAttempt(record.Value)
		if err != nil || a.Attempt != 1 || a.Outcome != "success" {
			t.Errorf("%+v, %v", a, err)
		}
		attempts++
		return attempts == 3*n
	}, r.cfg.Names.Attempts())
	for delivery, times := range receiver.IDs() {
		if times > 3 {
			t.Errorf("%s was sent %d times", delivery, times)
		}
	}
}
