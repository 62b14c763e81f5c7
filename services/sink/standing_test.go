package sink

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace-io/millrace/pipeline"
	"github.com/millrace-io/millrace/pipeline/definition"
	"github.com/millrace-io/millrace/pipeline/httpsend"
	"github.com/millrace-io/millrace/pipeline/state"
	"github.com/millrace-io/millrace/pipeline/stream"
)

// answered is a result of a status that the destination answered with.
func answered(status int, o httpsend.Outcome) httpsend.Result {
	return httpsend.Result{Status: status, Outcome: o, Err: pipeline.Permanent(pipeline.FinalResponse, fmt.Errorf("destination responded %d", status))}
}

// statusOf is the status of a destination as it is written.
func (h *house) statusOf(name string) state.State {
	synctest.Wait()
	return h.stateNow(name)
}

const crmAndAnother = "limits: {concurrency: 1}\nretry: {attempts: 100, first: 10ms, cap: 20ms}"

// TestWhatPauses has what a destination answers in turn, and whether it is paused
// after that.
func TestWhatPauses(t *testing.T) {
	t.Parallel()
	refused, final, down, good := answered(401, httpsend.Pause), answered(404, httpsend.DeadLetter), failed(503, "", 0), ok()
	times := func(n int, r httpsend.Result) (out []httpsend.Result) {
		for range n {
			out = append(out, r)
		}
		return out
	}
	for name, c := range map[string]struct {
		more    string // in the definition
		answers []httpsend.Result
		same    bool // every answer is to the same delivery
		want    state.Status
		reason  state.Reason
	}{
		"four refused":                      {answers: times(4, refused), want: state.Active},
		"five refused":                      {answers: times(5, refused), want: state.Paused, reason: state.Refused},
		"five refused, 403":                 {answers: times(5, answered(403, httpsend.Pause)), want: state.Paused, reason: state.Refused},
		"a success between":                 {answers: append(append(times(4, refused), good), times(4, refused)...), want: state.Active},
		"no success between":                {answers: append(append(times(4, refused), down, final), refused), want: state.Paused, reason: state.Refused},
		"one refused again and again":       {answers: times(12, refused), same: true, want: state.Active},
		"401 means pause, it says":          {more: "\nresponses: {401: pause}", answers: times(1, refused), want: state.Paused, reason: state.Response},
		"402 means pause, it says":          {more: "\nresponses: {4xx: pause}", answers: times(1, answered(402, httpsend.Pause)), want: state.Paused, reason: state.Response},
		"19 final responses":                {answers: times(19, final), want: state.Active},
		"20 final responses":                {answers: times(20, final), want: state.Paused, reason: state.FinalResponses},
		"20 with a success between":         {answers: append(append(times(19, final), good), times(19, final)...), want: state.Active},
		"20 final responses, as it says":    {more: "\nresponses: {404: dead_letter}", answers: times(30, final), want: state.Active},
		"gone":                              {answers: times(1, answered(410, httpsend.Disable)), want: state.Disabled, reason: state.Gone},
		"404 means that it is gone":         {more: "\nresponses: {404: disable}", answers: times(1, answered(404, httpsend.Disable)), want: state.Disabled, reason: state.Response},
		"its address is private":            {answers: times(1, httpsend.Result{Outcome: httpsend.Pause, Class: httpsend.ClassBlocked, Err: errors.New("private")}), want: state.Paused, reason: state.Blocked},
		"the proxy does not let it through": {answers: times(1, httpsend.Result{Outcome: httpsend.Pause, Class: httpsend.ClassProxy, Err: errors.New("403")}), want: state.Paused, reason: state.Proxy},
	} {
		t.Run(name, func(t *testing.T) {
			test(t, hooked("crm", crmAndAnother+c.more)+hooked("another", ""), func(t *testing.T, h *house) {
				v := h.delivery("crm")
				for i, r := range c.answers {
					if got := h.statusOf("crm"); got.Status != state.Active {
						t.Fatalf("before answer %d it is %+v", i, got)
					}
					time.Sleep(time.Second)
					h.answer("crm", always(r, 0))
					if !c.same {
						v = h.delivery("crm")
					}
					v.Attempts = 0
					if got := h.became(h.takes(t.Context(), h.slipOf(v))); !got.called() {
						t.Fatalf("for answer %d no call was made: %+v", i, got)
					}
				}
				got := h.statusOf("crm")
				if got.Status != c.want || got.Reason != c.reason || c.reason != "" && (got.By != state.BySink || got.Detail == "" || got.Since.IsZero()) {
					t.Errorf("it is %+v", got)
				}
				after := h.one()
				if callable := c.want == state.Active; after.called() != callable || !callable && after.topic != h.names.Waiting("default") {
					t.Errorf("the next one became %+v", after)
				}
			})
		})
	}
}

// TestOneIsRefusedForLong has one delivery refused again and again, so that it
// backs off for hours: the others' slots are not behind its.
func TestOneIsRefusedForLong(t *testing.T) {
	test(t, hooked("crm", "limits: {rate: 100}")+hooked("another", ""), func(t *testing.T, h *house) {
		h.answer("crm", always(answered(403, httpsend.Pause), 0))
		v := h.delivery("crm")
		for range 15 {
			got := h.became(h.takes(t.Context(), h.slipOf(v)))
			time.Sleep(time.Until(got.again.Due))
		}
		h.became(h.takes(t.Context(), h.slipOf(v))) // and is away, now
		h.answer("crm", nil)
		h.one()
		for _, s := range h.backlog(t.Context(), "crm", 1000) {
			if s.isSettled() {
				if got := h.became(s); got.again != nil && time.Until(got.again.Due) > 30*time.Second {
					t.Fatalf("of 1000 deliveries at 100/s, one is put off by %v", time.Until(got.again.Due))
				}
			}
		}
		synctest.Wait()
		time.Sleep(time.Minute)
	})
}

// TestOnlyResumeEndsAPause has a destination that was paused, and everything that
// does not resume it.
func TestOnlyResumeEndsAPause(t *testing.T) {
	test(t, hooked("crm", crmAndAnother)+hooked("another", ""), func(t *testing.T, h *house) {
		w := h.works(1000)
		h.answer("crm", always(answered(401, httpsend.Pause), time.Second))
		w.put("crm", 50)
		time.Sleep(time.Minute)
		if got := h.statusOf("crm"); got.Status != state.Paused {
			t.Fatalf("it is %+v", got)
		}
		var g gauge
		h.answer("crm", g.during(always(ok(), 0)))
		h.live.apply(t, hooked("crm", crmAndAnother+"\nplatform: mended"))
		h.newest()
		h.runtimeOf("crm").lacksNothing()
		time.Sleep(5 * time.Hour) // with a pass every hour
		if n := g.all.Load(); n != 0 {
			t.Errorf("%d calls were made", n)
		}
		h.someone("crm", resume)
		w.end()
		if n := g.all.Load(); n != 50 {
			t.Errorf("%d calls were made when it was resumed", n)
		}
	})
}

// TestARemovedDestinationIsForgotten has a destination that was paused removed: one
// that gets its name later is another. One that this version can't read is still
// the same.
func TestARemovedDestinationIsForgotten(t *testing.T) {
	test(t, hooked("crm", "")+hooked("another", ""), func(t *testing.T, h *house) {
		h.newest()
		h.someone("crm", func(s state.State) (state.State, bool) { s.Status = state.Paused; return s, true })
		h.live.publish(h.live.now.With([]pipeline.Record{{Key: []byte("Destination/crm"), Value: []byte("{")}}, h.live.now.Offset+1))
		h.newest()
		if got := h.statusOf("crm").Status; got != state.Paused {
			t.Errorf("when its definition could not be read, it became %q", got)
		}
		h.live.apply(t, aDestination("crm", "platform: mended"))
		h.newest()
		h.live.replace(t, hooked("another", ""))
		h.newest()
		got := h.statusOf("crm")
		if _, there := h.written["crm"]; there {
			t.Errorf("when it was removed, there is %+v", got)
		}
	})
}

// TestWaitingExpires has deliveries that become too old while their destination
// is paused: they end within the hour.
func TestWaitingExpires(t *testing.T) {
	test(t, aDestination("crm", "status: paused")+aWebhook("crm", "crm", "max_age: 90m")+hooked("another", ""), func(t *testing.T, h *house) {
		w := h.works(100)
		start := time.Now()
		w.put("crm", 10)
		w.end()
		if took := time.Since(start); took < 90*time.Minute || took > 2*time.Hour+time.Minute {
			t.Errorf("it took %v", took)
		}
	})
}

// TestRemovedWhileItWaits has a webhook that goes while its deliveries wait.
func TestRemovedWhileItWaits(t *testing.T) {
	test(t, hooked("crm", "status: paused")+hooked("another", ""), func(t *testing.T, h *house) {
		w := h.works(100)
		w.put("crm", 10)
		time.Sleep(time.Minute)
		start := time.Now()
		h.live.replace(t, aDestination("crm", "status: paused")+hooked("another", ""))
		h.newest()
		w.end()
		if took := time.Since(start); took > 5*time.Second {
			t.Errorf("it took %v", took)
		}
	})
}

// TestSecretComes has deliveries that wait for a secret.
func TestSecretComes(t *testing.T) {
	test(t, hooked("crm", "")+hooked("another", ""), func(t *testing.T, h *house) {
		w := h.works(100)
		h.missing["crm"] = errors.New("missing")
		h.answer("crm", func(httpsend.Call) httpsend.Result {
			h.mu.Lock()
			defer h.mu.Unlock()
			if err := h.missing["crm"]; err != nil {
				return httpsend.Result{Outcome: httpsend.NotSent, Class: httpsend.ClassSecret, Err: err}
			}
			return ok()
		})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go h.watchSecrets(ctx)
		w.put("crm", 10)
		time.Sleep(10 * time.Minute)
		h.mu.Lock()
		delete(h.missing, "crm")
		h.mu.Unlock()
		start := time.Now()
		w.end()
		if took := time.Since(start); took > secretsEvery+10*time.Second { // the last of them slowly
			t.Errorf("it took %v", took)
		}
	})
}

// TestTheProbeIsLost has the delivery that is to be the probe removed: another
// one that waits is taken for it.
func TestTheProbeIsLost(t *testing.T) {
	text := func(hooks ...string) string {
		all := aDestination("crm", guarded) + hooked("another", "")
		for _, hook := range hooks {
			all += aWebhook(hook, "crm", "")
		}
		return all
	}
	test(t, text("goes", "stays"), func(t *testing.T, h *house) {
		w := h.works(100)
		h.answer("crm", always(failed(500, "", 0), 0))
		w.put("goes", 3)
		time.Sleep(time.Second)
		w.put("stays", 5)
		synctest.Wait()
		h.answer("crm", nil)
		h.live.replace(t, text("stays"))
		h.newest()
		start := time.Now()
		w.end()
		if took := time.Since(start); took < 29*time.Second || took > time.Minute {
			t.Errorf("it took %v", took)
		}
	})
}

// TestAloneItStandsStill has a paused destination that has its lane for itself:
// the lane stands still, nothing is written anywhere; what becomes too old ends,
// and a resume lets it go on.
func TestAloneItStandsStill(t *testing.T) {
	text := aDestination("own", "lane: own") + aWebhook("own", "own", "") + aWebhook("short", "own", "max_age: 1h")
	test(t, text, func(t *testing.T, h *house) {
		h.newest()
		pause := func(s state.State) (state.State, bool) { s.Status = state.Paused; return s, true }
		h.someone("own", pause)
		var slips []*slip
		for _, hook := range []string{"short", "own", "own"} {
			slips = append(slips, h.slipOf(h.delivery(hook)))
		}
		taken := make(chan struct{})
		go func() {
			defer close(taken)
			for _, s := range slips {
				h.takes(t.Context(), s)
			}
		}()
		time.Sleep(59 * time.Minute)
		if slips[0].isSettled() {
			t.Fatal("the lane does not stand still")
		}
		time.Sleep(2 * time.Minute)
		if got := h.became(slips[0]); got.reason != pipeline.ExpiredDelivery {
			t.Errorf("the one that became too old became %+v", got)
		}
		time.Sleep(time.Hour)
		if slips[1].isSettled() {
			t.Fatal("the lane does not stand still")
		}
		h.someone("own", resume)
		<-taken
		for _, s := range slips[1:] {
			if got := h.became(s); got.ending != pipeline.Delivered {
				t.Errorf("when it was resumed, one became %+v", got)
			}
		}
	})
}

// TestStateIsInherited has a sink that takes over a destination whose breaker
// another one had opened, and one that was resumed just before.
func TestStateIsInherited(t *testing.T) {
	t.Parallel()
	t.Run("breaker", func(t *testing.T) {
		test(t, hooked("crm", guarded)+hooked("another", ""), func(t *testing.T, h *house) {
			h.had(state.State{Destination: "crm", Status: state.Active, OpenUntil: time.Now().Add(20 * time.Second), Rate: 200, Instance: "other"})
			if got := h.one(); got.called() || got.topic != h.names.Waiting("default") {
				t.Fatalf("it became %+v", got)
			}
			time.Sleep(20 * time.Second)
			if got := h.one(); got.ending != pipeline.Delivered {
				t.Fatalf("the probe became %+v", got)
			}
			if d := h.runtimeOf("crm"); d.pace.line != 10 || !h.stateNow("crm").OpenUntil.IsZero() {
				t.Errorf("the slow start begins with %v/s, what is written is %+v", d.pace.line, h.stateNow("crm"))
			}
		})
	})
	t.Run("breaker, by a clock that is a day ahead", func(t *testing.T) {
		test(t, hooked("crm", guarded)+hooked("another", ""), func(t *testing.T, h *house) {
			h.had(state.State{Destination: "crm", Status: state.Active, OpenUntil: time.Now().Add(24 * time.Hour).UTC(), Instance: "other"})
			if got := h.one(); got.called() {
				t.Fatalf("it became %+v", got)
			}
			time.Sleep(httpsend.MaxRetryAfter)
			if got := h.one(); got.ending != pipeline.Delivered {
				t.Errorf("an hour later one became %+v", got)
			}
		})
	})
	t.Run("resumed", func(t *testing.T) {
		test(t, hooked("crm", "")+hooked("another", ""), func(t *testing.T, h *house) {
			h.had(state.State{Destination: "crm", Status: state.Active, By: "ada", Back: time.Now().Add(-time.Minute), Rate: 200})
			h.answer("crm", always(ok(), 10*time.Millisecond))
			start := time.Now()
			for _, s := range h.backlog(t.Context(), "crm", 10) {
				h.became(s)
			}
			if took := time.Since(start); took < time.Second-50*time.Millisecond || h.runtimeOf("crm").pace.line != 10 {
				t.Errorf("ten calls took %v, the slow start is at %v/s", took, h.runtimeOf("crm").pace.line)
			}
		})
	})
	t.Run("closed again by the other", func(t *testing.T) {
		test(t, hooked("crm", guarded)+hooked("another", ""), func(t *testing.T, h *house) {
			h.checkSecrets(map[string]string{}) // which makes the runtime of every destination
			openBy := func(instance string) state.Change {
				return func(s state.State) (state.State, bool) {
					s.OpenUntil, s.Instance, s.Rate = time.Now().Add(30*time.Second).UTC(), instance, 200
					return s, true
				}
			}
			h.someone("crm", openBy("other"))
			if d := h.runtimeOf("crm"); d.current.isOpen() || d.watch != nil {
				t.Error("a sink that has nothing to send takes over a breaker")
			}
			if got := h.one(); got.called() {
				t.Fatalf("one became %+v", got)
			}
			h.someone("crm", closeBreaker(time.Now()))
			if d := h.runtimeOf("crm"); d.current.isOpen() || d.pace.line != 10 {
				t.Errorf("when the other one closed it, it is open: %v, the slow start is at %v/s", d.current.isOpen(), d.pace.line)
			}
		})
	})
}

// TestABreakerThatNobodyCloses has breakers that are open where nothing is sent
// any more, while the destination answers.
func TestABreakerThatNobodyCloses(t *testing.T) {
	t.Parallel()
	t.Run("of a sink that went", func(t *testing.T) {
		test(t, hooked("crm", guarded+"\nlane: own"), func(t *testing.T, h *house) {
			h.one()
			h.someone("crm", func(s state.State) (state.State, bool) {
				s.OpenUntil, s.Instance, s.Rate = time.Now().Add(30*time.Second).UTC(), "gone", 200
				return s, true
			})
			for range 3 {
				h.one()
				if got := h.statusOf("crm"); got.OpenUntil.IsZero() {
					t.Errorf("it is closed before its time: %+v", got)
				}
				time.Sleep(9 * time.Second)
			}
			time.Sleep(4 * time.Second)
			h.one()
			if got := h.statusOf("crm"); !got.OpenUntil.IsZero() || got.Instance != "" || !got.Back.IsZero() {
				t.Errorf("after a call that succeeded it is %+v", got)
			}
			time.Sleep(time.Minute)
			h.one()
			if line := h.lineOf("crm"); line != 0 {
				t.Errorf("after a minute without calls it begins at %v/s", line)
			}
		})
	})
	t.Run("of ours, whose partition went", func(t *testing.T) {
		test(t, hooked("crm", guarded)+hooked("another", ""), func(t *testing.T, h *house) {
			h.answer("crm", always(failed(500, "", 0), 0))
			for range 3 {
				h.one()
			}
			time.Sleep(34 * time.Second)
			h.someone("crm", closeBreaker(time.Now())) // by whose probe succeeded
			time.Sleep(probeTime + 2*time.Millisecond)
			if open, line := h.runtimeOf("crm").revision().isOpen(), h.lineOf("crm"); open || line == 0 {
				t.Errorf("it is open: %v, it comes back at %v/s", open, line)
			}
			time.Sleep(24 * time.Hour)
			h.answer("crm", nil)
			for range 2 {
				if got := h.one(); got.ending != pipeline.Delivered {
					t.Errorf("when the partition is back, one became %+v", got)
				}
			}
			if line := h.lineOf("crm"); line != 0 {
				t.Errorf("a day later it begins at %v/s", line)
			}
		})
	})
	t.Run("of ours, and it fails", func(t *testing.T) {
		test(t, hooked("crm", guarded)+hooked("another", ""), func(t *testing.T, h *house) {
			h.answer("crm", always(failed(500, "", 0), 0))
			for range 3 {
				h.one()
			}
			h.statusOf("crm")
			h.someone("crm", closeBreaker(time.Now())) // by one that gets through
			for range 20 {
				time.Sleep(time.Until(h.opensAt("crm")))
				if got := h.one(); !got.called() {
					t.Fatalf("the probe became %+v", got)
				}
			}
		})
	})
}

// TestClosedAndOpenedAtOnce has a breaker close and open again before either is
// written: that is another outage. One that only stays open is not.
func TestClosedAndOpenedAtOnce(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	open := func(until time.Time) change {
		return change{Change: func(s state.State) (state.State, bool) { s.OpenUntil = until; return s, true }}
	}
	was := state.State{Destination: "crm", Status: state.Active, OpenUntil: now.Add(-time.Second)}
	for name, c := range map[string]struct {
		list   []change
		closed bool
	}{
		"closed by a probe": {[]change{{Change: closeBreaker(now)}, open(now.Add(time.Minute))}, true},
		"left open":         {[]change{{Change: closeLeftOpen(now)}, open(now.Add(time.Minute))}, true},
		"for longer":        {[]change{open(now.Add(time.Minute)), open(now.Add(2 * time.Minute))}, false},
		"closed twice":      {[]change{{Change: closeBreaker(now)}, {Change: closeBreaker(now)}, open(now.Add(time.Minute))}, true},
	} {
		got, changed := inTurn("crm", c.list)(was)
		if !changed || got.Closed != c.closed || !got.OpenUntil.After(now) {
			t.Errorf("%s: written is %+v", name, got)
		}
	}
}

// TestTheRateBeforeIsKept has what must not be taken for the rate before: nothing
// at all, since there were only probes.
func TestTheRateBeforeIsKept(t *testing.T) {
	for name, answer := range map[string]httpsend.Result{"probes fail": failed(500, "", 0), "it is gone": answered(410, httpsend.Disable)} {
		t.Run(name, func(t *testing.T) {
			test(t, hooked("crm", guarded)+hooked("another", ""), func(t *testing.T, h *house) {
				h.had(state.State{Destination: "crm", Status: state.Active, OpenUntil: time.Now().Add(time.Second).UTC(), Rate: 200, Instance: "other"})
				h.answer("crm", always(answer, 0))
				for range 5 {
					h.one()
					time.Sleep(40 * time.Second)
				}
				if d := h.runtimeOf("crm"); d.before != 200 || h.stateNow("crm").Rate != 200 {
					t.Errorf("it is taken to be %v/s, written is %v/s", d.before, h.stateNow("crm").Rate)
				}
			})
		})
	}
}

// TestTheRateBeforeARebalance has other sinks take over most of a lane, and then
// its destination fails: at once, or when all calls of ours that it remembers were
// a quarter of those it got.
func TestTheRateBeforeARebalance(t *testing.T) {
	t.Parallel()
	for name, quarter := range map[string]int{"at once": 0, "later": 70} {
		t.Run(name, func(t *testing.T) {
			test(t, hooked("crm", "lane: own\nretry: {attempts: 100}"), func(t *testing.T, h *house) {
				h.newest()
				goesOn := func(seconds, each int) {
					for range 10 * seconds {
						h.backlog(t.Context(), "crm", each)
						time.Sleep(100 * time.Millisecond)
					}
				}
				h.owns(map[string]stream.Owned{"millrace.deliveries.own": firstOf(4, 4)})
				goesOn(30, 8)
				h.owns(map[string]stream.Owned{"millrace.deliveries.own": firstOf(1, 4)})
				goesOn(quarter, 2)
				h.answer("crm", always(failed(500, "", 0), 0))
				for range 10 {
					h.one()
				}
				if got := h.statusOf("crm").Rate; got < 79 || got > 81 {
					t.Errorf("it took 80/s, written is %v/s", got)
				}
				time.Sleep(time.Until(h.opensAt("crm")))
				h.answer("crm", nil)
				h.one()
				if line := h.lineOf("crm"); line != 1 {
					t.Errorf("a quarter of it comes back at %v/s, expected 5%% of 20", line)
				}
			})
		})
	}
}

// TestAwayWithoutAPause has a destination that nobody called for a while, since its
// definition said so or a secret was missing: it comes back slowly, also where
// another sink has it by then.
func TestAwayWithoutAPause(t *testing.T) {
	t.Parallel()
	apply := func(more string) func(*house) {
		return func(h *house) {
			h.live.apply(h.t, hooked("crm", more))
			h.newest()
		}
	}
	for name, c := range map[string]struct{ leave, back func(*house) }{
		"its definition": {apply("status: paused"), apply("")},
		"a secret": {
			func(h *house) {
				h.answer("crm", always(httpsend.Result{Outcome: httpsend.NotSent, Class: httpsend.ClassSecret, Err: errors.New("missing")}, 0))
				h.one()
			},
			func(h *house) {
				h.answer("crm", always(ok(), 0))
				h.checkSecrets(map[string]string{})
			},
		},
		"a secret, by another definition": {
			func(h *house) {
				h.answer("crm", always(httpsend.Result{Outcome: httpsend.NotSent, Class: httpsend.ClassSecret, Err: errors.New("missing")}, 0))
				h.one()
			},
			func(h *house) { h.answer("crm", always(ok(), 0)); apply("platform: mended")(h) },
		},
	} {
		t.Run(name, func(t *testing.T) {
			test(t, hooked("crm", "")+hooked("another", ""), func(t *testing.T, h *house) {
				for range 300 {
					h.backlog(t.Context(), "crm", 8) // 80 a second
					time.Sleep(100 * time.Millisecond)
				}
				c.leave(h)
				time.Sleep(5 * time.Minute)
				if got := h.one(); got.called() {
					t.Fatalf("meanwhile, one became %+v", got)
				}
				c.back(h)
				if line := h.lineOf("crm"); line != 4 {
					t.Errorf("it comes back at %v/s, expected 5%% of 80", line)
				}
				h.mu.Lock()
				written, there := h.written["crm"]
				h.mu.Unlock()
				if !there {
					t.Fatal("nothing is written of that")
				}
				next := build(t, hooked("crm", "")+hooked("another", ""))
				next.had(written)
				next.one()
				if line := next.lineOf("crm"); line != 4 {
					t.Errorf("at another sink it comes back at %v/s, written is %+v", line, written)
				}
			})
		})
	}
}

// TestPatienceDuringSlowStart has a destination that asks for a minute in the
// middle of a slow start: it goes on from there, and is not over.
func TestPatienceDuringSlowStart(t *testing.T) {
	test(t, hooked("crm", "")+hooked("another", ""), func(t *testing.T, h *house) {
		h.had(state.State{Destination: "crm", Status: state.Active, By: "ada", Back: time.Now(), Rate: 200})
		h.answer("crm", always(failed(429, "", time.Minute), 0))
		h.one()
		h.answer("crm", always(ok(), 10*time.Millisecond))
		time.Sleep(61 * time.Second)
		start := time.Now()
		for _, s := range h.backlog(t.Context(), "crm", 20) {
			h.became(s)
		}
		if took := time.Since(start); took < time.Second {
			t.Errorf("twenty calls took %v", took)
		}
	})
}

// TestAPassThatBeginsLate has a backlog come back only long after its
// destination did: the slow start is still to come.
func TestAPassThatBeginsLate(t *testing.T) {
	test(t, hooked("crm", "retry: {attempts: 100}")+hooked("another", ""), func(t *testing.T, h *house) {
		log := &logText{}
		h.Log = logTo(log)
		p := &platform{house: h, name: "crm", capacity: 100}
		h.answer("crm", p.endpoint)
		w := h.works(100_000)
		w.live("crm", 80, 30)
		p.breaks(true)
		w.put("crm", 2000)
		time.Sleep(3 * time.Minute)
		h.waiting.mu.Lock()
		for _, part := range h.waiting.parts { // as if a pass for another one had just taken a minute
			part.last = time.Now()
			part.start = part.last.Add(-time.Minute)
		}
		h.waiting.mu.Unlock()
		trips := strings.Count(log.String(), "breaker opened")
		p.breaks(false)
		returned := time.Now()
		w.end()
		offers := p.since(returned)
		for len(offers) > 0 && !offers[0].taken {
			offers = offers[1:]
		}
		belowTheLine(t, offers)
		if n := strings.Count(log.String(), "breaker opened"); n != trips {
			t.Errorf("the breaker opened %d times more", n-trips)
		}
	})
}

// TestHungCallsDoNotHoldUpTheProbe has calls of before that hang while the
// destination is back.
func TestHungCallsDoNotHoldUpTheProbe(t *testing.T) {
	test(t, hooked("crm", "limits: {concurrency: 60, timeout: 55s}\nbreaker: {failures: 3, open: 10s}\nretry: {attempts: 100}")+hooked("another", ""), func(t *testing.T, h *house) {
		w := h.works(1000)
		h.answer("crm", always(failed(0, httpsend.ClassTimeout, 0), 55*time.Second))
		for range 57 {
			w.put("crm", 1)
			time.Sleep(time.Second)
		}
		h.answer("crm", nil)
		start := time.Now()
		for h.runtimeOf("crm").current.isOpen() || time.Since(start) < time.Second {
			time.Sleep(time.Second)
		}
		if took := time.Since(start); took > 20*time.Second {
			t.Errorf("it took %v", took)
		}
		w.end()
	})
}

// TestNoTimerIsLeft has a state come in while the sink ends that begins a slow
// start.
func TestNoTimerIsLeft(t *testing.T) {
	test(t, hooked("crm", "")+hooked("another", ""), func(t *testing.T, h *house) {
		h.one()
		h.someone("crm", func(s state.State) (state.State, bool) { s.Status = state.Paused; return s, true })
		stop := h.beside(t.Context(), func(ctx context.Context) {
			<-ctx.Done()
			h.someone("crm", resume)
		})
		stop()
		if d := h.runtimeOf("crm"); d.watch != nil || !d.pace.active() {
			t.Errorf("a timer runs: %v, it comes back at %v/s", d.watch != nil, d.pace.line)
		}
	})
}

// TestNothingToWrite has the writer of states woken for what is written already:
// writing nothing would fence others.
func TestNothingToWrite(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := build(t, hooked("crm", ""))
		h.states.add("crm", change{Change: forget(0)})
		h.states.take()
		writes := 0
		stop := h.beside(t.Context(), func(ctx context.Context) {
			h.writeStates(ctx, func(_ context.Context, all map[string]state.Change) error {
				writes += len(all)
				if len(all) == 0 {
					t.Error("nothing was written")
				}
				return nil
			})
		})
		synctest.Wait()
		h.states.add("crm", change{Change: forget(0)})
		synctest.Wait()
		stop()
		if writes != 1 {
			t.Errorf("%d changes were written", writes)
		}
	})
}

// TestTheNameOfARemovedDestination has what happens to a destination that was
// removed while another one gets its name.
func TestTheNameOfARemovedDestination(t *testing.T) {
	t.Parallel()
	t.Run("a late answer", func(t *testing.T) {
		test(t, hooked("crm", "")+hooked("another", ""), func(t *testing.T, h *house) {
			h.answer("crm", always(answered(410, httpsend.Disable), time.Second))
			s := h.takes(t.Context(), h.slipOf(h.delivery("crm")))
			synctest.Wait()
			h.live.replace(t, hooked("another", ""))
			h.newest()
			h.became(s)
			h.live.apply(t, hooked("crm", ""))
			h.answer("crm", nil)
			if got := h.one(); got.ending != pipeline.Delivered {
				t.Errorf("its first delivery became %+v, its state is %+v", got, h.statusOf("crm"))
			}
		})
	})
	t.Run("a sink that learns of it late", func(t *testing.T) {
		test(t, hooked("crm", "")+hooked("another", ""), func(t *testing.T, h *house) {
			h.newest()
			h.written["crm"] = state.State{Destination: "crm", Status: state.Paused, By: "ada", Reason: state.Operator, Revision: 100}
			h.live.replace(t, hooked("another", ""))
			h.newest()
			if got := h.statusOf("crm"); got.Status != state.Paused {
				t.Errorf("the pause of the one that came after became %+v", got)
			}
		})
	})
	t.Run("removed and added again between two looks", func(t *testing.T) {
		test(t, hooked("another", "")+hooked("crm", ""), func(t *testing.T, h *house) {
			h.newest()
			old := h.runtimeOf("crm")
			h.someone("crm", func(s state.State) (state.State, bool) {
				s.Status, s.By, s.Reason = state.Paused, "ada", state.Operator
				return s, true
			})
			h.live.replace(t, hooked("another", ""))
			h.live.apply(t, hooked("crm", "platform: another"))
			if got := h.one(); got.ending != pipeline.Delivered {
				t.Errorf("its first delivery became %+v", got)
			}
			if got := h.statusOf("crm"); got.Status != state.Active || h.runtimeOf("crm") == old || !old.gone {
				t.Errorf("its state is %+v, it is the same: %v", got, h.runtimeOf("crm") == old)
			}
		})
	})
	t.Run("found out while the new one is being learned", func(t *testing.T) {
		test(t, hooked("another", "")+hooked("crm", ""), func(t *testing.T, h *house) {
			h.newest()
			old := h.runtimeOf("crm")
			h.live.replace(t, hooked("another", ""))
			h.live.apply(t, hooked("crm", "platform: another"))
			h.known.Store(h.live.Snapshot()) // as learn does before it comes to each destination
			old.pause(state.Paused, state.Refused, "401", false)
			synctest.Wait()
			if got, there := h.written["crm"]; there && got.Status == state.Paused {
				t.Errorf("the new one's state is %+v", got)
			}
		})
	})
	t.Run("its breaker, written over the old one's pause", func(t *testing.T) {
		test(t, hooked("another", "")+hooked("crm", guarded), func(t *testing.T, h *house) {
			h.live.replace(t, hooked("another", ""))
			h.written["crm"] = state.State{Destination: "crm", Status: state.Paused, By: "ada", Revision: 1}
			h.live.apply(t, hooked("crm", guarded))
			h.answer("crm", always(failed(500, "", 0), 0))
			for range 3 {
				h.one()
			}
			if got := h.statusOf("crm"); got.Status != state.Active || got.OpenUntil.IsZero() {
				t.Errorf("its state is %+v", got)
			}
		})
	})
	t.Run("removed while no sink runs", func(t *testing.T) {
		test(t, hooked("another", ""), func(t *testing.T, h *house) {
			h.written["crm"] = state.State{Destination: "crm", Status: state.Paused, By: "ada", Reason: state.Operator, Revision: 1}
			h.written["later"] = state.State{Destination: "later", Status: state.Paused, By: "ada", Revision: 100}
			h.had(state.State{Destination: "another", Status: state.Paused, By: "ada"})
			all := maps.Clone(h.written)
			h.forgetOthers(h.newest(), maps.Values(all))
			synctest.Wait()
			delete(all, "crm")
			if !maps.Equal(h.written, all) {
				t.Errorf("there are %+v", h.written)
			}
		})
	})
	t.Run("can't be read, then removed", func(t *testing.T) {
		test(t, hooked("another", "")+hooked("crm", ""), func(t *testing.T, h *house) {
			h.had(state.State{Destination: "crm", Status: state.Paused, By: "ada"})
			h.newest()
			for _, value := range []string{"{", ""} {
				r := pipeline.Record{Key: []byte("Destination/crm"), Value: []byte(value)}
				if value == "" {
					r.Value = nil
				}
				h.live.publish(h.live.now.With([]pipeline.Record{r}, h.live.now.Offset+1))
				h.newest()
				synctest.Wait()
				if _, there := h.written["crm"]; there != (value != "") {
					t.Errorf("after the record %q there is a state: %v", value, there)
				}
			}
		})
	})
	t.Run("of a version that did not note when it came", func(t *testing.T) {
		test(t, hooked("another", ""), func(t *testing.T, h *house) {
			h.written["crm"] = state.State{Destination: "crm", Status: state.Paused, By: "ada", Reason: state.Operator}
			v := []byte(`{"format":1,"kind":"Destination","name":"crm","owner":"test","revision":40,"spec":{"name":"crm","request":{"url":"https://crm.example"}}}`)
			h.live.publish(h.live.now.With([]pipeline.Record{{Key: []byte("Destination/crm"), Value: v}}, 50))
			h.live.apply(t, hooked("crm", "platform: mended"))
			if got := h.one(); got.called() {
				t.Errorf("it was paused, and one became %+v", got)
			}
		})
	})
	t.Run("added again at once", func(t *testing.T) {
		test(t, hooked("crm", "")+hooked("another", ""), func(t *testing.T, h *house) {
			h.newest()
			h.runtimeOf("crm")
			h.live.replace(t, hooked("another", ""))
			h.newest()
			h.live.apply(t, hooked("crm", ""))
			h.newest()
			if n := h.runtimeOf("crm").unsaved; n != 0 {
				t.Errorf("%d changes are not written", n)
			}
		})
	})
	t.Run("while its breaker is open, and one comes", func(t *testing.T) {
		test(t, aDestination("crm", guarded+"\nlane: own")+aWebhook("crm", "crm", ""), func(t *testing.T, h *house) {
			h.answer("crm", always(failed(500, "", 0), 0))
			for range 3 {
				h.one()
			}
			d := h.runtimeOf("crm")
			v := h.delivery("crm")
			s := h.slipOf(v)
			c := &call{ctx: t.Context(), record: &s.record, ticket: s, delivery: v}
			h.live.replace(t, hooked("another", ""))
			h.newest()
			if room, why := d.enqueue(c); room != nil {
				t.Fatalf("it would wait for a destination that is gone: %s", why)
			}
			if got := h.became(s); got.ending != pipeline.Removed {
				t.Errorf("it became %+v", got)
			}
		})
	})
	t.Run("with calls in its queue", func(t *testing.T) {
		test(t, hooked("crm", "limits: {concurrency: 1}\nplatform: first")+hooked("another", ""), func(t *testing.T, h *house) {
			sentBy := map[string]int{}
			h.newSender = func(def *definition.Destination) (sender, error) {
				return senderFunc(func(httpsend.Call) httpsend.Result {
					h.mu.Lock()
					sentBy[def.Platform]++
					h.mu.Unlock()
					<-time.After(10 * time.Second)
					return ok()
				}), nil
			}
			slips := h.backlog(t.Context(), "crm", 5)
			synctest.Wait()
			defs := h.live.Snapshot()
			h.live.publish(after(t, defs, hooked("another", ""), true))
			removed := h.live.Snapshot()
			h.live.publish(after(t, removed, hooked("crm", "limits: {concurrency: 1}\nplatform: second"), false))
			h.learn(removed) // what is queued is looked at by then, under what came after
			h.newest()
			for _, s := range slips {
				if got := h.became(s); got.ending != pipeline.Delivered {
					t.Errorf("one became %+v", got)
				}
			}
			if sentBy["first"] != 1 || sentBy["second"] != 4 {
				t.Errorf("sent by %v", sentBy)
			}
		})
	})
	t.Run("forgotten twice at once", func(t *testing.T) {
		t.Parallel()
		both := inTurn("crm", []change{{Change: forget(5)}, {Change: forget(6)}})
		if got, changed := both(state.State{Destination: "crm", Status: state.Paused, Revision: 5}); got != (state.State{}) || !changed {
			t.Errorf("written is %+v", got)
		}
	})
	t.Run("forgotten and opened at once", func(t *testing.T) {
		t.Parallel()
		opens := func(s state.State) (state.State, bool) { s.OpenUntil = time.Now(); return s, true }
		both := inTurn("crm", []change{{Change: forget(5)}, {Change: opens}})
		if got, _ := both(state.State{Destination: "crm", Status: state.Paused, Revision: 5}); got.Status != state.Active || got.Destination != "crm" {
			t.Errorf("written is %+v", got)
		}
	})
}
