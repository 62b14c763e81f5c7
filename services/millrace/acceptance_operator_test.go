package main

import (
	"context"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/millrace-io/millrace/pipeline"
	"github.com/millrace-io/millrace/pipeline/pipelinetest"
	"github.com/millrace-io/millrace/pipeline/state"
	"github.com/millrace-io/millrace/pipeline/stream"
)

// operators has destinations in trouble, each in its own, and one that is told of
// it.
const operators = `
kind: Destination
name: chat
request:
  url: $CHAT
---
kind: Webhook
name: dead-letters
event: millrace.destination_dead_letters
condition: |
  props["status"] == 404 or props["reason"] == "property_missing"
properties:
  - name: text
    expr: |
      string(props["count"]) + " to " + props["destination"] + " by " + props["webhook"] + ": " + props["detail"]
destination: chat
---
kind: Webhook
name: trouble
event: [millrace.destination_paused, millrace.destination_disabled, millrace.destination_breaker_opened]
properties:
  - name: text
    expr: |
      event.type + " " + props["destination"] + " " + (props["reason"] ?? "-") + " " + (props["by"] ?? "-")
destination: chat
---
`

// clicksTo is a destination that is told of clicks and answers all calls alike.
func clicksTo(t testing.TB, name string, status int, more string) string {
	t.Helper()
	r := pipelinetest.Receiver(t, answering(status))
	return fmt.Sprintf("kind: Destination\nname: %s\nrequest: {url: %s}\n%s\n---\n", name, r.URL, more) +
		fmt.Sprintf("kind: Webhook\nname: to-%s\nevent: launcher.clicked\ndestination: %[1]s\n---\n", name)
}

func click(t testing.TB, id int) pipeline.Record {
	t.Helper()
	return jsonEvent(t, map[string]any{"type": "launcher.clicked", "id": fmt.Sprint(id), "user": fmt.Sprint("u-", id)})
}

func answering(status int) pipelinetest.ReceiverOption {
	return pipelinetest.Answering(func(*pipelinetest.Call) pipelinetest.Answer { return pipelinetest.Answer{Status: status} })
}

// operatorEvents are how many operator events there are.
func (m *millrace) operatorEvents() (n int) {
	m.t.Helper()
	err := stream.Scan(m.t.Context(), m.cfg, []string{m.cfg.Names.OperatorEvents()}, time.Time{}, nil, func(pipeline.Record) error {
		n++
		return nil
	})
	if err != nil {
		m.t.Fatal(err)
	}
	return n
}

// untilStates waits until the states of destinations are as they have to be.
func (m *millrace) untilStates(so func(*state.Snapshot) bool) {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(m.t.Context(), patience)
	defer cancel()
	live := state.NewLive(m.cfg)
	var following sync.WaitGroup
	defer following.Wait()
	defer cancel()
	following.Go(func() { _ = live.Run(ctx) }) // who waits in vain is told below
	for offset := int64(0); ; {
		now, err := live.At(ctx, offset)
		if err != nil {
			m.t.Fatalf("waiting for states, which are %v: %v", slices.Collect(live.Snapshot().All()), err)
		}
		if so(now) {
			return
		}
		offset = now.Offset + 1
	}
}

// What becomes of destinations is told to those who want to know, once each, also
// where the topics of producers are a pattern that fits all topics of ours.
func TestOperatorEventsAreDelivered(t *testing.T) {
	t.Parallel()
	for name, pattern := range map[string]bool{"by name": false, "by pattern": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			chat := pipelinetest.Receiver(t)
			m := start(t, options{pattern: pattern})
			m.apply(strings.ReplaceAll(operators, "$CHAT", chat.URL) +
				clicksTo(t, "broken", http.StatusNotFound, "") + clicksTo(t, "refusing", http.StatusUnauthorized, "") +
				clicksTo(t, "ended", http.StatusGone, "") + clicksTo(t, "down", http.StatusBadGateway, "breaker: {failures: 3, open: 1h}") +
				strings.Replace(clicksTo(t, "strict", http.StatusOK, ""), "event: ", "properties: [{from: launcher_name, required: true}]\nevent: ", 1))
			for i := range 6 {
				m.produce(click(t, i))
			}
			m.ledger(map[string]endings{
				"to-broken": {pipeline.Matched: 6, pipeline.DeadLettered: 6}, "to-refusing": {pipeline.Matched: 6},
				"to-ended": {pipeline.Matched: 6}, "to-down": {pipeline.Matched: 6},
				"to-strict":    {pipeline.Matched: 6, pipeline.DeadLettered: 6},
				"dead-letters": {pipeline.Matched: 2, pipeline.Delivered: 2}, "trouble": {pipeline.Matched: 3, pipeline.Delivered: 3},
			})
			want := []string{
				`{"text":"1 to broken by to-broken: destination responded 404 Not Found"}`,
				`{"text":"1 to strict by to-strict: the required property \"launcher_name\" is missing"}`,
				`{"text":"millrace.destination_breaker_opened down - -"}`,
				`{"text":"millrace.destination_disabled ended gone sink"}`,
				`{"text":"millrace.destination_paused refusing refused sink"}`,
			}
			if got, n := bodies(chat), m.operatorEvents(); !slices.Equal(got, want) || n != len(want) {
				t.Errorf("of %d operator events arrived %q, not %q", n, got, want)
			}
			once(t, chat)
			m.findsOperatorEvent()
		})
	}
}

// findsOperatorEvent: the event can be found again and explained.
func (m *millrace) findsOperatorEvent() {
	m.t.Helper()
	out := m.command("", "tail", "events", "--type", "millrace.*_dead_letters", "--from-start", "--count", "1", "--json")
	id := regexp.MustCompile(`"id":"(destination_dead_letters/[^"]+)"`).FindStringSubmatch(out)
	if id == nil {
		m.t.Fatalf("tail shows %s", out)
	}
	if out := m.command("", "explain", "dead-letters", id[1]); !strings.Contains(out, "elivered") {
		m.t.Errorf("explain says %s", out)
	}
}

// What becomes of the deliveries of operator events raises none: destinations that
// can't be told of trouble would be told of that for ever.
func TestOperatorEventsRaiseNone(t *testing.T) {
	t.Parallel()
	m := start(t, options{})
	definitions := clicksTo(t, "a", http.StatusNotFound, "")
	for name, status := range map[string]int{"b": http.StatusNotFound, "gone": http.StatusGone, "down": http.StatusBadGateway} {
		r := pipelinetest.Receiver(t, answering(status))
		definitions += fmt.Sprintf("kind: Destination\nname: %s\nrequest: {url: %s}\nbreaker: {failures: 1, open: 1h}\n---\n", name, r.URL)
	}
	for _, name := range []string{"a", "b", "gone", "down"} {
		definitions += fmt.Sprintf("kind: Webhook\nname: alerts-%s\ndestination: %[1]s\nevent: [%s]\n---\n", name, strings.Join([]string{
			pipeline.DestinationDeadLetters, pipeline.DestinationPaused, pipeline.DestinationDisabled, pipeline.DestinationBreakerOpened,
		}, ", "))
	}
	m.apply(definitions)
	m.produce(click(t, 1))
	dead := endings{pipeline.Matched: 1, pipeline.DeadLettered: 1}
	m.ledger(map[string]endings{
		"to-a": dead, "alerts-a": dead, "alerts-b": dead, "alerts-gone": {pipeline.Matched: 1}, "alerts-down": {pipeline.Matched: 1},
	})
	m.untilStates(func(s *state.Snapshot) bool {
		return s.State("gone").Status == state.Disabled && !s.State("down").OpenUntil.IsZero()
	})
	if n := m.operatorEvents(); n != 1 {
		t.Errorf("one dead letter of a click led to %d operator events", n)
	}
}
