package sink

import (
	"fmt"
	"log/slog"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace-io/millrace/pipeline"
	"github.com/millrace-io/millrace/pipeline/httpsend"
	"github.com/millrace-io/millrace/pipeline/state"
	"github.com/millrace-io/millrace/pipeline/telemetry"
)

// one takes a delivery for the webhook crm and says what became of it.
func (h *house) one() gone {
	h.t.Helper()
	return h.became(h.takes(h.t.Context(), h.slipOf(h.delivery("crm"))))
}

// opensAt is when the breaker of a destination is to be probed.
func (h *house) opensAt(name string) time.Time {
	h.t.Helper()
	until, open := h.destination(name).revision().opensAt()
	if !open {
		h.t.Fatal("the breaker is closed")
	}
	return until
}

// called says whether there was a call.
func (g gone) called() bool { return len(g.attempts) > 0 }

const guarded = "limits: {concurrency: 1}\nbreaker: {failures: 3, open: 30s}\nretry: {attempts: 100, first: 10ms, cap: 20ms}"

func TestBreaker(t *testing.T) {
	test(t, hooked("crm", guarded)+hooked("another", ""), func(t *testing.T, h *house) {
		h.answer("crm", always(failed(500, "", 0), 0))
		var third gone
		for i := range 3 {
			if third = h.one(); !third.called() {
				t.Fatalf("call %d was not made: %+v", i, third)
			}
		}
		if until, open := h.destination("crm").revision().opensAt(); !open || time.Until(until) < 30*time.Second || time.Until(until) > 34*time.Second {
			t.Fatalf("the breaker is open: %v, until %v", open, until)
		}
		if !third.again.Due.Equal(wholeMilli(h.opensAt("crm"))) || third.again.Attempts != 1 {
			t.Fatalf("the one that opened it comes back as %+v, expected that it is the probe", third.again)
		}
		for range 100 {
			if got := h.one(); got.called() || got.topic != h.names.Waiting("default") || got.again.Attempts != 0 {
				t.Fatalf("while the breaker is open, a delivery became %+v", got)
			}
		}
		time.Sleep(time.Until(h.opensAt("crm")) - time.Nanosecond)
		if h.one().called() {
			t.Error("the breaker let a call through before its time")
		}
		time.Sleep(time.Nanosecond)
		first := h.opensAt("crm")
		got := h.one()
		if !got.called() || got.again == nil || got.again.Attempts != 0 || !got.again.Due.Equal(wholeMilli(h.opensAt("crm"))) {
			t.Fatalf("the probe became %+v", got)
		}
		if again := h.opensAt("crm"); again.Sub(first) < 30*time.Second {
			t.Errorf("after a probe that failed, the breaker is open for %v", again.Sub(first))
		}
		if got := h.one(); got.called() || got.topic != h.names.Waiting("default") {
			t.Fatalf("after a probe that failed, a delivery became %+v", got)
		}
		time.Sleep(34 * time.Second)
		h.answer("crm", nil)
		for i := range 10 {
			if got := h.one(); got.ending != pipeline.Delivered {
				t.Fatalf("number %d after the destination was back became %+v", i, got)
			}
		}
	})
}

// TestAskedToWaitWhileOpen has a destination that says 503 and for how long: the
// probe does not come before that.
func TestAskedToWaitWhileOpen(t *testing.T) {
	test(t, hooked("crm", guarded)+hooked("another", ""), func(t *testing.T, h *house) {
		h.answer("crm", always(failed(503, "", 0), 0))
		h.one()
		h.one()
		h.answer("crm", always(failed(503, "", 10*time.Minute), 0))
		if got := h.one(); !got.called() || time.Until(got.again.Due) < 10*time.Minute-time.Millisecond {
			t.Errorf("the probe comes in %v", time.Until(got.again.Due))
		}
		time.Sleep(10*time.Minute - time.Second)
		if got := h.one(); got.called() || got.topic != h.names.Waiting("default") {
			t.Errorf("before its time, one became %+v", got)
		}
	})
}

// TestTheProbeIsOnTime has a probe come when the breaker's time is over, and not
// only after it was turned away once; and a delivery when the gate opens.
func TestTheProbeIsOnTime(t *testing.T) {
	t.Parallel()
	const odd = 1234567 * time.Nanosecond
	for name, c := range map[string]struct {
		answer httpsend.Result
		n      int // deliveries
		until  func(*house) time.Time
	}{
		"breaker": {failed(500, "", 0), 3, func(h *house) time.Time { return h.opensAt("crm") }},
		"gate":    {failed(429, "", 10500*time.Millisecond), 1, func(h *house) time.Time { return h.runtimeOf("crm").revision().gate }},
	} {
		t.Run(name, func(t *testing.T) {
			test(t, hooked("crm", guarded)+hooked("another", ""), func(t *testing.T, h *house) {
				w := h.works(100)
				h.answer("crm", always(c.answer, odd))
				w.put("crm", c.n)
				time.Sleep(time.Second)
				until := c.until(h)
				calls := make(chan time.Time, 100)
				h.answer("crm", func(httpsend.Call) httpsend.Result { calls <- time.Now(); return ok() })
				if late := (<-calls).Sub(until); late < 0 || late > lateness {
					t.Errorf("it came after %v", late)
				}
				w.end()
			})
		})
	}
}

// TestOnlyOneProbe has many deliveries ready when the breaker may be probed.
func TestOnlyOneProbe(t *testing.T) {
	test(t, hooked("crm", strings.Replace(guarded, "concurrency: 1", "concurrency: 50", 1))+hooked("another", ""), func(t *testing.T, h *house) {
		h.answer("crm", always(failed(500, "", 0), 0))
		for range 3 {
			h.one()
		}
		time.Sleep(34 * time.Second)
		var g gauge
		h.answer("crm", g.during(always(ok(), 5*time.Second)))
		slips := h.backlog(t.Context(), "crm", 50)
		synctest.Wait()
		if g.all.Load() != 1 {
			t.Errorf("%d calls probe the destination", g.all.Load())
		}
		back := 0
		for _, s := range slips {
			if got := h.became(s); got.again != nil && !got.called() {
				back++
			}
		}
		if back != 49 {
			t.Errorf("%d of 50 wait for the probe", back)
		}
	})
}

// TestCallsAsLongAsTheWindowCount has a destination whose every call times out,
// after longer than the breaker's window.
func TestCallsAsLongAsTheWindowCount(t *testing.T) {
	test(t, hooked("crm", "limits: {concurrency: 5, timeout: 20s}\nbreaker: {failures: 3, window: 10s}")+hooked("another", ""), func(t *testing.T, h *house) {
		h.answer("crm", always(failed(0, httpsend.ClassTimeout, 0), 20*time.Second))
		for _, s := range h.backlog(t.Context(), "crm", 5) {
			h.became(s)
		}
		if h.one().called() {
			t.Error("five calls in a row timed out, and the breaker is closed")
		}
	})
}

// TestARowHasNoWindow has a destination that is down and gets few calls, further
// apart than the breaker's window: it opens all the same, and nothing dies while
// the destination is down.
func TestARowHasNoWindow(t *testing.T) {
	t.Parallel()
	for name, every := range map[string]time.Duration{"one delivery": 0, "one every ten minutes": 10 * time.Minute} {
		t.Run(name, func(t *testing.T) {
			test(t, hooked("crm", "")+hooked("another", ""), func(t *testing.T, h *house) {
				log := &logText{}
				h.Log = logTo(log)
				w := h.works(1000)
				h.answer("crm", always(failed(0, httpsend.ClassConnect, 0), time.Millisecond))
				w.put("crm", 1)
				for range 24 * 6 {
					time.Sleep(10 * time.Minute)
					if every > 0 {
						w.put("crm", 1)
					}
				}
				synctest.Wait()
				if n := strings.Count(log.String(), "breaker opened"); n != 1 || len(w.when) > 0 {
					t.Errorf("the breaker opened %d times, %d deliveries ended", n, len(w.when))
				}
				h.answer("crm", nil)
				w.end()
			})
		})
	}
}

// TestWhatHungIsInNoRow has calls that began before the destination was back and
// fail after that.
func TestWhatHungIsInNoRow(t *testing.T) {
	test(t, hooked("crm", "limits: {concurrency: 5}\nbreaker: {failures: 3, open: 10s}\nretry: {attempts: 100}")+hooked("another", ""), func(t *testing.T, h *house) {
		h.answer("crm", always(failed(0, httpsend.ClassTimeout, 0), 30*time.Second))
		hung := h.backlog(t.Context(), "crm", 2)
		synctest.Wait()
		h.answer("crm", always(failed(500, "", 0), 0))
		for range 3 {
			h.one()
		}
		time.Sleep(11 * time.Second)
		h.answer("crm", nil)
		if got := h.one(); got.ending != pipeline.Delivered {
			t.Fatalf("the probe became %+v", got)
		}
		for _, s := range hung {
			h.became(s)
		}
		h.answer("crm", always(failed(500, "", 0), 0))
		time.Sleep(time.Second) // it comes back slowly
		h.one()
		if h.runtimeOf("crm").revision().isOpen() {
			t.Error("one failure after the destination was back opened the breaker")
		}
	})
}

func TestFailureShareTrips(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		every int // one in so many fails
		trips bool
	}{"half": {2, true}, "a third": {3, false}} {
		t.Run(name, func(t *testing.T) {
			test(t, hooked("crm", "limits: {concurrency: 1}\nbreaker: {failures: 50, share: 50%}")+hooked("another", ""), func(t *testing.T, h *house) {
				var n atomic.Int64
				h.answer("crm", func(httpsend.Call) httpsend.Result {
					if n.Add(1)%int64(c.every) == 0 {
						return failed(500, "", 0)
					}
					return ok()
				})
				calls := 0
				for range 60 {
					if h.one().called() {
						calls++
					}
				}
				if c.trips && calls != minSample || !c.trips && calls != 60 {
					t.Errorf("%d calls were made, one in %d failed", calls, c.every)
				}
			})
		})
	}
}

// TestThrottling has a destination that says 429: nobody calls it for as long as
// it asked, and no attempt of those that wait is used up.
func TestThrottling(t *testing.T) {
	t.Parallel()
	for asked, wait := range map[time.Duration]time.Duration{0: throttledTime, time.Minute: time.Minute, time.Hour: time.Hour} {
		t.Run(fmt.Sprint(asked), func(t *testing.T) {
			test(t, hooked("crm", "limits: {concurrency: 1}")+hooked("another", ""), func(t *testing.T, h *house) {
				h.answer("crm", always(failed(429, "", asked), 0))
				v := h.delivery("crm")
				v.Attempts = 13 // its own back-off is hours: that must not be the gate
				start := time.Now()
				if got := h.became(h.takes(t.Context(), h.slipOf(v))); got.again == nil || got.again.Attempts != 14 {
					t.Fatalf("it became %+v", got)
				}
				h.answer("crm", nil)
				time.Sleep(wait - time.Millisecond)
				got := h.one()
				if got.called() || got.again == nil || got.again.Attempts != 0 || got.again.Due.Sub(start) < wait {
					t.Errorf("another one became %+v before its time", got)
				}
				time.Sleep(time.Millisecond)
				if got := h.one(); got.ending != pipeline.Delivered {
					t.Errorf("after %v a delivery became %+v", wait, got)
				}
			})
		})
	}
}

// TestNewDefinitionOpensTheGate has a destination that asks for patience until
// its definition is mended. A call that was under way with the old one does not
// shut the gate of the new one.
func TestNewDefinitionOpensTheGate(t *testing.T) {
	test(t, hooked("crm", "limits: {concurrency: 2}")+hooked("another", ""), func(t *testing.T, h *house) {
		h.answer("crm", always(failed(429, "", time.Hour), time.Minute))
		late := h.takes(t.Context(), h.slipOf(h.delivery("crm")))
		synctest.Wait()
		h.answer("crm", always(failed(429, "", time.Hour), 0))
		if got := h.one(); !got.called() {
			t.Fatalf("it became %+v", got)
		}
		if h.one().called() {
			t.Fatal("a destination that said 429 was called again")
		}
		h.live.apply(t, hooked("crm", "limits: {concurrency: 3}"))
		h.answer("crm", nil)
		if got := h.one(); got.ending != pipeline.Delivered {
			t.Errorf("under a new definition it became %+v", got)
		}
		h.became(late)
		if got := h.one(); got.ending != pipeline.Delivered {
			t.Errorf("after an old call came back it became %+v", got)
		}
	})
}

// served is what /metrics says.
func served(t *testing.T, tel *telemetry.Telemetry) string {
	t.Helper()
	w := httptest.NewRecorder()
	tel.Handler().ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "GET", "/metrics", nil))
	return w.Body.String()
}

// Destinations that somebody has to resume are counted; not so those that are no
// longer there.
func TestStoppedInTheMetrics(t *testing.T) {
	t.Parallel()
	tel, err := telemetry.New(t.Context(), telemetry.Config{Service: "test"})
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		h := build(t, hooked("a", "")+hooked("b", "")+hooked("c", "")+hooked("d", "")+hooked("e", "status: paused"))
		h.Metrics = tel.Metrics
		of := func(name string, status state.Status) state.State {
			return state.State{Destination: name, Status: status, Revision: 1 << 40}
		}
		for _, c := range []struct {
			states           []state.State
			paused, disabled int
		}{
			{nil, 0, 0},
			{[]state.State{of("a", state.Paused), of("b", state.Disabled), of("c", state.Paused), of("d", state.Active), of("gone", state.Paused)}, 2, 1},
			{[]state.State{of("a", state.Active), of("b", state.Disabled)}, 0, 1},
		} {
			h.countStopped(slices.Values(c.states))
			text := served(t, tel)
			for status, n := range map[string]int{"paused": c.paused, "disabled": c.disabled} {
				if !regexp.MustCompile(fmt.Sprintf(`(?m)^millrace_destinations_stopped\{[^}]*status="%s"[^}]*\} %d$`, status, n)).MatchString(text) {
					t.Errorf("of %v, %d %s are not in\n%s", c.states, n, status, text)
				}
			}
		}
	})
}

// TestBreakersInTheMetrics has a breaker that opens, and a definition that goes
// while it is open, and calls that end after that.
func TestBreakersInTheMetrics(t *testing.T) {
	t.Parallel()
	tel, err := telemetry.New(t.Context(), telemetry.Config{Service: "test"})
	if err != nil {
		t.Fatal(err)
	}
	shows := func(want string) {
		t.Helper()
		var got []string
		for line := range strings.Lines(served(t, tel)) {
			if strings.HasPrefix(line, "millrace_breakers_open{") || strings.HasPrefix(line, "millrace_attempts_in_flight{") {
				got = append(got, strings.TrimSpace(line[strings.LastIndex(line, "}")+1:]))
			}
		}
		if text := strings.Join(got, " "); text != want {
			t.Errorf("calls in flight and open breakers are %q, expected %q", text, want)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		h := build(t, hooked("crm", guarded)+hooked("another", ""))
		h.Metrics, h.Log = tel.Metrics, slog.New(slog.DiscardHandler)
		h.answer("crm", always(failed(500, "", 0), 0))
		for range 3 {
			h.one()
		}
		shows("0 1")
		h.live.apply(t, hooked("crm", guarded+"\nplatform: other"))
		h.newest()
		shows("0 0")
		for range 3 {
			h.one()
		}
		shows("0 1")
		h.answer("crm", func(httpsend.Call) httpsend.Result { panic("while probing") })
		time.Sleep(34 * time.Second)
		h.one()
		shows("0 1")
		h.answer("crm", nil)
		h.one()
		shows("0 0")
		h.answer("crm", always(failed(500, "", 0), time.Second))
		h.live.apply(t, hooked("crm", "breaker: {failures: 1}"))
		late := h.takes(t.Context(), h.slipOf(h.delivery("crm")))
		time.Sleep(1100 * time.Millisecond) // it comes back slowly
		shows("1 0")
		h.live.apply(t, hooked("crm", guarded))
		h.newest()
		h.became(late)
		shows("0 0")
	})
}

// TestOnlyCallsAreAttempts has deliveries of which no request could be made.
func TestOnlyCallsAreAttempts(t *testing.T) {
	t.Parallel()
	tel, err := telemetry.New(t.Context(), telemetry.Config{Service: "test"})
	if err != nil {
		t.Fatal(err)
	}
	h := build(t, hooked("crm", "limits: {max_body: 10}"))
	h.Metrics = tel.Metrics
	h.overHTTP()
	s := h.slipOf(h.delivery("crm"))
	s.record.Value = []byte(`{"a":"too much of it"}`)
	if got := h.became(h.takes(t.Context(), s)); got.reason != pipeline.TooLarge || got.called() {
		t.Errorf("it became %+v", got)
	}
	if text := served(t, tel); strings.Contains(text, "millrace_attempts_total{") || !strings.Contains(text, "millrace_dead_letters_total{") {
		t.Errorf("counted are:\n%s", text)
	}
}
