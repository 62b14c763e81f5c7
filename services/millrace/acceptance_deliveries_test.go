package main

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/millrace-io/millrace/pipeline"
	"github.com/millrace-io/millrace/pipeline/pipelinetest"
)

// pair is two destinations of the default lane, which has one partition, so that
// their deliveries stand one behind the other.
const pair = `
kind: Destination
name: up
request: {url: "%s"}
---
kind: Destination
name: down
request: {url: "%s"}
breaker: {open: 1s}
---
kind: Webhook
name: to-up
event: launcher.clicked
destination: up
---
kind: Webhook
name: to-down
event: launcher.clicked
destination: down
`

// One destination refuses connections: the other gets all of its deliveries
// meanwhile, and the one gets its own, each once, when it is back.
func TestBrokenDestinationDelaysNobodyElse(t *testing.T) {
	t.Parallel()
	const n = 200
	up, down := pipelinetest.Receiver(t), pipelinetest.Receiver(t)
	m := start(t, options{partitions: 1})
	down.Refuse()
	m.apply(fmt.Sprintf(pair, up.URL, down.URL))
	for i := range n {
		m.produce(jsonEvent(t, map[string]any{"type": "launcher.clicked", "id": fmt.Sprint(i), "user": "u"}))
	}
	up.Wait(t, n)
	if got := down.Count(); got != 0 {
		t.Fatalf("%d calls reached a destination that refuses", got)
	}
	down.Accept(t)
	all := endings{pipeline.Matched: n, pipeline.Delivered: n}
	m.settled(map[string]endings{"to-up": all, "to-down": all})
	once(t, up)
	once(t, down)
}

const single = `
kind: Destination
name: crm
request: {url: "%s"}
retry: {first: 10ms}
---
kind: Webhook
name: clicked
event: launcher.clicked
destination: crm
`

// What fails for now is tried again under the same id, and each call is written
// down.
func TestRetriesKeepTheirID(t *testing.T) {
	t.Parallel()
	r := pipelinetest.Receiver(t, pipelinetest.Answering(pipelinetest.InTurn(
		pipelinetest.Answer{Status: http.StatusServiceUnavailable},
		pipelinetest.Answer{Status: http.StatusTooManyRequests, Header: http.Header{"Retry-After": {"1"}}},
		pipelinetest.Answer{Status: http.StatusOK},
	)))
	m := start(t, options{})
	m.apply(fmt.Sprintf(single, r.URL))
	m.produce(jsonEvent(t, map[string]any{"type": "launcher.clicked", "id": "e", "source": "s"}))
	m.settled(map[string]endings{"clicked": {pipeline.Matched: 1, pipeline.Delivered: 1}})
	id := pipeline.DeliveryID(&pipeline.Event{ID: "e", Source: "s"}, "clicked")
	if got := r.IDs(); len(got) != 1 || got[id] != 3 {
		t.Errorf("calls by id: %v, expected 3 of %s", got, id)
	}
	attempts := m.attempts(3)[id]
	for i, want := range []int{http.StatusServiceUnavailable, http.StatusTooManyRequests, http.StatusOK} {
		if i >= len(attempts) || attempts[i].Status != want || attempts[i].Attempt != i+1 {
			t.Fatalf("attempts are %+v", attempts)
		}
	}
	if wait := attempts[2].At.Sub(attempts[1].At).Seconds(); wait < 1 {
		t.Errorf("called again after %v s, in spite of Retry-After: 1", wait)
	}
}

// A destination that refuses the caller keeps its deliveries: they wait, with
// the attempt noted and none used up.
func TestRefusedCallerWaits(t *testing.T) {
	t.Parallel()
	for _, status := range []int{http.StatusUnauthorized, http.StatusForbidden, http.StatusGone} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			t.Parallel()
			r := pipelinetest.Receiver(t, pipelinetest.Answering(func(*pipelinetest.Call) pipelinetest.Answer {
				return pipelinetest.Answer{Status: status}
			}))
			m := start(t, options{})
			m.apply(fmt.Sprintf(single, r.URL))
			m.produce(jsonEvent(t, map[string]any{"type": "launcher.clicked", "id": "e"}))
			d := m.delayed(1)["clicked"]
			if d.Attempts != 0 || d.Due.Sub(d.MatchedAt).Minutes() < 9.5 {
				t.Errorf("in the delays is %+v", d)
			}
			if a := m.attempts(1)[d.ID]; len(a) != 1 || a[0].Status != status {
				t.Errorf("attempts are %+v", a)
			}
		})
	}
}
