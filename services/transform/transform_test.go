package transform

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace-io/millrace/pipeline"
	"github.com/millrace-io/millrace/pipeline/definition"
	"github.com/millrace-io/millrace/pipeline/event"
	"github.com/millrace-io/millrace/pipeline/pipelinetest"
	"github.com/millrace-io/millrace/pipeline/stream"
	"github.com/millrace-io/millrace/pipeline/telemetry"
)

func TestMain(m *testing.M) { pipelinetest.Main(m) }

// house is a transform without Kafka: its definitions are real ones.
type house struct {
	*transform
	t testing.TB

	mu      sync.Mutex
	now     *definition.Snapshot
	changed chan struct{}
}

// At gives what is in force, as definition.Live does.
func (h *house) At(ctx context.Context, offset int64) (*definition.Snapshot, error) {
	for {
		h.mu.Lock()
		now, changed := h.now, h.changed
		h.mu.Unlock()
		if now.Offset >= offset {
			return now, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (h *house) Snapshot() *definition.Snapshot {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.now
}

func build(t testing.TB, text string) *house {
	t.Helper()
	catalog, err := event.BuiltinCatalog()
	if err != nil {
		t.Fatal(err)
	}
	h := &house{t: t, now: definition.NewSnapshot(catalog), changed: make(chan struct{})}
	h.transform = newTransform(Config{Stream: stream.Config{Names: pipeline.DefaultPrefix}, Metrics: telemetry.Discard()}, h)
	h.apply(text)
	return h
}

// apply puts a file in force, and removes what it does not name.
func (h *house) apply(text string) {
	h.t.Helper()
	set := definition.Parse(definition.File{Name: "test.yaml", Data: []byte(text)})
	plan, problems := definition.NewPlan(h.now, set, definition.Options{Owner: "test", Prune: true})
	if err := problems.Err(); err != nil {
		h.t.Fatal(err)
	}
	var records []pipeline.Record
	for _, c := range plan.Changes {
		r := pipeline.Record{Key: []byte(c.Key.String())}
		if c.To != nil {
			var err error
			if r.Value, err = json.Marshal(c.To); err != nil {
				h.t.Fatal(err)
			}
		}
		records = append(records, r)
	}
	h.put(records...)
}

// put writes records into the definitions.
func (h *house) put(records ...pipeline.Record) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.now = h.now.With(records, h.now.Offset+int64(len(records)))
	close(h.changed)
	h.changed = make(chan struct{})
}

// destination is the YAML of a destination; more are further keys.
func destination(name, request, more string) string {
	return fmt.Sprintf("kind: Destination\nname: %s\nrequest:\n  url: %s\n%s\n---\n", name, request, more)
}

// hook is the YAML of a webhook for clicks on a launcher.
func hook(name, to, more string) string {
	return fmt.Sprintf("kind: Webhook\nname: %s\nevent: launcher.clicked\ndestination: %s\n%s\n---\n", name, to, more)
}

var matchedAt = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// match is a record of the matches topic.
func (h *house) match(properties string, webhooks ...string) *pipeline.Record {
	m := pipeline.Match{
		Definitions: h.now.Offset, At: matchedAt, Webhooks: webhooks,
		Event: pipeline.Event{ID: "e1", Source: "s", Type: "launcher.clicked", Time: matchedAt, Environment: pipeline.Production, User: "ada lovelace"},
	}
	return &pipeline.Record{
		Topic: "millrace.matches", Key: []byte("ada"), Value: []byte(`{"properties":` + properties + `}`),
		Headers: []pipeline.Header{
			{Key: "traceparent", Value: []byte("00-1")},
			{Key: "theirs", Value: []byte("x")},
			{Key: pipeline.EnvelopeHeader, Value: m.AppendTo(nil)},
		},
	}
}

// made is what comes out for one webhook.
type made struct {
	topic, key, value, url string
	reason                 pipeline.Reason
	ending                 pipeline.Ending
}

// outcome reads an output: what was made for each webhook.
func (h *house) outcome(out *pipeline.Output) map[string]made {
	h.t.Helper()
	found := map[string]made{}
	for i := range out.Records {
		r := &out.Records[i]
		header, _ := r.Header(pipeline.EnvelopeHeader)
		switch r.Topic {
		case h.names.OperatorEvents():
			continue
		case h.names.DeadLetters():
			x, err := pipeline.ParseDeadLetter(header)
			if err != nil {
				h.t.Fatal(err)
			}
			found[x.Webhook] = made{topic: r.Topic, reason: x.Reason}
			continue
		}
		v, err := pipeline.ParseDelivery(header)
		if err != nil {
			h.t.Fatal(err)
		}
		found[v.Webhook] = made{topic: r.Topic, key: string(r.Key), value: string(r.Value), url: v.URL}
	}
	for _, c := range out.Counts {
		m := found[c.Webhook]
		m.ending = c.Ending
		found[c.Webhook] = m
	}
	return found
}

const heapMapping = "properties:\n  - {from: wm.euid, as: identity}\n  - {name: app_id, value: \"11\"}\n  - {name: event, value: e}\n"

// TestDeliveries has for each webhook of one match what comes of it: a failure
// concerns that webhook alone.
func TestDeliveries(t *testing.T) {
	t.Parallel()
	mapped := "properties:\n  - {from: launcher_id, as: id}\n"
	h := build(t, destination("crm", "https://crm.example", "")+
		destination("own", "https://own.example", "lane: fast")+
		destination("search", "https://search.example\n  method: GET", "")+
		destination("dynamic", "https://x.example/{{ event.user }}?id={{ props[\"launcher_id\"] }}", "")+
		destination("needy", "https://x.example/{{ props[\"launcher_name\"] }}", "")+
		destination("small", "https://small.example", "limits: {max_body: 10}")+
		hook("all", "crm", "")+hook("mapped", "crm", mapped)+hook("paused", "crm", "status: paused\n"+mapped)+
		hook("own", "own", mapped)+
		hook("get", "search", mapped+"  - {name: q, value: a b}\n")+
		hook("url", "dynamic", mapped)+
		hook("fits", "small", mapped)+
		hook("large", "small", mapped+"  - {name: b, value: 1}\n")+
		hook("required", "crm", "properties:\n  - {from: launcher_name, required: true}\n")+
		"kind: Destination\nname: heap\npreset: heap\n---\n"+
		hook("kept", "heap", heapMapping)+
		hook("broken", "heap", heapMapping+"  - {name: /properties/x, expr: \"[1]\"}\n")+
		hook("failing", "crm", "properties:\n  - name: x\n    expr: |\n      10 % (int(props[\"launcher_id\"]) - 7)\n"))
	const dead, lost = "millrace.dead-letters", pipeline.DeadLettered
	want := map[string]made{
		"all":      {topic: "millrace.deliveries.default", key: "crm", value: `{"launcher_id":7,"wm.euid":"ada lovelace","type":"launcher.clicked","created_at":1767323045000,"wm.env":0}`},
		"mapped":   {topic: "millrace.deliveries.default", key: "crm", value: `{"id":7}`},
		"paused":   {topic: "millrace.deliveries.default", key: "crm", value: `{"id":7}`}, // it fired before
		"own":      {topic: "millrace.deliveries.fast", key: "ada lovelace", value: `{"id":7}`},
		"get":      {topic: "millrace.deliveries.default", key: "search", value: `id=7&q=a+b`},
		"url":      {topic: "millrace.deliveries.default", key: "dynamic", value: `{"id":7}`, url: "https://x.example/ada%20lovelace?id=7"},
		"fits":     {topic: "millrace.deliveries.default", key: "small", value: `{"id":7}`},
		"large":    {topic: dead, reason: pipeline.TooLarge, ending: lost},
		"required": {topic: dead, reason: pipeline.PropertyMissing, ending: lost},
		"failing":  {topic: dead, reason: pipeline.MappingFailed, ending: lost},
		"kept":     {topic: "millrace.deliveries.default", key: "heap", value: `{"identity":"ada lovelace","app_id":"11","event":"e"}`},
		"broken":   {topic: dead, reason: pipeline.ContractBroken, ending: lost},
		"removed":  {ending: pipeline.Removed},
	}
	var names []string
	for name := range want {
		names = append(names, name)
	}
	slices.Sort(names)
	in := h.match(`{"launcher_id":7}`, names...)
	var out pipeline.Output
	if err := h.Process(t.Context(), in, &out); err != nil {
		t.Fatal(err)
	}
	got := h.outcome(&out)
	for _, name := range names {
		if got[name] != want[name] {
			t.Errorf("%s: %+v, expected %+v", name, got[name], want[name])
		}
	}
	told := h.told(&out)
	if len(got) != len(want) || len(out.Records) != len(want)-1+len(told) || len(told) != 3 || len(out.Counts) != 5 {
		t.Errorf("%d records, %d counts, told is %q", len(out.Records), len(out.Counts), told)
	}
}

// told returns what the operator events of an output say.
func (h *house) told(out *pipeline.Output) (said []string) {
	h.t.Helper()
	for i := range out.Records {
		if out.Records[i].Topic != h.names.OperatorEvents() {
			continue
		}
		var e struct {
			Type       string
			Properties json.RawMessage
		}
		if err := json.Unmarshal(out.Records[i].Value, &e); err != nil {
			h.t.Fatal(err)
		}
		said = append(said, e.Type+" "+string(e.Properties))
	}
	return said
}

// Of a destination's dead letters the first is told at once, those of the minute
// after it with the next; again, if its transaction was aborted; and never those
// of operator events.
func TestDeadLettersAreTold(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		required := "properties:\n  - {from: launcher_name, required: true}\n"
		h := build(t, destination("crm", "https://crm.example", "lane: own")+destination("mail", "https://mail.example", "")+
			hook("one", "crm", required)+hook("two", "crm", required)+hook("three", "mail", required))
		h.put(pipeline.Record{Key: []byte("Webhook/unreadable"), Value: []byte(`{"format":9}`)})
		process := func(in *pipeline.Record) []string {
			t.Helper()
			var out pipeline.Output
			if err := h.Process(t.Context(), in, &out); err != nil {
				t.Fatal(err)
			}
			return h.told(&out)
		}
		e := pipeline.Event{ID: "e1", Source: "s"}
		says := func(destination, lane, webhook string, count int) string {
			return fmt.Sprintf(`millrace.destination_dead_letters {"destination":%q,"lane":%q,"count":%d,"webhook":%q,"delivery":%q,`+
				`"reason":"property_missing","detail":"the required property \"launcher_name\" is missing"}`, destination, lane, count, webhook, pipeline.DeliveryID(&e, webhook))
		}
		operator := h.match(`{}`)
		m := pipeline.Match{
			Definitions: h.now.Offset, At: matchedAt, Webhooks: []string{"two"},
			Event: pipeline.Event{ID: "e1", Type: pipeline.DestinationPaused, Time: matchedAt},
		}
		operator.Headers[2].Value = m.AppendTo(nil)
		for i, step := range []struct {
			after time.Duration
			in    *pipeline.Record
			want  []string
		}{
			{0, operator, nil},
			{0, h.match(`{}`, "unreadable"), nil},
			{0, h.match(`{}`, "one"), []string{says("crm", "own", "one", 1)}},
			{0, h.match(`{}`, "one"), []string{says("crm", "own", "one", 1)}},
			{0, h.match(`{}`, "two", "three"), []string{says("mail", "default", "three", 1)}},
			{event.AlertPause, h.match(`{}`, "two"), []string{says("crm", "own", "two", 2)}},
			{time.Second, h.match(`{}`, "one"), nil},
		} {
			time.Sleep(step.after)
			if got := process(step.in); !slices.Equal(got, step.want) {
				t.Errorf("step %d: told is\n%q, not\n%q", i, got, step.want)
			}
		}
	})
}

func TestDeliveryEnvelope(t *testing.T) {
	t.Parallel()
	h := build(t, destination("crm", "https://crm.example", "")+hook("one", "crm", ""))
	in := h.match(`{}`, "one")
	h.apply(destination("crm", "https://crm.example", "description: newer") + hook("one", "crm", ""))
	var out pipeline.Output
	if err := h.Process(t.Context(), in, &out); err != nil {
		t.Fatal(err)
	}
	r := &out.Records[0]
	header, _ := r.Header(pipeline.EnvelopeHeader)
	got, err := pipeline.ParseDelivery(header)
	if err != nil {
		t.Fatal(err)
	}
	e := pipeline.Event{ID: "e1", Source: "s"}
	want := pipeline.Delivery{
		Definitions: h.now.Offset, ID: pipeline.DeliveryID(&e, "one"), Webhook: "one", Destination: "crm", Lane: "default",
		MatchedAt: matchedAt, EventID: "e1", EventType: "launcher.clicked", EventTime: matchedAt, User: "ada lovelace",
	}
	if got != want {
		t.Errorf("the delivery is %+v, expected %+v", got, want)
	}
	if len(r.Headers) != 2 || r.Headers[0].Key != "traceparent" {
		t.Errorf("the headers are %v, expected the event's and the envelope", r.Headers)
	}
	var again pipeline.Output
	if err := h.Process(t.Context(), in, &again); err != nil || string(again.Records[0].Value) != string(r.Value) {
		t.Errorf("a second time gives %s, error %v", again.Records[0].Value, err)
	}
}

// TestWaitsForDefinitions has a match that was made under newer definitions.
func TestWaitsForDefinitions(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := build(t, destination("crm", "https://crm.example", "")+hook("one", "crm", ""))
		early := h.match(`{}`, "one", "late")
		m := pipeline.Match{Definitions: h.now.Offset + 1, At: matchedAt, Webhooks: []string{"one", "late"}, Event: pipeline.Event{ID: "e1", Type: "launcher.clicked", Time: matchedAt}}
		early.Headers[2].Value = m.AppendTo(nil)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := h.Process(ctx, early, &pipeline.Output{}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("without the definitions it ended with %v", err)
		}
		var out pipeline.Output
		done := make(chan error)
		go func() { done <- h.Process(t.Context(), early, &out) }()
		synctest.Wait()
		h.apply(destination("crm", "https://crm.example", "") + hook("one", "crm", "") + hook("late", "crm", ""))
		if err := <-done; err != nil || len(out.Records) != 2 || len(out.Counts) != 0 {
			t.Errorf("with them came %+v, error %v", h.outcome(&out), err)
		}
	})
}

// TestBrokenDefinitionIsADeadLetter has a webhook that this version can't read:
// it is not removed.
func TestBrokenDefinitionIsADeadLetter(t *testing.T) {
	t.Parallel()
	h := build(t, destination("crm", "https://crm.example", "")+hook("one", "crm", "")+hook("two", "crm", ""))
	h.put(pipeline.Record{Key: []byte("Webhook/one"), Value: []byte(`{"format":9}`)})
	var out pipeline.Output
	if err := h.Process(t.Context(), h.match(`{}`, "one", "two"), &out); err != nil {
		t.Fatal(err)
	}
	got := h.outcome(&out)
	if got["one"].reason != pipeline.UnusableDefinition || got["one"].ending != pipeline.DeadLettered || got["two"].topic != "millrace.deliveries.default" {
		t.Errorf("it became %+v", got)
	}
}

// TestPanicConcernsItsWebhookAlone has a webhook that is a bug of ours.
func TestPanicConcernsItsWebhookAlone(t *testing.T) {
	t.Parallel()
	h := build(t, destination("crm", "https://crm.example", "")+hook("one", "crm", "")+hook("two", "crm", ""))
	bug := *h.now.Webhooks["one"]
	bug.Mapping = nil
	h.now.Webhooks["one"] = &bug
	var out pipeline.Output
	if err := h.Process(t.Context(), h.match(`{}`, "one", "two"), &out); err != nil {
		t.Fatal(err)
	}
	got := h.outcome(&out)
	if got["one"].reason != pipeline.Panicked || got["one"].ending != pipeline.DeadLettered || got["two"].topic != "millrace.deliveries.default" {
		t.Errorf("it became %+v", got)
	}
}

// TestDeadLetterKeepsTheMatch has a dead letter of which the match can be read
// again.
func TestDeadLetterKeepsTheMatch(t *testing.T) {
	t.Parallel()
	h := build(t, destination("crm", "https://crm.example", "")+hook("one", "crm", "properties:\n  - {from: launcher_name, required: true}\n"))
	in := h.match(`{}`, "one")
	in.Partition, in.Offset = 3, 99
	var out pipeline.Output
	if err := h.Process(t.Context(), in, &out); err != nil {
		t.Fatal(err)
	}
	header, _ := out.Records[0].Header(pipeline.EnvelopeHeader)
	x, err := pipeline.ParseDeadLetter(header)
	if err != nil {
		t.Fatal(err)
	}
	m, err := pipeline.ParseMatch(x.Envelope)
	if err != nil || m.Event.ID != "e1" || string(out.Records[0].Value) != string(in.Value) {
		t.Errorf("of the match is left %+v, %s: %v", m, out.Records[0].Value, err)
	}
	if x.Stage != Role || x.Topic != in.Topic || x.Partition != 3 || x.Offset != 99 || x.Delivery == "" || !strings.Contains(x.Error, "launcher_name") {
		t.Errorf("the dead letter is %+v", x)
	}
}

// TestBrokenMatch has records that are no match: the whole record can't go on,
// and the ledger learns as much as can be read.
func TestBrokenMatch(t *testing.T) {
	t.Parallel()
	h := build(t, destination("crm", "https://crm.example", "")+hook("one", "crm", ""))
	whole := h.match(`{}`, "one", "two")
	for name, c := range map[string]struct {
		change func(*pipeline.Record)
		reason pipeline.Reason // "" if the role has to stop
		counts int
	}{
		"no envelope": {func(r *pipeline.Record) { r.Headers = nil }, pipeline.BrokenEnvelope, 0},
		"cut":         {func(r *pipeline.Record) { v := &r.Headers[2].Value; *v = (*v)[:len(*v)-1] }, pipeline.BrokenEnvelope, 0},
		"of a newer version": {func(r *pipeline.Record) {
			r.Headers[2].Value = append([]byte{pipeline.EnvelopeFormat + 1}, r.Headers[2].Value[1:]...)
		}, "", 0},
		"no event": {func(r *pipeline.Record) { r.Value = []byte(`{"properties":[]}`) }, pipeline.Undecodable, 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := *whole
			r.Headers = slices.Clone(whole.Headers)
			c.change(&r)
			err := h.Process(t.Context(), &r, &pipeline.Output{})
			dead, permanent := pipeline.IsPermanent(err)
			if c.reason == "" {
				if permanent || !errors.Is(err, pipeline.ErrNewerFormat) {
					t.Errorf("it ended with %v", err)
				}
			} else if !permanent || dead.Reason != c.reason {
				t.Errorf("it ended with %v, expected %s", err, c.reason)
			}
			var out pipeline.Output
			h.givenUp(&r, &pipeline.PermanentError{Reason: pipeline.Panicked, Err: errors.New("on purpose")}, &out)
			counts := out.Counts
			if len(counts) != c.counts {
				t.Errorf("the ledger has %v", counts)
			}
			for i, n := range counts {
				e := pipeline.Event{ID: "e1", Source: "s"}
				webhook := []string{"one", "two"}[i]
				if n != pipeline.One(webhook, matchedAt, pipeline.DeadLettered, pipeline.DeliveryID(&e, webhook)) {
					t.Errorf("the ledger has %+v of %s", n, webhook)
				}
			}
		})
	}
}

// What the runner itself gives up of a match is told of, as is what the transform
// buries; the same again where it has to give it up again.
func TestGivenUpIsTold(t *testing.T) {
	t.Parallel()
	h := build(t, destination("crm", "https://crm.example", "")+hook("one", "crm", ""))
	dead := &pipeline.PermanentError{Reason: pipeline.Panicked, Err: errors.New("on purpose")}
	in := h.match(`{}`, "one", "gone")
	var told []string
	for range 2 {
		var out pipeline.Output
		h.givenUp(in, dead, &out)
		if len(out.Counts) != 2 || len(out.Records) != 1 {
			t.Fatalf("there are %d counts and %d events", len(out.Counts), len(out.Records))
		}
		told = append(told, string(out.Records[0].Value))
	}
	for _, want := range []string{pipeline.DestinationDeadLetters, `"one"`, `"crm"`, "on purpose"} {
		if !strings.Contains(told[0], want) {
			t.Errorf("%s does not say %s", told[0], want)
		}
	}
	if told[1] != told[0] {
		t.Errorf("first it told %s, then %s", told[0], told[1])
	}
	m := pipeline.Match{At: time.Now(), Event: pipeline.Event{ID: "e", Type: pipeline.DestinationPaused}, Webhooks: []string{"one"}}
	var out pipeline.Output
	h.givenUp(&pipeline.Record{Headers: []pipeline.Header{{Key: pipeline.EnvelopeHeader, Value: m.AppendTo(nil)}}}, dead, &out)
	if len(out.Records) > 0 || len(out.Counts) != 1 {
		t.Errorf("of an operator event there are %v", out)
	}
}

func BenchmarkProcess(b *testing.B) {
	for _, n := range []int{1, 10_000} {
		b.Run(fmt.Sprintf("webhooks=%d", n), func(b *testing.B) {
			text := strings.Builder{}
			text.WriteString(destination("crm", "https://crm.example", ""))
			for i := range n {
				text.WriteString(hook(fmt.Sprint("w", i), "crm", "properties:\n  - {from: wm.euid, as: identity}\n  - {name: app_id, value: \"11\"}\n"+
					"  - {name: event, value: Clicked}\n  - {from: launcher_name, as: name}\n  - name: /properties/subject\n    expr: |\n      props[\"launcher_name\"] ?? \"none\"\n"))
			}
			h := build(b, text.String())
			const bytes = 485
			in := h.match(fmt.Sprintf(`{"launcher_id":7,"launcher_name":%q}`, strings.Repeat("x", bytes-51)), "w0")
			if len(in.Value) != bytes {
				b.Fatalf("the event has %d bytes", len(in.Value))
			}
			var out pipeline.Output
			b.ReportAllocs()
			for b.Loop() {
				out.Reset()
				if err := h.Process(context.Background(), in, &out); err != nil || len(out.Records) != 1 || len(out.Counts) > 0 {
					b.Fatal(err)
				}
			}
		})
	}
}
