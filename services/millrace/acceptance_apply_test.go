package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/millrace-io/millrace/pipeline"
	"github.com/millrace-io/millrace/pipeline/pipelinetest"
	"github.com/millrace-io/millrace/services/filter"
	"github.com/millrace-io/millrace/services/sink"
	"github.com/millrace-io/millrace/services/transform"
)

// revision are definitions that say in each body, twice, which revision it is.
// Of each event both and both-too are told, and either odd or even, which swap
// with every revision.
func revision(n int, lane, url string) string {
	const webhook = `---
kind: Webhook
name: %s
event: tick
condition: |
  %s
properties:
  - name: webhook
    expr: |
      webhook.name
  - from: n
  - name: revision
    value: %d
  - name: /again/revision
    expr: |
      %[3]d
destination: receiver
`
	var b strings.Builder
	fmt.Fprintf(&b, "kind: Destination\nname: receiver\nlane: %s\nrequest:\n  url: %s/%d\n", lane, url, n)
	for name, condition := range map[string]string{
		"both":     `props["n"] >= 0`,
		"both-too": `not (props["n"] < 0)`,
		"even":     fmt.Sprintf(`props["n"] %% 2 == %d`, n%2),
		"odd":      fmt.Sprintf(`props["n"] %% 2 == %d`, (n+1)%2),
	} {
		fmt.Fprintf(&b, webhook, name, condition, n)
	}
	return b.String()
}

// told is what a call says.
type told struct {
	Webhook  string
	N        int
	Revision int
	Again    struct{ Revision int }
}

func parseTold(t testing.TB, c *pipelinetest.Call) told {
	t.Helper()
	var v told
	if err := json.Unmarshal(c.Body, &v); err != nil {
		t.Errorf("reading %q: %v", c.Body, err)
	}
	return v
}

// watcher notes when the first call under each revision came.
type watcher struct {
	mu    sync.Mutex
	first map[int]time.Time
}

func (w *watcher) see(revision int, at time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.first[revision].IsZero() {
		w.first[revision] = at
	}
}

func (w *watcher) at(revision int) time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.first[revision]
}

// flow produces events in the background until stop, which says how many.
func (m *millrace) flow(every time.Duration) (stop func() int) {
	ctx, cancel := context.WithCancel(m.t.Context())
	ended, n := make(chan struct{}), 0
	go func() {
		defer close(ended)
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
			r := tickEvent(m.t, n)
			r.Topic = m.cfg.Names.Events()
			if err := m.producer.Produce(m.t.Context(), []pipeline.Record{r}); err != nil {
				m.t.Errorf("producing event %d: %v", n, err)
				return
			}
			n++
		}
	}()
	return func() int {
		cancel()
		<-ended
		return n
	}
}

func tickEvent(t testing.TB, n int) pipeline.Record {
	t.Helper()
	return jsonEvent(t, map[string]any{
		"id": fmt.Sprint(n), "type": "tick", "user": fmt.Sprint("u-", n%13), "properties": map[string]any{"n": n},
	})
}

// While events flow, 20 changes are applied, three of which move to a new lane.
// Each soon shows in the calls, and each event is treated under one revision.
func TestChangesWhileEventsFlow(t *testing.T) {
	t.Parallel()
	var seen watcher
	seen.first = map[int]time.Time{}
	r := pipelinetest.Receiver(t, pipelinetest.Answering(func(c *pipelinetest.Call) pipelinetest.Answer {
		seen.see(parseTold(t, c).Revision, c.Time)
		return pipelinetest.Answer{}
	}))
	m := start(t, options{})
	lane := pipeline.DefaultLane
	m.apply(revision(0, lane, r.URL))
	stop := m.flow(10 * time.Millisecond)
	eventually(t, "the first call comes", func() bool { return !seen.at(0).IsZero() })
	for n := 1; n <= 20; n++ {
		if n%7 == 0 {
			lane = fmt.Sprint("own-", n)
		}
		began := time.Now()
		m.applyOnly(revision(n, lane, r.URL))
		applied := time.Now()
		eventually(t, fmt.Sprint("a call under revision ", n, " comes"), func() bool { return !seen.at(n).IsZero() })
		t.Logf("revision %2d, lane %-7s: apply took %v, first call %v later", n, lane,
			applied.Sub(began).Round(time.Millisecond), max(0, seen.at(n).Sub(applied)).Round(100*time.Microsecond))
	}
	events := stop()
	r.Wait(t, 3*events)
	checkRevisions(t, r, events)
}

// checkRevisions checks that every event was treated under one revision.
func checkRevisions(t *testing.T, r *pipelinetest.Endpoint, events int) {
	t.Helper()
	once(t, r)
	calls := r.Calls()
	if len(calls) != 3*events {
		t.Errorf("%d calls for %d events, not 3 for each", len(calls), events)
	}
	byEvent := map[int]map[string]int{}
	for _, c := range calls {
		v := parseTold(t, &c)
		if v.Revision != v.Again.Revision {
			t.Errorf("body under two revisions: %s", c.Body)
		}
		if byEvent[v.N] == nil {
			byEvent[v.N] = map[string]int{}
		}
		byEvent[v.N][v.Webhook] = v.Revision
	}
	for n := range events {
		got := byEvent[n]
		last, found := got["odd"]
		if even, ok := got["even"]; ok {
			last, found = even, !found
		}
		both, ok := got["both"]
		if !ok || !found || len(got) != 3 || got["both-too"] != both || last != both {
			t.Errorf("event %d: %v", n, got)
		}
	}
}

// A transform that is held back behind the filter works off what was matched
// under older definitions, by the newest there are. A webhook that is gone by
// then is counted as removed.
func TestTransformHeldBack(t *testing.T) {
	t.Parallel()
	r := pipelinetest.Receiver(t)
	m := start(t, options{idle: true})
	const gone = "---\nkind: Webhook\nname: gone\nevent: tick\ndestination: receiver\n"
	m.apply(revision(0, "default", r.URL) + gone)
	m.run(filter.Role, sink.Role)
	const n = 200
	var events []pipeline.Record
	for i := range n {
		events = append(events, tickEvent(t, i))
	}
	m.produce(events...)
	m.ledger(map[string]endings{
		"both": {pipeline.Matched: n}, "both-too": {pipeline.Matched: n}, "even": {pipeline.Matched: n / 2},
		"odd": {pipeline.Matched: n / 2}, "gone": {pipeline.Matched: n},
	})
	m.apply(revision(2, "own", r.URL), "--prune")
	m.run(transform.Role)
	half := endings{pipeline.Matched: n / 2, pipeline.Delivered: n / 2}
	all := endings{pipeline.Matched: n, pipeline.Delivered: n}
	m.settled(map[string]endings{
		"both": all, "both-too": all, "even": half, "odd": half, "gone": {pipeline.Matched: n, pipeline.Removed: n},
	})
	checkRevisions(t, r, n)
	for _, c := range r.Calls() {
		if v := parseTold(t, &c); v.Revision != 2 || c.Path != "/2" {
			t.Errorf("not the newest definitions: %s %s", c.Path, c.Body)
		}
	}
}
