package stream

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"

	"github.com/millrace-io/millrace/pipeline"
	"github.com/millrace-io/millrace/pipeline/pipelinetest"
)

// caller is a handler that makes calls: they take up to 10 ms, some 300 ms, and
// end in any order with a record on the attempts.
type caller struct {
	called func(*pipeline.Record) // at the beginning of each call; may be nil
	output func(*pipeline.Record) pipeline.Output
	atOnce bool // the calls take no time

	mu    sync.Mutex
	times map[string]int
	calls sync.WaitGroup
	room  chan struct{}
}

// inFlight is how many calls a caller has open.
const inFlight = 256

func (c *caller) Take(ctx context.Context, k *Ticket) error {
	select {
	case c.slots() <- struct{}{}:
	case <-ctx.Done():
		k.Release()
		return ctx.Err()
	}
	c.calls.Go(func() {
		defer func() { <-c.slots() }()
		if _, err := k.AwaitCommits(ctx); err != nil {
			k.Release()
			return
		}
		c.count(&k.Record)
		if c.called != nil {
			c.called(&k.Record)
		}
		if !c.atOnce {
			took := rand.N(10 * time.Millisecond)
			if rand.N(500) == 0 {
				took = 300 * time.Millisecond
			}
			sleep(context.Background(), took)
		}
		out := pipeline.Output{}
		if c.output != nil {
			out = c.output(&k.Record)
		} else {
			out.Send(attemptFor(&k.Record))
		}
		k.End(out)
	})
	return nil
}

// attemptFor is what a call leaves behind.
func attemptFor(r *pipeline.Record) pipeline.Record {
	prefix := r.Topic[:strings.LastIndex(r.Topic, ".")+1]
	return pipeline.Record{Topic: pipeline.Names(prefix).Attempts(), Key: r.Key, Value: r.Value}
}

func (c *caller) slots() chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.room == nil {
		c.room = make(chan struct{}, inFlight)
	}
	return c.room
}

func (c *caller) count(r *pipeline.Record) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.times == nil {
		c.times = map[string]int{}
	}
	c.times[string(r.Value)]++
}

// repeated is how many calls were made again.
func (c *caller) repeated() (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, times := range c.times {
		n += times - 1
	}
	return n
}

func (c *caller) made() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.times)
}

// trackedOf runs on the first topic.
func trackedOf(cfg Config, h Handler) TrackedConfig { return trackedOn(cfg, firstTopic(cfg), h) }

func trackedOn(cfg Config, topic string, h Handler) TrackedConfig {
	return TrackedConfig{Config: cfg, Role: "sink", Topics: []string{topic}, Handler: h}
}

func startTracked(t testing.TB, tc TrackedConfig) *running {
	t.Helper()
	tr, err := NewTracked(tc)
	if err != nil {
		t.Fatal(err)
	}
	return start(t, tr.Run)
}

// Sinks come and go while calls are open: nothing is called or ended twice.
func TestTrackedComeAndGo(t *testing.T) {
	t.Parallel()
	const n = 12_000
	cfg := withTopics(t, testConfig(t), 6)
	calls := &caller{}
	out := watch(t, cfg, cfg.Names.Attempts())
	sink := func(name string) *running {
		c := cfg
		c.Instance = name
		return startTracked(t, trackedOf(c, calls))
	}
	more := func(from, to int) {
		numbers(t, cfg, firstTopic(cfg), from*n/12, to*n/12)
		out.wait(t, from*n/12)
	}
	a := sink("a")
	more(0, 1)
	b := sink("b")
	more(1, 3)
	c := sink("c")
	more(3, 5)
	b.stop(t)
	more(5, 7)
	b = sink("b")
	more(7, 9)
	a.stop(t)
	more(9, 12)
	out.wait(t, n)
	b.stop(t)
	c.stop(t)
	if r := calls.repeated(); r > 0 {
		t.Errorf("%d calls were repeated", r)
	}
	exactlyOnce(t, cfg, cfg.Names.Attempts(), n)
}

// A sink that the group gave up can't commit what it has to let go: it does not
// hold up the others by trying.
func TestTrackedOutOfStep(t *testing.T) {
	t.Parallel()
	const n = 1_000
	cfg, f := fakeConfig(t)
	withTopics(t, cfg, 4)
	out := watch(t, cfg, cfg.Names.Attempts())
	numbers(t, cfg, firstTopic(cfg), 0, n/2)
	calls := &caller{}
	a := startTracked(t, trackedOf(cfg, calls))
	out.wait(t, n/4)
	fault := f.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.TxnOffsetCommit}, TxnID: "millrace.sink-test", Err: kerr.UnknownMemberID, Count: -1})
	numbers(t, cfg, firstTopic(cfg), n/2, n)
	if err := fault.Wait(t.Context(), 2); err != nil {
		t.Fatal(err)
	}
	other := trackedOf(cfg, calls)
	other.Instance = "other"
	began := time.Now()
	owned := make(chan struct{})
	half := sync.OnceFunc(func() { close(owned) })
	other.OnOwned = func(owned map[string]Owned) {
		if o := owned[firstTopic(cfg)]; 2*len(o.Partitions) == o.Of {
			half()
		}
	}
	b := startTracked(t, other)
	<-owned
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("it took %v until the other one had its share", took)
	}
	fault.Remove()
	out.wait(t, n)
	a.stop(t)
	b.stop(t)
	exactlyOnce(t, cfg, cfg.Names.Attempts(), n)
}

// Sinks that are killed call again what was in flight, and nothing whose ending
// was committed: an open record leaves thousands of those above the watermark.
func TestTrackedCrashes(t *testing.T) {
	t.Parallel()
	const rounds, n = 3, 9_000
	cfg := withTopics(t, testConfig(t), 2)
	out := watch(t, cfg, cfg.Names.Attempts())
	numbers(t, cfg, firstTopic(cfg), 0, n)
	ended := map[string]int{}
	for round := range rounds {
		w := startWorker(t, cfg, "tracked")
		out.wait(t, n*(round+1)/(rounds+2))
		before := ended
		ended = out.all()
		w.kill()
		evict(t, cfg, "sink")
		for line := range w.lines {
			if v, ok := strings.CutPrefix(line, "call "); ok && before[v] > 0 {
				t.Fatalf("%s had ended, and was called again", v)
			}
		}
	}
	calls := &caller{}
	run := startTracked(t, trackedOf(cfg, calls))
	out.wait(t, n)
	run.stop(t)
	for v := range ended {
		if calls.times[v] > 0 {
			t.Fatalf("%s had ended, and was called again", v)
		}
	}
	exactlyOnce(t, cfg, cfg.Names.Attempts(), n)
}

// Records that Kafka refuses become dead letters; the others end once.
func TestTrackedRecordsRefused(t *testing.T) {
	t.Parallel()
	const n = 1_500
	cfg := withTopics(t, testConfig(t), 2)
	large := map[string]bool{"5": true, "600": true, "601": true}
	calls := &caller{output: func(r *pipeline.Record) (out pipeline.Output) {
		o := pipeline.Record{Topic: secondTopic(cfg), Key: r.Key, Value: r.Value}
		if large[string(r.Value)] {
			o.Value = make([]byte, 2<<20)
		}
		out.Send(o)
		return out
	}}
	out := watch(t, cfg, secondTopic(cfg))
	dead := watch(t, cfg, cfg.Names.DeadLetters())
	numbers(t, cfg, firstTopic(cfg), 0, n)
	run := startTracked(t, trackedOf(cfg, calls))
	dead.wait(t, len(large))
	out.wait(t, n-len(large))
	run.stop(t)
	checkSplit(t, cfg, n, large, pipeline.TooLarge)
	if r := calls.repeated(); r > 0 {
		t.Errorf("%d calls were repeated", r)
	}
}

func TestTrackedBatchRefused(t *testing.T) {
	t.Parallel()
	const n = 800
	cfg, f := fakeConfig(t)
	cfg.Compression = "none"
	withTopics(t, cfg, 1)
	bad := map[string]bool{"5": true, "600": true, "601": true}
	refuse(f, secondTopic(cfg), bad, kerr.InvalidRecord)
	calls := &caller{output: func(r *pipeline.Record) (out pipeline.Output) {
		out.Send(pipeline.Record{
			Topic: secondTopic(cfg), Key: r.Key, Value: r.Value,
			Headers: []pipeline.Header{{Key: "mark", Value: fmt.Appendf(nil, "=%s;", r.Value)}},
		})
		return out
	}}
	out := watch(t, cfg, secondTopic(cfg))
	dead := watch(t, cfg, cfg.Names.DeadLetters())
	numbers(t, cfg, firstTopic(cfg), 0, n)
	run := startTracked(t, trackedOf(cfg, calls))
	dead.wait(t, len(bad))
	out.wait(t, n-len(bad))
	run.stop(t)
	checkSplit(t, cfg, n, bad, pipeline.Refused)
	if r := calls.repeated(); r > 0 {
		t.Errorf("%d calls were repeated", r)
	}
}

// The answer to a commit is lost: whether it was done or not, nothing ends
// twice and no call is made again.
func TestTrackedLostAnswer(t *testing.T) {
	t.Parallel()
	for name, applied := range map[string]bool{"committed": true, "not committed": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const n = 2_000
			cfg, f := fakeConfig(t)
			withTopics(t, cfg, 2)
			calls := &caller{}
			var rebuilt atomic.Int32
			tc := trackedOf(cfg, calls)
			tc.Observer.Rebuilt = func(string) { rebuilt.Add(1) }
			out := watch(t, cfg, cfg.Names.Attempts())
			run := startTracked(t, tc)
			for round := range 3 {
				loseAnEnd(t, cfg, f, applied)
				numbers(t, cfg, firstTopic(cfg), round*n/4, (round+1)*n/4)
				out.wait(t, (round+1)*n/4)
			}
			numbers(t, cfg, firstTopic(cfg), 3*n/4, n)
			out.wait(t, n)
			run.stop(t)
			exactlyOnce(t, cfg, cfg.Names.Attempts(), n)
			if r := calls.repeated(); r > 0 {
				t.Errorf("%d calls were repeated", r)
			}
			if rebuilt.Load() < 3 {
				t.Errorf("%d answers were lost", rebuilt.Load())
			}
		})
	}
}

// loseAnEnd lets the next commit be answered with an error that says nothing,
// having done it or not.
func loseAnEnd(t *testing.T, cfg Config, f *pipelinetest.Fake, apply bool) {
	t.Helper()
	other := clientOf(t, cfg)
	var lost atomic.Bool
	f.ControlKey(int16(kmsg.EndTxn), func(req kmsg.Request) (kmsg.Response, error, bool) {
		end := req.(*kmsg.EndTxnRequest)
		if !end.Commit || lost.Swap(true) {
			return nil, nil, false
		}
		if apply {
			again := *end
			f.SleepControl(func() {
				if _, err := again.RequestWith(context.Background(), other); err != nil {
					t.Errorf("committing in its place: %v", err)
				}
			})
		}
		resp := end.ResponseKind().(*kmsg.EndTxnResponse)
		resp.ErrorCode = kerr.UnknownServerError.Code
		return resp, nil, true
	})
}

// The older protocol of transactions.
func TestTrackedOnAnOlderCluster(t *testing.T) {
	t.Parallel()
	const n = 1_000
	f := pipelinetest.StartFake(t, "", kfake.MaxVersions(kversion.V3_7_0()))
	cfg, _ := fakeConfig(t)
	cfg.Brokers = f.Addrs()
	withTopics(t, cfg, 2)
	added := f.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.AddOffsetsToTxn}, Observe: true, Count: -1})
	calls := &caller{}
	out := watch(t, cfg, cfg.Names.Attempts())
	run := startTracked(t, trackedOf(cfg, calls))
	numbers(t, cfg, firstTopic(cfg), 0, n)
	out.wait(t, n)
	run.stop(t)
	if added.Hits() == 0 {
		t.Error("the newer protocol was used")
	}
	exactlyOnce(t, cfg, cfg.Names.Attempts(), n)
}

// holder keeps the first record of partition 0 open.
type holder struct {
	caller
	once sync.Once
	held chan *Ticket
}

func (h *holder) Take(ctx context.Context, k *Ticket) error {
	hold := false
	if k.Record.Partition == 0 {
		h.once.Do(func() { hold = true })
	}
	if !hold {
		return h.caller.Take(ctx, k)
	}
	h.count(&k.Record)
	h.held <- k
	return nil
}

// A record that stays open holds up its own partition alone, and not for ever.
func TestTrackedBackpressure(t *testing.T) {
	t.Parallel()
	const more = 4_000
	const n = maxSpan + queueHigh + maxPoll + more
	cfg := withTopics(t, testConfig(t), 2)
	h := &holder{caller: caller{atOnce: true}, held: make(chan *Ticket, 1)}
	tr, err := NewTracked(trackedOf(cfg, h))
	if err != nil {
		t.Fatal(err)
	}
	run := start(t, tr.Run)
	out := watch(t, cfg, cfg.Names.Attempts())
	writeToPartition(t, cfg, 0, 0, n)
	held := <-h.held
	eventually(t, "full window and pause", func() bool {
		w := stateOf(tr, 0)
		return w.window.next-w.window.low() == maxSpan && w.paused
	})
	if q := len(stateOf(tr, 0).queue); q == 0 || q > queueHigh+maxPoll {
		t.Errorf("%d records wait in memory", q)
	}
	writeToPartition(t, cfg, 1, n, n+more)
	out.wait(t, maxSpan-1+more) // the other partition goes on
	if made := h.made(); made != maxSpan+more {
		t.Errorf("%d calls behind an open one", made)
	}
	var end pipeline.Output
	end.Send(attemptFor(&held.Record))
	held.End(end)
	out.wait(t, n+more)
	run.stop(t)
	exactlyOnce(t, cfg, cfg.Names.Attempts(), n+more)
}

// stateOf is what a runner holds of a partition of the first topic at a moment.
func stateOf(tr *Tracked, number int32) (p partition) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	if own := tr.owned[topicPartition{firstTopic(tr.cfg.Config), number}]; own != nil {
		p = *own
	}
	return p
}

// While commits are stuck, no more calls begin than may be repeated; nothing is
// lost by it.
func TestTrackedCallsWaitForCommits(t *testing.T) {
	t.Parallel()
	const n, open = 1_500, 4
	calls := &caller{room: make(chan struct{}, open)}
	stuckCommits(t, n, calls, func(tr *Tracked) {
		eventually(t, "end of the calls", func() bool { return tr.atLimit() != nil && len(calls.slots()) == open })
		if made, most := calls.made(), mostAtRiskEmbed+open; made > most || made < mostAtRiskEmbed-open {
			t.Errorf("%d calls were made, expected %d", made, mostAtRiskEmbed)
		}
	})
	if r := calls.repeated(); r > 0 {
		t.Errorf("%d calls were repeated", r)
	}
}

// While commits are stuck, no more records are taken, whether they lead to calls or
// not.
func TestTrackedTakesNoMoreWhileCommitsAreLate(t *testing.T) {
	t.Parallel()
	const n = 1_500
	var taken atomic.Int64
	slow := takes(func(ctx context.Context, k *Ticket) error {
		taken.Add(1)
		sleep(ctx, 10*time.Millisecond) // so that there are some left
		var out pipeline.Output
		out.Send(attemptFor(&k.Record))
		k.End(out)
		return nil
	})
	stuckCommits(t, n, slow, func(tr *Tracked) {
		eventually(t, "stuck commit", func() bool {
			tr.mu.Lock()
			defer tr.mu.Unlock()
			return tr.late()
		})
		eventually(t, "standstill", func() bool { return stateOf(tr, 0).open+stateOf(tr, 1).open == 0 })
		if got := taken.Load(); got >= n {
			t.Errorf("all of %d records were taken", got)
		}
	})
}

// stuckCommits runs a handler on n records with commits that get no answer, calls
// look, lets them go on, and checks that every record ends once.
func stuckCommits(t *testing.T, n int, h Handler, look func(*Tracked)) {
	t.Helper()
	cfg, f := fakeConfig(t)
	withTopics(t, cfg, 2)
	numbers(t, cfg, firstTopic(cfg), 0, n)
	tr, err := NewTracked(trackedOf(cfg, h))
	if err != nil {
		t.Fatal(err)
	}
	release := make(chan struct{})
	f.ControlKey(int16(kmsg.EndTxn), func(kmsg.Request) (kmsg.Response, error, bool) {
		f.SleepControl(func() { <-release })
		return nil, nil, false
	})
	run := start(t, tr.Run)
	look(tr)
	close(release)
	out := watch(t, cfg, cfg.Names.Attempts())
	out.wait(t, n)
	run.stop(t)
	exactlyOnce(t, cfg, cfg.Names.Attempts(), n)
}

// takes is a handler made of a function.
type takes func(context.Context, *Ticket) error

func (f takes) Take(ctx context.Context, k *Ticket) error { return f(ctx, k) }

func TestTrackedHandlers(t *testing.T) {
	t.Parallel()
	t.Run("panic", func(t *testing.T) {
		t.Parallel()
		cfg := withTopics(t, testConfig(t), 1)
		numbers(t, cfg, firstTopic(cfg), 0, 3)
		var counted atomic.Int32
		tc := trackedOf(cfg, takes(func(_ context.Context, k *Ticket) error {
			if string(k.Record.Value) == "1" {
				panic("on purpose")
			}
			var out pipeline.Output
			out.Send(pipeline.Record{Topic: secondTopic(cfg), Value: k.Record.Value})
			k.End(out)
			k.End(out)
			k.Release()
			return nil
		}))
		tc.Observer.DeadLetter = func(string, pipeline.Reason) { counted.Add(1) }
		run := startTracked(t, tc)
		watch(t, cfg, cfg.Names.DeadLetters()).wait(t, 1)
		watch(t, cfg, secondTopic(cfg)).wait(t, 2)
		run.stop(t)
		checkSplit(t, cfg, 3, map[string]bool{"1": true}, pipeline.Panicked)
		if counted.Load() != 1 {
			t.Errorf("%d dead letters were counted", counted.Load())
		}
	})
	t.Run("no trace", func(t *testing.T) {
		t.Parallel()
		cfg := withTopics(t, testConfig(t), 1)
		numbers(t, cfg, firstTopic(cfg), 0, 2)
		run := startTracked(t, trackedOf(cfg, takes(func(_ context.Context, k *Ticket) error {
			k.End(pipeline.Output{})
			return nil
		})))
		watch(t, cfg, cfg.Names.DeadLetters()).wait(t, 2)
		run.stop(t)
	})
	t.Run("error", func(t *testing.T) {
		t.Parallel()
		cfg := withTopics(t, testConfig(t), 1)
		numbers(t, cfg, firstTopic(cfg), 0, 3)
		run := startTracked(t, trackedOf(cfg, takes(func(context.Context, *Ticket) error { return errors.New("can't go on") })))
		if err := run.wait(t); err == nil || !strings.Contains(err.Error(), "can't go on") {
			t.Errorf("ended with %v", err)
		}
	})
	t.Run("dead letter does not fit", func(t *testing.T) {
		t.Parallel()
		cfg, f := fakeConfig(t)
		withTopics(t, cfg, 1)
		f.Fault(faultOf(cfg.Names.DeadLetters(), kerr.MessageTooLarge, func([]byte) bool { return true }))
		numbers(t, cfg, firstTopic(cfg), 0, 1)
		run := startTracked(t, trackedOf(cfg, takes(func(context.Context, *Ticket) error { panic("on purpose") })))
		if err := run.wait(t); err == nil || !strings.Contains(err.Error(), "dead-letters topic has to be larger") {
			t.Errorf("ended with %v", err)
		}
	})
	t.Run("out of range", func(t *testing.T) {
		t.Parallel()
		cfg := withTopics(t, testConfig(t), 1)
		numbers(t, cfg, firstTopic(cfg), 0, 10)
		commitAt(t, cfg, "sink", firstTopic(cfg), 5)
		deleteTo(t, cfg, firstTopic(cfg), 8)
		if err := startTracked(t, trackedOf(cfg, &caller{})).wait(t); !errors.Is(err, kerr.OffsetOutOfRange) {
			t.Errorf("ended with %v", err)
		}
	})
}

// What is not started when a partition goes is released, and the next owner
// takes it; what is open then ends first.
func TestTrackedReleasesAtTheEnd(t *testing.T) {
	t.Parallel()
	const n = 2_000
	cfg := withTopics(t, testConfig(t), 1)
	numbers(t, cfg, firstTopic(cfg), 0, n)
	calls := &caller{}
	for range 3 {
		run := startTracked(t, trackedOf(cfg, calls))
		from := calls.made()
		eventually(t, "calls", func() bool { return calls.made() > from+inFlight })
		run.stop(t)
		calls.calls.Wait()
		if r := calls.repeated(); r > 0 {
			t.Fatalf("%d calls were repeated", r)
		}
		if ended := len(committedRecords(t, cfg, cfg.Names.Attempts())); ended != calls.made() {
			t.Fatalf("%d calls were made, %d ended", calls.made(), ended)
		}
	}
}

// What a partition holds that has to go, although a call is still open, is
// committed; the open call is made again by whoever comes next.
func TestTrackedDrainEnds(t *testing.T) {
	t.Parallel()
	cfg := withTopics(t, testConfig(t), 1)
	numbers(t, cfg, firstTopic(cfg), 0, 3)
	h := &holder{caller: caller{atOnce: true}, held: make(chan *Ticket, 1)}
	tc := trackedOf(cfg, h)
	tc.Drain = 100 * time.Millisecond
	run := startTracked(t, tc)
	watch(t, cfg, cfg.Names.Attempts()).wait(t, 2)
	run.stop(t)
	var out pipeline.Output
	held := <-h.held
	out.Send(attemptFor(&held.Record))
	held.End(out) // too late to count
	again := startTracked(t, trackedOf(cfg, &h.caller))
	watch(t, cfg, cfg.Names.Attempts()).wait(t, 3)
	again.stop(t)
	exactlyOnce(t, cfg, cfg.Names.Attempts(), 3)
	if r := h.repeated(); r != 1 {
		t.Errorf("%d calls were repeated, not 1", r)
	}
}

// A partition that can't say where it ends keeps nobody from knowing the others'
// ends.
func TestTrackedEnds(t *testing.T) {
	t.Parallel()
	cfg, f := fakeConfig(t)
	withTopics(t, cfg, 2)
	numbers(t, cfg, firstTopic(cfg), 0, 100)
	tr, err := NewTracked(trackedOf(cfg, &caller{}))
	if err != nil {
		t.Fatal(err)
	}
	run := start(t, tr.Run)
	watch(t, cfg, cfg.Names.Attempts()).wait(t, 100)
	var fails atomic.Int32 // so many partitions
	f.ControlKey(int16(kmsg.ListOffsets), func(req kmsg.Request) (kmsg.Response, error, bool) {
		f.KeepControl()
		resp := req.ResponseKind().(*kmsg.ListOffsetsResponse)
		for _, in := range req.(*kmsg.ListOffsetsRequest).Topics {
			out := kmsg.ListOffsetsResponseTopic{Topic: in.Topic}
			for _, p := range in.Partitions {
				one := kmsg.ListOffsetsResponseTopicPartition{Partition: p.Partition, Offset: 50}
				if p.Partition < fails.Load() {
					one.ErrorCode = kerr.UnknownServerError.Code
				}
				out.Partitions = append(out.Partitions, one)
			}
			resp.Topics = append(resp.Topics, out)
		}
		return resp, nil, true
	})
	for n, want := range []map[int32]int64{{0: 50, 1: 50}, {1: 50}, nil} {
		fails.Store(int32(n))
		got, err := tr.Ends(t.Context(), firstTopic(cfg))
		if !maps.Equal(got[firstTopic(cfg)], want) || (err != nil) != (want == nil) {
			t.Errorf("where %d of 2 fail, they end at %v: %v", n, got, err)
		}
	}
	run.stop(t)
}

// Ready is told of a trouble with writing, and when it is over.
func TestTrackedReady(t *testing.T) {
	t.Parallel()
	cfg, f := fakeConfig(t)
	withTopics(t, cfg, 1)
	states := make(chan error, 1000)
	tc := trackedOf(cfg, &caller{})
	tc.Observer.Ready = func(err error) { states <- err }
	fault := f.Fault(faultOf(cfg.Names.Attempts(), kerr.TopicAuthorizationFailed, func([]byte) bool { return true }))
	run := startTracked(t, tc)
	if err := <-states; err != nil {
		t.Fatalf("at first it is told %v", err)
	}
	numbers(t, cfg, firstTopic(cfg), 0, 10)
	if err := <-states; !errors.Is(err, kerr.TopicAuthorizationFailed) {
		t.Fatalf("then it is told %v", err)
	}
	fault.Remove()
	for <-states != nil {
	}
	run.stop(t)
	exactlyOnce(t, cfg, cfg.Names.Attempts(), 10)
}

func TestTrackedAddTopics(t *testing.T) {
	t.Parallel()
	const n = 200
	cfg := withTopics(t, testConfig(t), 2)
	var owned atomic.Pointer[map[string]Owned]
	tc := trackedOf(cfg, &caller{})
	tc.Topics = nil
	tc.OnOwned = func(m map[string]Owned) { owned.Store(&m) }
	tr, err := NewTracked(tc)
	if err != nil {
		t.Fatal(err)
	}
	tr.AddTopics(firstTopic(cfg)) // before it runs
	run := start(t, tr.Run)
	out := watch(t, cfg, cfg.Names.Attempts())
	numbers(t, cfg, firstTopic(cfg), 0, n/2)
	out.wait(t, n/2)
	tr.AddTopics(secondTopic(cfg), firstTopic(cfg))
	numbers(t, cfg, secondTopic(cfg), n/2, n)
	out.wait(t, n)
	for _, topic := range []string{firstTopic(cfg), secondTopic(cfg)} {
		o := (*owned.Load())[topic]
		if slices.Sort(o.Partitions); !slices.Equal(o.Partitions, []int32{0, 1}) || o.Of != 2 {
			t.Errorf("owns %v of %s", o, topic)
		}
	}
	run.stop(t)
	exactlyOnce(t, cfg, cfg.Names.Attempts(), n)
	if m := *owned.Load(); len(m) != 0 {
		t.Errorf("owns %v in the end", m)
	}
}

func TestTrackedEndsBeforeItReads(t *testing.T) {
	t.Parallel()
	cfg := withTopics(t, testConfig(t), 1)
	began := time.Now()
	startTracked(t, trackedOf(cfg, &caller{})).stop(t)
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("it took %v", took)
	}
}

func writeToPartition(t testing.TB, cfg Config, partition int32, from, to int) {
	t.Helper()
	cl := clientOf(t, cfg, kgo.RecordPartitioner(kgo.ManualPartitioner()))
	for i := from; i < to; i++ {
		cl.Produce(t.Context(), &kgo.Record{Topic: firstTopic(cfg), Partition: partition, Value: strconv.AppendInt(nil, int64(i), 10)},
			func(_ *kgo.Record, err error) {
				if err != nil {
					t.Error(err)
				}
			})
	}
	if err := cl.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
}
