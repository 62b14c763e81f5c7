package main

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/millrace-io/millrace/pipeline"
	"github.com/millrace-io/millrace/pipeline/event"
	"github.com/millrace-io/millrace/pipeline/pipelinetest"
)

// says fails the test unless a text holds all of the others.
func says(t testing.TB, text string, all ...string) {
	t.Helper()
	for _, want := range all {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not said in\n%s", want, text)
		}
	}
}

// explainHooks are webhooks whose deliveries end in different ways.
func explainHooks(url, limit string) string {
	destination := func(name, rest string) string {
		return "kind: Destination\nname: " + name + "\nrequest:\n  url: " + url + "/" + name + "\nretry: {attempts: 3, first: 10ms, cap: 10ms}\n" + rest + "---\n"
	}
	hook := func(name string) string {
		return "kind: Webhook\nname: to-" + name + "\nevent: survey.submitted\ndestination: " + name +
			"\ncondition: |\n  props[\"nps_score\"] <= " + limit + "\nproperties:\n  - from: nps_score\n---\n"
	}
	return destination("good", "") + destination("strict", "") + destination("asleep", "status: paused\n") +
		hook("good") + hook("strict") + hook("asleep")
}

// TestExplainFromEndToEnd: what became of an event, under the definitions of
// then, though others are in force now.
func TestExplainFromEndToEnd(t *testing.T) {
	t.Parallel()
	good := pipelinetest.InTurn(pipelinetest.Answer{Status: http.StatusServiceUnavailable, Body: []byte("busy")}, pipelinetest.Answer{})
	e := pipelinetest.Receiver(t, pipelinetest.Answering(func(c *pipelinetest.Call) pipelinetest.Answer {
		if c.Path == "/strict" {
			return pipelinetest.Answer{Status: http.StatusNotFound, Body: []byte("no such thing")}
		}
		return good(c)
	}))
	m := start(t, options{})
	m.apply(explainHooks(e.URL, "6"))
	m.produce(
		jsonEvent(t, map[string]any{"id": "e-1", "source": "/shop", "type": "survey.submitted", "user": "u-1", "properties": map[string]any{"nps_score": 3}}),
		jsonEvent(t, map[string]any{"id": "e-2", "source": "/shop", "type": "survey.submitted", "user": "u-1", "properties": map[string]any{"nps_score": "many"}}),
	)
	e.Wait(t, 3)
	m.deadLetters(1)
	m.attempts(3)
	m.waiting(1)
	m.apply(explainHooks(e.URL, "1"))

	text := m.command("", "explain", "to-good", "e-1")
	says(t, text, `Event {"id":"e-1"`, "Under the definitions in force at its match (offset ", "It fires: its condition holds",
		`yes     props["nps_score"] <= 6    nps_score is 3`, "Attempt 1 ", "  503  retry  in ", "busy", "next at ",
		"Attempt 2 ", "  200  success  in ", ": delivered, by attempt 2")
	if strings.Index(text, "Attempt 1 ") > strings.Index(text, "Attempt 2 ") {
		t.Errorf("the attempts are not in their order:\n%s", text)
	}
	says(t, m.command("", "explain", "to-strict", "e-1", "--source", "/shop"), "404  dead_letter", "no such thing", ": dead_letter, final_response at the sink: ")
	says(t, m.command("", "explain", "to-asleep", "e-1"), "It fires", ": waiting, ")
	says(t, m.command("", "explain", "to-good", "e-2"), "Under the newest definitions (offset ", "It does not fire: its condition does not hold",
		`no      props["nps_score"] <= 1    nps_score is "many" (the catalog says integer)`, ": none, the webhook does not fire")

	o := objects(t, m.command("", "explain", "to-good", "e-1", "--json"))[0]
	attempts, _ := o["attempts"].([]any)
	if o["state"] != "delivered" || o["fires"] != true || o["definitions_at_match"] != true || len(attempts) != 2 || o["condition"] == nil {
		t.Errorf("as JSON it says %v", o)
	}
	if calls := e.Calls(); o["delivery"] != calls[0].ID() && o["delivery"] != calls[1].ID() && o["delivery"] != calls[2].ID() {
		t.Errorf("the delivery is %v, called were %v", o["delivery"], e.IDs())
	}
}

// TestExplainWhatEndedWithoutATrace: deliveries that expired or were removed are
// not said to wait, though the last that is seen of them is in a topic.
func TestExplainWhatEndedWithoutATrace(t *testing.T) {
	t.Parallel()
	e := pipelinetest.Receiver(t)
	m := start(t, options{})
	definitions := func(status, webhooks string) string {
		return "kind: Destination\nname: crm\nrequest: {url: " + e.URL + "}\nstatus: " + status + "\n" + webhooks
	}
	const (
		brief   = "---\nkind: Webhook\nname: brief\nevent: menu.opened\ndestination: crm\nmax_age: 1s\nexpire_to: drop\n"
		removed = "---\nkind: Webhook\nname: removed\nevent: menu.opened\ndestination: crm\n"
		asleep  = "---\nkind: Webhook\nname: asleep\nevent: menu.opened\ndestination: crm\nstatus: paused\n"
	)
	m.apply(definitions("paused", brief+removed+asleep))
	m.produce(jsonEvent(t, map[string]any{"id": "e-1", "source": "s", "type": "menu.opened"}))
	m.read("a delivery that waits", func(r *pipeline.Record) bool {
		return parseDelivery(t, r).Webhook == "removed"
	}, m.cfg.Names.Deliveries(pipeline.DefaultLane))
	matched := time.Now()
	says(t, m.command("", "explain", "removed", "e-1"), ": waiting, until destination crm takes calls again: it is paused by definition")
	eventually(t, "a second has passed", func() bool { return time.Since(matched) > time.Second })
	m.command(definitions("active", brief), "apply", "-", "--prune")
	m.ledger(map[string]endings{
		"brief": {pipeline.Matched: 1, pipeline.Expired: 1}, "removed": {pipeline.Matched: 1, pipeline.Removed: 1},
	})
	says(t, m.command("", "explain", "brief", "e-1"), ": ended, it was older than max_age")
	m.apply(definitions("paused", brief+removed+asleep))
	says(t, m.command("", "explain", "removed", "e-1"), "It fires", ": ended, its webhook was removed meanwhile")
	says(t, m.command("", "explain", "asleep", "e-1"), "It fires", "Note: the webhook is paused", ": not_matched, the webhook is paused")
}

// surveyRecord is an event as it was produced.
func (h *house) surveyRecord(id, source, properties string) pipeline.Record {
	return pipeline.Record{
		Topic: h.cfg.Names.Events(), Key: []byte("u-1"),
		Value: []byte(`{"id":"` + id + `","source":"` + source + `","type":"survey.submitted","user":"u-1","properties":{` + properties + `}}`),
	}
}

// TestExplainStates: where a delivery stands, by what it left behind.
func TestExplainStates(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.runWith(bothYAML, "apply", "-").must(t)
	defs := h.run("list", "--json").must(t)
	if !strings.Contains(defs.out, "to-crm") {
		t.Fatalf("in force is %s", defs.out)
	}
	e := pipeline.Event{ID: "1", Source: "s"}
	d := pipeline.Delivery{
		ID: pipeline.DeliveryID(&e, "to-crm"), Webhook: "to-crm", Destination: "crm", Lane: "default", EventID: "1",
		EventType: "survey.submitted", MatchedAt: time.Now(), Definitions: 1 << 40,
	}
	names := h.cfg.Names
	delivery := func(topic string) pipeline.Record {
		return pipeline.Record{Topic: topic, Key: []byte("k"), Value: []byte("{}"), Headers: pipeline.WithEnvelope(nil, d.AppendTo(nil))}
	}
	h.produce(
		pipeline.Record{Topic: names.Events(), Value: []byte("no event")},
		h.surveyRecord("1", "other", `"nps_score":9`), h.surveyRecord("1", "s", `"nps_score":3`),
	)
	explain := func(args ...string) string {
		t.Helper()
		return h.run(append([]string{"explain", "to-crm", "1", "--source", "s"}, args...)...).must(t).out
	}
	says(t, explain(), "since no match of it is kept", "It fires", ": not_matched, ")

	h.produce(delivery(names.Deliveries("default")))
	says(t, explain(), "under (offset 1099511627776), since its match is not kept", ": under_way, to the sinks of lane default")

	d.Due = time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)
	h.produce(delivery(names.Delays(pipeline.Tiers()[3])))
	says(t, explain(), ": waiting, in delay tier 2m, due at 2100-01-01T00:00:00Z")

	h.produce(delivery(names.Waiting("default")))
	says(t, explain(), ": waiting, until its turn comes, or a sink has the secret")

	a := event.Attempt{DeliveryID: d.ID, Webhook: "to-crm", Destination: "crm", EventID: "1", Attempt: 1, At: then, ErrorClass: "connect", Error: "nobody there", Outcome: "retry"}
	h.produce(pipeline.Record{Topic: names.Attempts(), Key: []byte(d.ID), Value: event.AppendAttempt(nil, &a)})
	says(t, explain(), "Attempt 1 2026-01-31T08:00:00.000Z  connect  retry  in 0s  nobody there", ": waiting, ")

	r := delivery(names.Deliveries("default"))
	h.produce(pipeline.NewDeadLetter(names.DeadLetters(), &r, pipeline.DeadLetter{
		Stage: "sink", Reason: pipeline.AttemptsUsed, Error: "enough", At: time.Now().Add(time.Second), Webhook: "to-crm", Delivery: d.ID,
	}))
	says(t, explain(), ": dead_letter, attempts_used at the sink: enough")

	h.runWith(destinationYAML, "apply", "-", "--prune").must(t)
	h.produce(h.surveyRecord("2", "s", `"nps_score":3`))
	says(t, h.run("explain", "to-crm", "2").must(t).out, "It can't be explained: there is no webhook", ": none, no such webhook is in force")
}

func TestExplainProblems(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.runWith(bothYAML, "apply", "-").must(t)
	h.run("explain", "to-cmr", "1").fails(t, exitFailed, `there is no webhook "to-cmr", nor was there ever one; did you mean to-crm?`)
	h.run("explain", "to-crm", "1").fails(t, exitFailed, `no event with the id "1" since `)
	h.run("explain", "to-crm", "1", "--since", "soon").fails(t, exitUsage, "--since")
	h.produce(h.surveyRecord("1", "s", ""))
	h.run("explain", "to-crm", "1", "--source", "t").fails(t, exitFailed, "no event")
	h.run("explain", "to-crm", "1").must(t)
	h.produce(h.surveyRecord("1", "s", ""), h.surveyRecord("1", "", ""))
	h.run("explain", "to-crm", "1").fails(t, exitFailed, `several sources have an event with the id "1"; say which one with --source: ["s" ""]`)
	says(t, h.run("explain", "to-crm", "1", "--source", "", "--json").must(t).out, pipeline.DeliveryID(&pipeline.Event{ID: "1", Environment: "production"}, "to-crm"))
}

// TestExplainWithTheCatalogOfThen: what a property's type was at the match
// counts, not what it is now.
func TestExplainWithTheCatalogOfThen(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	zip := func(typ string) string {
		return "kind: EventType\nname: order.sent\nproperties: [{name: zip, type: " + typ + "}]\n---\n" + destinationYAML +
			"---\nkind: Webhook\nname: to-crm\nevent: order.sent\ndestination: crm\ncondition: |\n  props[\"zip\"] == "
	}
	h.runWith(zip("string")+`"5"`+"\n", "apply", "-").must(t)
	then, err := current(t.Context(), h.cfg)
	if err != nil {
		t.Fatal(err)
	}
	m := pipeline.Match{
		Definitions: then.Offset, At: time.Now(), Webhooks: []string{"to-crm"},
		Event: pipeline.Event{ID: "1", Source: "s", Type: "order.sent", Environment: "production"},
	}
	h.produce(
		pipeline.Record{Topic: h.cfg.Names.Events(), Value: []byte(`{"id":"1","source":"s","type":"order.sent","properties":{"zip":"5"}}`)},
		pipeline.Record{Topic: h.cfg.Names.Matches(), Value: []byte("{}"), Headers: pipeline.WithEnvelope(nil, m.AppendTo(nil))},
	)
	h.runWith(zip("integer")+"6\n", "apply", "-").must(t)
	says(t, h.run("explain", "to-crm", "1").must(t).out, `"zip":"5"`, "It fires: its condition holds", `zip is "5"`, ": under_way, to the transform")
}

// TestExplainOfAClockAhead: what became of an event is found though its record
// says that it was written later.
func TestExplainOfAClockAhead(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.runWith(bothYAML, "apply", "-").must(t)
	e := pipeline.Event{ID: "1", Source: "s"}
	a := event.Attempt{DeliveryID: pipeline.DeliveryID(&e, "to-crm"), Webhook: "to-crm", EventID: "1", Attempt: 1, At: then, Status: 200, Outcome: "success"}
	h.produce(h.surveyRecord("1", "s", `"nps_score":3`),
		pipeline.Record{Topic: h.cfg.Names.Attempts(), Key: []byte(a.DeliveryID), Value: event.AppendAttempt(nil, &a)})
	q := &inquiry{explainCmd: &explainCmd{Webhook: "to-crm", EventID: "1"}, cfg: h.cfg, std: streams{err: io.Discard}}
	if err := q.open(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer q.ids.Close()
	since := time.Now().Add(-time.Hour)
	if err := q.find(t.Context(), since); err != nil {
		t.Fatal(err)
	}
	q.record.Time = time.Now().Add(time.Hour)
	if err := q.inquire(t.Context(), since); err != nil {
		t.Fatal(err)
	}
	if at := q.where(); at.state != stateDelivered || len(q.attempts) != 1 {
		t.Errorf("the delivery is %+v", at)
	}
}
