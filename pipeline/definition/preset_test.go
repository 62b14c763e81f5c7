package definition_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/pipeline"
	"github.com/millrace-io/millrace/pipeline/definition"
	"github.com/millrace-io/millrace/pipeline/event"
	"github.com/millrace-io/millrace/pipeline/preset"
)

// TestPresets checks every preset as `millrace check` does, and that a
// destination which names no more than the preset is told of its gaps.
func TestPresets(t *testing.T) {
	t.Parallel()
	catalog, err := event.BuiltinCatalog()
	if err != nil {
		t.Fatal(err)
	}
	for name, p := range preset.Builtin() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tests, problems := definition.CheckPreset(t.Context(), name+".yaml", p, catalog)
			for _, problem := range problems {
				t.Error(problem)
			}
			if tests <= len(p.Tests) {
				t.Error("the example has no tests")
			}
			_, problems = parse("kind: Destination\nname: bare\npreset: " + name).Check(empty(t))
			for _, g := range p.Gaps {
				if !strings.Contains(problems.Error(), "needs "+g.Key) {
					t.Errorf("without %s it says: %v", g.Key, problems)
				}
			}
			if len(p.Gaps) == 0 && len(problems) > 0 {
				t.Errorf("it has no gaps, but: %v", problems)
			}
		})
	}
}

// TestCheckPresetFails has a preset with a test and an example that fail.
func TestCheckPresetFails(t *testing.T) {
	t.Parallel()
	catalog, err := event.BuiltinCatalog()
	if err != nil {
		t.Fatal(err)
	}
	p := *preset.Builtin()["heap"]
	p.Tests = []preset.Test{{Body: []byte(`{}`)}}
	p.Example.Properties = []byte(`[{"name":"app_id","value":"11"},{"name":"identity","expr":"event.user"},{"name":"event","value":"e"}]`)
	_, problems := definition.CheckPreset(t.Context(), "my.yaml", &p, catalog)
	for _, want := range []string{"my.yaml: tests.0 of preset heap: expected a body", "my.yaml: the test failed: expected the body"} {
		if !strings.Contains(problems.Error(), want) {
			t.Errorf("it says %v, expected %s", problems, want)
		}
	}
	p.Example.Properties = []byte(`[{"name":"app_id","value":"11"}]`)
	if _, problems = definition.CheckPreset(t.Context(), "my.yaml", &p, catalog); !strings.Contains(problems.Error(), "event: is missing") {
		t.Errorf("it says %v", problems)
	}
}

// TestPresetFillsIn has what a destination leaves out and what it sets.
func TestPresetFillsIn(t *testing.T) {
	t.Parallel()
	after, problems := parse(`
kind: Destination
name: plain
preset: heap
---
kind: Destination
name: own
preset: heap
platform: Ours
request:
  url: https://heap.example.com/api/track
  headers:
    X-Team: growth
auth: {type: bearer, token: "${env:MILLRACE_SECRET_HEAP}"}
limits: {rate: 5}
---
kind: Destination
name: segment
preset: segment
request:
  headers:
    content-type: application/json; charset=utf-8
auth: {type: bearer, token: "${env:MILLRACE_SECRET_SEGMENT}"}
`).Check(empty(t))
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	plain, own := after.Destinations["plain"], after.Destinations["own"]
	if plain.Platform != "Heap Analytics" || plain.Request.Method != http.MethodPost || plain.Request.URL != "https://heapanalytics.com/api/track" ||
		plain.Request.Headers["Content-Type"].String() != "application/json" || plain.Auth.Type != definition.AuthNone || plain.Contract == nil {
		t.Errorf("by the preset: %+v", plain)
	}
	if own.Platform != "Ours" || own.Request.URL != "https://heap.example.com/api/track" || len(own.Request.Headers) != 2 ||
		own.Auth.Type != definition.AuthBearer || own.Limits.Rate != 5 || own.Request.Method != http.MethodPost {
		t.Errorf("with its own: %+v", own)
	}
	if h := after.Destinations["segment"].Request.Headers; len(h) != 1 || h["content-type"].String() != "application/json; charset=utf-8" {
		t.Errorf("beside its own way to authenticate and its own header, the preset's are left: %v", h)
	}
	if spec := string(after.Resources[definition.Key{Kind: definition.KindDestination, Name: "plain"}].Spec); spec != `{"preset":"heap"}` {
		t.Errorf("it is kept as %s, expected as it was written", spec)
	}
}

// TestMixpanelByToken has both ways to authenticate that Mixpanel documents: a
// service account with the project's id, and the project's token alone.
func TestMixpanelByToken(t *testing.T) {
	t.Parallel()
	after, problems := parse(`
kind: Destination
name: account
preset: mixpanel
request:
  url: https://api.mixpanel.com/import?strict=1&project_id=1234567
---
kind: Destination
name: token
preset: mixpanel
request:
  url: https://api.mixpanel.com/import?strict=1
  headers:
    Authorization: Basic ${env:MILLRACE_SECRET_MIXPANEL_TOKEN}
auth:
  type: none
`).Check(empty(t))
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	if a := after.Destinations["account"].Auth; a.Type != definition.AuthBasic || a.Username.String() != "${env:MILLRACE_SECRET_MIXPANEL_USER}" {
		t.Errorf("a service account authenticates by %+v", a)
	}
	token := after.Destinations["token"]
	if token.Auth.Type != definition.AuthNone || token.Request.Headers["Authorization"].String() != "Basic ${env:MILLRACE_SECRET_MIXPANEL_TOKEN}" {
		t.Errorf("the token is sent by %+v with %v", token.Auth, token.Request.Headers)
	}
}

// TestContractAtRunTime has a body that could have kept the contract, and does
// not; also in a webhook's own tests.
func TestContractAtRunTime(t *testing.T) {
	t.Parallel()
	set := parse(`
kind: Destination
name: heap
preset: heap
---
kind: Webhook
name: goal
event: smart_walk_thru.goal_reached
properties:
  - {name: app_id, value: "11"}
  - {name: event, value: Goal}
  - {from: wm.euid, as: identity}
destination: heap
tests:
  - event: {type: smart_walk_thru.goal_reached, user: u-1}
  - event: {type: smart_walk_thru.goal_reached, user: ` + strings.Repeat("u", 256) + `}
`)
	after, problems := set.Check(empty(t))
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	_, failures := set.RunTests(t.Context(), after)
	if len(failures) != 1 || failures[0].Line != 16 || !strings.Contains(failures[0].Message, "identity: found 256 characters, expected at most 255") {
		t.Errorf("the tests ended with %v", failures)
	}
	c := after.Webhooks["goal"]
	dead, permanent := pipeline.IsPermanent(c.KeepsContract([]byte(`{"app_id":"11","event":"Goal"}`)))
	if !permanent || dead.Reason != pipeline.ContractBroken || dead.Err.Error() != `body breaks the contract of preset "heap": identity: is missing, and required` {
		t.Errorf("it is %v", dead)
	}
}
