package sink

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace-io/millrace/pipeline"
	"github.com/millrace-io/millrace/pipeline/definition"
	"github.com/millrace-io/millrace/pipeline/httpsend"
)

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

// TestPanicSettlesAndLeavesNothingBehind has a call that panics: as the probe of
// a breaker too, whose place must not be lost.
func TestPanicSettlesAndLeavesNothingBehind(t *testing.T) {
	test(t, hooked("crm", "breaker: {failures: 1, open: 30s}\nlimits: {concurrency: 1}"), func(t *testing.T, h *house) {
		h.answer("crm", func(httpsend.Call) httpsend.Result { panic("no destination at all with s3cret") })
		for range 3 {
			got := h.became(h.takes(t.Context(), h.slipOf(h.delivery("crm"))))
			if got.ending != pipeline.DeadLettered || got.reason != pipeline.Panicked || got.attempts != nil {
				t.Fatalf("it became %+v", got)
			}
			if strings.Contains(got.error, "s3cret") || !strings.Contains(got.error, "panic: a string") {
				t.Errorf("the dead letter says %s", got.error)
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

// TestNothingIsQueuedOfAPartitionThatWent has a delivery that loses a race with
// its partition: release has passed, so nobody would give it back.
func TestNothingIsQueuedOfAPartitionThatWent(t *testing.T) {
	test(t, hooked("crm", ""), func(t *testing.T, h *house) {
		h.newest()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		s := h.slipOf(h.delivery("crm"))
		if room, _ := h.destination("crm").enqueue(&call{ctx: ctx, record: &s.record, ticket: s}); room == nil {
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
