package sink

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace-io/millrace/pipeline"
	"github.com/millrace-io/millrace/pipeline/state"
)

// reader reads a waiting partition of n records, as its feed does, and writes
// each again behind the others.
type reader struct {
	w    *waiting
	at   spot
	next atomic.Int64 // to be read
	end  atomic.Int64
}

func (r *reader) run(ctx context.Context, t *testing.T) {
	for {
		if err := r.w.await(ctx, r.at, r.next.Load()); err != nil {
			if !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
			return
		}
		<-time.After(10 * time.Millisecond)
		r.next.Add(1)
		r.end.Add(1)
	}
}

// TestPasses has a pass go over what there was when it began, each record once,
// however often it is wanted, and leave most of the time to others.
func TestPasses(t *testing.T) {
	test(t, hooked("crm", ""), func(t *testing.T, h *house) {
		const n = 1000 // records, so that a pass takes ten seconds
		ctx, cancel := context.WithCancel(t.Context())
		at := spot{"default", 3}
		r := &reader{w: h.waiting, at: at}
		r.end.Store(n)
		asked := 0
		go h.passes(ctx, func(context.Context, ...string) (map[string]map[int32]int64, error) {
			if asked++; asked == 1 {
				return nil, errors.New("not now")
			}
			return map[string]map[int32]int64{h.names.Waiting("default"): {3: r.end.Load()}}, nil
		})
		go r.run(ctx, t)
		expect := func(after time.Duration, passes int64) {
			t.Helper()
			time.Sleep(after)
			synctest.Wait()
			if got := r.next.Load(); got != passes*n {
				t.Errorf("%d records were gone over, expected %d passes", got, passes)
			}
		}
		expect(passRetry+11*time.Second, 1) // what the sink before us had in mind, nobody knows
		expect(30*time.Minute, 1)
		h.waiting.note("crm", at)
		for range 100 { // of these, the first begins one and the others another one
			h.waiting.want("crm", time.Now())
			h.waiting.note("crm", at)
			time.Sleep(50 * time.Millisecond)
		}
		expect(6*time.Second, 2)
		expect(30*time.Second, 2) // four times as long as it took
		expect(25*time.Second, 3)
		h.waiting.want("another", time.Now())
		expect(time.Minute, 3)
		h.waiting.want("crm", time.Now().Add(5*time.Minute))
		expect(4*time.Minute, 3)
		expect(2*time.Minute, 4)
		expect(time.Hour, 5)
		cancel()
		synctest.Wait()
		if len(h.waiting.parts) != 0 {
			t.Error("a partition that went is still known")
		}
	})
}

// TestAPartitionWithoutALeader has one of two partitions not say where it ends:
// the pass over the other begins, its own as soon as it does.
func TestAPartitionWithoutALeader(t *testing.T) {
	test(t, hooked("crm", ""), func(t *testing.T, h *house) {
		ctx, cancel := context.WithCancel(t.Context())
		var led atomic.Bool
		go h.passes(ctx, func(context.Context, ...string) (map[string]map[int32]int64, error) {
			ends := map[int32]int64{0: 1}
			if led.Load() {
				ends[1] = 1
			}
			return map[string]map[int32]int64{h.names.Waiting("default"): ends}, nil
		})
		var over [2]atomic.Bool
		for i := range over {
			go func() { over[i].Store(h.waiting.await(ctx, spot{"default", int32(i)}, 0) == nil) }()
		}
		time.Sleep(passRetry / 2)
		synctest.Wait()
		if !over[0].Load() || over[1].Load() {
			t.Errorf("gone over: %v, %v", over[0].Load(), over[1].Load())
		}
		led.Store(true)
		time.Sleep(passRetry)
		if !over[1].Load() {
			t.Error("the other one is forgotten")
		}
		cancel()
		synctest.Wait()
	})
}

// TestWantedSooner has a pass that is wanted in a while, and then, since something
// has changed, at once.
func TestWantedSooner(t *testing.T) {
	test(t, hooked("crm", ""), func(t *testing.T, h *house) {
		at := spot{"default", 0}
		h.waiting.reach(t.Context(), at, 0)
		h.waiting.due(time.Now()) // the pass that a new partition gets
		h.waiting.note("crm", at)
		h.waiting.want("crm", time.Now().Add(time.Minute))
		h.waiting.want("crm", time.Now())
		if due, _ := h.waiting.due(time.Now()); len(due) != 1 {
			t.Error("it does not begin")
		}
	})
}

// TestWantedWhileItBegins has a pass wanted while it is asked where that for
// another destination ends: what was written since is not within that one.
func TestWantedWhileItBegins(t *testing.T) {
	test(t, hooked("crm", "")+hooked("another", ""), func(t *testing.T, h *house) {
		at := spot{"default", 0}
		ctx, cancel := context.WithCancel(t.Context())
		r := &reader{w: h.waiting, at: at}
		go h.passes(ctx, func(context.Context, ...string) (map[string]map[int32]int64, error) {
			end := r.end.Load()
			<-time.After(5 * time.Millisecond)
			return map[string]map[int32]int64{h.names.Waiting("default"): {0: end}}, nil
		})
		go func() { _ = h.waiting.await(ctx, at, 0); r.next.Add(1) }()
		time.Sleep(10 * time.Second)
		h.waiting.note("another", at)
		h.waiting.want("another", time.Now())
		time.Sleep(2 * time.Millisecond)
		r.end.Add(1)
		h.waiting.note("crm", at)
		h.waiting.want("crm", time.Now())
		time.Sleep(10 * time.Second)
		if r.next.Load() == 0 {
			t.Error("it is forgotten")
		}
		cancel()
		synctest.Wait()
	})
}

// TestUnusableWebhookWaitsInPeace has deliveries of a webhook whose definition
// can't be used, to a destination that can be called: they are not written again
// and again.
func TestUnusableWebhookWaitsInPeace(t *testing.T) {
	test(t, hooked("crm", "")+hooked("another", ""), func(t *testing.T, h *house) {
		w := h.works(1000)
		broken := h.live.now.With([]pipeline.Record{{Key: []byte("Webhook/crm"), Value: []byte("{")}}, h.live.now.Offset+1)
		v := h.delivery("crm")
		h.live.publish(broken)
		w.mu.Lock()
		for range 10 {
			w.under.Add(1)
			v.ID = fmt.Sprint(v.ID, "x")
			w.send(h.names.Deliveries("default"), v)
		}
		w.mu.Unlock()
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if n := w.logEnd(h.names.Waiting("default")); n > 40 {
			t.Errorf("10 deliveries were written %d times", n)
		}
		h.live.apply(t, aDestination("crm", "")+aWebhook("crm", "crm", "max_age: 10h"))
		h.newest()
		w.end()
	})
}

// TestNoProbeInSight has an open breaker and deliveries that wait of which none
// may be the probe: they are left in peace, and go when they may.
func TestNoProbeInSight(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ bar, unbar func(*house) }{
		"paused": {
			bar: func(h *house) {
				h.someone("crm", func(s state.State) (state.State, bool) { s.Status = state.Paused; return s, true })
			},
			unbar: func(h *house) { h.someone("crm", resume) },
		},
		"its webhook can't be used": {
			bar: func(h *house) {
				h.live.publish(h.live.now.With([]pipeline.Record{{Key: []byte("Webhook/crm"), Value: []byte("{")}}, h.live.now.Offset+1))
				h.newest()
			},
			unbar: func(h *house) { h.live.apply(h.t, hooked("crm", guarded)); h.newest() },
		},
	} {
		t.Run(name, func(t *testing.T) {
			test(t, hooked("crm", guarded)+hooked("another", ""), func(t *testing.T, h *house) {
				const n = 50
				w := h.works(100_000)
				h.answer("crm", always(failed(500, "", 0), 0))
				w.put("crm", n)
				time.Sleep(10 * time.Second)
				c.bar(h)
				before := w.logEnd(h.names.Waiting("default"))
				time.Sleep(50 * time.Minute)
				if got := w.logEnd(h.names.Waiting("default")) - before; got > 10*n {
					t.Errorf("%d deliveries that wait were written %d times in 50 minutes", n, got)
				}
				h.answer("crm", nil)
				start := time.Now()
				c.unbar(h)
				w.end()
				if took := time.Since(start); took > 2*time.Minute {
					t.Errorf("it took %v until they were sent", took)
				}
			})
		})
	}
}

// TestWaitsWhileItOpens has a delivery for which it was decided that it waits in
// the moment in which its destination came back: it is not forgotten.
func TestWaitsWhileItOpens(t *testing.T) {
	test(t, hooked("crm", "")+hooked("another", ""), func(t *testing.T, h *house) {
		w := h.works(10)
		h.newest()
		w.under.Add(1)
		s := h.slipOf(h.delivery("crm"))
		c := &call{ctx: t.Context(), record: &s.record, ticket: &step{s, w}, delivery: h.delivery("crm")}
		h.wait(c, c.delivery, whyBreaker, nil)
		start := time.Now()
		w.end()
		if took := time.Since(start); took > 5*time.Second {
			t.Errorf("it took %v", took)
		}
	})
}
