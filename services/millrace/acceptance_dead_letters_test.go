package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/pipeline"
	"github.com/millrace-io/millrace/pipeline/pipelinetest"
)

// noise is text that does not compress well.
func noise(n int) string {
	const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	b := make([]byte, n)
	for i := range b {
		b[i] = letters[rand.IntN(len(letters))]
	}
	return string(b)
}

// failing are webhooks of which each fails for some events, and one that never
// does.
const failing = `
kind: Destination
name: small
request:
  url: $URL
limits: {max_body: 1KiB}
---
kind: Destination
name: large
request:
  url: $URL
limits: {max_body: 8MiB}
---
kind: Webhook
name: fine
event: [sum, big, named]
properties:
  - from: n
destination: small
---
kind: Webhook
name: divides
event: sum
properties:
  - name: rest
    expr: |
      100 % props["n"]
destination: small
---
kind: Webhook
name: needs
event: sum
properties:
  - {from: label, required: true}
destination: small
---
kind: Webhook
name: repeats
event: sum
properties:
  - name: text
    expr: |
      props["n"] == 7 ? repeat("seven", 300) : "short"
destination: small
---
kind: Webhook
name: triples
event: big
properties:
  - {from: blob, as: one}
  - {from: blob, as: two}
  - {from: blob, as: three}
destination: large
`

// What fails becomes a dead letter with its reason, and all else arrives: a
// mapping that fails, a required property that is missing, a body over max_body,
// a delivery and a match that are too large for their topics.
func TestOnlyWhatFailsIsADeadLetter(t *testing.T) {
	t.Parallel()
	r := pipelinetest.Receiver(t)
	m := start(t, options{})
	m.apply(strings.ReplaceAll(failing, "$URL", r.URL))

	blob := noise(400_000)
	var events []pipeline.Record
	for i := range 200 {
		properties := map[string]any{"n": i % 10}
		if i%20 != 0 {
			properties["label"] = "x"
		}
		events = append(events, jsonEvent(t, map[string]any{"id": fmt.Sprint(i), "type": "sum", "user": fmt.Sprint("u-", i%7), "properties": properties}))
		if i%50 == 25 { // the body of triples has 1.2 MB
			events = append(events, jsonEvent(t, map[string]any{"type": "big", "user": "u-big", "properties": map[string]any{"n": i, "blob": blob}}))
		}
		if i%100 == 75 { // the match has the id in its envelope too
			events = append(events, jsonEvent(t, map[string]any{"id": fmt.Sprint(i, "-", noise(700_000)), "type": "named", "user": "u-named"}))
		}
	}
	for _, e := range events {
		m.produce(e)
	}
	const sums, bigs, named = 200, 4, 2
	m.settled(map[string]endings{
		"fine":    {pipeline.Matched: sums + bigs, pipeline.Delivered: sums, pipeline.DeadLettered: bigs},
		"divides": {pipeline.Matched: sums, pipeline.Delivered: 180, pipeline.DeadLettered: 20},
		"needs":   {pipeline.Matched: sums, pipeline.Delivered: 190, pipeline.DeadLettered: 10},
		"repeats": {pipeline.Matched: sums, pipeline.Delivered: 180, pipeline.DeadLettered: 20},
		"triples": {pipeline.Matched: bigs, pipeline.DeadLettered: bigs},
	})
	if n := r.Count(); n != sums+180+190+180 {
		t.Errorf("%d calls", n)
	}
	once(t, r)
	checkReasons(t, m.deadLetters(20+10+20+bigs+named), events, map[string]int{
		"transform divides mapping_failed": 20,
		"transform needs property_missing": 10,
		"transform repeats too_large":      20,
		"transform  too_large":             bigs, // the match as a whole
		"filter  too_large":                named,
	})
}

// checkReasons compares how many dead letters there are by stage, webhook and
// reason, and finds each value among the events.
func checkReasons(t *testing.T, dead []deadLetter, events []pipeline.Record, want map[string]int) {
	t.Helper()
	known := map[string]bool{}
	for _, e := range events {
		known[string(e.Value)] = true
	}
	got := map[string]int{}
	for _, x := range dead {
		got[fmt.Sprintf("%s %s %s", x.Stage, x.Webhook, x.Reason)]++
		if x.Error == "" || x.At.IsZero() || (x.Webhook == "") != (x.Delivery == "") {
			t.Errorf("dead letter says too little: %+v", x.DeadLetter)
		}
		if !known[string(x.record.Value)] {
			t.Errorf("dead letter of %s does not hold the event: %.200q", x.Stage, x.record.Value)
		}
	}
	if !maps.Equal(got, want) {
		t.Errorf("dead letters: %v\nexpected: %v", got, want)
	}
}

// pass is a webhook that sends all it gets.
const pass = `
kind: Destination
name: receiver
request:
  url: $URL
limits: {max_body: 1MiB}
---
kind: Webhook
name: pass
event: sized
destination: receiver
`

func sized(t *testing.T, id, size int) pipeline.Record {
	t.Helper()
	return jsonEvent(t, map[string]any{
		"id": fmt.Sprint(id), "type": "sized", "user": fmt.Sprint("u-", id%5), "properties": map[string]any{"id": id, "blob": noise(size)},
	})
}

// A topic takes less than it should: what does not fit alone is a dead letter.
// What does arrives, though it stood in the same batch, or in batches that did
// not fit as a whole.
func TestKafkaRefusesSomeDeliveries(t *testing.T) {
	t.Parallel()
	r := pipelinetest.Receiver(t)
	m := start(t, options{})
	m.apply(strings.ReplaceAll(pass, "$URL", r.URL))
	lane := m.cfg.Names.Deliveries(pipeline.DefaultLane)
	m.opts.cluster.Configure(t, lane, "max.message.bytes", "20000")

	var events []pipeline.Record
	const n, large = 60, 2
	for i := range n {
		size := 1000
		if i%30 == 10 {
			size = 60_000
		}
		events = append(events, sized(t, i, size))
	}
	m.produce(events...)
	m.settled(map[string]endings{"pass": {pipeline.Matched: n, pipeline.Delivered: n - large, pipeline.DeadLettered: large}})
	once(t, r)
	arrived := map[int]bool{}
	for _, c := range r.Calls() {
		var body struct{ ID int }
		if err := json.Unmarshal(c.Body, &body); err != nil {
			t.Fatal(err)
		}
		arrived[body.ID] = true
	}
	for i := range n {
		if arrived[i] == (i%30 == 10) {
			t.Errorf("event %d: arrived: %v", i, arrived[i])
		}
	}
	checkReasons(t, m.deadLetters(large), events, map[string]int{"transform  too_large": large})

	m.opts.cluster.Configure(t, lane, "max.message.bytes", "2000000")
	m.produce(sized(t, n, 60_000))
	r.Wait(t, n-large+1)
}

// For a while Kafka takes no deliveries, and then no attempts: nothing is lost,
// nothing is a dead letter, and no call is made again for a commit that failed.
func TestKafkaRefusesForAWhile(t *testing.T) {
	t.Parallel()
	if pipelinetest.RealKafka() {
		t.Skip("an Apache Kafka of one node does not refuse for a while")
	}
	r := pipelinetest.Receiver(t)
	m := start(t, options{})
	m.apply(strings.ReplaceAll(pass, "$URL", r.URL))
	const n = 100
	send := func(from int) {
		for i := range n {
			m.produce(sized(t, from+i, 10))
		}
	}
	accept := m.opts.cluster.RefuseWrites(t, m.cfg.Names.Deliveries(pipeline.DefaultLane))
	send(0)
	matches := 0
	m.read("matches", func(*pipeline.Record) bool { matches++; return matches == n }, m.cfg.Names.Matches())
	if r.Count() != 0 {
		t.Errorf("%d calls of deliveries that Kafka refused", r.Count())
	}
	accept()
	r.Wait(t, n)

	accept = m.opts.cluster.RefuseWrites(t, m.cfg.Names.Attempts())
	send(n)
	r.Wait(t, n+1) // not all: where commits don't keep up, no more calls are made
	accept()
	m.settled(map[string]endings{"pass": {pipeline.Matched: 2 * n, pipeline.Delivered: 2 * n}})
	once(t, r)
}
