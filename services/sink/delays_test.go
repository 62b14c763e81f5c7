package sink

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace-io/millrace/pipeline"
	"github.com/millrace-io/millrace/pipeline/httpsend"
	"github.com/millrace-io/millrace/pipeline/telemetry"
)

func TestRoute(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for left, want := range map[time.Duration]string{
		-time.Hour: "none", 0: "none", 899 * time.Millisecond: "none",
		900 * time.Millisecond: "1s", time.Second: "1s", 4899 * time.Millisecond: "1s",
		5 * time.Second: "5s", 29 * time.Second: "5s", 30 * time.Second: "30s", 119 * time.Second: "30s",
		2 * time.Minute: "2m", 10*time.Minute - time.Second: "2m", 10*time.Minute - time.Millisecond: "10m", 10 * time.Minute: "10m",
		time.Hour: "1h", 6*time.Hour - time.Second: "1h", 6 * time.Hour: "6h", 168 * time.Hour: "6h",
	} {
		for _, lane := range []string{"default", "own"} {
			v := pipeline.Delivery{ID: "id", Destination: "crm", User: "ada", Lane: lane, Due: now.Add(left)}
			topic, key, tier := route("p.", &v, now)
			wantTopic, wantKey := "p.delays."+want, "id"
			if want == "none" {
				wantTopic, wantKey = "p.redeliveries."+lane, map[string]string{"default": "crm", "own": "ada"}[lane]
			}
			if topic != wantTopic || string(key) != wantKey || tier != want {
				t.Errorf("%v before its time, a delivery of lane %s goes to %s by %s (%s), expected %s by %s",
					left, lane, topic, key, tier, wantTopic, wantKey)
			}
		}
	}
	if _, _, tier := route("p.", &pipeline.Delivery{}, now); tier != "none" {
		t.Errorf("a delivery without a time takes the tier %s", tier)
	}
}

func TestWaitOf(t *testing.T) {
	t.Parallel()
	for _, names := range []pipeline.Names{"millrace.", "a.delays.", ""} {
		for i, topic := range delayTopics(names) {
			if want := pipeline.Tiers()[i].Wait; waitOf(topic) != want {
				t.Errorf("records of %s wait %v, expected %v", topic, waitOf(topic), want)
			}
		}
	}
}

// TestDelaysBringBackOnTime has deliveries go from tier to tier, each step some
// milliseconds late: none comes back early, or later than that and the slack of
// a step, and a wait that was set as a tier's takes one step.
func TestDelaysBringBackOnTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := &delays{names: "p.", metrics: telemetry.Discard()}
		const late = 7 * time.Millisecond
		for _, c := range []struct {
			wait time.Duration
			most int // steps
		}{{10 * time.Minute, 1}, {6 * time.Hour, 1}, {time.Minute, 2}, {5000 * time.Second, 12}, {3 * time.Hour, 3}, {6*time.Hour - time.Second, 5 + 5 + 4 + 3 + 5 + 4}, {1500 * time.Millisecond, 1}} {
			v := pipeline.Delivery{ID: "id", Lane: "default", Destination: "crm", Due: time.Now().Add(c.wait)}
			time.Sleep(time.Millisecond) // between the decision and the record
			topic, _, _ := route("p.", &v, time.Now())
			steps := 0
			for ; topic != "p.redeliveries.default"; steps++ {
				s := &slip{t: t, done: make(chan struct{}), record: pipeline.Record{
					Topic: topic, Time: time.Now(), Headers: []pipeline.Header{{Key: pipeline.EnvelopeHeader, Value: v.AppendTo(nil)}},
				}}
				time.Sleep(late)
				if err := m.take(t.Context(), &s.record, s); err != nil {
					t.Fatal(err)
				}
				topic = s.out.Records[0].Topic
			}
			if off := time.Until(v.Due); off > time.Second || off < -lateness-late {
				t.Errorf("of %v, %v are left when it comes back", c.wait, off)
			}
			if steps > c.most {
				t.Errorf("%v took %d steps, expected at most %d", c.wait, steps, c.most)
			}
		}
	})
}

func TestDelaysKeepTheRecord(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := &delays{names: "p.", metrics: telemetry.Discard()}
		v := pipeline.Delivery{ID: "id", Lane: "own", User: "ada", Due: time.Now().Add(time.Second).Truncate(time.Millisecond), Attempts: 3}
		s := &slip{t: t, done: make(chan struct{}), record: pipeline.Record{Topic: "p.delays.1s", Time: time.Now(), Value: []byte("body"), Headers: []pipeline.Header{
			{Key: "ce_id", Value: []byte("1")}, {Key: pipeline.EnvelopeHeader, Value: v.AppendTo(nil)},
		}}}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second/2)
		defer cancel()
		if err := m.take(ctx, &s.record, s); !errors.Is(err, context.DeadlineExceeded) || s.isSettled() {
			t.Fatalf("when the partition went, it ended with %v, settled %v", err, s.isSettled())
		}
		if err := m.take(t.Context(), &s.record, s); err != nil {
			t.Fatal(err)
		}
		r := s.out.Records[0]
		if r.Topic != "p.redeliveries.own" || string(r.Key) != "ada" || string(r.Value) != "body" || len(r.Headers) != 2 || !r.Time.IsZero() {
			t.Errorf("it went on as %+v", r)
		}
		s = &slip{t: t, done: make(chan struct{}), record: pipeline.Record{Topic: "p.delays.6h", Time: time.Now(), Headers: []pipeline.Header{{Key: pipeline.EnvelopeHeader, Value: []byte{1}}}}}
		if err := m.take(t.Context(), &s.record, s); err != nil || s.out.Records[0].Topic != "p.dead-letters" || s.out.Counts != nil {
			t.Errorf("a broken record ended with %v as %+v", err, s.out)
		}
		s.record.Headers[0].Value = []byte{pipeline.EnvelopeFormat + 1, 'D'}
		if err := m.take(t.Context(), &s.record, s); !errors.Is(err, pipeline.ErrNewerFormat) {
			t.Errorf("a newer record ended with %v", err)
		}
	})
}

// works is the topics of one partition each, in memory: records wait until they
// are taken, one after the other, as the runner does it.
type works struct {
	*house
	delays *delays
	mu     sync.Mutex
	feeds  map[string]chan *slip
	ends   map[string]int64 // of topics
	stop   context.CancelFunc
	under  sync.WaitGroup // deliveries that are on their way
	steps  map[string]int // through a delay topic, by delivery
	rounds map[string]int // through the sink, by delivery
	when   map[string]time.Time
}

func (h *house) works(room int) *works {
	w := &works{
		house: h, delays: &delays{h.names, h.Metrics, h.Tracer}, feeds: map[string]chan *slip{}, ends: map[string]int64{},
		steps: map[string]int{}, rounds: map[string]int{}, when: map[string]time.Time{},
	}
	topics := append(delayTopics(h.names), h.names.Deliveries("default"), h.names.Redeliveries("default"), h.names.Waiting("default"))
	ctx, cancel := context.WithCancel(h.t.Context())
	w.stop = cancel
	go h.passes(ctx, w.logEnds)
	for _, topic := range topics {
		feed := make(chan *slip, room)
		w.feeds[topic] = feed
		take := h.take
		if strings.Contains(topic, "delays.") {
			take = w.delays.take
		}
		go func() {
			for s := range receive(ctx, feed) {
				if err := take(ctx, &s.record, &step{s, w}); err != nil && ctx.Err() == nil {
					h.t.Errorf("taking from %s: %v", topic, err)
				}
			}
		}()
	}
	return w
}

// receive yields what comes on a channel until ctx ends.
func receive[T any](ctx context.Context, c <-chan T) iter.Seq[T] {
	return func(yield func(T) bool) {
		for {
			select {
			case v := <-c:
				if !yield(v) {
					return
				}
			case <-ctx.Done():
				return
			}
		}
	}
}

// step is a ticket whose output goes on its way.
type step struct {
	*slip
	works *works
}

func (s *step) End(out pipeline.Output) {
	w := s.works
	s.slip.End(out)
	g := w.became(s.slip)
	header, _ := s.record.Header(pipeline.EnvelopeHeader)
	v, err := pipeline.ParseDelivery(header)
	if err != nil {
		w.t.Error(err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if strings.Contains(s.record.Topic, "delays.") {
		w.steps[v.ID]++
	} else {
		w.rounds[v.ID]++
	}
	if g.again == nil {
		w.when[v.ID] = time.Now()
		w.under.Done()
		return
	}
	w.send(g.topic, *g.again)
}

// send writes a delivery to a topic. Called with mu held.
func (w *works) send(topic string, v pipeline.Delivery) {
	s := w.slipFrom(topic, v)
	s.record.Offset = w.ends[topic]
	w.ends[topic]++
	w.feeds[topic] <- s
}

func (w *works) logEnd(topic string) int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.ends[topic]
}

// logEnds is where the topics end.
func (w *works) logEnds(_ context.Context, topics ...string) (map[string]map[int32]int64, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := map[string]map[int32]int64{}
	for _, topic := range topics {
		out[topic] = map[int32]int64{0: w.ends[topic]}
	}
	return out, nil
}

// put writes deliveries of a webhook to the lane.
func (w *works) put(webhook string, n int) {
	w.under.Add(n)
	for range n {
		v := w.delivery(webhook)
		w.mu.Lock()
		w.send(w.names.Deliveries("default"), v)
		w.mu.Unlock()
	}
}

// ended is when the delivery of that number ended.
func (w *works) ended(number int) time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.when[fmt.Sprintf("%032x", number)]
}

func (w *works) end() {
	w.under.Wait()
	w.stop()
}

// circles says how often deliveries went through the sink and the delays, on
// average and at most.
func circles(m map[string]int) (average float64, most int) {
	sum := 0
	for _, n := range m {
		sum += n
		most = max(most, n)
	}
	return float64(sum) / float64(max(1, len(m))), most
}

func TestBacklogDoesNotCircle(t *testing.T) { backlogDoesNotCircle(t, 2_000) }

func TestLongBacklogDoesNotCircle(t *testing.T) {
	if os.Getenv("MILLRACE_TEST_LONG") == "" {
		t.Skip("takes a minute: set MILLRACE_TEST_LONG")
	}
	backlogDoesNotCircle(t, 50_000)
}

// backlogDoesNotCircle has deliveries to a destination that takes ten a second,
// in a partition that others share. They must not cost the others anything, nor
// the delays much: each delivery gets its slot once or twice.
func backlogDoesNotCircle(t *testing.T, n int) {
	test(t, hooked("slow", "limits: {rate: 10}")+hooked("fast", ""), func(t *testing.T, h *house) {
		h.answer("slow", always(ok(), 100*time.Millisecond))
		w := h.works(2 * n)
		start := time.Now()
		w.put("slow", n)
		w.put("fast", 1)
		synctest.Wait()
		if time.Since(start) > 0 || w.ended(n+1) != start {
			t.Error("the fast destination's delivery was held up")
		}
		w.end()
		took, least := time.Since(start), time.Duration(n)*time.Second/10
		rounds, mostRounds := circles(w.rounds)
		steps, mostSteps := circles(w.steps)
		t.Logf("%v for %v of calls; rounds through the sink: %.2f, at most %d; steps through the delays: %.1f, at most %d",
			took, least, rounds, mostRounds, steps, mostSteps)
		if took > least+least/10 || rounds > 2.5 || mostRounds > 6 || mostSteps > 40 {
			t.Error("that is too much")
		}
	})
}

// TestBacklogBesideLiveTraffic has a backlog and live deliveries that alone use
// half of what the destination takes.
func TestBacklogBesideLiveTraffic(t *testing.T) {
	const n = 1000
	test(t, hooked("slow", "limits: {rate: 10}")+hooked("fast", ""), func(t *testing.T, h *house) {
		w := h.works(4 * n)
		w.put("slow", n)
		start := time.Now()
		live, latest := n, time.Duration(0)
		for range n / 2 {
			time.Sleep(200 * time.Millisecond)
			w.put("slow", 1)
			live++
			number, put := live, time.Now()
			w.under.Go(func() {
				time.Sleep(20 * time.Second)
				when := w.ended(number)
				w.mu.Lock()
				defer w.mu.Unlock()
				if when.IsZero() {
					latest = time.Hour
				} else {
					latest = max(latest, when.Sub(put))
				}
			})
		}
		w.end()
		rounds, most := circles(w.rounds)
		t.Logf("%v; live ones took up to %v; rounds through the sink: %.2f, at most %d", time.Since(start), latest, rounds, most)
		if time.Since(start) > 170*time.Second || rounds > 4 || latest > 20*time.Second {
			t.Error("that is too much")
		}
	})
}

// TestOutageDoesNotCircle has a destination that is down for a while in which
// it gets five deliveries a second: what waits comes back no faster than it could be
// sent, not all of it at each end of the breaker's time.
func TestOutageDoesNotCircle(t *testing.T) {
	test(t, hooked("down", "breaker: {failures: 10, open: 30s}\nlimits: {rate: 50}")+hooked("fast", ""), func(t *testing.T, h *house) {
		h.answer("down", always(failed(0, httpsend.ClassConnect, 0), time.Millisecond))
		w := h.works(100_000)
		start := time.Now()
		const seconds = 150
		for range seconds {
			w.put("down", 5)
			time.Sleep(time.Second)
		}
		h.answer("down", nil)
		back := time.Now()
		w.end()
		rounds, most := circles(w.rounds)
		t.Logf("%d were through %v after it was back; rounds through the sink: %.1f, at most %d", len(w.when), time.Since(back), rounds, most)
		if len(w.when) != seconds*5 || time.Since(back) > 2*time.Minute || rounds > 12 {
			t.Errorf("%d deliveries ended, %v after the destination was back, %v in all", len(w.when), time.Since(back), time.Since(start))
		}
	})
}
