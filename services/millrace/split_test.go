package main

import (
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/millrace-io/millrace/pipeline"
	"github.com/millrace-io/millrace/pipeline/pipelinetest"
)

// split is a Millrace of one process for each role, with two sinks.
type split struct {
	*millrace
	filter, transform, sinkA, sinkB *role
}

// role is a process that can be started again as the same instance.
type role struct {
	*program
	args []string
}

// startSplit prepares the topics and starts the roles, each a process.
func startSplit(t testing.TB, brokers []string, names pipeline.Names) *split {
	t.Helper()
	s := &split{millrace: attach(t, brokers, names)}
	created := startProcess(t, s.args("init", "--partitions", "4", "--replication", "1")...)
	if code := created.Wait(t); code != exitOK {
		t.Fatalf("init: exit code %d", code)
	}
	s.filter, s.transform = s.start("filter", "f"), s.start("transform", "t")
	s.sinkA, s.sinkB = s.start("sink", "a", "--egress-allow", "127.0.0.0/8"), s.start("sink", "b", "--egress-allow", "127.0.0.0/8")
	for _, r := range []*role{s.filter, s.transform, s.sinkA, s.sinkB} {
		r.Ready(t)
	}
	return s
}

func (s *split) start(name, instance string, flags ...string) *role {
	s.t.Helper()
	args := append(s.args(name, "--instance", instance, "--http", pipelinetest.FreeAddr(s.t)), flags...)
	return &role{startProcess(s.t, args...), args}
}

// again starts the process once more, as the same instance.
func (r *role) again(t testing.TB) {
	t.Helper()
	r.program = startProcess(t, r.args...)
}

// What `up` does, processes of their own do: events of a foreign client, changes
// while events flow, a transform that is behind, a sink that is killed.
func TestSplit(t *testing.T) {
	t.Parallel()
	var brokers []string
	names := pipeline.Names("millrace.")
	if pipelinetest.RealKafka() {
		c := pipelinetest.Broker(t)
		brokers, names = c.Addrs, c.Names
	} else {
		brokers = []string{pipelinetest.FreeAddr(t)}
		b := startProcess(t, "broker", "--data", filepath.Join(t.TempDir(), "data"), "--kafka", brokers[0])
		b.out.WaitFor(t, "Kafka on", 1)
	}
	s := startSplit(t, brokers, names)
	s.foreignClient()
	f := startTraffic(s.millrace, "flow", 0)
	s.changes(f)
	s.transformBehind(f)
	f.check(0)
	s.killSink(f)
	f.check(200)
	for _, r := range []*role{s.filter, s.transform, s.sinkA, s.sinkB} {
		if code := r.Stop(t); code != exitOK {
			t.Errorf("%s: a signal gives exit code %d", r.args[0], code)
		}
	}
}

// foreignClient: kcat's events reach Heap's place, broken ones the dead letters.
func (s *split) foreignClient() {
	t := s.t
	t.Helper()
	r := pipelinetest.Receiver(t)
	s.apply(heap(r.URL))
	const goal = "smart_walk_thru.goal_reached"
	s.kcat(`{"walk_thru_id":12345}`, "u-1", "ce_specversion=1.0", "ce_type="+goal, "ce_source=kcat", "ce_id=1", "ce_subject=u-1")
	s.kcat(`{"specversion":"1.0","id":"2","type":"`+goal+`","source":"kcat","subject":"u-2","data":{"walk_thru_id":12345}}`,
		"u-2", "content-type=application/cloudevents+json")
	s.kcat(`{"type":"`+goal+`","user":"u-3","properties":{"walk_thru_id":12345}}`, "u-3")
	s.kcat(`{"type":"`+goal+`","user":"u-4","properties":{"walk_thru_id":54321}}`, "u-4")
	broken := []string{`{"type":"` + goal + `","properties":{"walk_thru_id":`, "\xff\xfe\x00not an event", "\x00\x00\x00\x00\x07avro"}
	for _, b := range broken {
		s.kcat(b, "broken")
	}
	r.Wait(t, 3)
	for _, x := range s.deadLetters(len(broken)) {
		if !slices.Contains(broken, string(x.record.Value)) || x.Reason != pipeline.Undecodable {
			t.Errorf("dead letter %q: %+v", x.record.Value, x.DeadLetter)
		}
	}
	s.settled(map[string]endings{"walk-thru-goal-to-heap": {pipeline.Matched: 3, pipeline.Delivered: 3}})
	if got, want := bodies(r), []string{heapBody("u-1"), heapBody("u-2"), heapBody("u-3")}; !slices.Equal(got, want) {
		t.Errorf("arrived: %q", got)
	}
	once(t, r)
}

// changes applies twenty revisions while events flow, some with a new lane.
func (s *split) changes(f *traffic) {
	s.t.Helper()
	s.apply(f.yaml("flow-0", "0"))
	stop := f.flow(1<<20, 200)
	defer f.flows.Wait()
	defer stop()
	f.awaitRevision("0", time.Now())
	var same, lanes []time.Duration
	lane := 0
	for i := 1; i <= 20; i++ {
		if i%5 == 0 {
			lane++
		}
		revision := fmt.Sprint(i)
		s.apply(f.yaml(fmt.Sprint("flow-", lane), revision))
		took := f.awaitRevision(revision, time.Now())
		if i%5 == 0 {
			lanes = append(lanes, took)
		} else {
			same = append(same, took)
		}
	}
	slices.Sort(same)
	worst, worstLane := slices.Max(same), slices.Max(lanes)
	s.t.Logf("from the end of apply to the first delivery: p50 %v, at most %v; with a new lane %v",
		same[len(same)/2].Round(time.Millisecond), worst.Round(time.Millisecond), worstLane.Round(time.Millisecond))
	if worst > time.Second || worstLane > 5*time.Second {
		s.t.Errorf("a change took effect after %v, a new lane after %v", worst, worstLane)
	}
}

// transformBehind: what the filter matched while there was no transform is lost
// neither to that nor to a change meanwhile.
func (s *split) transformBehind(f *traffic) {
	t := s.t
	t.Helper()
	if code := s.transform.Stop(t); code != exitOK {
		t.Errorf("transform: a signal gives exit code %d", code)
	}
	before := f.state().made
	f.flow(200, 1_000)
	f.flows.Wait()
	matched := int64(0)
	s.read("the events to be matched", func(r *pipeline.Record) bool {
		if c := countOf(t, r); c.Webhook == f.webhook && c.Ending == pipeline.Matched {
			matched += c.N
		}
		return matched == int64(before+200)
	}, s.cfg.Names.Ledger())
	s.apply(f.yaml("flow-0", "behind"))
	s.transform.again(t)
	f.awaitRevision("behind", time.Now())
	f.awaitAcked()
}

// killSink kills one of two sinks at work, sees the other take over, and starts
// it again.
func (s *split) killSink(f *traffic) {
	s.t.Helper()
	stop := f.flow(1<<20, 200)
	f.await(f.state().made + 400)
	s.sinkA.Kill()
	killed := time.Now()
	at := f.state().acked
	f.awaitUntil("a thousand events have been produced after the kill", func() bool { return f.state().acked >= at+1000 })
	took := f.caughtUp(killed.Add(time.Second)).Sub(killed)
	s.t.Logf("all events from up to 1 s after the kill of a sink had arrived %v after it", took.Round(time.Millisecond))
	if took > 15*time.Second {
		s.t.Errorf("a sink's lanes were taken over after %v", took)
	}
	s.sinkA.again(s.t)
	s.sinkA.Ready(s.t)
	f.await(f.state().acked + 400)
	stop()
}

// caughtUp waits until every event acknowledged before a time has arrived, and
// returns when the last one did.
func (f *traffic) caughtUp(before time.Time) (last time.Time) {
	f.t.Helper()
	f.awaitUntil("events from before have arrived", func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		last = time.Time{}
		for id, at := range f.acked {
			a := f.arrived[id]
			if at.After(before) {
				continue
			}
			if a == nil || a.first.IsZero() {
				return false
			}
			if a.first.After(last) {
				last = a.first
			}
		}
		return true
	})
	return last
}

// On an Apache Kafka of the test's own, roles are killed at random moments, with
// retries going on, and started again as the same instances; then Kafka itself is
// killed.
func TestKillRolesOnKafka(t *testing.T) {
	t.Parallel()
	if !long() && !pipelinetest.RealKafka() {
		t.Skip("takes an Apache Kafka: MILLRACE_TEST_KAFKA=1, or all of it with MILLRACE_TEST_LONG=1")
	}
	events, kills, pace := 6_000, 3, 400
	if long() {
		events, kills, pace = 100_000, 10, 500
	}
	random := moments(t)
	kafka := pipelinetest.StartKafka(t)
	s := startSplit(t, kafka.Addrs(), "millrace.")
	f := startTraffic(s.millrace, "calls", 50)
	f.most = 2 * pace // or all is produced before the last kill
	s.apply(f.yaml("calls", "1"))
	f.flow(events, pace)
	roles := []*role{s.filter, s.transform, s.sinkA, s.sinkB}
	random.Shuffle(len(roles), func(i, j int) { roles[i], roles[j] = roles[j], roles[i] })
	for i, at := range drawKills(random, kills, events) {
		f.await(at)
		if i == kills/2 {
			f.killKafka(kafka)
		}
		r, state, killed := roles[i%len(roles)], f.state(), time.Now()
		r.Kill()
		r.again(t)
		took := f.caughtUp(killed).Sub(killed)
		t.Logf("%s killed at %+v; all events from before had arrived %v after it", r.args[0], state, max(0, took).Round(time.Millisecond))
	}
	f.check(200 * kills) // two percent of 100,000 events over ten kills
	for _, r := range roles {
		if code := r.Stop(t); code != exitOK {
			t.Errorf("%s: a signal gives exit code %d", r.args[0], code)
		}
	}
}

// killKafka kills the broker and starts it again.
func (f *traffic) killKafka(kafka *pipelinetest.Kafka) {
	f.t.Helper()
	state, killed := f.state(), time.Now()
	kafka.Kill()
	kafka.Restart(f.t)
	back := time.Since(killed)
	took := f.caughtUp(killed).Sub(killed)
	f.t.Logf("Kafka killed at %+v and back after %v; all events from before had arrived %v after it",
		state, back.Round(time.Millisecond), max(0, took).Round(time.Millisecond))
}
