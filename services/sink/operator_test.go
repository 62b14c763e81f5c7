package sink

import (
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace-io/millrace/pipeline"
	"github.com/millrace-io/millrace/pipeline/event"
	"github.com/millrace-io/millrace/pipeline/httpsend"
)

// notFound is what a destination says whose URL is wrong.
func notFound(httpsend.Call) httpsend.Result {
	err := pipeline.Permanent(pipeline.FinalResponse, fmt.Errorf("destination responded 404"))
	return httpsend.Result{Status: 404, Outcome: httpsend.DeadLetter, Err: err}
}

// told takes a delivery that becomes a dead letter, and returns what the operator
// events beside it say: "" for none.
func (h *house) told(v pipeline.Delivery) string {
	h.t.Helper()
	s := h.takes(h.t.Context(), h.slipOf(v))
	if g := h.became(s); g.ending != pipeline.DeadLettered {
		h.t.Errorf("the delivery became %+v", g)
	}
	return h.events(s)
}

func (h *house) events(s *slip) (said string) {
	h.t.Helper()
	for _, r := range s.out.Records {
		if r.Topic != h.names.OperatorEvents() {
			continue
		}
		var e struct {
			Type       string
			Properties json.RawMessage
		}
		if err := json.Unmarshal(r.Value, &e); err != nil {
			h.t.Fatal(err)
		}
		said += e.Type + " " + string(e.Properties)
	}
	return said
}

// Of a destination's dead letters the first is told at once, the others of the
// minute with the next one after it, each destination for itself.
func TestDeadLettersAreTold(t *testing.T) {
	test(t, aDestination("crm", "")+aWebhook("to-crm", "crm", "")+aDestination("mail", "")+aWebhook("to-mail", "mail", ""), func(t *testing.T, h *house) {
		h.answer("crm", notFound)
		h.answer("mail", notFound)
		const says = `millrace.destination_dead_letters {"destination":%q,"lane":"default","count":%d,"webhook":%q,"delivery":%q,` +
			`"reason":"final_response","status":404,"detail":"destination responded 404"}`
		for i, step := range []struct {
			after   time.Duration
			webhook string
			count   int // 0: nothing is told
		}{
			{0, "to-crm", 1},
			{0, "to-crm", 0},
			{30 * time.Second, "to-crm", 0},
			{0, "to-mail", 1},
			{event.AlertPause - 30*time.Second - time.Millisecond, "to-crm", 0},
			{time.Millisecond, "to-crm", 4},
			{time.Millisecond, "to-crm", 0},
			{time.Hour, "to-mail", 1},
			{0, "to-crm", 2},
		} {
			time.Sleep(step.after)
			v := h.delivery(step.webhook)
			var want string
			if step.count > 0 {
				want = fmt.Sprintf(says, v.Destination, step.count, v.Webhook, v.ID)
			}
			if got := h.told(v); got != want {
				t.Errorf("step %d: told is\n%s, not\n%s", i, got, want)
			}
		}
	})
}

// Whatever becomes of the delivery of an operator event, nothing is told of it,
// nor does it delay what is to be told of others.
func TestOperatorEventsRaiseNone(t *testing.T) {
	test(t, aDestination("crm", "")+aWebhook("to-crm", "crm", ""), func(t *testing.T, h *house) {
		h.answer("crm", notFound)
		for _, typ := range []string{
			pipeline.DestinationDeadLetters, pipeline.DestinationPaused, pipeline.DestinationDisabled, pipeline.DestinationBreakerOpened,
		} {
			v := h.delivery("to-crm")
			v.EventType = typ
			if got := h.told(v); got != "" {
				t.Errorf("the dead letter of %s raised %s", typ, got)
			}
		}
		if got := h.told(h.delivery("to-crm")); got == "" {
			t.Error("then nothing is told of another")
		}
	})
}

// What stops a destination is to be told, unless the delivery of an operator event
// brought it about.
func TestWhatStopsADestinationIsTold(t *testing.T) {
	t.Parallel()
	refused := httpsend.Result{Status: 401, Outcome: httpsend.Pause, Err: errors.New("401")}
	gone := httpsend.Result{Status: 410, Outcome: httpsend.Disable, Err: errors.New("410")}
	for name, c := range map[string]struct {
		answer endpoint
		calls  int
	}{
		"refused":         {always(refused, 0), mostRefusals},
		"gone":            {always(gone, 0), 1},
		"final responses": {notFound, mostFinals},
		"breaker":         {always(failed(500, "", 0), 0), 10},
	} {
		for _, last := range []string{"launcher.clicked", pipeline.DestinationPaused} {
			t.Run(name+" "+last, func(t *testing.T) {
				test(t, aDestination("crm", "")+aWebhook("to-crm", "crm", ""), func(t *testing.T, h *house) {
					h.answer("crm", c.answer)
					for i := range c.calls {
						v := h.delivery("to-crm")
						if i == c.calls-1 {
							v.EventType = last
						} else if s := h.stateNow("crm"); !s.Callable() || !s.OpenUntil.IsZero() {
							t.Fatalf("after %d calls it is %+v", i, s)
						}
						h.became(h.takes(t.Context(), h.slipOf(v)))
					}
					synctest.Wait()
					s, quiet := h.stateNow("crm"), pipeline.IsOperator(last)
					if s.Callable() && s.OpenUntil.IsZero() || s.QuietStatus != (quiet && !s.Callable()) || s.QuietBreaker != (quiet && s.Callable()) {
						t.Errorf("it is %+v", s)
					}
				})
			})
		}
	}
}

// A new definition closes the breaker, also for those who are told when it opens.
func TestNewDefinitionEndsAnOutage(t *testing.T) {
	test(t, aDestination("crm", "")+aWebhook("to-crm", "crm", ""), func(t *testing.T, h *house) {
		h.answer("crm", always(failed(500, "", 0), 0))
		for range 10 {
			h.became(h.takes(t.Context(), h.slipOf(h.delivery("to-crm"))))
		}
		synctest.Wait()
		if h.stateNow("crm").OpenUntil.IsZero() {
			t.Fatal("the breaker has not opened")
		}
		h.live.apply(t, aDestination("crm", "description: mended"))
		h.newest()
		synctest.Wait()
		if s := h.stateNow("crm"); !s.OpenUntil.IsZero() {
			t.Errorf("under a new definition it is %+v", s)
		}
	})
}

// A dead letter for which no call was made is told too, but not of a destination
// that is no longer there.
func TestDeadLettersWithoutACallAreTold(t *testing.T) {
	test(t, aDestination("crm", "")+aWebhook("to-crm", "crm", "max_age: 1h"), func(t *testing.T, h *house) {
		v := h.delivery("to-crm")
		v.MatchedAt = v.MatchedAt.Add(-2 * time.Hour)
		want := fmt.Sprintf(`millrace.destination_dead_letters {"destination":"crm","lane":"default","count":1,"webhook":"to-crm","delivery":%q,`+
			`"reason":"expired","detail":"matched 2h0m0s ago, max_age of webhook \"to-crm\" is 1h"}`, v.ID)
		if got := h.told(v); got != want {
			t.Errorf("told is %s, not %s", got, want)
		}
		v = h.delivery("to-crm")
		v.Destination = "gone"
		if got := h.told(v); got != "" {
			t.Errorf("of a destination that is gone, told is %s", got)
		}
	})
}
