package main

import (
	"context"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/millrace-io/millrace/pipeline"
	"github.com/millrace-io/millrace/pipeline/event"
	"github.com/millrace-io/millrace/pipeline/stream"
)

// then is long ago, so that the clock shows the date.
var then = time.Date(2026, 1, 31, 8, 0, 0, 0, time.UTC)

// written is when Kafka took a record, and where Kafka put it.
var written = regexp.MustCompile(`\b\d\d:\d\d:\d\d\.\d{3}\b|\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[.\d]*Z|"partition":\d|/\d@\d`)

// tailed is what tail prints of n records, the test's prefix and the times at
// which Kafka took them apart, sorted: they lie in several partitions.
func (h *house) tailed(n int, args ...string) string {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(h.t.Context(), processPatience)
	defer cancel()
	args = append([]string{"tail"}, append(args, "--from-start", "--count", fmt.Sprint(n))...)
	r := commandUntil(ctx, "", h.args(args...)...).must(h.t)
	text := strings.ReplaceAll(r.out, string(h.cfg.Names), "millrace.")
	text = written.ReplaceAllStringFunc(text, func(s string) string {
		switch {
		case strings.HasPrefix(s, "2026-01-31"):
			return s
		case strings.Contains(s, "T"): // as long as the fraction of a second
			return "TIME"
		}
		return strings.Repeat("_", len(s))
	})
	lines := slices.Sorted(strings.Lines(text))
	if len(lines) != n {
		h.t.Errorf("tail %v prints %d lines, expected %d:\n%s", args, len(lines), n, text)
	}
	return strings.Join(lines, "")
}

const stamp = `"time":"2026-01-31T08:00:00Z"`

func TestTailEvents(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	topic := h.cfg.Names.Events()
	key := []byte("u-1") // one partition: the order is known
	h.produce(
		pipeline.Record{Topic: topic, Key: key, Value: []byte(`{"id":"1",` + stamp + `,"type":"survey.submitted","user":"u-1","properties":{"env.os.name":"Linux","nps_score":"3","comment":"a\nb \u001b[31m","survey_id":"many","answer.7":"x"}}`)},
		pipeline.Record{Topic: topic, Key: key, Value: []byte(`{"id":"2",` + stamp + `,"type":"billing.paid","environment":"qa","properties":{"n":12345678901234567890}}`)},
		pipeline.Record{Topic: topic, Key: key, Value: []byte("\x00\x00\x00\x00\x07abc")},
		pipeline.Record{Topic: topic, Key: key, Value: []byte("no event")},
	)
	golden(t, "tail-events", h.tailed(4, "events"))
	golden(t, "tail-events-json", h.tailed(4, "events", "--json"))
	if got := h.tailed(1, "events", "--type", "*.paid"); !strings.Contains(got, "billing.paid") {
		t.Errorf("--type shows %s", got)
	}
	if got := h.tailed(1, "events", "--user", "u-2,u-1"); !strings.Contains(got, "survey.submitted") {
		t.Errorf("--user shows %s", got)
	}
	h.run("tail", "events", "--events-topics", "regex:nothing.*").fails(t, exitFailed, "no topic fits regex:nothing.*")
}

// TestTailEventsMadeIDs: an event without an id is shown with the one that the
// filter gives it.
func TestTailEventsMadeIDs(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.run("send", "--type", "menu.opened").must(t)
	o := objects(t, h.run("tail", "events", "--from-start", "--count", "1", "--json").must(t).out)[0]
	id, _ := o["event"].(map[string]any)["id"].(string)
	topics, err := stream.DescribeTopics(t.Context(), h.cfg, h.cfg.Names.Events())
	if err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf("/%s/%v/%v", topics[h.cfg.Names.Events()].ID, o["partition"], o["offset"]); !strings.HasSuffix(id, want) || id == want {
		t.Errorf("the id is %q, expected a cluster and %s", id, want)
	}
}

func TestTailEventsInForce(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.runWith("kind: EventType\nname: billing.paid\nproperties:\n  - name: amount\n    type: integer\n", "apply", "-").must(t)
	h.run("send", "--type", "billing.paid", "--prop", "amount=much").must(t)
	if got := h.tailed(1, "events"); !strings.Contains(got, `amount="much"!`) {
		t.Errorf("a value that contradicts the catalog in force is shown as %s", got)
	}
}

// matchRecord is a record as the filter writes it.
func (h *house) matchRecord(e pipeline.Event, value string, webhooks ...string) pipeline.Record {
	m := pipeline.Match{Definitions: 7, At: then, Event: e, Webhooks: webhooks}
	return pipeline.Record{
		Topic: h.cfg.Names.Matches(), Key: []byte("u"), Value: []byte(value), Headers: pipeline.WithEnvelope(nil, m.AppendTo(nil)),
	}
}

func goal(id string) pipeline.Event {
	return pipeline.Event{
		ID: id, Source: "s", Type: "smart_walk_thru.goal_reached", Time: then, Environment: pipeline.Production, User: "u-1",
	}
}

const goalValue = `{"properties":{"wm.language":"en","walk_thru_id":12345,"goal_id":"x"}}`

func TestTailMatches(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.produce(
		h.matchRecord(goal("1"), goalValue, "to-crm", "to-heap"),
		h.matchRecord(goal("2"), goalValue, "to-heap"),
		pipeline.Record{Topic: h.cfg.Names.Matches(), Key: []byte("u"), Value: []byte("{}")},
	)
	golden(t, "tail-matches", h.tailed(3, "matches"))
	golden(t, "tail-matches-json", h.tailed(3, "matches", "--json"))
	if got := h.tailed(1, "matches", "--webhook", "to-c*", "--type", "smart_walk_thru.*"); !strings.Contains(got, "to-crm,to-heap") {
		t.Errorf("--webhook shows %s", got)
	}
}

// deliveryRecord is a record as the transform and the sink write it.
func (h *house) deliveryRecord(topic string, d pipeline.Delivery, body string) pipeline.Record {
	d.Webhook, d.EventID, d.EventType, d.EventTime, d.User = "to-"+d.Destination, "1", "survey.submitted", then, "u-1"
	d.ID = pipeline.DeliveryID(&pipeline.Event{ID: "1"}, d.Webhook)
	d.MatchedAt, d.Definitions = then, 7
	return pipeline.Record{
		Topic: topic, Key: []byte("k"), Value: []byte(body), Headers: pipeline.WithEnvelope(nil, d.AppendTo(nil)),
	}
}

const ownLane = `kind: Destination
name: crm
lane: own
request:
  url: http://127.0.0.1:1/
`

func TestTailDeliveries(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.runWith(ownLane, "apply", "-").must(t)
	names := h.cfg.Names
	h.produce(
		h.deliveryRecord(names.Deliveries("default"), pipeline.Delivery{Destination: "heap", Lane: "default"}, `{"a":12345678901234567890}`),
		h.deliveryRecord(names.Redeliveries("default"), pipeline.Delivery{Destination: "heap", Lane: "default", Attempts: 3, Due: then}, "a=1&b=2"),
		h.deliveryRecord(names.Deliveries("own"), pipeline.Delivery{Destination: "crm", Lane: "own", URL: "http://h/x"}, ""),
	)
	text := h.tailed(3, "deliveries", "--json")
	golden(t, "tail-deliveries-json", text)
	if got := h.tailed(1, "deliveries", "--destination", "crm"); !strings.Contains(got, "to-crm") {
		t.Errorf("--destination shows %s", got)
	}
	// Lanes come in any order, which the columns' widths depend on.
	shown := strings.Join(strings.Fields(h.tailed(3, "deliveries")), " ")
	for _, want := range []string{
		`to-heap heap 0 now {"a":12345678901234567890} `,
		`to-heap heap 3 2026-01-31 08:00:00 a=1&b=2`,
		`to-crm crm 0 now`,
	} {
		if !strings.Contains(shown, want) {
			t.Errorf("%q is not shown in %s", want, shown)
		}
	}
}

// TestTailNewLane: a lane that comes while tail runs is shown too.
func TestTailNewLane(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	p := startProcess(t, h.args("tail", "deliveries", "--from-start")...)
	first := h.deliveryRecord(h.cfg.Names.Deliveries("default"), pipeline.Delivery{Destination: "heap", Lane: "default"}, "first")
	h.produce(first)
	p.out.WaitFor(t, "first", 1)
	h.runWith(ownLane, "apply", "-").must(t)
	h.produce(h.deliveryRecord(h.cfg.Names.Deliveries("own"), pipeline.Delivery{Destination: "crm", Lane: "own"}, "second"))
	p.out.WaitFor(t, "second", 1)
	if code := p.Stop(t); code != exitOK || p.err.String() != "" {
		t.Errorf("exit code %d, %q", code, p.err)
	}
}

func TestTailAttempts(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	base := event.Attempt{
		DeliveryID: "0123456789abcdef0123456789abcdef", Webhook: "to-heap", Destination: "heap", Lane: "default", EventID: "1",
		EventType: "survey.submitted", Attempt: 1, At: then, Latency: 12345 * time.Microsecond, Status: 200, Outcome: "success",
	}
	var rs []pipeline.Record
	add := func(change func(a *event.Attempt)) {
		a := base
		change(&a)
		rs = append(rs, pipeline.Record{Topic: h.cfg.Names.Attempts(), Key: []byte("k"), Value: event.AppendAttempt(nil, &a)})
	}
	add(func(*event.Attempt) {})
	add(func(a *event.Attempt) {
		a.Attempt, a.Status, a.Outcome, a.Response, a.NextAt = 2, 503, "retry", []byte("busy"), then.Add(time.Minute)
	})
	add(func(a *event.Attempt) {
		a.Attempt, a.Status, a.Outcome, a.ErrorClass, a.Error = 3, 0, "retry", "connect", "connection refused"
	})
	add(func(a *event.Attempt) { a.Attempt, a.Status, a.Outcome = 4, 404, "dead_letter" })
	rs = append(rs, pipeline.Record{Topic: h.cfg.Names.Attempts(), Key: []byte("k"), Value: []byte{0xff}})
	h.produce(rs...)
	golden(t, "tail-attempts", h.tailed(5, "attempts"))
	golden(t, "tail-attempts-json", h.tailed(5, "attempts", "--json"))
	for filter, want := range map[string]string{"5xx": "#2", "404": "#4", "success": "#1", "dead_letter,2xx": "#1 #4", "retry": "#2 #3"} {
		all := strings.Fields(want)
		got := regexp.MustCompile(`#\d`).FindAllString(h.tailed(len(all), "attempts", "--status", filter), -1)
		if !slices.Equal(got, all) {
			t.Errorf("--status %s shows %v, expected %v", filter, got, all)
		}
	}
}

func TestTailDeadLetters(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	names := h.cfg.Names
	dead := func(r pipeline.Record, x pipeline.DeadLetter) pipeline.Record {
		x.At = then
		out := pipeline.NewDeadLetter(names.DeadLetters(), &r, x)
		out.Key = []byte("k")
		return out
	}
	delivery := h.deliveryRecord(names.Deliveries("default"), pipeline.Delivery{Destination: "heap", Lane: "default"}, `{"a":1}`)
	h.produce(
		dead(pipeline.Record{Topic: names.Events(), Partition: 1, Offset: 17, Value: []byte("\x01\x02")},
			pipeline.DeadLetter{Stage: "filter", Reason: pipeline.Undecodable, Error: "no event"}),
		dead(delivery, pipeline.DeadLetter{Stage: "sink", Reason: pipeline.FinalResponse, Error: "400 Bad Request", Webhook: "to-heap", Delivery: "0123"}),
		dead(h.matchRecord(goal("1"), goalValue, "to-crm", "to-heap"),
			pipeline.DeadLetter{Stage: "transform", Reason: pipeline.PropertyMissing, Error: "x is missing", Webhook: "to-crm"}),
	)
	golden(t, "tail-dead-letters", h.tailed(3, "dead-letters"))
	golden(t, "tail-dead-letters-json", h.tailed(3, "dead-letters", "--json"))
	for filter, stage := range map[string]string{
		"--reason=undecodable": "filter", "--destination=heap": "sink", "--webhook=to-crm": "transform", "--type=survey.*": "sink", "--user=u-1 --reason=prop*": "transform",
	} {
		if got := h.tailed(1, append([]string{"dead-letters"}, strings.Fields(filter)...)...); !strings.Contains(got, "  "+stage) {
			t.Errorf("%s shows %s", filter, got)
		}
	}
}

// TestTailFromNow shows nothing of what was there before.
func TestTailFromNow(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.run("send", "--type", "menu.opened", "--id", "before").must(t)
	p := startProcess(t, h.args("tail", "events", "--json")...)
	// Where it begins can't be seen: events are sent until one is shown.
	stop := make(chan struct{})
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		for n := 0; ; n++ {
			select {
			case <-stop:
				return
			default:
				commandUntil(h.t.Context(), "", h.args("send", "--type", "menu.opened", "--id", fmt.Sprint("after-", n))...)
			}
		}
	}()
	p.out.WaitFor(t, `"after-`, 1)
	close(stop)
	<-sent
	if code := p.Stop(t); code != exitOK || strings.Contains(p.out.String(), "before") {
		t.Errorf("exit code %d", code)
	}
}

func TestTailSince(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.run("send", "--type", "menu.opened").must(t)
	h.run("tail", "events", "--since", "1h", "--count", "1").must(t)
	for text, want := range map[string]time.Time{
		"10m": then.Add(-10 * time.Minute), "3d": then.Add(-72 * time.Hour), "2026-01-01T00:00:00+01:00": time.Date(2025, 12, 31, 23, 0, 0, 0, time.UTC),
	} {
		if got, err := parseSince(text, then); err != nil || !got.Equal(want) {
			t.Errorf("parseSince(%q) = %v, %v; expected %v", text, got, err, want)
		}
	}
	for _, text := range []string{"-10m", "soon", "2026-01-01", "10"} {
		if got, err := parseSince(text, then); err == nil {
			t.Errorf("parseSince(%q) = %v", text, got)
		}
	}
}

func TestTailEndsOnSignal(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	for what := range views {
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan result, 1)
		go func() { ended <- commandUntil(ctx, "", h.args("tail", what)...) }()
		cancel()
		if r := <-ended; r.code != exitOK || r.err != "" {
			t.Errorf("tail %s: exit code %d, %s", what, r.code, r.err)
		}
	}
}

func TestTailBeforeInit(t *testing.T) {
	t.Parallel()
	h := emptyHouse(t)
	for what := range views {
		h.run("tail", what).fails(t, exitFailed, "millrace init")
	}
}

func TestTailOnTerminal(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.run("send", "--type", "survey.submitted", "--user", "u-1", "--prop", "comment="+strings.Repeat("long ", 40)).must(t)
	tty := openTerminal(t, 60)
	code := run(t.Context(), h.args("tail", "events", "--from-start", "--count", "1"), streams{strings.NewReader(""), tty.file, os.Stderr})
	lines := strings.Split(strings.TrimSpace(tty.text(t)), "\r\n")
	if code != exitOK || len(lines) != 2 {
		t.Fatalf("exit code %d, %q", code, lines)
	}
	if want := "\x1b[2mTIME"; !strings.HasPrefix(lines[0], want) {
		t.Errorf("the head is %q", lines[0])
	}
	visible := regexp.MustCompile("\x1b\\[\\d*m").ReplaceAllString(lines[1], "")
	if n := len([]rune(visible)); n != 60 || !strings.HasSuffix(visible, "…") {
		t.Errorf("%d characters wide: %q", n, visible)
	}
}
