package sink

import (
	"testing"
	"time"

	"github.com/millrace-io/millrace/pipeline"
)

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
		rev.shut(time.Now().Add(time.Hour))
		h.learn(older)
		if d := h.destination("crm"); d.most != 7 || d.revision() != rev {
			t.Error("an older definition is in force again")
		}
	})
}
