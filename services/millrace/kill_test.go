package main

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/millrace-io/millrace/pipeline/pipelinetest"
)

// drawKills draws at how many arrivals to kill, in order.
func drawKills(random *rand.Rand, kills, events int) []int {
	at := make([]int, kills)
	for i := range at {
		at[i] = events/10 + random.IntN(events*8/10)
	}
	slices.Sort(at)
	return at
}

// ownBroker is a `millrace up` that the test kills and starts again.
type ownBroker struct {
	*program
	data, kafka, http string
}

func startUp(t testing.TB) *ownBroker {
	t.Helper()
	b := &ownBroker{data: filepath.Join(t.TempDir(), "data"), kafka: pipelinetest.FreeAddr(t), http: pipelinetest.FreeAddr(t)}
	b.start(t)
	b.Ready(t)
	return b
}

// start starts it on the same data and the same addresses.
func (b *ownBroker) start(t testing.TB) {
	t.Helper()
	b.program = startProcess(t, "up", "--data", b.data, "--kafka", b.kafka, "--http", b.http)
}

// `millrace up` is killed at random moments, some of them while it starts, with
// retries going on: nothing is lost, nothing ends twice, few calls are repeated.
func TestKillUp(t *testing.T) {
	t.Parallel()
	if pipelinetest.RealKafka() {
		t.Skip("up brings its own broker")
	}
	events, kills, pace := 5_000, 2, 1_000
	if long() {
		events, kills, pace = 100_000, 10, 700
	}
	random := moments(t)
	up := startUp(t)
	f := startTraffic(attach(t, []string{up.kafka}, "millrace."), "calls", 50)
	f.apply(f.yaml("calls", "1"))
	f.flow(events, pace)
	for i, at := range drawKills(random, kills, events) {
		if i%3 == 2 { // soon after the last one
			pause(t, random, 1500*time.Millisecond)
		} else {
			f.await(at)
		}
		s := f.state()
		up.Kill()
		killed := time.Now()
		up.start(t)
		if i%3 != 1 {
			f.await(s.arrived + 1)
			t.Logf("killed at %+v, calls again after %v", s, time.Since(killed).Round(time.Millisecond))
		}
	}
	allowed := (200 + 64) * kills // at risk, and under way
	if long() {
		allowed = events / 50
	}
	f.check(allowed)
	if code := up.Stop(t); code != exitOK {
		t.Errorf("a signal gives exit code %d", code)
	}
}

// An `apply` of many definitions is cut short while it writes, by a kill of its
// own or of the broker's: all of it is in force or nothing, and a later one takes
// effect.
func TestKillApply(t *testing.T) {
	t.Parallel()
	if pipelinetest.RealKafka() {
		t.Skip("up brings its own broker")
	}
	rounds := 2
	if long() {
		rounds = 20
	}
	random := moments(t)
	up := startUp(t)
	f := startTraffic(attach(t, []string{up.kafka}, "millrace."), "calls", 0)
	f.apply(f.many("first"))
	stop := f.flow(1<<20, 100)
	f.awaitRevision("first", time.Now())
	stop()
	f.forget() // those that came before the first revision was in force
	stop = f.flow(1<<20, 100)
	for i := range rounds {
		cut, later := fmt.Sprint("cut-", i), fmt.Sprint("later-", i)
		apply := startProcess(t, "apply", "--brokers", up.kafka, tempFile(t, cut+".yaml", f.many(cut)))
		apply.out.WaitFor(t, " unchanged", 1) // the plan's last words
		pause(t, random, 100*time.Millisecond)
		if i%2 == 0 {
			apply.Kill()
		} else {
			up.Kill()
			up.start(t)
			apply.Wait(t) // it may have tried again
			up.Ready(t)
		}
		inForce := f.revisions()
		if len(inForce) != 1 {
			t.Errorf("after %s, in force are %v", cut, inForce)
		}
		f.apply(f.many(later))
		first := f.awaitRevision(later, time.Now())
		t.Logf("%s: in force were %v; the first call of the next one came after %v", cut, inForce, first.Round(time.Millisecond))
		if first > 10*time.Second {
			t.Errorf("%s took effect after %v", later, first)
		}
		if got := f.revisions(); got[later] != 1+manyMore {
			t.Errorf("after %s, in force are %v", later, got)
		}
		if list := f.command("", "list", "webhooks"); strings.Count(list, "active") != 1+manyMore {
			t.Errorf("millrace list says\n%s", list)
		}
	}
	stop()
	f.awaitAcked()
}

// manyMore is how many webhooks there are in many besides that of the flow.
const manyMore = 300

// many are definitions that say their revision in each webhook.
func (f *traffic) many(revision string) string {
	var b strings.Builder
	b.WriteString(f.yaml("calls", revision))
	for i := range manyMore {
		fmt.Fprintf(&b, "---\nkind: Webhook\nname: more-%d\nevent: never.seen\nproperties:\n"+
			"  - name: revision\n    value: %q\ndestination: calls\n", i, revision)
	}
	return b.String()
}

// revisions counts the webhooks in force by the revision that they say.
func (f *traffic) revisions() map[string]int {
	f.t.Helper()
	found := map[string]int{}
	_, rest, more := strings.Cut(f.command("", "export"), "- name: revision")
	for ; more; _, rest, more = strings.Cut(rest, "- name: revision") {
		_, value, _ := strings.Cut(rest, "value: ")
		value, _, _ = strings.Cut(value, "\n")
		found[strings.Trim(value, `"`)]++
	}
	return found
}
