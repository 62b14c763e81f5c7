package main

import (
	"net/http"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/millrace-io/millrace/pipeline/httpsend"
	"github.com/millrace-io/millrace/pipeline/pipelinetest"
	"github.com/millrace-io/millrace/pipeline/state"
)

// surveyYAML is a webhook with a clause of each kind, to a destination.
const surveyYAML = `kind: Webhook
name: to-crm
event: survey.submitted
condition: |
  props["survey_type"] == "nps" and (props["nps_score"] == 4 or not (lower(props["comment"]) contains "great"))
properties:
  - from: wm.euid
    as: user
  - from: nps_score
  - from: comment
    required: true
destination: crm
`

// toReceiver is that destination at a receiver, with secrets everywhere.
func toReceiver(url string) string {
	return "kind: Destination\nname: crm\nrequest:\n  url: " + url + "/hook?k=${env:MILLRACE_SECRET_TEST_QUERY}\n" +
		"  headers:\n    X-Key: ${file:key}\nauth:\n  type: bearer\n  token: ${env:MILLRACE_SECRET_TEST_TOKEN}\nlimits:\n  timeout: 1s\n---\n"
}

// changing is what differs from run to run of a test.
var changing = regexp.MustCompile(`example-[a-z0-9]{10}|test-[a-z0-9]{10}|[0-9a-f]{32}|\d{4}-\d\d-\d\dT[\d:.]+Z|"created_at":\d+|webhook-timestamp: \d+|127\.0\.0\.1:\d+|in [\d.]+[mµ]?s|"value":"\d{10}"|"latency_ms":[\d.]+`)

func steady(text string) string { return changing.ReplaceAllString(text, "_") }

func TestTest(t *testing.T) {
	t.Parallel()
	file := tempFile(t, "crm.yaml", toReceiver("https://crm.example.com")+surveyYAML)
	// The first example has 9 and a great comment.
	r := commandLine(t, "", "test", "-f", file).must(t)
	golden(t, "test-generated", steady(r.out))
	golden(t, "test-generated-json", steady(commandLine(t, "", "test", "to-crm", "-f", file, "--json").must(t).out))

	wrong := `{"type":"survey.submitted","environment":"qa","properties":{"nps_score":"many","survey_type":null}}`
	r = commandLine(t, wrong, "test", "-f", file, "--event", "-")
	r.fails(t, exitFailed, "")
	golden(t, "test-not-firing", steady(r.out))
	if r.err != "" {
		t.Errorf("beside that it says %s", r.err)
	}
	given := tempFile(t, "event.json", `{"id":"mine","type":"survey.submitted","user":"u-1","properties":{"nps_score":4,"survey_type":"nps","comment":"<b>"}}`)
	r = commandLine(t, "", "test", "-f", file, "--event", given).must(t)
	for _, says := range []string{`Event {"id":"mine"`, `{"user":"u-1","nps_score":4,"comment":"<b>"}`} {
		if !strings.Contains(r.out, says) {
			t.Errorf("%s is not said in %s", says, r.out)
		}
	}
}

// TestTestGenerates: an event that fires is found where the condition shows what
// it takes, and where none is, it says so.
func TestTestGenerates(t *testing.T) {
	t.Parallel()
	for spec, want := range map[string]string{
		"event: menu.opened": "It fires: it has no condition",
		"event: smart_walk_thru.goal_reached\ncondition: |\n  props[\"walk_thru_id\"] == 999 and event.user == \"me\"":                                              `"user":"me"`,
		"event: dxa.page_view\nsystem: shop\nenvironment: qa\ncondition: |\n  props[\"url\"] matches \"^https://a[0-9]+\"":                                          `"system":"shop","environment":"qa"`,
		"event: [billing.paid, menu.opened]\ncondition: |\n  props[\"amount\"] > 100":                                                                               `"amount":101`,
		"event: [launcher.clicked, shoutout.dismissed]\ncondition: |\n  event.type == \"shoutout.dismissed\"\nproperties:\n  - {from: shoutout_id, required: true}": `{"shoutout_id":`,
		"event: [launcher.clicked, menu.searched]\nproperties:\n  - {from: query, required: true}":                                                                  `{"query":`,
		"event: menu.opened\ncondition: |\n  len(props[\"ctx.title\"]) * 3 == 7":                                                                                    "it fires for none of the 9 that were tried",
	} {
		text := destinationYAML + "---\nkind: Webhook\nname: w\ndestination: crm\n" + spec + "\n"
		r := commandLine(t, text, "test", "-f", "-")
		if fires := strings.Contains(r.out, "It fires: "); !strings.Contains(r.out, want) || fires != (r.code == exitOK) || fires == strings.Contains(r.out, "none of the") {
			t.Errorf("%s: exit code %d, expected %q in\n%s%s", spec, r.code, want, r.out, r.err)
		}
	}
}

func TestTestProblems(t *testing.T) {
	t.Parallel()
	file := tempFile(t, "crm.yaml", strings.Replace(toReceiver("https://crm.example.com"), "timeout: 1s", "timeout: 1s\nstatus: paused", 1)+
		strings.Replace(surveyYAML, "destination: crm\n", "destination: crm\nstatus: paused\n", 1))
	noComment := `{"type":"survey.submitted","properties":{"nps_score":4,"survey_type":"nps"}}`
	r := commandLine(t, noComment, "test", "-f", file, "--event", "-", "--send", "--yes")
	r.fails(t, exitFailed, "")
	for _, says := range []string{
		"Problem: no request can be made: ", "comment", "dead letter: property_missing",
		"Note: the webhook is paused", "Note: the destination is paused", "Note: nothing is sent",
	} {
		if !strings.Contains(r.out, says) {
			t.Errorf("%q is not said in\n%s", says, r.out)
		}
	}
	for says, args := range map[string][]string{
		"nothing to test":      {"test"},
		"add --yes":            {"test", "-f", file, "--send"},
		"can't both come":      {"test", "-f", "-", "--event", "-"},
		"expected a CIDR":      {"test", "-f", file, "--egress-allow", "not an address"},
		"no such file":         {"test", "-f", file, "--event", "none.json"},
		"did you mean to-crm?": {"test", "-f", file, "to-crn"},
		"--event " + file + ": reading the event: ":         {"test", "-f", file, "--event", file},
		"there is no webhook in the ":                       {"test", "-f", tempFile(t, "d.yaml", destinationYAML)},
		"unknown destination":                               {"test", "-f", tempFile(t, "w.yaml", webhookYAML)},
		"note: only the files that are given are looked at": {"check", tempFile(t, "w.yaml", webhookYAML)},
	} {
		r := commandLine(t, "", args...)
		if r.code == exitOK || !strings.Contains(r.err, says) {
			t.Errorf("%v: exit code %d, expected %q in %s", args, r.code, says, r.err)
		}
	}
}

// Secrets that are written out in a file are shown by no command that reads it.
func TestTestHidesWrittenSecrets(t *testing.T) {
	t.Parallel()
	file := tempFile(t, "slack.yaml", `kind: Destination
name: slack
preset: slack
request: {url: https://hooks.slack.com/services/T000/B000/SECRET123, headers: {X-Auth: SECRET123, X-Team: crm}}
---
kind: Destination
name: ga4
preset: ga4
request: {url: "https://ga.example/mp?measurement_id=G-1&api_secret=SECRET123"}
---
kind: Webhook
name: to-slack
event: survey.submitted
properties: [{name: text, value: hello}]
destination: slack
---
kind: Webhook
name: to-ga4
event: survey.submitted
properties: [{name: client_id, value: hello}, {name: /events/0/name, value: e}]
destination: ga4
`)
	for _, more := range [][]string{nil, {"--json"}} {
		r := commandLine(t, "", append([]string{"test", "-f", file}, more...)...).must(t)
		for _, says := range []string{"https://hooks.slack.com/services/[secret]", "https://ga.example/mp?measurement_id=G-1&api_secret=[secret]", "crm"} {
			if !strings.Contains(r.out, says) {
				t.Errorf("%s is not said in %s", says, r.out)
			}
		}
		if strings.Contains(r.out+r.err, "SECRET123") {
			t.Errorf("it shows a secret: %s%s", r.out, r.err)
		}
	}
}

func TestTestFromKafka(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.runWith(bothYAML, "apply", "-").must(t)
	r := h.run("test", "to-crm").must(t)
	if !strings.Contains(r.out, `props["nps_score"] <= 6`) || !strings.Contains(r.out, "POST https://crm.example.com/") {
		t.Errorf("it shows %s", r.out)
	}
	h.run("test", "to-cmr").fails(t, exitFailed, `there is no webhook "to-cmr"; did you mean to-crm?`)
	h.setStates(state.State{Destination: "crm", Status: state.Paused, By: state.BySink, Reason: state.Refused, Detail: "401", Since: time.Now()})
	says(t, h.run("test", "to-crm").must(t).out, "Note: the destination is paused, so its deliveries wait (401); `millrace destinations show crm` says what to do")
}

// TestTestExamples: an event is generated for which each of the examples fires,
// and makes a request that keeps its platform's contract.
func TestTestExamples(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("../../deploy/examples/*.yaml")
	if err != nil || len(files) < 8 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		r := commandLine(t, "", "test", "-f", file)
		if r.code != exitOK || strings.Contains(r.out, "Problem: ") {
			t.Errorf("%s: exit code %d\n%s%s", file, r.code, r.out, r.err)
		}
	}
}

// testSecrets are what no output may hold.
var testSecrets = map[string]string{"QUERY": "qu3ry-s3cret", "TOKEN": "t0ken-s3cret", "key": "k3y-s3cret"}

// sendTest runs `millrace test --send` with secrets, to a receiver.
func sendTest(t *testing.T, e *pipelinetest.Endpoint, args ...string) result {
	t.Helper()
	file := tempFile(t, "crm.yaml", toReceiver(e.URL)+surveyYAML)
	dir := strings.TrimSuffix(tempFile(t, "key", testSecrets["key"]), "/key")
	all := append([]string{"test", "-f", file, "--secrets-dir", dir, "--egress-allow", "127.0.0.0/8"}, args...)
	r := commandLine(t, "", all...)
	for name, s := range testSecrets {
		if strings.Contains(r.out+r.err, s) {
			t.Errorf("the secret %s is shown in\n%s%s", name, r.out, r.err)
		}
	}
	return r
}

// TestTestSend must not run beside others: it sets variables.
func TestTestSend(t *testing.T) {
	t.Setenv("MILLRACE_SECRET_TEST_QUERY", testSecrets["QUERY"])
	t.Setenv("MILLRACE_SECRET_TEST_TOKEN", testSecrets["TOKEN"])
	e := pipelinetest.Receiver(t)
	if sendTest(t, e).must(t); e.Count() != 0 {
		t.Fatalf("%d calls without --send", e.Count())
	}
	r := sendTest(t, e, "--send", "--yes").must(t)
	if !strings.Contains(r.out, "\nTested Successfully!  200 OK in ") || !strings.Contains(r.err, "Sending generated data to the real platform: POST http://127.0.0.1:") {
		t.Errorf("it says %s%s", r.out, r.err)
	}
	call := e.Calls()[0]
	if call.Header.Get("Authorization") != "Bearer "+testSecrets["TOKEN"] || call.Header.Get("X-Key") != testSecrets["key"] ||
		call.Query != "k="+testSecrets["QUERY"] || !strings.Contains(r.out, "\n  "+string(call.Body)+"\n") || !strings.Contains(r.out, call.ID()) {
		t.Errorf("the call was %+v, shown was %s", call, r.out)
	}
	j := objects(t, sendTest(t, e, "--send", "--yes", "--json").must(t).out)[0]
	if sent, _ := j["sent"].(map[string]any); sent["successful"] != true || sent["status"] != 200.0 {
		t.Errorf("as JSON it says %v", j["sent"])
	}
	e.Answer(func(c *pipelinetest.Call) pipelinetest.Answer { // it echoes all that it was sent
		return pipelinetest.Answer{Status: http.StatusUnauthorized, Body: []byte(c.Query + c.Header.Get("Authorization") + c.Header.Get("X-Key"))}
	})
	r = sendTest(t, e, "--send", "--yes")
	r.fails(t, exitFailed, "")
	for _, says := range []string{"The test failed: destination responded 401 Unauthorized (in ", "Response: k=[secret]Bearer [secret][secret]", "Look at: the credentials"} {
		if !strings.Contains(r.out, says) {
			t.Errorf("%q is not said in %s", says, r.out)
		}
	}
	sendTest(t, e, "--send", "--yes", "--json").fails(t, exitFailed, "")
	e.Answer(func(*pipelinetest.Call) pipelinetest.Answer { return pipelinetest.Answer{Delay: time.Minute} })
	if r = sendTest(t, e, "--send", "--yes"); r.code != exitFailed || !strings.Contains(r.out, "Look at: limits.timeout") {
		t.Errorf("of a destination that does not answer it says %s", r.out)
	}
	e.Refuse()
	if r = sendTest(t, e, "--send", "--yes"); r.code != exitFailed || !strings.Contains(r.out, "Look at: host and port") {
		t.Errorf("of a destination that is down it says %s", r.out)
	}
}

// TestTestSendBlocked: without --egress-allow, no private address is called, and
// a secret that is missing is a problem.
func TestTestSendBlocked(t *testing.T) {
	t.Parallel()
	e := pipelinetest.Receiver(t)
	text := strings.ReplaceAll(bothYAML, "https://crm.example.com", e.URL)
	r := commandLine(t, text, "test", "-f", "-", "--send", "--yes")
	if r.code != exitFailed || !strings.Contains(r.out, "Look at: --egress-allow") || e.Count() != 0 {
		t.Errorf("exit code %d, %d calls: %s", r.code, e.Count(), r.out)
	}
	text = strings.ReplaceAll(bothYAML, "https://crm.example.com/", e.URL+"/${env:MILLRACE_SECRET_TEST_NONE}")
	r = commandLine(t, text, "test", "-f", "-", "--send", "--yes")
	if r.code != exitFailed || !strings.Contains(r.out, "Problem: secret ${env:MILLRACE_SECRET_TEST_NONE} is missing") || e.Count() != 0 {
		t.Errorf("exit code %d, %d calls: %s", r.code, e.Count(), r.out)
	}
}

// TestLookAt: there is something to look at after every failure.
func TestLookAt(t *testing.T) {
	t.Parallel()
	for status := 100; status < 600; status++ {
		if text := lookAt(&httpsend.Result{Status: status}); text == "" {
			t.Errorf("nothing to look at after %d", status)
		}
	}
	for status, says := range map[int]string{401: "credentials", 403: "may do", 404: "request.url", 302: "another address", 422: "body", 408: "tried again", 503: "is down", 429: "limits.rate"} {
		if text := lookAt(&httpsend.Result{Status: status}); !strings.Contains(text, says) {
			t.Errorf("after %d: %s", status, text)
		}
	}
	seen := map[string]httpsend.Class{}
	for _, class := range []httpsend.Class{
		httpsend.ClassDNS, httpsend.ClassConnect, httpsend.ClassTLS, httpsend.ClassTimeout, httpsend.ClassNetwork, httpsend.ClassProtocol,
		httpsend.ClassBlocked, httpsend.ClassSecret, httpsend.ClassToken, httpsend.ClassTooLarge, httpsend.ClassInvalid, httpsend.ClassCanceled,
	} {
		text := lookAt(&httpsend.Result{Class: class})
		if other, twice := seen[text]; twice || text == "" {
			t.Errorf("after %s: %q, as after %s", class, text, other)
		}
		seen[text] = class
	}
}
