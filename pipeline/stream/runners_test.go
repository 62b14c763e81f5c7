package stream

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-io/millrace/pipeline"
	"github.com/millrace-io/millrace/pipeline/pipelinetest"
)

// stuck is how long nothing may come of something before a test gives up: longer
// than it takes Kafka to come back, and its groups to find together.
const stuck = 90 * time.Second

// The topics of a chain of two stages.
func firstTopic(cfg Config) string  { return string(cfg.Names) + "first" }
func secondTopic(cfg Config) string { return string(cfg.Names) + "second" }
func thirdTopic(cfg Config) string  { return string(cfg.Names) + "third" }

// withTopics is a config on a broker that has the topics of a chain, the dead
// letters and the ledger.
func withTopics(t testing.TB, cfg Config, partitions int32) Config {
	t.Helper()
	adm := kadm.NewClient(clientOf(t, cfg))
	n := cfg.Names
	names := []string{firstTopic(cfg), secondTopic(cfg), thirdTopic(cfg), n.DeadLetters(), n.Ledger(), n.Attempts()}
	if _, err := adm.CreateTopics(t.Context(), partitions, 1, nil, names...); err != nil {
		t.Fatal(err)
	}
	if err := visible(t.Context(), adm, names); err != nil {
		t.Fatal(err)
	}
	return cfg
}

// fakeConfig is a config on a kfake that the test can make fail.
func fakeConfig(t testing.TB) (Config, *pipelinetest.Fake) {
	t.Helper()
	f := pipelinetest.StartFake(t, "")
	return Config{Brokers: f.Addrs(), Names: "millrace.", Instance: "test", Log: slog.New(slog.DiscardHandler)}, f
}

func clientOf(t testing.TB, cfg Config, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	cl, err := cfg.client(opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return cl
}

// numbers writes from, …, to-1 as values, each with a key that some share.
func numbers(t testing.TB, cfg Config, topic string, from, to int) {
	t.Helper()
	rs := make([]pipeline.Record, 0, to-from)
	for i := from; i < to; i++ {
		rs = append(rs, pipeline.Record{Topic: topic, Key: fmt.Appendf(nil, "u%d", i%97), Value: strconv.AppendInt(nil, int64(i), 10)})
	}
	writeRecords(t, cfg, rs...)
}

func writeRecords(t testing.TB, cfg Config, rs ...pipeline.Record) {
	t.Helper()
	p, err := NewProducer(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if err := p.Produce(t.Context(), rs); err != nil {
		t.Fatal(err)
	}
}

// running is something that runs in the background.
type running struct {
	cancel context.CancelFunc
	done   chan struct{}
	err    error // once done is closed
}

// start runs f until the test ends or stop is called.
func start(t testing.TB, f func(context.Context) error) *running {
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(r.done)
		r.err = f(ctx)
	}()
	t.Cleanup(func() { cancel(); <-r.done })
	return r
}

// stop ends it and wants no error.
func (r *running) stop(t testing.TB) {
	t.Helper()
	r.cancel()
	if err := r.wait(t); err != nil {
		t.Fatal(err)
	}
}

// wait waits for its end and returns what it returned.
func (r *running) wait(t testing.TB) error {
	t.Helper()
	select {
	case <-r.done:
	case <-time.After(stuck):
		t.Fatal("it does not end")
	}
	return r.err
}

// seen counts values as they are written to a topic.
type seen struct {
	mu     sync.Mutex
	times  map[string]int
	change chan struct{}
}

// watch reads topics from their start, committed records only.
func watch(t testing.TB, cfg Config, topics ...string) *seen {
	s := &seen{times: map[string]int{}, change: make(chan struct{}, 1)}
	start(t, func(ctx context.Context) error {
		for { // the broker may go away
			err := Read(ctx, cfg, topics, FromStart(), func(r pipeline.Record) error {
				s.mu.Lock()
				defer s.mu.Unlock()
				s.times[string(r.Value)]++
				wake(s.change)
				return nil
			})
			if errors.Is(err, ctx.Err()) {
				return err
			}
			s.mu.Lock()
			clear(s.times)
			s.mu.Unlock()
			sleep(ctx, 100*time.Millisecond)
		}
	})
	return s
}

func (s *seen) distinct() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.times)
}

func (s *seen) all() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.times)
}

// wait waits until so many different values were written.
func (s *seen) wait(t testing.TB, n int) {
	t.Helper()
	late := time.After(stuck)
	for s.distinct() < n {
		select {
		case <-s.change:
		case <-late:
			t.Fatalf("%d of %d values after %v", s.distinct(), n, stuck)
		}
	}
}

// eventually waits until a condition holds.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	late := time.After(stuck)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-late:
			t.Fatalf("still no %s after %v", what, stuck)
		}
	}
}

// committedRecords reads all committed records of a topic, up to its stable end.
func committedRecords(t testing.TB, cfg Config, topic string) (out []pipeline.Record) {
	t.Helper()
	adm := kadm.NewClient(clientOf(t, cfg))
	from, err := adm.ListStartOffsets(t.Context(), topic)
	if err == nil {
		err = from.Error()
	}
	if err != nil {
		t.Fatal(err)
	}
	to, err := adm.ListCommittedOffsets(t.Context(), topic)
	if err == nil {
		err = to.Error()
	}
	if err != nil {
		t.Fatal(err)
	}
	left := map[int32]int64{}
	at := map[int32]kgo.Offset{}
	to.Each(func(o kadm.ListedOffset) {
		if begin, _ := from.Lookup(topic, o.Partition); begin.Offset < o.Offset {
			left[o.Partition] = o.Offset
			at[o.Partition] = kgo.NewOffset().At(begin.Offset)
		}
	})
	cl := clientOf(t, cfg, kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords(),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: at}))
	ctx, cancel := context.WithTimeout(t.Context(), stuck)
	defer cancel()
	for len(left) > 0 {
		fetches := cl.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			t.Fatalf("reading %s: %v", topic, err)
		}
		fetches.EachRecord(func(k *kgo.Record) {
			if k.Offset+1 >= left[k.Partition] {
				delete(left, k.Partition)
			}
			if !k.Attrs.IsControl() {
				out = append(out, asRecord(k))
			}
		})
	}
	return out
}

// exactlyOnce checks that a topic holds from, …, to-1, each once.
func exactlyOnce(t testing.TB, cfg Config, topic string, want int) {
	t.Helper()
	times := map[string]int{}
	for _, r := range committedRecords(t, cfg, topic) {
		times[string(r.Value)]++
	}
	lost, repeated, strange := 0, 0, len(times)
	for i := range want {
		switch n := times[strconv.Itoa(i)]; {
		case n == 0:
			lost++
		case n > 1:
			repeated++
		}
		if times[strconv.Itoa(i)] > 0 {
			strange--
		}
	}
	if lost+repeated+strange > 0 {
		t.Errorf("%s: of %d records %d are lost, %d repeated, %d strange", topic, want, lost, repeated, strange)
	}
}

// evict tells the group that its members are gone, as a session timeout would.
func evict(t testing.TB, cfg Config, role string) {
	t.Helper()
	adm := kadm.NewClient(clientOf(t, cfg))
	groups, err := adm.DescribeGroups(t.Context(), cfg.Names.Group(role))
	if err != nil {
		t.Fatal(err)
	}
	leaveFor(t, cfg, groups[cfg.Names.Group(role)])
}

// faultOf fails the produces to a topic whose bytes match, as often as they come.
func faultOf(topic string, err *kerr.Error, match func(batch []byte) bool) kfake.Fault {
	return kfake.Fault{
		Keys: []kmsg.Key{kmsg.Produce}, Topic: topic, Err: err, Count: -1,
		When: func(r kmsg.Request) bool {
			for _, t := range r.(*kmsg.ProduceRequest).Topics {
				for _, p := range t.Partitions {
					if match(p.Records) {
						return true
					}
				}
			}
			return false
		},
	}
}
