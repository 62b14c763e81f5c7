package sink

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace-io/millrace/pipeline"
	"github.com/millrace-io/millrace/pipeline/definition"
)

// TestTake has what becomes of a delivery before any call, by the definitions in
// force.
func TestTake(t *testing.T) {
	t.Parallel()
	crm := aDestination("crm", "") + aDestination("neighbour", "")
	hook := aWebhook("hook", "crm", "max_age: 1h")
	for name, c := range map[string]struct {
		before, after string // definitions; the delivery was made under before
		change        func(*pipeline.Delivery)
		broken        definition.Key
		want          gone
		wait          time.Duration // until it comes back
		waits         bool          // for a time that nobody knows
	}{
		"sent":           {want: gone{ending: pipeline.Delivered, attempts: []string{"1 success"}}},
		"removed":        {after: crm, want: gone{ending: pipeline.Removed}},
		"paused":         {after: aDestination("crm", "status: paused") + aDestination("neighbour", "") + hook, waits: true},
		"paused webhook": {after: crm + aWebhook("hook", "crm", "status: paused"), want: gone{ending: pipeline.Delivered, attempts: []string{"1 success"}}},
		"broken webhook": {broken: definition.Key{Kind: definition.KindWebhook, Name: "hook"}, waits: true},
		"broken":         {after: crm + aDestination("other", "") + aWebhook("hook", "other", ""), broken: definition.Key{Kind: definition.KindDestination, Name: "crm"}, waits: true},
		"other target":   {after: aDestination("other", "") + aWebhook("hook", "other", ""), want: gone{ending: pipeline.DeadLettered, reason: pipeline.UnusableDefinition}},
		"moved":          {after: aDestination("crm", "lane: own") + hook, want: gone{topic: "millrace.deliveries.own"}},
		"now a GET":      {after: strings.Replace(crm, "{url", "{method: GET, url", 1) + hook, want: gone{ending: pipeline.DeadLettered, reason: pipeline.InvalidRequest}},
		"now a PUT":      {after: strings.Replace(crm, "{url", "{method: PUT, url", 1) + hook, want: gone{ending: pipeline.Delivered, attempts: []string{"1 success"}}},
		"nearly expired": {change: matched(time.Hour - time.Millisecond), want: gone{ending: pipeline.Delivered, attempts: []string{"1 success"}}},
		"expired":        {change: matched(time.Hour), want: gone{ending: pipeline.DeadLettered, reason: pipeline.ExpiredDelivery}},
		"expired, dropped": {
			before: crm + aWebhook("hook", "crm", "max_age: 1h\nexpire_to: drop"),
			change: matched(2 * time.Hour), want: gone{ending: pipeline.Expired},
		},
		"expired and removed": {after: crm, change: matched(2 * time.Hour), want: gone{ending: pipeline.Removed}},
		"expired and paused":  {after: aDestination("crm", "status: paused") + aDestination("neighbour", "") + hook, change: matched(2 * time.Hour), want: gone{ending: pipeline.DeadLettered, reason: pipeline.ExpiredDelivery}},
		"too early":           {change: due(20 * time.Minute), wait: 20 * time.Minute},
		"due in an instant":   {change: due(800 * time.Millisecond), want: gone{ending: pipeline.Delivered, attempts: []string{"1 success"}}},
		"used attempts stay":  {change: func(v *pipeline.Delivery) { v.Attempts = 7 }, want: gone{ending: pipeline.Delivered, attempts: []string{"8 success"}}},
	} {
		t.Run(name, func(t *testing.T) {
			if c.before == "" {
				c.before = crm + hook
			}
			test(t, c.before, func(t *testing.T, h *house) {
				v := h.delivery("hook")
				if c.change != nil {
					c.change(&v)
				}
				if c.after != "" {
					h.live.replace(t, c.after)
				}
				if c.broken.Name != "" {
					h.live.publish(h.live.now.With([]pipeline.Record{{Key: []byte(c.broken.String()), Value: []byte("{")}}, h.live.now.Offset+1))
				}
				start := time.Now()
				got := h.became(h.takes(t.Context(), h.slipOf(v)))
				if c.waits {
					if got.again == nil || got.topic != h.names.Waiting("default") || got.again.Attempts != v.Attempts {
						t.Errorf("it became %+v, expected that it waits", got)
					}
					return
				}
				if c.wait > 0 {
					if got.again == nil || got.again.Due.Sub(start) != c.wait || got.again.Attempts != v.Attempts {
						t.Errorf("it became %+v, expected that it comes back in %v", got.again, c.wait)
					}
					return
				}
				if c.want.topic != "" && (got.again == nil || got.again.Lane != "own" || got.again.Definitions != h.live.now.Offset) {
					t.Errorf("forwarded is %+v; whoever gets it has to know offset %d", got.again, h.live.now.Offset)
				}
				if got.ending != c.want.ending || got.reason != c.want.reason || got.topic != c.want.topic ||
					strings.Join(got.attempts, ",") != strings.Join(c.want.attempts, ",") {
					t.Errorf("it became %+v, expected %+v", got, c.want)
				}
				if took, most := time.Since(start), 800*time.Millisecond; took > most {
					t.Errorf("that took %v", took)
				}
			})
		})
	}
}

func matched(ago time.Duration) func(*pipeline.Delivery) {
	return func(v *pipeline.Delivery) { v.MatchedAt = time.Now().Add(-ago) }
}

func due(in time.Duration) func(*pipeline.Delivery) {
	return func(v *pipeline.Delivery) { v.Due = time.Now().Add(in) }
}

func TestTakeWaitsForDefinitions(t *testing.T) {
	test(t, aDestination("crm", "")+aWebhook("hook", "crm", ""), func(t *testing.T, h *house) {
		v := h.delivery("hook")
		v.Definitions += 2
		s := h.slipOf(v)
		taken := make(chan struct{})
		go func() { defer close(taken); h.takes(t.Context(), s) }()
		synctest.Wait()
		h.live.apply(t, aDestination("another", "")) // one more is missing
		synctest.Wait()
		if s.isSettled() {
			t.Fatal("the delivery was settled under older definitions than it was made under")
		}
		h.live.replace(t, aDestination("another", "")+aDestination("crm", "")) // the webhook is removed
		<-taken
		if got := h.became(s); got.ending != pipeline.Removed {
			t.Errorf("it became %+v, expected that it is removed", got)
		}
	})
}

// TestTakeGivesBack has the ways in which a partition goes while Take waits: it
// says so, and leaves the ticket to the runner.
func TestTakeGivesBack(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*pipeline.Delivery){
		"for definitions": func(v *pipeline.Delivery) { v.Definitions += 5 },
		"for its time":    due(500 * time.Millisecond),
	} {
		t.Run(name, func(t *testing.T) {
			test(t, aDestination("crm", "")+aWebhook("hook", "crm", ""), func(t *testing.T, h *house) {
				v := h.delivery("hook")
				change(&v)
				s := h.slipOf(v)
				ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
				defer cancel()
				if err := h.take(ctx, &s.record, s); !errors.Is(err, context.DeadlineExceeded) || s.isSettled() {
					t.Errorf("it ended with %v, settled %v", err, s.isSettled())
				}
			})
		})
	}
}

func TestBrokenEnvelope(t *testing.T) {
	test(t, aDestination("crm", "")+aWebhook("hook", "crm", ""), func(t *testing.T, h *house) {
		v := h.delivery("hook")
		whole := v.AppendTo(nil)
		for n := range whole {
			s := h.slipOf(h.delivery("hook"))
			s.record.Headers[0].Value = whole[:n]
			got := h.became(h.takes(t.Context(), s))
			if got.reason != pipeline.BrokenEnvelope || got.ending != "" {
				t.Fatalf("the first %d bytes became %+v, expected a dead letter that is in no webhook's ledger", n, got)
			}
		}
		newer := append([]byte{pipeline.EnvelopeFormat + 1}, whole[1:]...)
		s := h.slipOf(h.delivery("hook"))
		s.record.Headers[0].Value = newer
		if err := h.take(t.Context(), &s.record, s); !errors.Is(err, pipeline.ErrNewerFormat) || s.isSettled() {
			t.Errorf("a newer envelope ended with %v, settled %v: the role has to stop", err, s.isSettled())
		}
		var out pipeline.Output
		h.givenUp(&s.record, &pipeline.PermanentError{}, &out)
		if len(out.Counts)+len(out.Records) > 0 {
			t.Errorf("it would have written %+v", out)
		}
	})
}

// What the runner itself gives up is in the ledger and is told of, as is what the
// sink buries.
func TestGivenUpIsCountedAndTold(t *testing.T) {
	test(t, aDestination("crm", "")+aWebhook("hook", "crm", ""), func(t *testing.T, h *house) {
		dead := &pipeline.PermanentError{Reason: pipeline.Panicked, Err: errors.New("panic: on purpose")}
		for name, c := range map[string]struct {
			change func(*pipeline.Delivery)
			told   bool
		}{
			"a delivery":                 {func(*pipeline.Delivery) {}, true},
			"that of an operator event":  {func(v *pipeline.Delivery) { v.EventType = pipeline.DestinationPaused }, false},
			"to one that has gone since": {func(v *pipeline.Delivery) { v.Destination = "gone" }, false},
		} {
			v := h.delivery("hook")
			c.change(&v)
			in := pipeline.Record{Headers: []pipeline.Header{{Key: pipeline.EnvelopeHeader, Value: v.AppendTo(nil)}}}
			var out pipeline.Output
			h.givenUp(&in, dead, &out)
			if want := pipeline.One("hook", v.MatchedAt, pipeline.DeadLettered, v.ID); !slices.Equal(out.Counts, []pipeline.Count{want}) {
				t.Errorf("%s: the ledger has %v, expected %v", name, out.Counts, want)
			}
			var told []string
			for _, r := range out.Records {
				told = append(told, string(r.Value))
			}
			switch {
			case !c.told && len(told) > 0:
				t.Errorf("%s: it told %s", name, told)
			case c.told && (len(told) != 1 || !strings.Contains(told[0], pipeline.DestinationDeadLetters) ||
				!strings.Contains(told[0], v.ID) || !strings.Contains(told[0], "panic: on purpose")):
				t.Errorf("%s: it told %s", name, told)
			}
		}
	})
}

// TestNoAttemptAfterMaxAge has retries that would come back too late: the
// delivery ends at once, with the attempt; one that is merely held ends on time.
func TestNoAttemptAfterMaxAge(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		webhook string
		want    pipeline.Ending
		reason  pipeline.Reason
	}{
		"dead letter": {"max_age: 30s", pipeline.DeadLettered, pipeline.ExpiredDelivery},
		"dropped":     {"max_age: 30s\nexpire_to: drop", pipeline.Expired, ""},
	} {
		t.Run(name, func(t *testing.T) {
			test(t, aDestination("crm", "")+aWebhook("hook", "crm", c.webhook), func(t *testing.T, h *house) {
				h.answer("crm", always(failed(503, "", time.Minute), 0))
				got := h.became(h.takes(t.Context(), h.slipOf(h.delivery("hook"))))
				if got.ending != c.want || got.reason != c.reason || len(got.attempts) != 1 || got.again != nil {
					t.Errorf("it became %+v", got)
				}
				h.destination("crm").revision().shut(time.Now().Add(time.Hour))
				v := h.delivery("hook")
				got = h.became(h.takes(t.Context(), h.slipOf(v)))
				if got.again == nil || !got.again.Due.Equal(v.MatchedAt.Add(30*time.Second)) {
					t.Fatalf("behind a gate it became %+v", got)
				}
				time.Sleep(time.Until(got.again.Due))
				got = h.became(h.takes(t.Context(), h.slipFrom(h.names.Redeliveries("default"), *got.again)))
				if got.ending != c.want || len(got.attempts) != 0 {
					t.Errorf("when it expired it became %+v", got)
				}
			})
		})
	}
}

// TestForwardedDoesNotBounce has a delivery between two sinks of which one knows
// older definitions.
func TestForwardedDoesNotBounce(t *testing.T) {
	test(t, aDestination("crm", "")+aWebhook("hook", "crm", ""), func(t *testing.T, h *house) {
		v := h.delivery("hook")
		other := build(t, aDestination("crm", "")+aWebhook("hook", "crm", ""))
		h.live.apply(t, aDestination("crm", "lane: own"))
		moved := h.became(h.takes(t.Context(), h.slipOf(v)))
		s := other.slipFrom(moved.topic, *moved.again)
		taken := make(chan struct{})
		go func() { defer close(taken); other.takes(t.Context(), s) }()
		synctest.Wait()
		if s.isSettled() {
			t.Fatalf("a sink that knows less did something with it: %+v", other.became(s))
		}
		other.live.publish(h.live.Snapshot())
		<-taken
		if got := other.became(s); got.ending != pipeline.Delivered {
			t.Errorf("in its lane it became %+v", got)
		}
	})
}

func TestUnusableDestinationKeepsItsDeliveries(t *testing.T) {
	test(t, aDestination("crm", "")+aDestination("neighbour", "")+aWebhook("hook", "crm", ""), func(t *testing.T, h *house) {
		h.newSender = func(*definition.Destination) (sender, error) { return nil, errors.New("of another version") }
		got := h.became(h.takes(t.Context(), h.slipOf(h.delivery("hook"))))
		if got.again == nil || got.topic != h.names.Waiting("default") || got.again.Attempts != 0 || got.attempts != nil {
			t.Errorf("it became %+v", got)
		}
	})
}
