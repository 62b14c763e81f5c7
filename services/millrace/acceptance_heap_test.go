package main

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/pipeline/pipelinetest"
)

// heapWalkThrough is what a user ticks and adds, and no more.
const heapWalkThrough = `kind: Destination
name: heap
preset: heap
request:
  url: %s/api/track
---
kind: Webhook
name: goal-to-heap
event: smart_walk_thru.goal_reached
properties:
  - from: wm.euid
    as: identity
  - name: app_id
    value: "11"
  - name: event
    value: Walk-Thru Goal Reached
destination: heap
`

// The walk-through of Heap: tick the user's id, rename it, add two properties,
// press Test. What Heap would refuse is caught before, with its name.
func TestHeapWalkThrough(t *testing.T) {
	t.Parallel()
	heap := platforms["heap"]
	e := pipelinetest.Receiver(t, pipelinetest.Answering(func(c *pipelinetest.Call) pipelinetest.Answer {
		if err := heap.check(c); err != nil {
			return pipelinetest.Answer{Status: http.StatusBadRequest, Body: []byte(err.Error())}
		}
		return pipelinetest.Answer{}
	}))
	text := fmt.Sprintf(heapWalkThrough, e.URL)
	send := func(text string, more ...string) result {
		t.Helper()
		args := []string{"test", "-f", tempFile(t, "heap.yaml", text), "--send", "--yes", "--egress-allow", "127.0.0.0/8"}
		return commandLine(t, "", append(args, more...)...)
	}
	r := send(text).must(t)
	says(t, r.out, "Tested Successfully!", `{"identity":"u-10427","app_id":"11","event":"Walk-Thru Goal Reached"}`)
	if e.Count() != 1 {
		t.Errorf("%d calls", e.Count())
	}
	noApp := strings.Replace(text, "  - name: app_id\n    value: \"11\"\n", "", 1)
	send(noApp).fails(t, exitFailed, "app_id")
	event := `{"type":"smart_walk_thru.goal_reached","user":"` + strings.Repeat("x", 256) + `"}`
	r = send(text, "--event", tempFile(t, "event.json", event))
	r.fails(t, exitFailed, "")
	says(t, r.out, "Problem: no request can be made: ", "identity", "256", "255", "contract_broken", "nothing is sent")
	r = send(text, "--event", tempFile(t, "event.json", strings.Replace(event, "xx", "", 1)))
	says(t, r.must(t).out, "Tested Successfully!")
	if e.Count() != 2 {
		t.Errorf("%d calls", e.Count())
	}
}

// TestTestSendWithoutToken: where no access token is to be had, nobody is called,
// and it says where to look.
func TestTestSendWithoutToken(t *testing.T) {
	t.Parallel()
	e := pipelinetest.Receiver(t, pipelinetest.Answering(func(c *pipelinetest.Call) pipelinetest.Answer {
		if c.Path == "/token" {
			return pipelinetest.Answer{Status: http.StatusOK, Body: []byte("<html>Log in")}
		}
		return pipelinetest.Answer{}
	}))
	secrets := strings.TrimSuffix(tempFile(t, "client", "s3cret-of-client"), "/client")
	text := fmt.Sprintf("kind: Destination\nname: crm\nrequest: {url: %[1]s/hook}\nauth:\n  type: oauth2\n  grant: client_credentials\n"+
		"  token_url: %[1]s/token\n  client_id: me\n  client_secret: ${file:client}\n---\n", e.URL) + webhookYAML
	r := commandLine(t, text, "test", "-f", "-", "--secrets-dir", secrets, "--egress-allow", "127.0.0.0/8")
	says(t, r.must(t).out, "${file:client}")
	if e.Count() != 0 {
		t.Errorf("%d calls without --send", e.Count())
	}
	r = commandLine(t, text, "test", "-f", "-", "--secrets-dir", secrets, "--egress-allow", "127.0.0.0/8", "--send", "--yes")
	r.fails(t, exitFailed, "")
	says(t, r.out, "The test failed: ", "Look at: auth of the destination: token_url")
	if strings.Contains(r.out+r.err, "s3cret") {
		t.Errorf("the secret is shown in %s%s", r.out, r.err)
	}
	for _, c := range e.Calls() {
		if c.Path != "/token" {
			t.Errorf("%s was called", c.Path)
		}
	}
}
