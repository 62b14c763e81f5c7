package sink

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace-io/millrace/pipeline"
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
