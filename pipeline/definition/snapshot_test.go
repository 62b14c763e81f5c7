package definition_test

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/millrace-io/millrace/pipeline"
	"github.com/millrace-io/millrace/pipeline/definition"
)

// put is a record of the definitions topic; without a spec a tombstone.
func put(kind definition.Kind, name, spec string) pipeline.Record {
	r := pipeline.Record{Key: []byte(string(kind) + "/" + name)}
	if spec != "" {
		r.Value = fmt.Appendf(nil, `{"format":1,"kind":%q,"name":%q,"owner":"a","revision":1,"time":"2026-01-02T03:04:05Z","spec":%s}`, kind, name, spec)
	}
	return r
}

func TestSnapshotFillsInDefaults(t *testing.T) {
	t.Parallel()
	s := inForce(t, one+"kind: Destination\nname: own\nrequest: {url: https://x.example}\nlane: own\nlimits: {rate: 2.5, timeout: 2s}\nretry: {cap: 500ms}\n---\n"+hook+
		strings.NewReplacer("name: hook", "name: sleeping", "destination: one", "destination: own\nstatus: paused").Replace(hook), "a")
	d := s.Destinations["own"]
	if d.Request.Method != http.MethodPost || d.Auth.Type != "none" || d.Limits.Burst != 3 || d.Limits.Concurrency != 64 ||
		time.Duration(d.Limits.ConnectTimeout) != 2*time.Second || d.Limits.MaxBody != 256<<10 || d.Limits.MaxResponse != 64<<10 ||
		d.Retry.Attempts != 15 || time.Duration(d.Retry.First) != 500*time.Millisecond || d.Breaker.Share != 0.5 || d.Status != definition.Active {
		t.Errorf("the destination is %+v", d)
	}
	if r := s.Destinations["one"].Retry; time.Duration(r.First) != time.Second || time.Duration(r.Cap) != 6*time.Hour {
		t.Errorf("it is tried again by %+v", r)
	}
	w := s.Webhooks["hook"].Webhook
	if w.Environment != pipeline.Production || time.Duration(w.MaxAge) != 72*time.Hour || w.ExpireTo != definition.ExpireToDeadLetter {
		t.Errorf("the webhook is %+v", w)
	}
	if got := s.Lanes(); !slices.Equal(got, []string{"default", "own"}) {
		t.Errorf("the lanes are %v", got)
	}
	if paused := s.PausedSet(); !paused.Wants("launcher.clicked") || paused.Wants("menu.opened") {
		t.Error("the set of the paused webhooks is not over their event types")
	}
	if !s.FilterSet().Wants("launcher.clicked") || s.FilterSet().Wants("menu.opened") {
		t.Error("the filter set wants other types than the webhooks")
	}
}

// TestBrokenIsLeftOut has in the topic what another version wrote.
func TestBrokenIsLeftOut(t *testing.T) {
	t.Parallel()
	good := `{"request":{"url":"https://x.example"}}`
	for name, c := range map[string]struct {
		records []pipeline.Record
		key     string
		why     string
	}{
		"not JSON":        {[]pipeline.Record{{Key: []byte("Webhook/x"), Value: []byte("{")}}, "Webhook/x", "reading Webhook/x"},
		"a newer format":  {[]pipeline.Record{{Key: []byte("Webhook/x"), Value: []byte(`{"format":2,"kind":"Webhook","name":"x"}`)}}, "Webhook/x", "newer version"},
		"another's value": {[]pipeline.Record{{Key: []byte("Webhook/x"), Value: []byte(`{"format":1,"kind":"Webhook","name":"y"}`)}}, "Webhook/x", "says that it is Webhook/y"},
		"a newer key": {
			[]pipeline.Record{put("Destination", "x", `{"request":{"url":"https://x.example"},"batch":{"max":2}}`)},
			"Destination/x", `unknown field "batch"`,
		},
		"an expression of a newer language": {
			[]pipeline.Record{put("Destination", "x", good), put("Webhook", "x", `{"event":"launcher.clicked","destination":"x","condition":"attrs[\"a\"] == 1"}`)},
			"Webhook/x", "condition 1:1: ",
		},
		"no destination": {
			[]pipeline.Record{put("Webhook", "x", `{"event":"launcher.clicked","destination":"x"}`)},
			"Webhook/x", `unknown destination "x"`,
		},
		"a broken destination": {
			[]pipeline.Record{put("Webhook", "x", `{"event":"launcher.clicked","destination":"x"}`), put("Destination", "x", `{"request":{"url":"gopher"}}`)},
			"Webhook/x", `destination "x" can't be used: request.url`,
		},
		"an event type that contradicts the catalog": {
			[]pipeline.Record{put("EventType", "launcher.clicked", `{"properties":[{"name":"launcher_id","type":"string"}]}`)},
			"EventType/launcher.clicked", "launcher_id",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := empty(t).With(c.records, 5)
			k, err := definition.ParseKey(c.key)
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Broken[k]; err == nil || !strings.Contains(err.Error(), c.why) {
				t.Errorf("%s is broken by %v, expected %q", k, err, c.why)
			}
			if s.Webhooks["x"] != nil {
				t.Error("the webhook is in force")
			}
			if s = s.With([]pipeline.Record{{Key: []byte(c.key)}}, 6); s.Broken[k] != nil || s.Offset != 6 {
				t.Errorf("after its removal: %v, offset %d", s.Broken[k], s.Offset)
			}
		})
	}
}

func TestStarts(t *testing.T) {
	t.Parallel()
	start := definition.Start{Topic: "events.a", ID: "id", Partitions: map[int32]int64{0: 123, 11: 0}}
	r, err := start.Record("p.")
	if err != nil {
		t.Fatal(err)
	}
	if string(r.Key) != "start/events.a" || r.Topic != "p.definitions" ||
		string(r.Value) != `{"topic":"events.a","id":"id","partitions":{"0":123,"11":0}}` {
		t.Errorf("the record is %s %s %s", r.Topic, r.Key, r.Value)
	}
	s := empty(t).With([]pipeline.Record{r, {Key: []byte("draft/Webhook/x"), Value: []byte("{}")}}, 2)
	if got := s.Starts["events.a"]; got.ID != "id" || got.Partitions[0] != 123 || len(s.Broken) > 0 {
		t.Errorf("the start is %+v, broken are %v", got, s.Broken)
	}
	if s = s.With([]pipeline.Record{{Key: r.Key}}, 3); len(s.Starts) > 0 {
		t.Errorf("after its removal the starts are %v", s.Starts)
	}
}

// TestWithIsTheSameAsAtOnce changes definitions at random, one record after the
// other, and compares with all of them compiled at once.
func TestWithIsTheSameAsAtOnce(t *testing.T) {
	t.Parallel()
	for seed := range uint64(20) {
		random := rand.New(rand.NewPCG(seed, 1))
		step := empty(t)
		newest := map[string]pipeline.Record{}
		for i := range 60 {
			r := randomRecord(random)
			step = step.With([]pipeline.Record{r}, int64(i))
			newest[string(r.Key)] = r
			if i%6 != 5 {
				continue
			}
			var all []pipeline.Record
			for _, k := range slices.Sorted(maps.Keys(newest)) {
				all = append(all, newest[k])
			}
			if a, b := outline(step), outline(empty(t).With(all, int64(i))); a != b {
				t.Fatalf("seed %d, after %d records, one by one:\n%s\nat once:\n%s", seed, i+1, a, b)
			}
		}
	}
}

func randomRecord(random *rand.Rand) pipeline.Record {
	name := fmt.Sprint("n", random.IntN(3))
	specs := map[definition.Kind][]string{
		definition.KindDestination: {
			"", `{"request":{"url":"https://x.example"}}`, `{"request":{"method":"GET","url":"https://x.example/{{ props[\"launcher_id\"] }}"}}`,
			`{"request":{"url":"nothing"}}`,
		},
		definition.KindEventType: {
			"", `{"properties":[{"name":"total","type":"number"}]}`, `{"properties":[{"name":"total","type":"string"}]}`,
			`{"properties":[{"name":"wm.euid","type":"integer"}]}`, `{"properties":[{"name":"other","type":"string","aliases":["total"]}]}`,
		},
		definition.KindWebhook: {
			"", fmt.Sprintf(`{"event":"launcher.clicked","destination":"n%d"}`, random.IntN(3)),
			fmt.Sprintf(`{"event":["n0","n1"],"condition":"props[\"total\"] > 5","destination":"n%d"}`, random.IntN(3)),
			fmt.Sprintf(`{"event":"n2","properties":[{"name":"/a/b","expr":"props[\"total\"]"}],"destination":"n%d"}`, random.IntN(3)),
		},
	}
	kinds := []definition.Kind{definition.KindDestination, definition.KindEventType, definition.KindWebhook}
	kind := kinds[random.IntN(len(kinds))]
	return put(kind, name, specs[kind][random.IntN(len(specs[kind]))])
}

// outline is what matters of a snapshot.
func outline(s *definition.Snapshot) string {
	var b strings.Builder
	for _, t := range s.Catalog.Types()[36:] {
		fmt.Fprintln(&b, "type", *t)
	}
	for _, name := range slices.Sorted(maps.Keys(s.Destinations)) {
		fmt.Fprintln(&b, "destination", name, s.Destinations[name].Request)
	}
	for _, name := range slices.Sorted(maps.Keys(s.Webhooks)) {
		c := s.Webhooks[name]
		fmt.Fprintln(&b, "webhook", name, *c.Webhook, c.Condition, c.URL != nil, c.Destination == s.Destinations[c.Webhook.Destination])
	}
	for _, k := range slices.SortedFunc(maps.Keys(s.Broken), func(a, b definition.Key) int { return strings.Compare(a.String(), b.String()) }) {
		fmt.Fprintln(&b, "broken", k, s.Broken[k])
	}
	return b.String()
}

// TestOneChangeCompilesOneWebhook changes one of many webhooks: the others are
// the very same afterwards.
func TestOneChangeCompilesOneWebhook(t *testing.T) {
	t.Parallel()
	records := []pipeline.Record{put("Destination", "d", `{"request":{"url":"https://x.example"}}`), put("Destination", "e", `{"request":{"url":"https://y.example"}}`)}
	for i := range 300 {
		records = append(records, put("Webhook", fmt.Sprint("w", i), `{"event":"launcher.clicked","condition":"props[\"launcher_id\"] == 5","destination":"d"}`))
	}
	before := empty(t).With(records, 1)
	after := before.With([]pipeline.Record{put("Webhook", "w7", `{"event":"launcher.clicked","destination":"e"}`), put("EventType", "order.paid", `{}`)}, 2)
	for name, c := range after.Webhooks {
		if same := c == before.Webhooks[name]; same == (name == "w7") {
			t.Errorf("webhook %s is the same: %v", name, same)
		}
	}
	if len(before.Webhooks) != 300 || before.Webhooks["w7"].Destination.Request.URL != "https://x.example" {
		t.Error("the snapshot before has changed")
	}
}

func TestExportReadsBack(t *testing.T) {
	t.Parallel()
	for _, text := range []string{order + one + two + hook, read(t, "testdata/heap.yaml"), awkward} {
		base := apply(t, empty(t), parse(text), definition.Options{Owner: "a", Keys: newKeys(t).Public()})
		var b bytes.Buffer
		if err := definition.Export(&b, base); err != nil {
			t.Fatal(err)
		}
		p, problems := definition.NewPlan(base, parse(b.String()), definition.Options{Owner: "a", Prune: true})
		if err := problems.Err(); err != nil {
			t.Fatalf("%v in:\n%s", err, b.String())
		}
		if len(p.Changes) > 0 || p.Unchanged != len(base.Resources) {
			t.Errorf("the export differs: %+v\n%s", p.Changes, b.String())
		}
	}
}

// awkward has values that YAML likes to read as something else.
const awkward = `
kind: Destination
name: "017"
description: "  yes: [a] # no\n\n end \r\t\u2028x"
labels: {a: "2024-01-01", b: "yes", c: "0o17", d: "null", e: "1e3", f: "~", g: "", h: "<<", i: "=", j: "017", k: "0x1F", l: "- a"}
request:
  url: https://x.example/{{ props["a"] }}?k=${env:MILLRACE_SECRET_K}
  headers: {X-Key: "a ${file:k/x} b"}
auth: {type: basic, username: me, password: "${file:p}"}
---
kind: Destination
name: sealed
request: {url: "https://x.example", headers: {Authorization: Bearer abc, X-Api-Key: "a # b"}}
auth: {type: property, name: key, value: " 017 "}
signing: {secret: whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw}
---
kind: Destination
name: keyed
request: {url: "https://x.example"}
auth: {type: header, name: X-Key, value: "a: ${env:MILLRACE_SECRET_K} # b"}
signing: {secret: "whsec_${file:new}", previous_secret: "${file:old}"}
---
kind: Destination
name: inside
request: {url: "https://x.example"}
auth: {type: property, name: "/a~1b/0/true", value: "${env:MILLRACE_SECRET_K}"}
---
kind: Destination
name: granted
request: {url: "https://x.example"}
auth:
  type: oauth2
  grant: refresh_token
  token_url: https://x.example/token?v=2
  client_id: "007"
  client_secret: ${file:client}
  scopes: [yes, "https://x.example/a.b", "17"]
  audience: "null"
  refresh_token: ${env:MILLRACE_SECRET_R}
---
kind: Webhook
name: awkward
event: [outside, launcher.clicked]
condition: "  props[\"a\"] == \"<&>\"\n\n\n  and true"
destination: "017"
properties:
  - {name: a, expr: "'# no comment: ' + props[\"x\"]"}
  - {name: b, expr: "\"a\\tb\" +\t\"c\""}
  - {name: v, value: {condition: "x\ny", z: [1, 12345678901234567890, 1.50, 1e400, null, true, "true"], a: {expr: "x "}}}
  - {name: n, value: null}
tests:
  - event: {type: outside, properties: {b: 017, a: .5}}
`
