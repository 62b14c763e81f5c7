package sink_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/millrace-io/millrace/pipeline"
	"github.com/millrace-io/millrace/pipeline/definition"
	"github.com/millrace-io/millrace/pipeline/event"
	"github.com/millrace-io/millrace/pipeline/httpsend"
	"github.com/millrace-io/millrace/pipeline/pipelinetest"
	"github.com/millrace-io/millrace/pipeline/secret"
	"github.com/millrace-io/millrace/pipeline/stream"
	"github.com/millrace-io/millrace/pipeline/telemetry"
	"github.com/millrace-io/millrace/services/sink"
)

const patience = 30 * time.Second

// running is a sink on Kafka, with definitions that can be changed.
type running struct {
	t        *testing.T
	cfg      stream.Config
	live     *definition.Live
	store    *definition.Store
	producer *stream.Producer
	stop     func()
}

func run(t *testing.T, text string) *running {
	t.Helper()
	broker := pipelinetest.Broker(t)
	r := &running{t: t}
	r.cfg = stream.Config{Brokers: broker.Addrs, Names: broker.Names, Instance: "test", Log: slog.New(slog.DiscardHandler)}
	if _, err := stream.Init(t.Context(), r.cfg, stream.InitOptions{Partitions: 2, Replication: 1}); err != nil {
		t.Fatal(err)
	}
	catalog, err := event.BuiltinCatalog()
	if err != nil {
		t.Fatal(err)
	}
	r.live = definition.NewLive(r.cfg, catalog)
	if r.store, err = definition.OpenStore(t.Context(), r.cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.store.Close)
	if r.producer, err = stream.NewProducer(r.cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.producer.Close)
	r.start()
	r.apply(text)
	return r
}

// start runs the sink until the test ends or stop is called.
func (r *running) start() {
	r.t.Helper()
	r.stop = r.startAs(r.cfg, r.live)
}

// startAs runs a sink, with definitions of its own.
func (r *running) startAs(cfg stream.Config, live *definition.Live) (stop func()) {
	r.t.Helper()
	client, err := httpsend.New(httpsend.Options{
		Allow:   []string{"127.0.0.1"},
		Secrets: &secret.Resolver{Env: func(name string) (string, bool) { return "s3cret", name == secret.EnvPrefix+"CLIENT" }},
	})
	if err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := live.Run(ctx); !errors.Is(err, context.Canceled) {
			r.t.Errorf("following definitions ended with %v", err)
		}
	})
	running.Go(func() {
		err := sink.Run(ctx, sink.Config{
			Stream: cfg, Definitions: live, Client: client, Metrics: telemetry.Discard(),
			Log: cfg.Log, Observer: func(string) stream.Observer { return stream.Observer{} },
		})
		if err != nil {
			r.t.Errorf("the sink ended with %v", err)
		}
	})
	stop = sync.OnceFunc(func() { cancel(); running.Wait() })
	r.t.Cleanup(stop)
	return stop
}

// apply puts a file in force.
func (r *running) apply(text string) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), patience)
	defer cancel()
	now, err := r.live.At(ctx, 0)
	if err != nil {
		r.t.Fatal(err)
	}
	set := definition.Parse(definition.File{Name: "test.yaml", Data: []byte(text)})
	plan, problems := definition.NewPlan(now, set, definition.Options{Owner: "test"})
	if err := problems.Err(); err != nil {
		r.t.Fatal(err)
	}
	done, err := r.store.Apply(ctx, plan)
	if err == nil {
		_, err = r.live.At(ctx, done.Offset)
	}
	if err != nil {
		r.t.Fatal(err)
	}
}

// deliver writes a delivery of a webhook to its lane.
func (r *running) deliver(id, webhook, body string) {
	r.t.Helper()
	defs := r.live.Snapshot()
	hook := defs.Webhooks[webhook]
	v := pipeline.Delivery{
		Definitions: defs.Offset, ID: id, Webhook: webhook, Destination: hook.Destination.Name, Lane: hook.Destination.Lane,
		MatchedAt: time.Now(), EventID: "e", EventType: "launcher.clicked", User: id,
	}
	err := r.producer.Produce(r.t.Context(), []pipeline.Record{{
		Topic: r.cfg.Names.Deliveries(v.Lane), Key: v.Key(), Value: []byte(body),
		Headers: []pipeline.Header{{Key: pipeline.EnvelopeHeader, Value: v.AppendTo(nil)}},
	}})
	if err != nil {
		r.t.Fatal(err)
	}
}

var errSeen = errors.New("seen")

// read reads topics until enough says so.
func (r *running) read(enough func(*pipeline.Record) bool, topics ...string) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), patience)
	defer cancel()
	err := stream.Read(ctx, r.cfg, topics, stream.FromStart(), func(record pipeline.Record) error {
		if enough(&record) {
			return errSeen
		}
		return nil
	})
	if !errors.Is(err, errSeen) {
		r.t.Fatalf("reading %v: %v", topics, err)
	}
}

// ledger waits until as many deliveries have ended, and says how, by webhook.
func (r *running) ledger(n int64) map[string]int64 {
	r.t.Helper()
	got, all := map[string]int64{}, int64(0)
	r.read(func(record *pipeline.Record) bool {
		var c pipeline.Count
		if err := json.Unmarshal(record.Value, &c); err != nil {
			r.t.Fatal(err)
		}
		got[c.Webhook+" "+string(c.Ending)] += c.N
		all += c.N
		return all >= n
	}, r.cfg.Names.Ledger())
	return got
}

func id(n int) string { return fmt.Sprintf("%032x", n) }

// TestRun has deliveries that succeed, succeed later, are final, and one whose
// lane came into being after the sink was started.
func TestRun(t *testing.T) {
	t.Parallel()
	good, flaky, bad := pipelinetest.Receiver(t), pipelinetest.Receiver(t), pipelinetest.Receiver(t)
	flaky.Answer(pipelinetest.InTurn(pipelinetest.Answer{Status: 503}, pipelinetest.Answer{Reset: true}, pipelinetest.Answer{}))
	bad.Answer(func(*pipelinetest.Call) pipelinetest.Answer { return pipelinetest.Answer{Status: 400} })
	define := func(name, url, more string) string {
		return fmt.Sprintf("kind: Destination\nname: %s\nrequest: {url: %q}\n%s\n---\nkind: Webhook\nname: %[1]s\nevent: launcher.clicked\ndestination: %[1]s\n---\n", name, url, more)
	}
	r := run(t, define("good", good.URL, "")+define("flaky", flaky.URL, "retry: {first: 10ms, cap: 100ms}")+define("bad", bad.URL, ""))
	for i := range 20 {
		r.deliver(id(i), "good", fmt.Sprint(`{"n":`, i, `}`))
	}
	r.deliver(id(20), "flaky", `{}`)
	r.deliver(id(21), "bad", `{}`)
	r.apply(define("own", good.URL, "lane: own"))
	r.deliver(id(22), "own", `{}`)
	got := r.ledger(23)
	for key, n := range map[string]int64{"good delivered": 20, "flaky delivered": 1, "bad dead_letter": 1, "own delivered": 1} {
		if got[key] != n {
			t.Errorf("the ledger has %d of %s, expected %d: %v", got[key], key, n, got)
		}
	}
	if good.Count() != 21 || flaky.Count() != 3 || bad.Count() != 1 {
		t.Errorf("%d, %d and %d calls came, expected 21, 3 and 1", good.Count(), flaky.Count(), bad.Count())
	}
	for delivery, n := range good.IDs() {
		if n != 1 {
			t.Errorf("%s was sent %d times", delivery, n)
		}
	}
}

// TestRunKeepsDeliveriesWithoutSecret has a destination whose secret is missing:
// nothing is sent without it, and the delivery is kept with all its attempts.
func TestRunKeepsDeliveriesWithoutSecret(t *testing.T) {
	t.Parallel()
	receiver := pipelinetest.Receiver(t)
	text := strings.ReplaceAll(`kind: Destination
name: crm
request: {url: "URL"}
auth:
  type: bearer
  token: "${env:MILLRACE_SECRET_CRM}"
---
kind: Webhook
name: crm
event: launcher.clicked
destination: crm
`, "URL", receiver.URL)
	r := run(t, text)
	r.deliver(id(1), "crm", `{}`)
	var held pipeline.Delivery
	r.read(func(record *pipeline.Record) bool {
		header, _ := record.Header(pipeline.EnvelopeHeader)
		var err error
		if held, err = pipeline.ParseDelivery(header); err != nil {
			t.Fatal(err)
		}
		return true
	}, r.cfg.Names.Waiting("default"))
	if held.ID != id(1) || held.Attempts != 0 || receiver.Count() != 0 {
		t.Errorf("the delivery is held as %+v, %d calls came", held, receiver.Count())
	}
}

// TestRunStopsInTheMiddle has a sink that is stopped while calls are under way
// and more are queued, and one that goes on: every delivery is sent once.
func TestRunStopsInTheMiddle(t *testing.T) {
	t.Parallel()
	const n, first = 60, 5
	var calls atomic.Int64
	var again atomic.Bool
	receiver := pipelinetest.Receiver(t, pipelinetest.Answering(func(*pipelinetest.Call) pipelinetest.Answer {
		if calls.Add(1) <= first || again.Load() {
			return pipelinetest.Answer{}
		}
		return pipelinetest.Answer{Delay: time.Second} // the sink stops long before all are called
	}))
	r := run(t, "kind: Destination\nname: crm\nrequest: {url: \""+receiver.URL+"\"}\nlimits: {concurrency: 2}\n---\n"+
		"kind: Webhook\nname: crm\nevent: launcher.clicked\ndestination: crm\n")
	for i := range n {
		r.deliver(id(i), "crm", `{}`)
	}
	receiver.Wait(t, first)
	r.stop()
	again.Store(true)
	if came := receiver.Count(); came == n {
		t.Fatal("everything was sent before the sink was stopped: the test proves nothing")
	}
	r.start()
	if got := r.ledger(n); got["crm delivered"] != n {
		t.Errorf("the ledger is %v", got)
	}
	for delivery, times := range receiver.IDs() {
		if times != 1 {
			t.Errorf("%s was sent %d times", delivery, times)
		}
	}
}
