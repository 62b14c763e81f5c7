package main

import (
	"context"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/millrace-io/millrace/pipeline"
	"github.com/millrace-io/millrace/pipeline/pipelinetest"
	"github.com/millrace-io/millrace/pipeline/stream"
)

// long says that tests which kill may take their time.
func long() bool { return os.Getenv("MILLRACE_TEST_LONG") == "1" }

// moments draws when to kill. MILLRACE_TEST_SEED draws the same again.
func moments(t testing.TB) *rand.Rand {
	t.Helper()
	seed, err := strconv.ParseUint(os.Getenv("MILLRACE_TEST_SEED"), 10, 64)
	if err != nil {
		seed = rand.Uint64()
	}
	t.Logf("moments by MILLRACE_TEST_SEED=%d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// traffic is a steady flow of events, and what of it arrives at a receiver.
type traffic struct {
	*millrace
	webhook  string
	receiver *pipelinetest.Endpoint
	most     int // events on their way at once; no more are produced then
	ends     context.Context
	flows    sync.WaitGroup

	mu      sync.Mutex
	made    int                  // events made so far
	acked   map[string]time.Time // events that Kafka has, and since when
	arrived map[string]*arrival  // by event
	first   map[string]time.Time // when a revision was first seen in a call
	calls   int
	refused int // of those
	unknown int // calls with no event in it
}

// arrival is what the receiver saw of one event.
type arrival struct {
	deliveries map[string]int // calls that were answered 200, by their id
	refused    int            // calls that were answered 503
	first      time.Time      // when one was answered 200 for the first time
}

// startTraffic starts a receiver that refuses the first call of some deliveries:
// of every so-many-th, or of none if that is 0.
func startTraffic(m *millrace, webhook string, refuse uint32) *traffic {
	ends, end := context.WithCancel(m.t.Context())
	f := &traffic{
		millrace: m, webhook: webhook, most: 3_000, ends: ends,
		acked: map[string]time.Time{}, arrived: map[string]*arrival{}, first: map[string]time.Time{},
	}
	f.receiver = pipelinetest.Receiver(m.t, pipelinetest.Answering(func(c *pipelinetest.Call) pipelinetest.Answer {
		return pipelinetest.Answer{Status: f.arrive(c, refuse)}
	}))
	m.t.Cleanup(func() {
		end()
		f.flows.Wait()
	})
	return f
}

// yaml is a webhook for the flow's events and the receiver as its destination, in
// a lane: each of its partitions has calls.
func (f *traffic) yaml(lane, revision string) string {
	return fmt.Sprintf(`kind: Destination
name: %[2]s
request:
  url: %[1]s
lane: %[2]s
---
kind: Webhook
name: %[4]s
event: made.up
properties:
  - name: event
    expr: |
      event.id
  - name: revision
    value: %[3]q
destination: %[2]s
`, f.receiver.URL, lane, revision, f.webhook)
}

// arrive writes a call down and says how to answer it.
func (f *traffic) arrive(c *pipelinetest.Call, refuse uint32) (status int) {
	var body struct{ Event, Revision string }
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls++
	if err := json.Unmarshal(c.Body, &body); err != nil || body.Event == "" {
		f.unknown++
		return 200
	}
	if f.first[body.Revision].IsZero() {
		f.first[body.Revision] = time.Now()
	}
	a := f.arrived[body.Event]
	if a == nil {
		a = &arrival{deliveries: map[string]int{}}
		f.arrived[body.Event] = a
	}
	hash := fnv.New32a()
	hash.Write([]byte(c.ID()))
	if refuse > 0 && a.refused == 0 && len(a.deliveries) == 0 && hash.Sum32()%refuse == 0 {
		a.refused++
		f.refused++
		return 503
	}
	if len(a.deliveries) == 0 {
		a.first = time.Now()
	}
	a.deliveries[c.ID()]++
	return 200
}

// flow produces n events at a pace, some every ten milliseconds, in the
// background, or fewer if it is stopped before. Kafka may go away meanwhile:
// events whose acknowledgement is lost are not tried again, so that no event is
// there twice.
func (f *traffic) flow(n, perSecond int) (stop func()) {
	const tick = 10 * time.Millisecond
	each := max(1, perSecond/int(time.Second/tick))
	enough, stop := context.WithCancel(f.ends)
	f.flows.Go(func() {
		pace := time.NewTicker(max(tick, time.Second/time.Duration(perSecond)))
		defer pace.Stop()
		for n > 0 {
			select {
			case <-pace.C:
			case <-enough.Done():
				return
			}
			if f.behind() >= f.most {
				continue
			}
			f.some(min(each, n))
			n -= each
		}
	})
	return stop
}

func (f *traffic) behind() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.acked) - len(f.arrived)
}

// some produces n new events.
func (f *traffic) some(n int) {
	ids := make([]string, n)
	records := make([]pipeline.Record, n)
	f.mu.Lock()
	for i := range ids {
		f.made++
		user := fmt.Sprint("u-", f.made%1000)
		ids[i] = fmt.Sprint("e-", f.made)
		records[i] = pipeline.Record{Topic: f.cfg.Names.Events(), Key: []byte(user), Value: fmt.Appendf(nil,
			`{"id":%q,"source":"test","type":"made.up","user":%q,"properties":{"n":%d}}`, ids[i], user, f.made)}
	}
	f.mu.Unlock()
	if err := f.producer.Produce(f.ends, records); err != nil {
		f.t.Logf("events %s to %s may be lost: %v", ids[0], ids[n-1], err)
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, id := range ids {
		f.acked[id] = time.Now()
	}
}

// reached is how far the traffic is.
type reached struct{ made, acked, arrived int }

func (f *traffic) state() reached {
	f.mu.Lock()
	defer f.mu.Unlock()
	return reached{f.made, len(f.acked), len(f.arrived)}
}

// await waits until so many events have arrived.
func (f *traffic) await(n int) {
	f.t.Helper()
	f.awaitUntil(fmt.Sprint(n, " events have arrived"), func() bool { return f.state().arrived >= n })
}

// awaitAcked waits until every event that Kafka has acknowledged has arrived.
func (f *traffic) awaitAcked() {
	f.t.Helper()
	f.flows.Wait()
	f.awaitUntil("every acknowledged event has arrived", func() bool { return len(f.missing()) == 0 })
}

// forget has nobody wait for the events so far. None is sent meanwhile.
func (f *traffic) forget() {
	f.flows.Wait()
	f.mu.Lock()
	defer f.mu.Unlock()
	clear(f.acked)
}

// awaitRevision waits for the first call of a revision and returns how long after
// a moment it came; 0 if before.
func (f *traffic) awaitRevision(revision string, since time.Time) time.Duration {
	f.t.Helper()
	var first time.Time
	f.awaitUntil("a call of revision "+revision, func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		first = f.first[revision]
		return !first.IsZero()
	})
	return max(0, first.Sub(since))
}

// missing are the events that Kafka has and that did not arrive.
func (f *traffic) missing() (ids []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for id := range f.acked {
		if a := f.arrived[id]; a == nil || len(a.deliveries) == 0 {
			ids = append(ids, id)
		}
	}
	return ids
}

// stuck is how long nothing may arrive before a test gives up: longer than it
// takes Kafka to come back, and its groups to find together.
const stuck = 90 * time.Second

// awaitUntil waits until something is so, as long as calls go on coming.
func (f *traffic) awaitUntil(what string, so func() bool) {
	f.t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	last, calls := time.Now(), f.receiver.Count()
	for !so() {
		select {
		case <-tick.C:
		case <-f.t.Context().Done():
			f.t.Fatalf("waiting until %s: %v", what, f.t.Context().Err())
		}
		if n := f.receiver.Count(); n > calls {
			last, calls = time.Now(), n
		}
		if time.Since(last) > stuck {
			missing := f.missing()
			slices.Sort(missing)
			f.t.Fatalf("waiting until %s: no call in %v; %+v; %d are missing, such as %v",
				what, stuck, f.state(), len(missing), missing[:min(10, len(missing))])
		}
	}
}

// check fails the test unless all arrived, each event under one delivery id, the
// ledger says just that, and no more calls than allowed came twice.
func (f *traffic) check(allowed int) {
	f.t.Helper()
	f.awaitAcked()
	f.ledger()
	f.mu.Lock()
	defer f.mu.Unlock()
	repeats, worst := 0, 0
	for event, a := range f.arrived {
		if len(a.deliveries) != 1 {
			f.t.Errorf("event %s arrived under %d ids: %v", event, len(a.deliveries), a.deliveries)
		}
		for _, n := range a.deliveries {
			repeats += n - 1
			worst = max(worst, n)
		}
	}
	f.t.Logf("%d events made, %d acknowledged, %d arrived; %d calls, %d answered 503, %d repeated (%.2f%%; one of them %d times)",
		f.made, len(f.acked), len(f.arrived), f.calls, f.refused, repeats, 100*float64(repeats)/float64(len(f.arrived)), worst)
	if repeats > allowed {
		f.t.Errorf("%d calls were repeated, %d are allowed", repeats, allowed)
	}
	if f.unknown > 0 {
		f.t.Errorf("%d calls without an event", f.unknown)
	}
}

// ledger waits until the ledger says of every delivery that arrived that it was
// matched once and delivered once.
func (f *traffic) ledger() {
	f.t.Helper()
	want := map[pipeline.Ending]pipeline.Count{}
	for _, ending := range []pipeline.Ending{pipeline.Matched, pipeline.Delivered} {
		want[ending] = f.total(ending)
	}
	got := map[pipeline.Ending]pipeline.Count{}
	defer func() {
		f.t.Logf("the ledger says %d matched, %d delivered", got[pipeline.Matched].N, got[pipeline.Delivered].N)
		if f.t.Failed() {
			f.t.Logf("of which the counts and sums are %v, expected %v", got, want)
		}
	}()
	f.read("the ledger to be settled", func(r *pipeline.Record) bool {
		if c := countOf(f.t, r); c.Webhook == f.webhook {
			sum := got[c.Ending]
			sum.N, sum.Sum = sum.N+c.N, sum.Sum+c.Sum
			got[c.Ending] = sum
		}
		return maps.Equal(got, want)
	}, f.cfg.Names.Ledger())
}

// countOf reads a record of the ledger.
func countOf(t testing.TB, r *pipeline.Record) (c pipeline.Count) {
	t.Helper()
	if err := json.Unmarshal(r.Value, &c); err != nil {
		t.Fatalf("reading the ledger: %v", err)
	}
	return c
}

// total is what the ledger has to say when all that arrived ended in one way.
func (f *traffic) total(ending pipeline.Ending) (sum pipeline.Count) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, a := range f.arrived {
		for id := range a.deliveries {
			one := pipeline.One(f.webhook, time.Now(), ending, id)
			sum.N, sum.Sum = sum.N+1, sum.Sum+one.Sum
		}
	}
	return sum
}

// pause waits for a random moment, up to a bound.
func pause(t testing.TB, random *rand.Rand, most time.Duration) {
	t.Helper()
	timer := time.NewTimer(time.Duration(random.Int64N(int64(most))))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-t.Context().Done():
		t.Fatal(t.Context().Err())
	}
}

// attach makes a Millrace of processes that the test starts itself.
func attach(t testing.TB, brokers []string, names pipeline.Names) *millrace {
	t.Helper()
	m := &millrace{t: t, log: &logBuffer{}, cfg: stream.Config{Brokers: brokers, Names: names, Instance: "test"}}
	var err error
	if m.producer, err = stream.NewProducer(m.cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.producer.Close)
	return m
}

// args adds to a command line where this Kafka is.
func (m *millrace) args(args ...string) []string {
	return append(args, "--brokers", strings.Join(m.cfg.Brokers, ","), "--prefix", string(m.cfg.Names))
}
