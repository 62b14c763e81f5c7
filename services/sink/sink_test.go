package sink

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace-io/millrace/pipeline"
	"github.com/millrace-io/millrace/pipeline/definition"
	"github.com/millrace-io/millrace/pipeline/event"
	"github.com/millrace-io/millrace/pipeline/httpsend"
	"github.com/millrace-io/millrace/pipeline/pipelinetest"
	"github.com/millrace-io/millrace/pipeline/state"
	"github.com/millrace-io/millrace/pipeline/stream"
	"github.com/millrace-io/millrace/pipeline/telemetry"
)

func TestMain(m *testing.M) { pipelinetest.Main(m) }

// house is a sink without Kafka and without HTTP: records go in by take, tickets
// keep what comes out, and an endpoint answers the calls. Its definitions are
// real ones.
type house struct {
	*sink
	t    testing.TB
	live *inForce

	mu        sync.Mutex
	endpoints map[string]endpoint // by destination; without one, calls succeed at once
	missing   map[string]error    // secrets, by destination
	written   map[string]state.State
	deliver   int
}

// endpoint answers calls.
type endpoint func(httpsend.Call) httpsend.Result

// inForce has definitions in force, as definition.Live has, without a topic.
type inForce struct {
	mu      sync.Mutex
	now     *definition.Snapshot
	changed chan struct{}
}

func (f *inForce) Snapshot() *definition.Snapshot {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.now
}

func (f *inForce) At(ctx context.Context, offset int64) (*definition.Snapshot, error) {
	for {
		f.mu.Lock()
		now, changed := f.now, f.changed
		f.mu.Unlock()
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

// publish puts a snapshot in force.
func (f *inForce) publish(s *definition.Snapshot) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.now = s
	close(f.changed)
	f.changed = make(chan struct{})
}

// apply puts a file in force: it replaces what it names.
func (f *inForce) apply(t testing.TB, text string) {
	t.Helper()
	f.publish(after(t, f.Snapshot(), text, false))
}

// replace puts a file in force, and removes what it does not name.
func (f *inForce) replace(t testing.TB, text string) {
	t.Helper()
	f.publish(after(t, f.Snapshot(), text, true))
}

// after is what is in force when a file has been applied to a snapshot.
func after(t testing.TB, s *definition.Snapshot, text string, prune bool) *definition.Snapshot {
	t.Helper()
	set := definition.Parse(definition.File{Name: "test.yaml", Data: []byte(text)})
	plan, problems := definition.NewPlan(s, set, definition.Options{Owner: "test", Prune: prune})
	if err := problems.Err(); err != nil {
		t.Fatal(err)
	}
	var records []pipeline.Record
	for i, c := range plan.Changes {
		r := pipeline.Record{Key: []byte(c.Key.String())}
		if c.To != nil {
			var err error
			if c.To.Revision = s.Offset + int64(i); c.From == nil && s.Broken[c.Key] == nil { // as definition.Store does
				c.To.Created = c.To.Revision
			}
			if r.Value, err = json.Marshal(c.To); err != nil {
				t.Fatal(err)
			}
		}
		records = append(records, r)
	}
	return s.With(records, s.Offset+int64(len(records)))
}

// aDestination is the YAML of a destination; more are further keys.
func aDestination(name, more string) string {
	return fmt.Sprintf("kind: Destination\nname: %s\nrequest: {url: https://%[1]s.example}\n%s\n---\n", name, more)
}

// aWebhook is the YAML of a webhook to a destination.
func aWebhook(name, destination, more string) string {
	return fmt.Sprintf("kind: Webhook\nname: %s\nevent: launcher.clicked\ndestination: %s\n%s\n---\n", name, destination, more)
}

// build makes a house with definitions in force.
func build(t testing.TB, text string) *house {
	t.Helper()
	catalog, err := event.BuiltinCatalog()
	if err != nil {
		t.Fatal(err)
	}
	h := &house{t: t, endpoints: map[string]endpoint{}, missing: map[string]error{}, written: map[string]state.State{}}
	h.live = &inForce{now: definition.NewSnapshot(catalog), changed: make(chan struct{})}
	h.live.apply(t, text)
	h.sink = newSink(Config{
		Stream: stream.Config{Names: pipeline.DefaultPrefix}, Metrics: telemetry.Discard(), Log: slog.New(slog.DiscardHandler),
	})
	h.defs = h.live
	h.stateOf = h.stateNow
	h.newSender = func(def *definition.Destination) (sender, error) { return &fakeSender{h, def}, nil }
	return h
}

// stateNow is the state of a destination as it is written.
func (h *house) stateNow(destination string) state.State {
	h.mu.Lock()
	defer h.mu.Unlock()
	if s, ok := h.written[destination]; ok {
		return s
	}
	return (*state.Snapshot)(nil).State(destination)
}

// write writes states, as state.Writer does.
func (h *house) write(_ context.Context, all map[string]state.Change) error {
	for name, change := range all {
		if next, ok := change(h.stateNow(name)); ok {
			h.mu.Lock()
			h.written[name] = next
			if next == (state.State{}) {
				delete(h.written, name)
			}
			h.mu.Unlock()
		}
	}
	return nil
}

// had puts down what another sink wrote of a destination.
func (h *house) had(s state.State) {
	s.Revision = resourceOf(h.live.Snapshot(), s.Destination).Revision
	h.mu.Lock()
	defer h.mu.Unlock()
	h.written[s.Destination] = s
}

// someone changes the state of a destination elsewhere.
func (h *house) someone(destination string, change state.Change) {
	if s, ok := change(h.stateNow(destination)); ok {
		h.had(s)
	}
	h.destination(destination).follow(h.stateNow(destination))
}

// resume is what `millrace destinations resume` does.
func resume(s state.State) (state.State, bool) {
	s.Status, s.By, s.Reason, s.Detail, s.Since, s.Back = state.Active, "ada", "", "", time.Now(), time.Now()
	return s, true
}

// answer sets what answers the calls to a destination.
func (h *house) answer(destination string, e endpoint) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.endpoints[destination] = e
}

// always answers every call alike, after a time.
func always(r httpsend.Result, latency time.Duration) endpoint {
	return func(httpsend.Call) httpsend.Result {
		<-time.After(latency)
		out := r
		out.Latency = latency
		return out
	}
}

func ok() httpsend.Result { return httpsend.Result{Status: 200, Outcome: httpsend.Success} }

// fakeSender stands where HTTP begins.
type fakeSender struct {
	*house
	def *definition.Destination
}

func (f *fakeSender) Send(_ context.Context, c httpsend.Call) httpsend.Result {
	f.mu.Lock()
	e := f.endpoints[f.def.Name]
	f.mu.Unlock()
	if e == nil {
		return ok()
	}
	return e(c)
}

// senderFunc makes calls, and lacks nothing.
type senderFunc endpoint

func (f senderFunc) Send(_ context.Context, c httpsend.Call) httpsend.Result { return f(c) }

func (senderFunc) Ready() error { return nil }

func (f *fakeSender) Ready() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.missing[f.def.Name]
}

// slip is a ticket that keeps what became of it.
type slip struct {
	t        testing.TB
	record   pipeline.Record
	commits  chan struct{} // closed when calls may go on; nil: they may
	mu       sync.Mutex
	settled  int
	released bool
	out      pipeline.Output
	done     chan struct{}
}

func (s *slip) End(out pipeline.Output) {
	if len(out.Records)+len(out.Counts) == 0 {
		s.t.Error("a delivery ended without a trace")
	}
	s.settle(out, false)
}

func (s *slip) AwaitCommits(ctx context.Context) (waited bool, err error) {
	if s.commits == nil {
		return false, ctx.Err()
	}
	select {
	case <-s.commits:
		return true, nil
	case <-ctx.Done():
		return true, ctx.Err()
	}
}

func (s *slip) Release() { s.settle(pipeline.Output{}, true) }

func (s *slip) settle(out pipeline.Output, released bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settled++
	if s.settled > 1 {
		s.t.Errorf("delivery at %s/%d was settled %d times", s.record.Topic, s.record.Offset, s.settled)
		return
	}
	s.out, s.released = out, released
	close(s.done)
}

func (s *slip) isSettled() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.settled > 0
}

// delivery is one for a webhook, matched now.
func (h *house) delivery(webhook string) pipeline.Delivery {
	h.t.Helper()
	defs := h.live.Snapshot()
	hook := defs.Webhooks[webhook]
	if hook == nil {
		h.t.Fatalf("no webhook %q", webhook)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.deliver++
	return pipeline.Delivery{
		Definitions: defs.Offset, ID: fmt.Sprintf("%032x", h.deliver), Webhook: webhook, Destination: hook.Destination.Name,
		Lane: hook.Destination.Lane, MatchedAt: time.Now().Truncate(time.Millisecond), EventID: "e", EventType: "launcher.clicked",
	}
}

// slipOf is the ticket of a delivery as a live record of its lane.
func (h *house) slipOf(v pipeline.Delivery) *slip {
	return h.slipFrom(h.names.Deliveries(v.Lane), v)
}

func (h *house) slipFrom(topic string, v pipeline.Delivery) *slip {
	return &slip{t: h.t, done: make(chan struct{}), record: pipeline.Record{
		Topic: topic, Time: time.Now(), Value: []byte(`{}`), Key: v.Key(),
		Headers: []pipeline.Header{{Key: pipeline.EnvelopeHeader, Value: v.AppendTo(nil)}},
	}}
}

// takes hands a ticket to the sink.
func (h *house) takes(ctx context.Context, s *slip) *slip {
	h.t.Helper()
	if err := h.take(ctx, &s.record, s); err != nil {
		h.t.Errorf("taking a delivery: %v", err)
	}
	return s
}

// gone is what became of a delivery, in a form to compare.
type gone struct {
	ending   pipeline.Ending // "" if it comes back
	reason   pipeline.Reason // of a dead letter
	error    string          // likewise
	attempts []string        // records of attempts: number, outcome
	again    *pipeline.Delivery
	topic    string // where it comes back from
	released bool
}

// became waits until a delivery is settled and reads what came out.
func (h *house) became(s *slip) gone {
	h.t.Helper()
	<-s.done
	g := gone{released: s.released}
	for _, r := range s.out.Records {
		header, _ := r.Header(pipeline.EnvelopeHeader)
		switch r.Topic {
		case h.names.Attempts():
			a, err := event.ParseAttempt(r.Value)
			if err != nil {
				h.t.Fatal(err)
			}
			g.attempts = append(g.attempts, fmt.Sprintf("%d %s", a.Attempt, a.Outcome))
		case h.names.DeadLetters():
			x, err := pipeline.ParseDeadLetter(header)
			if err != nil {
				h.t.Fatal(err)
			}
			g.reason, g.error = x.Reason, x.Error
		case h.names.OperatorEvents():
		default:
			v, err := pipeline.ParseDelivery(header)
			if err != nil {
				h.t.Fatal(err)
			}
			g.again, g.topic = &v, r.Topic
		}
	}
	for _, c := range s.out.Counts {
		g.ending = c.Ending
	}
	if len(s.out.Counts) > 1 {
		h.t.Errorf("the ledger has %v for one delivery", s.out.Counts)
	}
	return g
}

// test runs f in a bubble of synthetic time, with a house built there.
func test(t *testing.T, text string, f func(*testing.T, *house)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := build(t, text)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go h.writeStates(ctx, h.write)
		f(t, h)
		synctest.Wait()
		if held := h.held.Load(); held != 0 {
			t.Errorf("calls of %d bytes are still held", held)
		}
	})
}

// runtimeOf is the runtime of a destination, whose fields the test may read when
// nothing goes on.
func (h *house) runtimeOf(name string) *destination {
	synctest.Wait()
	return h.destination(name)
}

// lineOf is how many calls a second the slow start of a destination allows; 0
// without one.
func (h *house) lineOf(name string) float64 {
	d := h.runtimeOf(name)
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.pace.line
}

// logText is a log as text. Whoever reads it may do so while another writes.
type logText struct {
	mu   sync.Mutex
	text strings.Builder
}

// Write implements io.Writer.
func (l *logText) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *logText) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func logTo(l *logText) *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }
