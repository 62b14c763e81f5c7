package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/millrace-io/millrace/pipeline"
	"github.com/millrace-io/millrace/pipeline/pipelinetest"
	"github.com/millrace-io/millrace/schemas"
)

// kcat writes one record to the event topic, as a client that nobody here wrote
// does: the value byte for byte, headers as name=value.
func (m *millrace) kcat(value, key string, headers ...string) {
	m.t.Helper()
	file := filepath.Join(m.t.TempDir(), "value")
	if err := os.WriteFile(file, []byte(value), 0o600); err != nil {
		m.t.Fatal(err)
	}
	args := []string{"-P", "-b", strings.Join(m.cfg.Brokers, ","), "-t", m.cfg.Names.Events(), "-k", key}
	for _, h := range headers {
		args = append(args, "-H", h)
	}
	if out, err := exec.Command("kcat", append(args, file)...).CombinedOutput(); err != nil {
		m.t.Fatalf("running kcat (on Debian: apt-get install kcat): %v\n%s", err, out)
	}
}

// heap is spec 2.4 as definitions, with the receiver in Heap's place.
func heap(url string) string {
	return fmt.Sprintf(`
kind: Destination
name: heap
platform: Heap Analytics
request:
  method: POST
  url: %s/api/track
  headers:
    Content-Type: application/json
auth:
  type: none
---
kind: Webhook
name: walk-thru-goal-to-heap
event: smart_walk_thru.goal_reached
condition: |
  props["walk_thru_id"] == 12345
properties:
  - from: wm.euid
    as: identity
  - name: app_id
    value: "11"
  - name: event
    value: Walk-Thru Goal Reached
destination: heap
`, url)
}

func heapBody(user string) string {
	return fmt.Sprintf(`{"identity":%q,"app_id":"11","event":"Walk-Thru Goal Reached"}`, user)
}

// Events that kcat writes reach Heap's place with exactly the three properties;
// what is broken becomes a dead letter.
func TestForeignClientToHeap(t *testing.T) {
	t.Parallel()
	r := pipelinetest.Receiver(t)
	m := start(t, options{})
	m.apply(heap(r.URL))

	const goal = "smart_walk_thru.goal_reached"
	cloud := []string{"ce_specversion=1.0", "ce_type=" + goal, "ce_source=kcat"}
	structured := "content-type=application/cloudevents+json; charset=utf-8"
	m.kcat(`{"walk_thru_id":12345,"goal_name":"paid"}`, "u-1", append(cloud, "ce_id=1", "ce_subject=u-1")...)
	m.kcat(`{"walk_thru_id":"12345","wm.euid":"u-2"}`, "u-2", append(cloud, "ce_id=2")...) // text that is an integer
	m.kcat(`{"walk_thru_id":12346}`, "u-3", append(cloud, "ce_id=3", "ce_subject=u-3")...) // another one
	m.kcat(`{"specversion":"1.0","id":"4","type":"`+goal+`","source":"kcat","subject":"u-4","data":{"walk_thru_id":12345}}`, "u-4", structured)
	m.kcat(`{"id":"5","source":"kcat","type":"`+goal+`","user":"u-5","properties":{"walk_thru_id":12345}}`, "u-5")
	m.kcat(`{"type":"`+goal+`","user":"u-6","properties":{"walk_thru_id":12345.0}}`, "u-6") // no id
	broken := []struct{ value, key, header string }{
		{`{"type":"` + goal + `","user":"u-7","properties":{"walk_thru_id":12345`, "cut short", "x=y"},
		{`{"type":"` + goal + `","properties":{"walk_thru_id":{"id":12345}}}`, "nested", "x=y"},
		{"\xff\xfe\x00not an event\x00", "binary", "x=y"},
		{"\x00\x00\x00\x00\x07\x02\x02a", "avro without a registry", "x=y"},
		{`{"specversion":"0.3","id":"8","type":"` + goal + `","source":"kcat","data":{}}`, "old version", structured},
		{`{"type":"` + goal + `","time":"yesterday"}`, "time", "x=y"},
	}
	for _, b := range broken {
		m.kcat(b.value, b.key, b.header)
	}
	m.kcat(`{"type":"`+goal+`","user":"u-9","properties":{"walk_thru_id":12345}}`, "u-9") // life goes on

	good := []string{heapBody("u-1"), heapBody("u-2"), heapBody("u-4"), heapBody("u-5"), heapBody("u-6"), heapBody("u-9")}
	r.Wait(t, len(good))
	dead := m.deadLetters(len(broken))
	m.settled(map[string]endings{"walk-thru-goal-to-heap": {pipeline.Matched: 6, pipeline.Delivered: 6}})
	if got := bodies(r); !slices.Equal(got, good) {
		t.Errorf("arrived: %q", got)
	}
	once(t, r)
	for _, c := range r.Calls() {
		if c.Method != http.MethodPost || c.Path != "/api/track" || c.Header.Get("Content-Type") != "application/json" ||
			c.Header.Get("Idempotency-Key") != c.ID() || c.Header.Get("Authorization") != "" {
			t.Errorf("called with %s %s %v", c.Method, c.Path, c.Header)
		}
	}
	for _, b := range broken {
		i := slices.IndexFunc(dead, func(x deadLetter) bool { return string(x.record.Key) == b.key })
		if i < 0 {
			t.Errorf("%s: no dead letter", b.key)
			continue
		}
		x := dead[i]
		name, value, _ := strings.Cut(b.header, "=")
		header, _ := x.record.Header(name)
		if string(x.record.Value) != b.value || string(header) != value {
			t.Errorf("%s: touched: %q, %v", b.key, x.record.Value, x.record.Headers)
		}
		if x.Reason != pipeline.Undecodable || x.Error == "" || x.Stage != "filter" || x.Topic != m.cfg.Names.Events() {
			t.Errorf("%s: %+v", b.key, x.DeadLetter)
		}
	}
}

// everything maps all that an event has.
const everything = `
kind: EventType
name: order.paid
properties:
  - {name: cents, type: integer}
  - {name: weight, type: number}
  - {name: gift, type: boolean}
  - {name: note.text, type: string}
  - {name: coupon, type: string}
---
kind: Destination
name: shop
request:
  url: $URL
---
kind: Webhook
name: all
event: order.paid
environment: qa
properties:
  - name: /event
    expr: |
      [event.source, event.type, event.time, event.system, event.environment, event.user, event.session]
  - from: cents
  - from: weight
  - from: gift
  - from: note.text
    as: note
  - from: coupon
  - from: wm.env
  - from: created_at
destination: shop
`

// The three forms, Avro by franz-go's client of a schema registry among them,
// give the same event, down to the last digit.
func TestEveryFormIsTheSameEvent(t *testing.T) {
	t.Parallel()
	r := pipelinetest.Receiver(t)
	registry := pipelinetest.Registry(t, "millrace.events-value", schemas.EventAvro)
	m := start(t, options{registry: registrySettings{URL: registry.URL}, idle: true})
	up := m.run()
	m.apply(strings.ReplaceAll(everything, "$URL", r.URL))

	at := time.Date(2026, 3, 4, 5, 6, 7, 89e6, time.UTC)
	const properties = `{"cents":9007199254740993,"weight":0.5,"gift":true,"note.text":"für \"Zoë\"","coupon":null}`
	avro := registry.Encode(t, map[string]any{
		"id": text("avro"), "source": text("test"), "type": "order.paid",
		"time": map[string]any{"long.timestamp-millis": at}, "system": text("crm"), "environment": text("qa"),
		"user": text("u-1"), "session": text("s-1"),
		"properties": map[string]any{
			"cents": map[string]any{"long": int64(9007199254740993)}, "weight": map[string]any{"double": 0.5},
			"gift": map[string]any{"boolean": true}, "note.text": text(`für "Zoë"`), "coupon": nil,
		},
	})
	registry.Away(true)
	m.produce(pipeline.Record{Key: []byte("u-1"), Value: avro})
	eventually(t, "/readyz says that the filter waits for the registry", func() bool {
		return strings.Contains(fmt.Sprint(up.health.Err()), "asking the schema registry")
	})
	m.produce(
		pipeline.Record{Key: []byte("u-1"), Value: []byte(properties), Headers: headers(
			"ce_specversion", "1.0", "ce_id", "binary", "ce_type", "order.paid", "ce_source", "test", "ce_time", "2026-03-04T06:06:07.089+01:00",
			"ce_subject", "u-1", "ce_system", "crm", "ce_environment", "qa", "ce_session", "s-1")},
		pipeline.Record{Key: []byte("u-1"), Headers: headers("content-type", "application/cloudevents+json"), Value: []byte(
			`{"specversion":"1.0","id":"structured","type":"order.paid","source":"test","time":"2026-03-04T05:06:07.089Z",` +
				`"subject":"u-1","system":"crm","environment":"qa","session":"s-1","data":` + properties + `}`)},
		pipeline.Record{Key: []byte("u-1"), Value: []byte(
			`{"id":"json","source":"test","type":"order.paid","time":1772600767089,"system":"crm","environment":"qa",` +
				`"user":"u-1","session":"s-1","properties":` + properties + `}`)},
		pipeline.Record{Key: []byte("u-1"), Value: []byte( // what mirrors the envelope instead of it
			`{"id":"mirrored","source":"test","system":"crm","properties":{"type":"order.paid","created_at":1772600767089,"wm.env":3,` +
				`"wm.euId":"u-1","sId":"s-1","cents":"9007199254740993","weight":0.5,"gift":true,"note.text":"für \"Zoë\"","coupon":null}}`)},
	)
	m.produce(pipeline.Record{Key: []byte("u-1"), Value: append([]byte{0, 0, 0, 1, 0}, avro[5:]...)}) // a schema nobody has
	registry.Away(false)
	r.Wait(t, 5)
	dead := m.deadLetters(1)
	m.settled(map[string]endings{"all": {pipeline.Matched: 5, pipeline.Delivered: 5}})
	once(t, r)

	const want = `{"event":["test","order.paid","2026-03-04T05:06:07.089Z","crm","qa","u-1","s-1"],` +
		`"cents":9007199254740993,"weight":0.5,"gift":true,"note":"für \"Zoë\"","wm.env":3,"created_at":1772600767089}`
	for _, body := range bodies(r) {
		if !sameJSON(t, body, want) {
			t.Errorf("arrived: %s", body)
		}
	}
	if x := dead[0]; x.Reason != pipeline.Undecodable || !bytes.Equal(x.record.Value[5:], avro[5:]) {
		t.Errorf("dead letter: %+v", x)
	}
}

func text(s string) map[string]any { return map[string]any{"string": s} }

func headers(pairs ...string) (hs []pipeline.Header) {
	for pair := range slices.Chunk(pairs, 2) {
		hs = append(hs, pipeline.Header{Key: pair[0], Value: []byte(pair[1])})
	}
	return hs
}

// sameJSON compares texts with all their digits, members in any order.
func sameJSON(t *testing.T, a, b string) bool {
	t.Helper()
	var texts [2]string
	for i, s := range []string{a, b} {
		var v any
		d := json.NewDecoder(strings.NewReader(s))
		d.UseNumber()
		if err := d.Decode(&v); err != nil {
			t.Fatalf("reading %q: %v", s, err)
		}
		sorted, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		texts[i] = string(sorted)
	}
	return cmp.Compare(texts[0], texts[1]) == 0
}
