package filter

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/millrace-io/millrace/pipeline"
	"github.com/millrace-io/millrace/pipeline/definition"
	"github.com/millrace-io/millrace/pipeline/event"
	"github.com/millrace-io/millrace/pipeline/pipelinetest"
	"github.com/millrace-io/millrace/pipeline/stream"
	"github.com/millrace-io/millrace/pipeline/telemetry"
)

func TestMain(m *testing.M) { pipelinetest.Main(m) }

// house is a filter without Kafka: its definitions are real ones.
type house struct {
	*filter
	t         testing.TB
	telemetry *telemetry.Telemetry
	now       *definition.Snapshot
	learned   []string // topics
}

// Snapshot gives what is in force, as definition.Live does.
func (h *house) Snapshot() *definition.Snapshot { return h.now }

func build(t testing.TB, text string) *house {
	t.Helper()
	catalog, err := event.BuiltinCatalog()
	if err != nil {
		t.Fatal(err)
	}
	h := &house{t: t, now: definition.NewSnapshot(catalog)}
	if h.telemetry, err = telemetry.New(context.Background(), telemetry.Config{Service: "test"}); err != nil {
		t.Fatal(err)
	}
	h.filter = newFilter(Config{Stream: stream.Config{Names: pipeline.DefaultPrefix}, Metrics: h.telemetry.Metrics}, h, "cluster")
	h.learn = func(_ context.Context, topic string) error {
		h.learned = append(h.learned, topic)
		return nil
	}
	h.apply(text)
	return h
}

// apply puts a file in force.
func (h *house) apply(text string) {
	h.t.Helper()
	set := definition.Parse(definition.File{Name: "test.yaml", Data: []byte(text)})
	plan, problems := definition.NewPlan(h.now, set, definition.Options{Owner: "test"})
	if err := problems.Err(); err != nil {
		h.t.Fatal(err)
	}
	var records []pipeline.Record
	for _, c := range plan.Changes {
		value, err := json.Marshal(c.To)
		if err != nil {
			h.t.Fatal(err)
		}
		records = append(records, pipeline.Record{Key: []byte(c.Key.String()), Value: value})
	}
	h.now = h.now.With(records, h.now.Offset+int64(len(records)))
}

const crm = "kind: Destination\nname: crm\nrequest: {url: https://crm.example}\n---\n"

// hook is the YAML of a webhook for clicks on a launcher.
func hook(name, more string) string {
	return fmt.Sprintf("kind: Webhook\nname: %s\nevent: launcher.clicked\ndestination: crm\n%s\n---\n", name, more)
}

func onLauncher(id int) string {
	return fmt.Sprintf("condition: |\n  props[\"launcher_id\"] == %d", id)
}

// clicked is an event record, as Event JSON.
func clicked(launcher int, more string) pipeline.Record {
	return pipeline.Record{
		Topic: "events", Partition: 1, Offset: 2, Time: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		Value: fmt.Appendf(nil, `{"id":"e1","source":"s","type":"launcher.clicked","user":"ada"%s,"properties":{"launcher_id":%d}}`, more, launcher),
	}
}

// process evaluates a record and returns the matches that come out.
func (h *house) process(r pipeline.Record) (matches []pipeline.Match, out pipeline.Output, err error) {
	h.t.Helper()
	if r.Time.IsZero() {
		r.Time = time.Now() // Kafka's
	}
	err = h.Process(context.Background(), &r, &out)
	for i := range out.Records {
		header, _ := out.Records[i].Header(pipeline.EnvelopeHeader)
		m, err := pipeline.ParseMatch(header)
		if err != nil {
			h.t.Fatal(err)
		}
		matches = append(matches, m)
	}
	return matches, out, err
}

// counts reads metrics: name and labels, without those that are the scope's.
func (h *house) counts(names ...string) map[string]int {
	h.t.Helper()
	w := httptest.NewRecorder()
	h.telemetry.Handler().ServeHTTP(w, httptest.NewRequestWithContext(context.Background(), "GET", "/metrics", nil))
	found := map[string]int{}
	for line := range strings.Lines(w.Body.String()) {
		for _, name := range names {
			labels, ok := strings.CutPrefix(line, "millrace_"+name+"_total")
			if !ok || labels[0] != '{' && labels[0] != ' ' {
				continue
			}
			at := strings.LastIndex(labels, " ")
			n, err := strconv.ParseFloat(strings.TrimSpace(labels[at:]), 64)
			if err != nil {
				h.t.Fatal(err)
			}
			key := name
			if _, rest, ok := strings.Cut(labels, `webhook="`); ok {
				webhook, _, _ := strings.Cut(rest, `"`)
				key += " " + webhook
			}
			found[key] += int(n)
		}
	}
	return found
}

func TestMatches(t *testing.T) {
	t.Parallel()
	h := build(t, crm+hook("one", onLauncher(1))+hook("all", "")+hook("two", onLauncher(2))+
		hook("other-system", "system: shop")+hook("qa", "environment: qa")+
		"kind: Webhook\nname: menus\nevent: menu.opened\ndestination: crm\n")
	for name, c := range map[string]struct {
		record pipeline.Record
		want   []string
	}{
		"by condition":   {clicked(1, ""), []string{"all", "one"}},
		"another":        {clicked(2, ""), []string{"all", "two"}},
		"by system":      {clicked(3, `,"system":"shop"`), []string{"all", "other-system"}},
		"by environment": {clicked(1, `,"environment":"qa"`), []string{"qa"}},
		"nobody":         {clicked(1, `,"environment":"qa","system":"else"`), []string{"qa"}},
	} {
		t.Run(name, func(t *testing.T) {
			matches, out, err := h.process(c.record)
			if err != nil || len(matches) != 1 {
				t.Fatalf("%d matches, error %v", len(matches), err)
			}
			m, r := matches[0], out.Records[0]
			slices.Sort(m.Webhooks)
			if !slices.Equal(m.Webhooks, c.want) {
				t.Errorf("%v fire, expected %v", m.Webhooks, c.want)
			}
			if m.Definitions != h.now.Offset || m.Event.ID != "e1" || m.Event.User != "ada" || time.Since(m.At) > time.Minute {
				t.Errorf("the match is %+v", m)
			}
			if r.Topic != "millrace.matches" || string(r.Key) != "ada" || string(r.Value) != string(c.record.Value) {
				t.Errorf("the record is %+v: Event JSON is passed on byte for byte", r)
			}
			var counted []string
			for _, n := range out.Counts {
				counted = append(counted, n.Webhook)
				if n != pipeline.One(n.Webhook, m.At, pipeline.Matched, pipeline.DeliveryID(&m.Event, n.Webhook)) {
					t.Errorf("the ledger has %+v", n)
				}
			}
			slices.Sort(counted)
			if !slices.Equal(counted, c.want) {
				t.Errorf("the ledger has %v, expected %v", counted, c.want)
			}
		})
	}
}

// TestPausedWebhooksAreCounted has webhooks that fire and would fire.
func TestPausedWebhooksAreCounted(t *testing.T) {
	t.Parallel()
	h := build(t, crm+hook("active", onLauncher(1))+hook("paused", "status: paused\n"+onLauncher(1))+hook("paused-too", "status: paused\n"+onLauncher(2))+
		"kind: Webhook\nname: asleep\nevent: menu.opened\ndestination: crm\nstatus: paused\n")
	for range 3 {
		if matches, _, err := h.process(clicked(1, "")); err != nil || len(matches) != 1 || !slices.Equal(matches[0].Webhooks, []string{"active"}) {
			t.Fatalf("matches %v, error %v", matches, err)
		}
	}
	if matches, out, err := h.process(clicked(2, "")); err != nil || matches != nil || len(out.Counts) > 0 {
		t.Errorf("for paused webhooks alone came %+v, error %v", out, err)
	}
	if _, _, err := h.process(pipeline.Record{Topic: "events", Value: []byte(`{"type":"menu.opened"}`)}); err != nil {
		t.Error(err)
	}
	want := map[string]int{"matches active": 3, "matches_skipped paused": 3, "matches_skipped paused-too": 1, "matches_skipped asleep": 1, "events_read": 5}
	got := h.counts("matches", "matches_skipped", "events_read", "events_unwanted")
	if !maps.Equal(got, want) {
		t.Errorf("counted are %v, expected %v", got, want)
	}
}

// TestUnwantedIsNeverDecoded has events of a type that no webhook wants, which
// could not even be decoded.
func TestUnwantedIsNeverDecoded(t *testing.T) {
	t.Parallel()
	h := build(t, crm+hook("one", ""))
	unwanted := []pipeline.Record{
		{Topic: "events", Value: []byte("no JSON at all"), Headers: []pipeline.Header{
			{Key: "ce_specversion", Value: []byte("1.0")},
			{Key: "ce_id", Value: []byte("1")},
			{Key: "ce_source", Value: []byte("s")},
			{Key: "ce_type", Value: []byte("menu.opened")},
		}},
		{Topic: "events", Value: []byte(`{"type":"menu.opened","properties":{"a":[1]}}`)},
	}
	for i, r := range unwanted {
		matches, out, err := h.process(r)
		if err != nil || matches != nil || len(out.Counts) > 0 {
			t.Errorf("record %d: %+v, error %v", i, out, err)
		}
	}
	if got := h.counts("events_unwanted"); got["events_unwanted"] != len(unwanted) || len(h.learned) > 0 {
		t.Errorf("%v are unwanted, topics %v were asked for", got, h.learned)
	}
	r := unwanted[0]
	r.Headers[3].Value = []byte("launcher.clicked")
	_, _, err := h.process(r)
	if dead, ok := pipeline.IsPermanent(err); !ok || dead.Reason != pipeline.Undecodable {
		t.Errorf("one that is wanted and can't be decoded ended with %v", err)
	}
	h.learn = func(context.Context, string) error { return errors.New("Kafka is away") }
	if _, _, err := h.process(clicked(1, "")); err == nil {
		t.Error("without the topic's id, ids of events can't be made, and there was no error")
	} else if _, permanent := pipeline.IsPermanent(err); permanent {
		t.Errorf("Kafka's absence is final: %v", err)
	}
}

// TestManyWebhooksMakeSeveralMatches has more webhooks than a record may name.
func TestManyWebhooksMakeSeveralMatches(t *testing.T) {
	t.Parallel()
	for n, want := range map[int][]int{pipeline.MaxWebhooks: {200}, pipeline.MaxWebhooks + 1: {200, 1}, 2*pipeline.MaxWebhooks + 50: {200, 200, 50}} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			t.Parallel()
			text := strings.Builder{}
			text.WriteString(crm)
			for i := range n {
				text.WriteString(hook(fmt.Sprint("w", i), ""))
			}
			h := build(t, text.String())
			matches, out, err := h.process(clicked(1, ""))
			if err != nil {
				t.Fatal(err)
			}
			var sizes []int
			seen := map[string]bool{}
			for _, m := range matches {
				sizes = append(sizes, len(m.Webhooks))
				for _, w := range m.Webhooks {
					seen[w] = true
				}
			}
			if !slices.Equal(sizes, want) || len(seen) != n || len(out.Counts) != n {
				t.Errorf("records of %v webhooks, %d different, %d in the ledger; expected %v", sizes, len(seen), len(out.Counts), want)
			}
		})
	}
}

func TestConditionThatFailsConcernsItsWebhookAlone(t *testing.T) {
	t.Parallel()
	h := build(t, crm+hook("broken", "condition: |\n  10 % (int(props[\"launcher_id\"]) - 1) == 0")+hook("fine", ""))
	matches, _, err := h.process(clicked(1, ""))
	if err != nil || len(matches) != 1 || !slices.Equal(matches[0].Webhooks, []string{"fine"}) {
		t.Fatalf("matches %v, error %v", matches, err)
	}
	if got := h.counts("condition_failures"); got["condition_failures broken"] != 1 {
		t.Errorf("counted are %v", got)
	}
}

// TestEventsOfNobodyAreSpread has events without a user: their matches must not
// all go to one partition.
func TestEventsOfNobodyAreSpread(t *testing.T) {
	t.Parallel()
	h := build(t, crm+hook("one", ""))
	_, out, err := h.process(pipeline.Record{Topic: "events", Value: []byte(`{"id":"e7","type":"launcher.clicked"}`)})
	if err != nil || string(out.Records[0].Key) != "e7" {
		t.Errorf("the key is %q, error %v", out.Records[0].Key, err)
	}
}

// TestHeadersOfTheEventStay has what belongs to the event go on, and nothing else.
func TestHeadersOfTheEventStay(t *testing.T) {
	t.Parallel()
	h := build(t, crm+hook("one", ""))
	r := clicked(1, "")
	r.Headers = []pipeline.Header{{Key: "traceparent", Value: []byte("00-1")}, {Key: "theirs", Value: []byte("x")}, {Key: pipeline.EnvelopeHeader, Value: []byte("forged")}}
	_, out, err := h.process(r)
	if err != nil {
		t.Fatal(err)
	}
	var keys []string
	for _, header := range out.Records[0].Headers {
		keys = append(keys, header.Key)
	}
	if !slices.Equal(keys, []string{"traceparent", pipeline.EnvelopeHeader}) {
		t.Errorf("the match has the headers %v", keys)
	}
}

func TestStart(t *testing.T) {
	t.Parallel()
	h := build(t, crm)
	start, err := definition.Start{Topic: "events", ID: "x", Partitions: map[int32]int64{0: 7}}.Record(h.names)
	if err != nil {
		t.Fatal(err)
	}
	h.now = h.now.With([]pipeline.Record{start}, h.now.Offset+1)
	for _, c := range []struct {
		topic     string
		partition int32
		want      int64
		err       string
	}{
		{"events", 0, 0, "--topic events:0 --reset-offsets"},
		{"events", 1, 3, ""}, // added since
		{"others", 0, 3, ""}, // init has not seen it
	} {
		at, err := h.start(c.topic, c.partition, 3)
		if c.err == "" && (err != nil || at != c.want) || c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
			t.Errorf("%s/%d starts at %d, error %v", c.topic, c.partition, at, err)
		}
	}
}

// TestTopics: the operator events are read beside those of producers, and by a
// pattern of their own where these are patterns.
func TestTopics(t *testing.T) {
	t.Parallel()
	h := build(t, crm)
	h.Topics = []string{"a", "b"}
	if got := h.topics(); !slices.Equal(got, []string{"a", "b", "millrace.operator-events"}) || len(h.Topics) != 2 {
		t.Errorf("reads %q", got)
	}
	h.Topics, h.Regex = []string{"^(?:a.*)$"}, true
	if got := h.topics(); !slices.Equal(got, []string{"^(?:a.*)$", `^millrace\.operator-events$`}) {
		t.Errorf("reads %q", got)
	}
}

func BenchmarkProcess(b *testing.B) {
	for _, n := range []int{1, 10_000} {
		b.Run(fmt.Sprintf("webhooks=%d", n), func(b *testing.B) {
			text := strings.Builder{}
			text.WriteString(crm)
			for i := range n {
				text.WriteString(hook(fmt.Sprint("w", i), onLauncher(i)))
			}
			h := build(b, text.String())
			h.learn = func(context.Context, string) error { return nil }
			r := clicked(0, `,"session":"s-1","system":"shop"`)
			pad := fmt.Sprintf(`"properties":{"launcher_name":%q,`, strings.Repeat("x", 485-len(r.Value)-len(`"launcher_name":"",`)))
			r.Value = []byte(strings.Replace(string(r.Value), `"properties":{`, pad, 1))
			if len(r.Value) != 485 {
				b.Fatalf("the event has %d bytes", len(r.Value))
			}
			var out pipeline.Output
			b.ReportAllocs()
			for b.Loop() {
				out.Reset()
				if err := h.Process(context.Background(), &r, &out); err != nil || len(out.Records) != 1 {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkUnwanted(b *testing.B) {
	h := build(b, crm+hook("one", ""))
	r := clicked(1, "")
	r.Value = []byte(strings.Replace(string(r.Value), "launcher.clicked", "menu.opened", 1))
	var out pipeline.Output
	b.ReportAllocs()
	for b.Loop() {
		if err := h.Process(context.Background(), &r, &out); err != nil {
			b.Fatal(err)
		}
	}
}
