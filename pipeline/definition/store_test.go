package definition_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/millrace-io/millrace/pipeline"
	"github.com/millrace-io/millrace/pipeline/definition"
	"github.com/millrace-io/millrace/pipeline/event"
	"github.com/millrace-io/millrace/pipeline/pipelinetest"
	"github.com/millrace-io/millrace/pipeline/stream"
)

func TestMain(m *testing.M) { pipelinetest.Main(m) }

// house is a broker with every topic, a store, and the definitions followed.
type house struct {
	cfg   stream.Config
	store *definition.Store
	live  *definition.Live
	t     *testing.T
}

func setup(t *testing.T) *house {
	t.Helper()
	broker := pipelinetest.Broker(t)
	h := &house{cfg: stream.Config{Brokers: broker.Addrs, Names: broker.Names, Instance: "test"}, t: t}
	if _, err := stream.Init(t.Context(), h.cfg, stream.InitOptions{Partitions: 2, Replication: 1}); err != nil {
		t.Fatal(err)
	}
	h.store = h.open()
	c, err := event.BuiltinCatalog()
	if err != nil {
		t.Fatal(err)
	}
	h.live = definition.NewLive(h.cfg, c)
	if h.live.Snapshot() != nil {
		t.Error("there is a snapshot before anything was read")
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- h.live.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("following ended with %v", err)
		}
	})
	return h
}

func (h *house) open() *definition.Store {
	h.t.Helper()
	s, err := definition.OpenStore(h.t.Context(), h.cfg)
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(s.Close)
	return s
}

func (h *house) at(offset int64) *definition.Snapshot {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(h.t.Context(), 30*time.Second)
	defer cancel()
	s, err := h.live.At(ctx, offset)
	if err != nil {
		h.t.Fatal(err)
	}
	return s
}

func (h *house) plan(base *definition.Snapshot, text string, o definition.Options) *definition.Plan {
	h.t.Helper()
	o.Owner, o.Author = "files:a", "ada"
	p, problems := definition.NewPlan(base, parse(text), o)
	if err := problems.Err(); err != nil {
		h.t.Fatal(err)
	}
	return p
}

// apply plans, applies and waits until it is in force.
func (h *house) apply(text string, o definition.Options) *definition.Snapshot {
	h.t.Helper()
	r, err := h.store.Apply(h.t.Context(), h.plan(h.at(0), text, o))
	if err != nil {
		h.t.Fatal(err)
	}
	return h.at(r.Offset)
}

func TestApplyIsInForceAndInTheHistory(t *testing.T) {
	t.Parallel()
	h := setup(t)
	own := strings.Replace(two, "request", "lane: own\nrequest", 1)
	first := h.apply(one+own+hook, definition.Options{})
	if first.Webhooks["hook"] == nil || len(first.Resources) != 3 || len(first.Broken) > 0 {
		t.Fatalf("in force are %v, broken %v", first.Resources, first.Broken)
	}
	r := first.Resources[definition.Key{Kind: definition.KindWebhook, Name: "hook"}]
	if r.Author != "ada" || r.Owner != "files:a" || time.Since(r.Time) > time.Hour {
		t.Errorf("the webhook is %+v", r)
	}
	if err := stream.EnsureLane(t.Context(), h.cfg, "own"); err != nil {
		t.Error(err)
	}
	again := h.apply(one+own+hook, definition.Options{})
	if again.Offset != first.Offset {
		t.Errorf("applying what is there already moved the offset from %d to %d", first.Offset, again.Offset)
	}
	key := definition.Key{Kind: definition.KindDestination, Name: "two"}
	came := first.Resources[key].Revision
	changed := h.apply(one+strings.Replace(own, "lane", "platform: Two\nlane", 1)+hook, definition.Options{})
	if now := changed.Resources[key]; first.Resources[key].Created != came || now.Created != came || now.Revision <= came {
		t.Errorf("a destination came into being at %d, later it is %+v", came, now)
	}
	last := h.apply(one, definition.Options{Prune: true})
	if last.Webhooks["hook"] != nil || len(last.Resources) != 1 {
		t.Errorf("after pruning there are %v", last.Resources)
	}
	if now := h.apply(one+own, definition.Options{}).Resources[key]; now.Created != now.Revision || now.Created <= came {
		t.Errorf("one that came after it is %+v", now)
	}
	if got, want := history(t, h.cfg), []string{
		"Destination/one false", "Destination/two false", "Webhook/hook false", "Destination/two false",
		"Webhook/hook true", "Destination/two true", "Destination/two false",
	}; !slices.Equal(got, want) {
		t.Errorf("the history is %v, expected %v", got, want)
	}
}

// history reads the changes until now.
func history(t *testing.T, cfg stream.Config) (out []string) {
	t.Helper()
	done := errors.New("read")
	err := stream.Follow(t.Context(), cfg, cfg.Names.Changes(), func(batch []pipeline.Record, _ int64, caughtUp bool) error {
		last := int64(-1)
		for _, r := range batch {
			v, err := definition.DecodeResource(string(r.Key), r.Value)
			if err != nil {
				return err
			}
			if v.Revision <= last {
				return fmt.Errorf("revision %d comes after %d", v.Revision, last)
			}
			last = v.Revision
			out = append(out, fmt.Sprint(v.Key(), " ", v.Removed))
		}
		if caughtUp {
			return done
		}
		return nil
	})
	if !errors.Is(err, done) {
		t.Fatal(err)
	}
	return out
}

func TestApplyOfAnOldPlan(t *testing.T) {
	t.Parallel()
	h := setup(t)
	old := h.plan(h.at(0), one+hook, definition.Options{})
	elsewhere := h.plan(h.at(0), two, definition.Options{})
	h.apply(one, definition.Options{})
	_, err := h.store.Apply(t.Context(), old)
	changed, ok := errors.AsType[*definition.ChangedError](err)
	if !ok || changed.Now.Destinations["one"] == nil {
		t.Fatalf("a plan to add what is there by now gives %v", err)
	}
	if _, err := h.store.Apply(t.Context(), elsewhere); err != nil {
		t.Errorf("a plan about something else gives %v", err)
	}
	base := h.at(0)
	removal := h.plan(base, "", definition.Options{Remove: []definition.Key{{Kind: definition.KindDestination, Name: "one"}}})
	h.apply(hook, definition.Options{})
	_, err = h.store.Apply(t.Context(), removal)
	if _, ok := errors.AsType[*definition.ChangedError](err); !ok || !strings.Contains(err.Error(), "Webhook/hook uses it") {
		t.Errorf("removing a destination that is used by now gives %v", err)
	}
}

// TestOneOfManyWritersWins lets several change the same webhook from the same
// state.
func TestOneOfManyWritersWins(t *testing.T) {
	t.Parallel()
	h := setup(t)
	base := h.apply(one+hook, definition.Options{})
	const writers = 3
	errs := make([]error, writers)
	var wait sync.WaitGroup
	for i := range writers {
		p := h.plan(base, strings.Replace(hook, "value: 1", fmt.Sprint("value: ", i+2), 1), definition.Options{})
		store := h.open()
		wait.Go(func() {
			for { // being fenced is no answer: nothing is known about the other's change
				if _, errs[i] = store.Apply(t.Context(), p); !errors.Is(errs[i], stream.ErrFenced) {
					return
				}
			}
		})
	}
	wait.Wait()
	won := 0
	for _, err := range errs {
		if err == nil {
			won++
		} else if _, ok := errors.AsType[*definition.ChangedError](err); !ok {
			t.Errorf("a loser is told %v", err)
		}
	}
	if won != 1 {
		t.Errorf("%d of %d writers won: %v", won, writers, errs)
	}
}

func TestWriteStarts(t *testing.T) {
	t.Parallel()
	h := setup(t)
	for _, s := range []definition.Start{
		{Topic: "e", ID: "1", Partitions: map[int32]int64{0: 5}},
		{Topic: "e", ID: "1", Partitions: map[int32]int64{0: 9, 1: 7}}, // a new partition
		{Topic: "e", ID: "1", Partitions: map[int32]int64{0: 10, 1: 10}},
		{Topic: "f", ID: "1", Partitions: map[int32]int64{0: 5}},
		{Topic: "f", ID: "2", Partitions: map[int32]int64{0: 3}}, // created again
	} {
		if err := h.store.WriteStarts(t.Context(), []definition.Start{s}); err != nil {
			t.Fatal(err)
		}
	}
	s := h.apply(one, definition.Options{})
	if got := fmt.Sprint(s.Starts); got != "map[e:{e 1 map[0:5 1:7]} f:{f 2 map[0:3]}]" {
		t.Errorf("the starts are %s", got)
	}
}

func TestAtGivesUpWithItsContext(t *testing.T) {
	t.Parallel()
	h := setup(t)
	h.at(0)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := h.live.At(ctx, 1_000_000); !errors.Is(err, context.Canceled) {
		t.Errorf("waiting for an offset that never comes gives %v", err)
	}
}

func TestNothingIsLeftRunning(t *testing.T) {
	pipelinetest.Broker(t) // a Kafka that all tests share outlives this one
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	t.Run("live and store", func(t *testing.T) {
		h := setup(t)
		h.apply(one, definition.Options{})
	})
}
