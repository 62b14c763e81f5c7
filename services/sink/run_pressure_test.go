package sink_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/millrace-io/millrace/pipeline"
	"github.com/millrace-io/millrace/pipeline/definition"
	"github.com/millrace-io/millrace/pipeline/event"
	"github.com/millrace-io/millrace/pipeline/httpsend"
	"github.com/millrace-io/millrace/pipeline/pipelinetest"
	"github.com/millrace-io/millrace/pipeline/state"
	"github.com/millrace-io/millrace/pipeline/stream"
	"github.com/millrace-io/millrace/pipeline/telemetry"
	"github.com/millrace-io/millrace/services/sink"
)

// change changes the state of a destination, as somebody else would.
func (r *running) change(name string, c state.Change) {
	r.t.Helper()
	w, err := state.OpenWriter(r.t.Context(), r.cfg)
	if err != nil {
		r.t.Fatal(err)
	}
	defer w.Close()
	_, err = w.Change(r.t.Context(), map[string]state.Change{name: func(s state.State) (state.State, bool) {
		next, changed := c(s)
		next.Revision = 1 << 30 // whatever is in force is not newer
		return next, changed
	}})
	if err != nil {
		r.t.Fatal(err)
	}
}

// awaitState waits until the state of a destination that is written is as a test
// wants it.
func (r *running) awaitState(name string, ok func(state.State) bool) state.State {
	r.t.Helper()
	l := state.NewLive(r.cfg)
	ctx, cancel := context.WithTimeout(r.t.Context(), patience)
	defer cancel()
	var running sync.WaitGroup
	defer running.Wait()
	running.Go(func() { _ = l.Run(ctx) })
	defer cancel()
	for {
		changed := l.Changed()
		if s := l.Snapshot().State(name); l.Snapshot() != nil && ok(s) {
			return s
		}
		select {
		case <-changed:
		case <-ctx.Done():
			r.t.Fatalf("the state of %s is %+v", name, l.Snapshot().State(name))
		}
	}
}

// TestRunPausesOutliveTheSink has a destination that refuses calls until somebody
// mends it. Another sink does not call it either; when it is resumed, everything
// that has waited arrives.
func TestRunPausesOutliveTheSink(t *testing.T) {
	t.Parallel()
	const n = 20
	receiver := pipelinetest.Receiver(t, pipelinetest.Answering(func(*pipelinetest.Call) pipelinetest.Answer {
		return pipelinetest.Answer{Status: http.StatusForbidden}
	}))
	neighbour := pipelinetest.Receiver(t)
	r := run(t, destinationAt("crm", receiver.URL, "retry: {first: 10ms, cap: 100ms}")+destinationAt("neighbour", neighbour.URL, ""))
	for i := range n {
		r.deliver(id(i), "crm", `{}`)
	}
	s := r.awaitState("crm", func(s state.State) bool { return s.Status == state.Paused })
	if s.By != state.BySink || s.Reason != state.Refused || s.Since.IsZero() {
		t.Errorf("it is paused as %+v", s)
	}
	r.stop()
	called := receiver.Count()
	if called < 5 || called > n {
		t.Errorf("%d calls were made", called)
	}

	r.cfg.Instance = "another"
	r.start()
	r.deliver(id(n), "crm", `{}`)
	r.deliver(id(n+1), "neighbour", `{}`)
	r.ledger(1)
	r.apply(destinationAt("crm", receiver.URL, "platform: mended")) // which resumes nothing
	if receiver.Count() != called {
		t.Errorf("%d calls were made while it was paused", receiver.Count()-called)
	}
	receiver.Answer(func(*pipelinetest.Call) pipelinetest.Answer { return pipelinetest.Answer{} })
	r.change("crm", func(s state.State) (state.State, bool) {
		s.Status, s.By, s.Reason, s.Detail, s.Since, s.Back, s.Rate = state.Active, "ada", "", "", time.Now().UTC(), time.Now().UTC(), 1000
		return s, true
	})
	if got := r.ledger(n + 2); got["crm delivered"] != n+1 {
		t.Errorf("the ledger is %v", got)
	}
}

// TestRunBreakerOutlivesTheSink has a destination that is down when its sink is
// replaced: the next one makes one call, the probe, and no more before it is up.
func TestRunBreakerOutlivesTheSink(t *testing.T) {
	t.Parallel()
	const n = 20
	receiver := pipelinetest.Receiver(t, pipelinetest.Answering(func(*pipelinetest.Call) pipelinetest.Answer {
		return pipelinetest.Answer{Status: http.StatusServiceUnavailable}
	}))
	neighbour := pipelinetest.Receiver(t)
	r := run(t, destinationAt("crm", receiver.URL, "limits: {concurrency: 1}\nretry: {first: 10ms, cap: 100ms}\nbreaker: {failures: 3, open: 2s}")+
		destinationAt("neighbour", neighbour.URL, ""))
	for i := range n {
		r.deliver(id(i), "crm", `{}`)
	}
	s := r.awaitState("crm", func(s state.State) bool { return !s.OpenUntil.IsZero() })
	if s.Instance != "test" || s.Status != state.Active {
		t.Errorf("the breaker is written as %+v", s)
	}
	r.stop()
	called := receiver.Count()

	receiver.Answer(pipelinetest.InTurn(pipelinetest.Answer{Status: http.StatusServiceUnavailable}, pipelinetest.Answer{}))
	r.cfg.Instance = "another"
	r.start()
	if got := r.ledger(n); got["crm delivered"] != n {
		t.Errorf("the ledger is %v", got)
	}
	r.awaitState("crm", func(s state.State) bool { return s.OpenUntil.IsZero() })
	calls := receiver.Calls()[called:]
	if len(calls) < n+1 {
		t.Fatalf("%d calls were made by the second sink", len(calls))
	}
	if wait := calls[1].Time.Sub(calls[0].Time); wait < 2*time.Second {
		t.Errorf("%v after a probe that failed, there was another call", wait)
	}
}

func destinationAt(name, url, more string) string {
	return fmt.Sprintf("kind: Destination\nname: %s\nrequest: {url: %q}\n%s\n---\nkind: Webhook\nname: %[1]s\nevent: launcher.clicked\ndestination: %[1]s\n---\n", name, url, more)
}

// TestRunLimitsHoldOverSinks has one sink, then four, then two, on a destination
// in the default lane and one in a lane of its own: whoever makes the calls,
// there are never more than the limit allows.
func TestRunLimitsHoldOverSinks(t *testing.T) {
	t.Parallel()
	const limit, burst, n = 40, 4, 600
	limits := fmt.Sprintf("limits: {rate: %d, burst: %d, concurrency: 8}", limit, burst)
	shared, own := pipelinetest.Receiver(t), pipelinetest.Receiver(t)
	r := run(t, destinationAt("shared", shared.URL, limits)+destinationAt("neighbour", shared.URL+"/neighbour", "")+
		destinationAt("own", own.URL, limits+"\nlane: own"))
	for i := range n {
		r.deliver(id(i), "shared", `{}`)
		r.deliver(id(n+i), "own", `{}`)
	}
	both := func(calls int) {
		t.Helper()
		shared.Wait(t, calls)
		own.Wait(t, calls)
	}
	both(n / 6)
	stops := map[string]func(){}
	for _, name := range []string{"second", "third", "fourth"} {
		cfg := r.cfg
		cfg.Instance = name
		stops[name] = r.startAs(cfg, r.newLive())
	}
	both(n / 2)
	stops["third"]()
	r.stop()
	both(n)
	for name, e := range map[string]*pipelinetest.Endpoint{"shared": shared, "own": own} {
		withinLimit(t, name, e.Calls(), limit, burst)
		for delivery, times := range e.IDs() {
			if times != 1 {
				t.Errorf("%s was called %d times", delivery, times)
			}
		}
	}
}

// withinLimit checks every stretch of calls. What was sent in time may arrive
// late and so close to the next ones: that is what the slack is for.
func withinLimit(t *testing.T, name string, calls []pipelinetest.Call, limit, burst float64) {
	t.Helper()
	slack := limit
	for i := range calls {
		for j := i; j < len(calls); j++ {
			if n, w := float64(j-i+1), calls[j].Time.Sub(calls[i].Time).Seconds(); n > limit*w+burst+slack {
				t.Fatalf("%s: %v calls within %.2f s from call %d on, the limit is %v/s", name, n, w, i, limit)
			}
		}
	}
	t.Logf("%s: %d calls in %v", name, len(calls), calls[len(calls)-1].Time.Sub(calls[0].Time))
}

func (r *running) newLive() *definition.Live {
	r.t.Helper()
	catalog, err := event.BuiltinCatalog()
	if err != nil {
		r.t.Fatal(err)
	}
	return definition.NewLive(r.cfg, catalog)
}

// TestRunEndsWhereItCanNotGoOn has a record of a newer Millrace, which stops the
// sink: it says so and does not linger.
func TestRunEndsWhereItCanNotGoOn(t *testing.T) {
	t.Parallel()
	receiver := pipelinetest.Receiver(t)
	r := run(t, destinationAt("crm", receiver.URL, ""))
	r.stop()
	v := pipeline.Delivery{ID: id(1), Webhook: "crm", Destination: "crm", Lane: pipeline.DefaultLane}
	newer := append([]byte{pipeline.EnvelopeFormat + 1}, v.AppendTo(nil)[1:]...)
	record := pipeline.Record{Topic: r.cfg.Names.Deliveries(v.Lane), Key: v.Key(), Headers: []pipeline.Header{{Key: pipeline.EnvelopeHeader, Value: newer}}}
	if err := r.producer.Produce(t.Context(), []pipeline.Record{record}); err != nil {
		t.Fatal(err)
	}
	client, err := httpsend.New(httpsend.Options{})
	if err != nil {
		t.Fatal(err)
	}
	live := r.newLive()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var running sync.WaitGroup
	defer running.Wait()
	running.Go(func() { _ = live.Run(ctx) })
	err = sink.Run(ctx, sink.Config{
		Stream: r.cfg, Definitions: live, Client: client, Metrics: telemetry.Discard(),
		Log: r.cfg.Log, Observer: func(string) stream.Observer { return stream.Observer{} },
	})
	cancel()
	if !errors.Is(err, pipeline.ErrNewerFormat) {
		t.Errorf("it ended with %v", err)
	}
}
