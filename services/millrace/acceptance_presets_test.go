package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/millrace-io/millrace/pipeline"
	"github.com/millrace-io/millrace/pipeline/definition"
	"github.com/millrace-io/millrace/pipeline/event"
	"github.com/millrace-io/millrace/pipeline/pipelinetest"
)

const examples = "../../deploy/examples"

// Each of the examples, as it is written, with no more changed than where the
// platform is and where secrets are, is delivered to a receiver that checks what
// the platform wants: every event of its tests that fires arrives once.
func TestExamplesReachTheirPlatforms(t *testing.T) {
	t.Parallel()
	commandLine(t, "", "check", examples).must(t)
	e := readExamples(t)
	for name := range e.receivers {
		e.receivers[name] = pipelinetest.Receiver(t, pipelinetest.Answering(func(c *pipelinetest.Call) pipelinetest.Answer {
			p := platforms[name]
			if err := p.check(c); err != nil {
				t.Errorf("%s: %v: %s", name, err, c.Body)
			}
			return p.take(c)
		}))
	}
	m := start(t, options{secrets: e.secrets})
	m.apply(e.definitions())
	m.produce(e.events...)
	m.settled(e.want)
	for _, r := range e.receivers {
		once(t, r)
	}
	form := "grant_type=refresh_token&refresh_token=" + secretOf("GOOGLE_REFRESH_TOKEN")
	for _, call := range e.tokens.Calls() {
		if !strings.Contains(string(call.Body), form) {
			t.Errorf("an access token is asked for with %s", call.Body)
		}
	}
}

// exampleFiles is what the examples define, and what comes of it.
type exampleFiles struct {
	t         *testing.T
	after     *definition.Snapshot
	secrets   string // directory
	receivers map[string]*pipelinetest.Endpoint
	tokens    *pipelinetest.Endpoint // where access tokens are got
	events    []pipeline.Record
	want      map[string]endings
}

func readExamples(t *testing.T) *exampleFiles {
	t.Helper()
	files, err := readFiles([]string{examples}, nil)
	if err != nil {
		t.Fatal(err)
	}
	catalog, err := event.BuiltinCatalog()
	if err != nil {
		t.Fatal(err)
	}
	after, problems := definition.Parse(files...).Check(definition.NewSnapshot(catalog))
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	e := &exampleFiles{t: t, after: after, secrets: t.TempDir(), receivers: map[string]*pipelinetest.Endpoint{}, want: map[string]endings{}}
	for name := range after.Destinations {
		if platforms[name].path == "" {
			t.Fatalf("no platform for destination %s", name)
		}
		e.receivers[name] = nil
	}
	e.tokens = pipelinetest.Receiver(t, pipelinetest.Answering(func(*pipelinetest.Call) pipelinetest.Answer {
		return pipelinetest.Answer{
			Header: http.Header{"Content-Type": {"application/json"}},
			Body:   fmt.Appendf(nil, `{"access_token":%q,"token_type":"Bearer","expires_in":3599}`, secretOf("access-token")),
		}
	}))
	e.takeEvents()
	return e
}

// takeEvents gives each event of the tests an id of its own, and counts the
// webhooks that it fires.
func (e *exampleFiles) takeEvents() {
	for name, c := range e.after.Webhooks {
		if len(c.Webhook.Tests) == 0 {
			e.t.Errorf("webhook %s has no tests", name)
		}
		for i, test := range c.Webhook.Tests {
			var members map[string]any
			if err := json.Unmarshal(test.Event, &members); err != nil {
				e.t.Fatal(err)
			}
			members["id"] = fmt.Sprint(name, "-", i)
			r := jsonEvent(e.t, members)
			e.events = append(e.events, r)
			e.count(r)
		}
	}
}

func (e *exampleFiles) count(r pipeline.Record) {
	r.Time = time.Now()
	ev, err := event.NewDecoder(nil, "").Decode(e.t.Context(), &r, e.after.Catalog)
	if err != nil {
		e.t.Fatal(err)
	}
	e.after.FilterSet().Match(ev, func(webhook string) {
		if e.want[webhook] == nil {
			e.want[webhook] = endings{}
		}
		e.want[webhook][pipeline.Matched]++
		e.want[webhook][pipeline.Delivered]++
	}, func(webhook string, err error) { e.t.Errorf("condition of %s: %v", webhook, err) })
}

var envReference = regexp.MustCompile(`\$\{(?:env:MILLRACE_SECRET_|file:)([^}]+)\}`)

// definitions are the examples with receivers in place of the platforms, and
// files that hold the secrets in place of variables.
func (e *exampleFiles) definitions() string {
	var docs []string
	for key, r := range e.after.Resources {
		var spec map[string]any
		if err := json.Unmarshal(r.Spec, &spec); err != nil {
			e.t.Fatal(err)
		}
		spec["kind"], spec["name"] = key.Kind, key.Name
		if d := e.after.Destinations[key.Name]; key.Kind == definition.KindDestination {
			request, _ := spec["request"].(map[string]any)
			if request == nil {
				request = map[string]any{}
			}
			request["url"] = e.receivers[key.Name].URL + behindHost(e.t, d.Request.URL)
			auth := d.Auth // also what is the preset's
			if auth.TokenURL != "" {
				auth.TokenURL = e.tokens.URL
			}
			spec["request"], spec["auth"] = request, auth
		}
		doc, err := json.Marshal(spec)
		if err != nil {
			e.t.Fatal(err)
		}
		docs = append(docs, envReference.ReplaceAllStringFunc(string(doc), e.secret))
	}
	return strings.Join(docs, "\n---\n")
}

// secret writes the file of a secret and returns the reference to it.
func (e *exampleFiles) secret(reference string) string {
	name := envReference.FindStringSubmatch(reference)[1]
	path := filepath.Join(e.secrets, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		e.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(secretOf(name)), 0o600); err != nil {
		e.t.Fatal(err)
	}
	return "${file:" + name + "}"
}

// behindHost is path and query of a URL, expressions and all.
func behindHost(t *testing.T, text string) string {
	t.Helper()
	_, rest, _ := strings.Cut(text, "://")
	host, path, _ := strings.Cut(rest, "/")
	if _, err := url.Parse("https://" + host); err != nil {
		t.Fatal(err)
	}
	return "/" + path
}

// heapByHand is the way of the user's manual: nothing ticked but wm.euid,
// renamed to identity; app_id and event added.
const heapByHand = `
kind: Destination
name: heap
preset: heap
request:
  url: $URL/api/track
---
kind: Webhook
name: goal-to-heap
event: smart_walk_thru.goal_reached
properties:
  - {from: wm.euid, as: identity}
  - {name: app_id, value: "11"}
  - {name: event, value: Walk-Thru Goal Reached}
destination: heap
`

// What Heap would refuse is caught with a message that names it: without app_id
// when it is applied, an identity of 256 characters as a dead letter, so that
// Heap is never called with it.
func TestHeapContract(t *testing.T) {
	t.Parallel()
	heap := platforms["heap"]
	r := pipelinetest.Receiver(t, pipelinetest.Answering(heap.take))
	m := start(t, options{})
	yaml := strings.ReplaceAll(heapByHand, "$URL", r.URL)
	without := strings.Replace(yaml, "  - {name: app_id, value: \"11\"}\n", "", 1)
	for _, command := range []string{"check", "apply"} {
		args := []string{command, "-"}
		if command == "apply" {
			args = append(args, "--brokers", strings.Join(m.cfg.Brokers, ","), "--prefix", string(m.cfg.Names))
		}
		commandLine(t, without, args...).fails(t, exitFailed, `preset "heap" of destination "heap": app_id: is missing, and required`)
	}
	m.apply(yaml)
	goal := func(id, user string) pipeline.Record {
		return jsonEvent(t, map[string]any{"type": "smart_walk_thru.goal_reached", "id": id, "user": user})
	}
	m.produce(goal("1", strings.Repeat("ü", 255)), goal("2", strings.Repeat("u", 256)), goal("3", ""))
	m.settled(map[string]endings{"goal-to-heap": {pipeline.Matched: 3, pipeline.Delivered: 1, pipeline.DeadLettered: 2}})
	says := map[string]bool{}
	for _, x := range m.deadLetters(2) {
		if x.Reason != pipeline.ContractBroken || x.Webhook != "goal-to-heap" {
			t.Errorf("dead letter %+v", x.DeadLetter)
		}
		says[x.Error] = true
	}
	for _, rule := range []string{"identity: found 256 characters, expected at most 255", "identity: is missing, and required"} {
		if !says[`body breaks the contract of preset "heap": `+rule] {
			t.Errorf("no dead letter says %q, but %v", rule, says)
		}
	}
	if calls := r.Calls(); len(calls) != 1 || heap.check(&calls[0]) != nil {
		t.Errorf("Heap was called with %v", bodies(r))
	}
}

// Amplitude's key is put into the body when the call is made: the mapping does
// without it, and no topic has it.
func TestAmplitudeKey(t *testing.T) {
	t.Parallel()
	r := pipelinetest.Receiver(t)
	dir := strings.TrimSuffix(tempFile(t, "key", secretOf("AMPLITUDE_KEY")), "/key")
	m := start(t, options{secrets: dir})
	m.apply(strings.ReplaceAll(`
kind: Destination
name: amplitude
preset: amplitude
request:
  url: $URL/2/httpapi
auth: {type: property, name: api_key, value: "${file:key}"}
---
kind: Webhook
name: goal-to-amplitude
event: smart_walk_thru.goal_reached
properties:
  - {from: wm.euid, as: /events/0/user_id}
  - {name: /events/0/event_type, value: Goal}
destination: amplitude
`, "$URL", r.URL))
	m.produce(jsonEvent(t, map[string]any{"type": "smart_walk_thru.goal_reached", "id": "1", "user": "u-10427"}))
	m.settled(map[string]endings{"goal-to-amplitude": {pipeline.Matched: 1, pipeline.Delivered: 1}})
	var body any
	calls := r.Calls()
	if err := json.Unmarshal(calls[0].Body, &body); err != nil {
		t.Fatal(err)
	}
	if field(body, "api_key") != secretOf("AMPLITUDE_KEY") || field(body, "events", 0, "user_id") != "u-10427" {
		t.Errorf("Amplitude was called with %s", calls[0].Body)
	}
	m.read("the delivery", func(d *pipeline.Record) bool {
		if strings.Contains(string(d.Value), secretOf("AMPLITUDE_KEY")) {
			t.Errorf("the topic has %s", d.Value)
		}
		return true
	}, m.cfg.Names.Deliveries(pipeline.DefaultLane))
}

// Segment answers 200 to what it does not take. Its preset knows, in `millrace
// test --send` as in the sink; what the destination says itself comes before.
func TestSegmentDoesNotTake(t *testing.T) {
	t.Parallel()
	r := pipelinetest.Receiver(t, pipelinetest.Answering(func(*pipelinetest.Call) pipelinetest.Answer {
		return pipelinetest.Answer{Body: []byte(`{"success": false}`)}
	}))
	dir := strings.TrimSuffix(tempFile(t, "key", secretOf("SEGMENT")), "/key")
	yaml := strings.NewReplacer("$URL", r.URL).Replace(`
kind: Destination
name: segment
preset: segment
request:
  url: $URL/v1/track
  headers: {Authorization: "Basic ${file:key}"}
---
kind: Webhook
name: goal-to-segment
event: smart_walk_thru.goal_reached
properties:
  - {from: wm.euid, as: userId}
  - {name: event, value: Goal}
destination: segment
`)
	const says = "destination responded 200 OK: Segment says that it did not take the event"
	test := []string{"test", "-f", "-", "--send", "--yes", "--secrets-dir", dir, "--egress-allow", "127.0.0.0/8"}
	got := commandLine(t, yaml, test...)
	got.fails(t, exitFailed, "")
	if !strings.Contains(got.out, "The test failed: final_response: "+says) || !strings.Contains(got.out, `Response: {"success": false}`) {
		t.Errorf("the test says %s", got.out)
	}
	trusting := strings.Replace(yaml, "preset: segment\n", "preset: segment\nresponses: {200: success}\n", 1)
	commandLine(t, trusting, test...).must(t)
	m := start(t, options{secrets: dir})
	m.apply(yaml)
	goal := map[string]any{"type": "smart_walk_thru.goal_reached", "user": "u-1"}
	m.produce(jsonEvent(t, goal))
	m.settled(map[string]endings{"goal-to-segment": {pipeline.Matched: 1, pipeline.DeadLettered: 1}})
	if x := m.deadLetters(1)[0]; x.Reason != pipeline.FinalResponse || x.Error != says {
		t.Errorf("the dead letter is %+v", x.DeadLetter)
	}
	m.apply(trusting)
	m.produce(jsonEvent(t, goal))
	m.settled(map[string]endings{"goal-to-segment": {pipeline.Matched: 2, pipeline.DeadLettered: 1, pipeline.Delivered: 1}})
}
