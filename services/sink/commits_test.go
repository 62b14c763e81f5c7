package sink

import (
	"context"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace-io/millrace/pipeline"
	"github.com/millrace-io/millrace/pipeline/httpsend"
)

// uncommitted takes n deliveries whose calls have to wait until commits is closed.
func (h *house) uncommitted(ctx context.Context, webhook string, n int, commits chan struct{}) (all []*slip) {
	h.t.Helper()
	for range n {
		s := h.slipOf(h.delivery(webhook))
		s.commits = commits
		all = append(all, h.takes(ctx, s))
	}
	return all
}

// TestCallsWaitForCommits has commits that don't keep up: no call begins, and
// what waited together then keeps to the rate.
func TestCallsWaitForCommits(t *testing.T) {
	test(t, hooked("slow", "limits: {rate: 10, burst: 1}"), func(t *testing.T, h *house) {
		var mu sync.Mutex
		var calls []time.Time
		h.answer("slow", func(httpsend.Call) httpsend.Result {
			mu.Lock()
			defer mu.Unlock()
			calls = append(calls, time.Now())
			return ok()
		})
		commits := make(chan struct{})
		const n = 20
		all := h.uncommitted(t.Context(), "slow", n, commits)
		time.Sleep(time.Minute)
		synctest.Wait()
		if len(calls) > 0 {
			t.Fatalf("%d calls while commits did not keep up", len(calls))
		}
		close(commits)
		for _, s := range all {
			if got := h.became(s); got.ending != pipeline.Delivered {
				t.Errorf("one became %+v", got)
			}
		}
		slices.SortFunc(calls, time.Time.Compare)
		for i := 1; i < len(calls); i++ {
			if gap := calls[i].Sub(calls[i-1]); gap < 99*time.Millisecond {
				t.Errorf("call %d came %v after the one before", i, gap)
			}
		}
		if len(calls) != n {
			t.Errorf("%d calls", len(calls))
		}
	})
}

// TestPartitionGoesWhileCallsWait has a partition that goes to another sink: what
// waited for commits is released.
func TestPartitionGoesWhileCallsWait(t *testing.T) {
	test(t, hooked("crm", ""), func(t *testing.T, h *house) {
		h.answer("crm", func(httpsend.Call) httpsend.Result {
			t.Error("a call was made")
			return ok()
		})
		ctx, gone := context.WithCancel(t.Context())
		all := h.uncommitted(ctx, "crm", 10, make(chan struct{}))
		synctest.Wait()
		gone()
		for _, s := range all {
			if got := h.became(s); !got.released {
				t.Errorf("one became %+v", got)
			}
		}
	})
}
