package sink

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace-io/millrace/pipeline"
	"github.com/millrace-io/millrace/pipeline/definition"
	"github.com/millrace-io/millrace/pipeline/httpsend"
)

// hooked is a destination with a webhook of the same name.
func hooked(name, more string) string {
	return aDestination(name, more) + aWebhook(name, name, "")
}

// backlog takes n deliveries for a webhook, one after the other, as a partition
// does.
func (h *house) backlog(ctx context.Context, webhook string, n int) []*slip {
	h.t.Helper()
	var out []*slip
	for range n {
		out = append(out, h.takes(ctx, h.slipOf(h.delivery(webhook))))
	}
	return out
}

// gauge counts calls under way and keeps the most there were at once.
type gauge struct{ now, most, all atomic.Int64 }

func (g *gauge) during(e endpoint) endpoint {
	return func(c httpsend.Call) httpsend.Result {
		g.all.Add(1)
		n := g.now.Add(1)
		for m := g.most.Load(); n > m && !g.most.CompareAndSwap(m, n); m = g.most.Load() {
		}
		defer g.now.Add(-1)
		return e(c)
	}
}

func TestConcurrencyIsKeptAndUsed(t *testing.T) {
	test(t, hooked("crm", "limits: {concurrency: 5}"), func(t *testing.T, h *house) {
		var g gauge
		h.answer("crm", g.during(always(ok(), time.Second)))
		start := time.Now()
		for _, s := range h.backlog(t.Context(), "crm", 100) {
			if got := h.became(s); got.ending != pipeline.Delivered {
				t.Fatalf("became %+v", got)
			}
		}
		if took := time.Since(start); g.most.Load() != 5 || took != 20*time.Second {
			t.Errorf("%d calls at once, %v for 100 calls of a second", g.most.Load(), took)
		}
	})
}

func TestRateIsKeptAndUsed(t *testing.T) {
	t.Parallel()
	for limits, want := range map[string]time.Duration{
		"limits: {rate: 10, burst: 1}":                  199 * 100 * time.Millisecond,
		"limits: {rate: 0.5, burst: 1, concurrency: 1}": 199 * 2 * time.Second,
		"limits: {rate: 0.05, burst: 1}":                199 * 20 * time.Second, // longer than may be queued
		"limits: {rate: 100, burst: 50}":                1500 * time.Millisecond,
	} {
		t.Run(limits, func(t *testing.T) {
			test(t, hooked("crm", limits), func(t *testing.T, h *house) {
				h.became(h.takes(t.Context(), h.slipOf(h.delivery("crm"))))
				time.Sleep(20 * time.Second) // the bucket is full
				start := time.Now()
				for _, s := range h.backlog(t.Context(), "crm", 200) {
					if got := h.became(s); got.ending != pipeline.Delivered {
						t.Fatalf("became %+v", got)
					}
				}
				took := time.Since(start)
				if took < want-time.Second/50 || took > want+want/50 {
					t.Errorf("200 calls took %v, expected %v", took, want)
				}
			})
		})
	}
}

// TestShareOfLimits has what a sink may do that owns a part of a lane.
func TestShareOfLimits(t *testing.T) {
	test(t, hooked("own", "lane: own\nlimits: {rate: 90, burst: 30, concurrency: 10}")+hooked("shared", "limits: {rate: 90, concurrency: 10}"), func(t *testing.T, h *house) {
		h.newest()
		for _, c := range []struct {
			share       float64 // of the lane own; 0: none of it
			rate        float64
			burst, most int
		}{{1, 90, 30, 10}, {1. / 3, 30, 10, 3}, {0.01, 0.9, 1, 1}, {0, 90, 30, 10}, {0.5, 45, 15, 5}} {
			shares := map[string]float64{"millrace.deliveries.default": 0.25, "millrace.redeliveries.own": 0.9, "millrace.deliveries.own": c.share}
			if c.share == 0 {
				delete(shares, "millrace.deliveries.own")
			}
			h.owns(shares)
			d := h.destination("own")
			if got := float64(d.limiter.Limit()); got < c.rate*0.999 || got > c.rate*1.001 || d.limiter.Burst() != c.burst || d.most != c.most {
				t.Errorf("with %v of the lane: rate %v, burst %d, %d at once; expected %+v", c.share, got, d.limiter.Burst(), d.most, c)
			}
		}
		if d := h.destination("shared"); d.limiter.Limit() != 90 || d.most != 10 {
			t.Errorf("in the lane default: rate %v, %d at once, expected all of it", d.limiter.Limit(), d.most)
		}
	})
}

func TestShareHoldsForDestinationsMadeLater(t *testing.T) {
	test(t, hooked("own", "lane: own\nlimits: {concurrency: 10}"), func(t *testing.T, h *house) {
		h.owns(map[string]float64{"millrace.deliveries.own": 0.2})
		var g gauge
		h.answer("own", g.during(always(ok(), time.Second)))
		for _, s := range h.backlog(t.Context(), "own", 10) {
			h.became(s)
		}
		if g.most.Load() != 2 {
			t.Errorf("%d calls at once, expected a fifth of 10", g.most.Load())
		}
	})
}

// TestSlowDestinationHoldsUpNobody has a destination that hangs, ahead of one
// that does not, in one partition.
func TestSlowDestinationHoldsUpNobody(t *testing.T) {
	test(t, hooked("slow", "limits: {concurrency: 2, timeout: 55s}")+hooked("fast", ""), func(t *testing.T, h *house) {
		h.answer("slow", always(failed(0, httpsend.ClassTimeout, 0), 55*time.Second))
		start := time.Now()
		slow := h.backlog(t.Context(), "slow", 2000)
		fast := h.backlog(t.Context(), "fast", 1)
		if got := h.became(fast[0]); got.ending != pipeline.Delivered || time.Since(start) > 0 {
			t.Errorf("the fast one became %+v after %v", got, time.Since(start))
		}
		busy := 0
		for _, s := range slow {
			if s.isSettled() {
				busy++
			}
		}
		if busy < 2000-2-minQueue {
			t.Errorf("%d of 2000 were put off at once", busy)
		}
		for _, s := range slow {
			if got := h.became(s); got.again == nil {
				t.Fatalf("a slow one became %+v", got)
			}
		}
	})
}

// TestAloneInALaneItHoldsUpTheLane has a destination for which nothing is put
// off as long as it is the only one of its lane.
func TestAloneInALaneItHoldsUpTheLane(t *testing.T) {
	test(t, hooked("own", "lane: own\nlimits: {concurrency: 2}"), func(t *testing.T, h *house) {
		h.answer("own", always(ok(), time.Second))
		var taken atomic.Int64
		var all []*slip
		for range 1000 {
			all = append(all, h.slipOf(h.delivery("own")))
		}
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			for _, s := range all {
				h.takes(t.Context(), s)
				taken.Add(1)
			}
		}()
		synctest.Wait()
		if n := taken.Load(); n > 2+minQueue {
			t.Errorf("%d were taken while 2 can be sent", n)
		}
		time.Sleep(100 * time.Second)
		// A second destination comes: what waits is put off now.
		h.live.apply(t, hooked("another", "lane: own"))
		<-ended
		sent, put := 0, 0
		for _, s := range all {
			if got := h.became(s); got.ending == pipeline.Delivered {
				sent++
			} else if got.again != nil {
				put++
			}
		}
		if sent+put != 1000 || sent < 200 || put < 1000-200-2*minQueue {
			t.Errorf("%d were sent and %d put off", sent, put)
		}
	})
}

// TestLiveKeepsItsShare has live deliveries beside many that came back.
func TestLiveKeepsItsShare(t *testing.T) {
	test(t, hooked("crm", "limits: {rate: 10, burst: 1}")+hooked("another", ""), func(t *testing.T, h *house) {
		v := h.delivery("crm")
		feed := func(topic string, every time.Duration) func() (sent, all int) {
			var slips []*slip
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Second)
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				for ; ctx.Err() == nil; time.Sleep(every) {
					slips = append(slips, h.takes(t.Context(), h.slipFrom(topic, v)))
				}
			}()
			return func() (sent, all int) {
				<-ended
				cancel()
				for _, s := range slips {
					if h.became(s).ending == pipeline.Delivered {
						sent++
					}
				}
				return sent, len(slips)
			}
		}
		back := feed(h.names.Redeliveries("default"), 10*time.Millisecond)
		live := feed(h.names.Deliveries("default"), 10*time.Millisecond)
		liveSent, _ := live()
		backSent, _ := back()
		total := liveSent + backSent
		if total < 1000 || liveSent < total*75/100 || backSent < total*15/100 {
			t.Errorf("of %d sent, %d were live and %d had come back", total, liveSent, backSent)
		}
	})
}

// TestEachKindUsesWhatTheOtherLeaves has nothing kept free for deliveries that come back.
func TestEachKindUsesWhatTheOtherLeaves(t *testing.T) {
	t.Parallel()
	for _, topic := range []string{"millrace.deliveries.default", "millrace.redeliveries.default"} {
		t.Run(topic, func(t *testing.T) {
			test(t, hooked("crm", "limits: {concurrency: 1}"), func(t *testing.T, h *house) {
				h.answer("crm", always(ok(), time.Second))
				start := time.Now()
				for range 50 {
					h.takes(t.Context(), h.slipFrom(topic, h.delivery("crm")))
				}
				synctest.Wait()
				for h.held.Load() > 0 {
					time.Sleep(time.Second)
				}
				if took := time.Since(start); took > 51*time.Second {
					t.Errorf("50 calls of a second took %v", took)
				}
			})
		})
	}
}

// TestPartitionGoes has calls under way and queued when their partition goes to
// another sink: the former end, the latter are given back at once.
func TestPartitionGoes(t *testing.T) {
	t.Parallel()
	for limits, underWay := range map[string]int{
		"limits: {concurrency: 3}":      3,
		"limits: {rate: 0.2, burst: 1}": 1,
	} {
		t.Run(limits, func(t *testing.T) {
			test(t, hooked("crm", "lane: own\n"+limits), func(t *testing.T, h *house) {
				h.answer("crm", always(ok(), 20*time.Second))
				goes, cancel := context.WithCancel(t.Context())
				going := h.backlog(goes, "crm", underWay+1)
				staying := h.takes(t.Context(), h.slipOf(h.delivery("crm")))
				synctest.Wait() // calls are under way
				start := time.Now()
				cancel()
				synctest.Wait()
				if time.Since(start) > 0 || !going[underWay].isSettled() || !going[underWay].released {
					t.Error("what was queued was not given back at once")
				}
				late := h.slipOf(h.delivery("crm"))
				if err := h.take(goes, &late.record, late); !errors.Is(err, context.Canceled) || late.isSettled() {
					t.Errorf("one taken too late ended with %v, settled %v", err, late.isSettled())
				}
				for _, s := range going[:underWay] {
					if got := h.became(s); got.ending != pipeline.Delivered || time.Since(start) > 20*time.Second {
						t.Errorf("a call under way became %+v after %v", got, time.Since(start))
					}
				}
				if got := h.became(staying); got.ending != pipeline.Delivered {
					t.Errorf("one of another partition became %+v", got)
				}
			})
		})
	}
}

// TestPartitionGoesWhileItWaits has a partition that waits for room.
func TestPartitionGoesWhileItWaits(t *testing.T) {
	test(t, hooked("crm", "lane: own\nlimits: {concurrency: 1, timeout: 55s}"), func(t *testing.T, h *house) {
		h.answer("crm", always(ok(), 50*time.Second))
		goes, cancel := context.WithCancel(t.Context())
		queued := h.backlog(goes, "crm", 1+100) // ten seconds' worth, as far as is known
		s, other := h.slipOf(h.delivery("crm")), h.slipOf(h.delivery("crm"))
		ended, taken := make(chan error), make(chan struct{})
		go func() { ended <- h.take(goes, &s.record, s) }()
		go func() { defer close(taken); h.takes(t.Context(), other) }()
		synctest.Wait()
		start := time.Now()
		cancel()
		<-taken // there is room for one of another partition now
		if time.Since(start) > 0 {
			t.Errorf("another partition had to wait for %v", time.Since(start))
		}
		if err := <-ended; !errors.Is(err, context.Canceled) || s.isSettled() {
			t.Errorf("it ended with %v, settled %v", err, s.isSettled())
		}
		synctest.Wait()
		for _, s := range queued[1:] {
			if !s.isSettled() || !s.released {
				t.Fatal("what was queued was not given back")
			}
		}
		h.became(queued[0])
		h.became(other)
	})
}

func TestDefinitionChangesWhileCallsAreQueued(t *testing.T) {
	t.Parallel()
	const one = "limits: {concurrency: 1}"
	for name, c := range map[string]struct {
		change func(*house)
		want   func(gone) bool
		within time.Duration
	}{
		"revised": {
			func(h *house) { h.live.apply(h.t, hooked("crm", "limits: {concurrency: 40}")) },
			func(g gone) bool { return g.ending == pipeline.Delivered }, 3 * time.Second,
		},
		"unlimited": {
			func(h *house) { h.live.apply(h.t, hooked("crm", "")) },
			func(g gone) bool { return g.ending == pipeline.Delivered }, 3 * time.Second,
		},
		"paused": {
			func(h *house) { h.live.apply(h.t, hooked("crm", one+"\nstatus: paused")) },
			func(g gone) bool { return g.again != nil && g.attempts == nil }, time.Second,
		},
		"moved": {
			func(h *house) { h.live.apply(h.t, hooked("crm", one+"\nlane: own")) },
			func(g gone) bool { return g.topic == "millrace.deliveries.own" }, time.Second,
		},
		"removed": {
			func(h *house) { h.live.replace(h.t, hooked("another", "")) },
			func(g gone) bool { return g.ending == pipeline.Removed }, time.Second,
		},
		"expired": {
			func(h *house) { h.live.apply(h.t, aWebhook("crm", "crm", "max_age: 1s")) },
			func(g gone) bool { return g.reason == pipeline.ExpiredDelivery }, time.Second,
		},
	} {
		t.Run(name, func(t *testing.T) {
			test(t, hooked("crm", one)+hooked("another", ""), func(t *testing.T, h *house) {
				h.answer("crm", always(ok(), time.Second))
				slips := h.backlog(t.Context(), "crm", 30)
				time.Sleep(time.Second / 2)
				start := time.Now()
				c.change(h)
				h.newest() // as the sink does when it hears of them
				for i, s := range slips[1:] {
					if got := h.became(s); !c.want(got) {
						t.Fatalf("number %d became %+v", i+1, got)
					}
				}
				if took := time.Since(start); took > c.within {
					t.Errorf("that took %v", took)
				}
				if got := h.became(slips[0]); got.ending != pipeline.Delivered {
					t.Errorf("the call under way became %+v", got)
				}
			})
		})
	}
}

// TestRateIsRaisedWhileCallsWait has a queue that waits for a token for a long
// time, and a new definition that makes that unnecessary.
func TestRateIsRaisedWhileCallsWait(t *testing.T) {
	test(t, hooked("crm", "limits: {rate: 0.11, burst: 1}")+hooked("another", ""), func(t *testing.T, h *house) {
		slips := h.backlog(t.Context(), "crm", 2)
		h.became(slips[0])
		start := time.Now()
		h.live.apply(t, hooked("crm", "limits: {rate: 1000}"))
		h.newest()
		if got := h.became(slips[1]); got.ending != pipeline.Delivered || time.Since(start) > 10*time.Millisecond {
			t.Errorf("it became %+v after %v", got, time.Since(start))
		}
	})
}

// TestRemovedWhileCallsWaitForTheRate has a queue that would take minutes.
func TestRemovedWhileCallsWaitForTheRate(t *testing.T) {
	test(t, hooked("crm", "limits: {rate: 0.5, burst: 1}")+hooked("another", ""), func(t *testing.T, h *house) {
		slips := h.backlog(t.Context(), "crm", 5)
		h.became(slips[0])
		start := time.Now()
		h.live.replace(t, hooked("another", ""))
		h.newest()
		for _, s := range slips[1:] {
			if got := h.became(s); got.ending != pipeline.Removed || time.Since(start) > 0 {
				t.Errorf("it became %+v after %v", got, time.Since(start))
			}
		}
	})
}

// TestOlderSnapshotsChangeNothing has two partitions that know different
// definitions: the newest ones stay in force.
func TestOlderSnapshotsChangeNothing(t *testing.T) {
	test(t, hooked("crm", "limits: {concurrency: 1}"), func(t *testing.T, h *house) {
		older := h.live.Snapshot()
		h.live.apply(t, hooked("crm", "limits: {concurrency: 7}"))
		h.newest()
		rev := h.destination("crm").revision()
		rev.shut(time.Now().Add(time.Hour), whyRefused)
		h.learn(older)
		if d := h.destination("crm"); d.most != 7 || d.revision() != rev {
			t.Error("an older definition is in force again")
		}
	})
}

// TestPanicSettlesAndLeavesNothingBehind has a call that panics: as the probe of
// a breaker too, whose place must not be lost.
func TestPanicSettlesAndLeavesNothingBehind(t *testing.T) {
	test(t, hooked("crm", "breaker: {failures: 1, open: 30s}\nlimits: {concurrency: 1}"), func(t *testing.T, h *house) {
		h.answer("crm", func(httpsend.Call) httpsend.Result { panic("no destination at all") })
		for range 3 {
			got := h.became(h.takes(t.Context(), h.slipOf(h.delivery("crm"))))
			if got.ending != pipeline.DeadLettered || got.reason != pipeline.Panicked || got.attempts != nil {
				t.Fatalf("it became %+v", got)
			}
		}
		h.answer("crm", always(failed(500, "", 0), 0))
		h.became(h.takes(t.Context(), h.slipOf(h.delivery("crm"))))
		time.Sleep(31 * time.Second)
		h.answer("crm", func(httpsend.Call) httpsend.Result { panic("as a probe") })
		if got := h.became(h.takes(t.Context(), h.slipOf(h.delivery("crm")))); got.reason != pipeline.Panicked {
			t.Fatalf("the probe became %+v", got)
		}
		h.answer("crm", nil)
		if got := h.became(h.takes(t.Context(), h.slipOf(h.delivery("crm")))); got.ending != pipeline.Delivered {
			t.Errorf("after the probe panicked, a delivery became %+v", got)
		}
	})
}

// TestMemoryIsBounded has destinations that all hang, with large bodies: what is
// held stays within bounds, and each destination goes on with a call at a time.
func TestMemoryIsBounded(t *testing.T) {
	const destinations, each, size = 30, 30, 1 << 20
	text := strings.Builder{}
	for i := range destinations {
		text.WriteString(hooked(fmt.Sprint("d", i), "limits: {concurrency: 10, timeout: 55s}"))
	}
	test(t, text.String(), func(t *testing.T, h *house) {
		body := make([]byte, size)
		var g gauge
		var slips []*slip
		for i := range destinations {
			h.answer(fmt.Sprint("d", i), g.during(always(ok(), 50*time.Second)))
			for range each {
				s := h.slipOf(h.delivery(fmt.Sprint("d", i)))
				s.record.Value = body
				slips = append(slips, h.takes(t.Context(), s))
			}
			if held := h.held.Load(); held > maxHeld+destinations*(size+waitWeight+openWeight) {
				t.Fatalf("%d MiB are held", held>>20)
			}
		}
		synctest.Wait()
		if n := g.now.Load(); n < destinations {
			t.Errorf("%d calls are under way for %d destinations", n, destinations)
		}
		back := 0
		for _, s := range slips {
			if h.became(s).again != nil {
				back++
			}
		}
		if back == 0 {
			t.Error("nothing was put off: the test proves nothing")
		}
	})
}

// TestMemoryIsFreeAgain has a destination that may have one call at a time while
// others take all memory, and all of its calls again when they don't.
func TestMemoryIsFreeAgain(t *testing.T) {
	test(t, hooked("crm", "limits: {concurrency: 10}")+hooked("another", ""), func(t *testing.T, h *house) {
		var g gauge
		h.answer("crm", g.during(always(ok(), time.Second)))
		slips := h.backlog(t.Context(), "crm", 100)
		h.held.Add(maxHeld)
		time.Sleep(5*time.Second + time.Millisecond)
		if n := g.now.Load(); n != 1 {
			t.Errorf("%d calls are under way without memory", n)
		}
		if got := h.became(h.takes(t.Context(), h.slipOf(h.delivery("another")))); got.ending != pipeline.Delivered {
			t.Errorf("a destination with nothing under way could not send: %+v", got)
		}
		if got := h.one(); got.again == nil || got.called() {
			t.Errorf("one more became %+v", got)
		}
		h.held.Add(-maxHeld)
		time.Sleep(2 * time.Second)
		if n := g.now.Load(); n != 10 {
			t.Errorf("%d calls are under way with memory", n)
		}
		for _, s := range slips {
			h.became(s)
		}
	})
}

// TestVerySlowAndAlone has calls that last longer than anything may be queued.
func TestVerySlowAndAlone(t *testing.T) {
	test(t, hooked("own", "lane: own\nlimits: {concurrency: 1, timeout: 55s}"), func(t *testing.T, h *house) {
		h.answer("own", always(ok(), 50*time.Second))
		start := time.Now()
		const n = 200
		for i, s := range h.backlog(t.Context(), "own", n) {
			if got := h.became(s); got.ending != pipeline.Delivered {
				t.Fatalf("number %d became %+v", i, got)
			}
		}
		if took := time.Since(start); took != n*50*time.Second {
			t.Errorf("that took %v", took)
		}
	})
}

// TestNothingIsQueuedOfAPartitionThatWent has a delivery that loses a race with
// its partition: release has passed, so nobody would give it back.
func TestNothingIsQueuedOfAPartitionThatWent(t *testing.T) {
	test(t, hooked("crm", ""), func(t *testing.T, h *house) {
		h.newest()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		s := h.slipOf(h.delivery("crm"))
		if room := h.destination("crm").enqueue(&call{ctx: ctx, record: &s.record, ticket: s}); room == nil {
			t.Error("it is queued")
		}
	})
}

// TestTimeoutFitsIntoTheDrain has the longest timeout of a definition end before
// a partition has to go.
func TestTimeoutFitsIntoTheDrain(t *testing.T) {
	t.Parallel()
	allowed := func(timeout time.Duration) bool {
		text := hooked("crm", fmt.Sprintf("limits: {timeout: %v}", timeout))
		return len(definition.Parse(definition.File{Name: "f.yaml", Data: []byte(text)}).Problems) == 0
	}
	if !allowed(10*time.Second) || allowed(drainTime-time.Second) {
		t.Errorf("a drain of %v does not outlast every timeout", drainTime)
	}
}

func TestNextSlot(t *testing.T) {
	test(t, hooked("crm", "limits: {rate: 10}"), func(t *testing.T, h *house) {
		h.newest()
		d, now := h.destination("crm"), time.Now()
		for i := range 5 {
			if got, want := d.nextSlot(now).Sub(now), time.Second+time.Duration(i)*100*time.Millisecond; got != want {
				t.Errorf("slot %d is in %v, expected %v", i, got, want)
			}
		}
		gate := now.Add(time.Minute)
		for i := range 5 {
			if got, want := d.nextSlot(gate).Sub(gate), time.Duration(i)*100*time.Millisecond; got != want {
				t.Errorf("slot %d behind the gate is %v after it, expected %v", i, got, want)
			}
		}
		for range 40_000 { // more than an hour's worth
			if got := d.nextSlot(gate).Sub(gate); got > maxLine {
				t.Fatalf("a slot is %v away", got)
			}
		}
		if got := d.nextSlot(gate).Sub(gate); got < maxLine/2 {
			t.Errorf("at the end of the line, a slot is only %v away", got)
		}
		d.slot = time.Time{}
		queued := h.backlog(t.Context(), "crm", 61) // one is sent, six seconds' worth wait
		if got := d.nextSlot(now).Sub(now); got != 3*time.Second {
			t.Errorf("behind a queue of six seconds, the line begins in %v", got)
		}
		for _, s := range queued {
			h.became(s)
		}
		now = time.Now()
		h.live.apply(t, hooked("crm", "limits: {rate: 1000}"))
		h.newest()
		if got := d.nextSlot(now).Sub(now); got != time.Second {
			t.Errorf("under a new definition the line begins in %v", got)
		}
	})
}
