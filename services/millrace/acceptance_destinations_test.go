package main

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/millrace-io/millrace/pipeline"
	"github.com/millrace-io/millrace/pipeline/pipelinetest"
)

// murmur2 is the hash by which Kafka's clients choose a key's partition.
func murmur2(key string) uint32 {
	const m, r = 0x5bd1e995, 24
	b := []byte(key)
	h := uint32(0x9747b28c) ^ uint32(len(b))
	for ; len(b) >= 4; b = b[4:] {
		k := (uint32(b[0]) | uint32(b[1])<<8 | uint32(b[2])<<16 | uint32(b[3])<<24) * m
		h = h*m ^ (k^k>>r)*m
	}
	for i := len(b) - 1; i >= 0; i-- {
		h ^= uint32(b[i]) << (8 * i)
		if i == 0 {
			h *= m
		}
	}
	h = (h ^ h>>13) * m
	return h ^ h>>15
}

func partitionOf(key string, partitions int) int { return int(murmur2(key)&0x7fffffff) % partitions }

// twoInOne returns names of destinations that share a partition.
func twoInOne(partitions int) (a, b string) {
	a = "down"
	for i := 0; ; i++ {
		if b = fmt.Sprint("well-", i); partitionOf(a, partitions) == partitionOf(b, partitions) {
			return a, b
		}
	}
}

// Two destinations share a partition of the default lane; one refuses
// connections. All deliveries of the other arrive before any of the first
// does. When that accepts again, it gets its own, each once.
func TestOneDestinationDownHoldsUpNobody(t *testing.T) {
	t.Parallel()
	down, well := pipelinetest.Receiver(t), pipelinetest.Receiver(t)
	m := start(t, options{partitions: 4})
	a, b := twoInOne(4)
	m.apply(soonAgain(a, down.URL) + "---" + soonAgain(b, well.URL))
	down.Refuse()
	const n = 600 // more than wait in memory
	var events []pipeline.Record
	for i := range n {
		events = append(events, tickEvent(t, i))
	}
	m.produce(events...)
	well.Wait(t, n)
	if got := down.Count(); got != 0 {
		t.Errorf("%d calls arrived where none could", got)
	}
	partitions, deliveries := map[int32]bool{}, 0
	m.read("deliveries", func(r *pipeline.Record) bool {
		partitions[r.Partition] = true
		deliveries++
		return deliveries == 2*n
	}, m.cfg.Names.Deliveries(pipeline.DefaultLane))
	if len(partitions) != 1 {
		t.Errorf("the destinations do not share a partition: %v", partitions)
	}

	down.Accept(t)
	down.Wait(t, n)
	m.settled(map[string]endings{
		a: {pipeline.Matched: n, pipeline.Delivered: n}, b: {pipeline.Matched: n, pipeline.Delivered: n},
	})
	once(t, down)
	once(t, well)
}

// soonAgain is a destination that soon tries again, and a webhook of its name.
func soonAgain(name, url string) string {
	return fmt.Sprintf(`
kind: Destination
name: %s
request:
  url: %s
limits: {concurrency: 16}
retry: {first: 100ms, cap: 1s}
breaker: {failures: 5, open: 1s}
---
kind: Webhook
name: %[1]s
event: tick
destination: %[1]s
`, name, url)
}

// What fails is tried again under the same id, and every attempt is on record.
func TestTryAgain(t *testing.T) {
	t.Parallel()
	r := pipelinetest.Receiver(t, pipelinetest.Answering(pipelinetest.InTurn(
		pipelinetest.Answer{Status: 503, Body: []byte("no room\n")},
		pipelinetest.Answer{Reset: true},
		pipelinetest.Answer{Status: 204},
	)))
	m := start(t, options{})
	m.apply(soonAgain("again", r.URL))
	m.produce(tickEvent(t, 1))
	r.Wait(t, 3)
	m.settled(map[string]endings{"again": {pipeline.Matched: 1, pipeline.Delivered: 1}})
	calls := r.Calls()
	attempts := m.attempts(3)[calls[0].ID()]
	if len(r.IDs()) != 1 || len(attempts) != 3 {
		t.Fatalf("ids %v, %d attempts", r.IDs(), len(attempts))
	}
	for i, want := range []struct {
		status  int
		outcome string
	}{{503, "retry"}, {0, "retry"}, {204, "success"}} {
		a := attempts[i]
		if a.Attempt != i+1 || a.Status != want.status || a.Outcome != want.outcome || a.NextAt.IsZero() != (i == 2) ||
			(a.Error == "") != (i == 2) || a.Webhook != "again" || a.EventID != "1" || a.Latency <= 0 {
			t.Errorf("attempt %d: %+v", i+1, a)
		}
		if i > 0 && calls[i].Time.Before(attempts[i-1].NextAt) {
			t.Errorf("attempt %d came at %v, before %v", i+1, calls[i].Time, attempts[i-1].NextAt)
		}
		if string(calls[i].Body) != string(calls[0].Body) || calls[i].Header.Get("Idempotency-Key") != calls[0].ID() {
			t.Errorf("call %d is another one: %s %v", i+1, calls[i].Body, calls[i].Header)
		}
	}
	if got := string(attempts[0].Response); got != "no room\n" {
		t.Errorf("response on record: %q", got)
	}
}

// Retry-After is the least time to wait, whatever the status is that has it.
func TestRetryAfter(t *testing.T) {
	t.Parallel()
	for _, status := range []int{429, 503} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			t.Parallel()
			r := pipelinetest.Receiver(t, pipelinetest.Answering(pipelinetest.InTurn(
				pipelinetest.Answer{Status: status, Header: map[string][]string{"Retry-After": {"2"}}}, pipelinetest.Answer{},
			)))
			m := start(t, options{})
			m.apply(soonAgain("patient", r.URL))
			m.produce(tickEvent(t, 1))
			r.Wait(t, 2)
			calls := r.Calls()
			if wait := calls[1].Time.Sub(calls[0].Time); wait < 2*time.Second {
				t.Errorf("called again after %v", wait)
			}
			m.settled(map[string]endings{"patient": {pipeline.Matched: 1, pipeline.Delivered: 1}})
		})
	}
}

// A destination that says that it does not want calls keeps its deliveries, and
// is not called any more: 410 is about all of them, 401 and 403 are when five got
// one.
func TestRefusedCallsWait(t *testing.T) {
	t.Parallel()
	const n = 5
	m := start(t, options{})
	var defs []string
	receivers := map[string]*pipelinetest.Endpoint{}
	for _, status := range []int{401, 403, 410} {
		name := fmt.Sprint("says-", status)
		receivers[name] = pipelinetest.Receiver(t, pipelinetest.Answering(pipelinetest.InTurn(pipelinetest.Answer{Status: status})))
		defs = append(defs, soonAgain(name, receivers[name].URL))
	}
	m.apply(strings.Join(defs, "---"))
	for i := range n {
		m.produce(tickEvent(t, i))
	}
	for name, waiting := range m.waiting(n * len(receivers)) {
		for _, d := range waiting {
			if d.Attempts != 0 || d.Lane != pipeline.DefaultLane {
				t.Errorf("%s: %+v", name, d)
			}
		}
		if r := receivers[name]; name != "says-410" && r.Count() < n || r.Count() == 0 {
			t.Errorf("%s: %d calls", name, r.Count())
		}
	}
	m.ledger(map[string]endings{
		"says-401": {pipeline.Matched: n}, "says-403": {pipeline.Matched: n}, "says-410": {pipeline.Matched: n},
	})
	want := map[string]endings{}
	for name, r := range receivers {
		r.Answer(func(*pipelinetest.Call) pipelinetest.Answer { return pipelinetest.Answer{} })
		m.command("", "destinations", "resume", name)
		want[name] = endings{pipeline.Matched: n, pipeline.Delivered: n}
	}
	m.settled(want)
}

// A delivery older than max_age is expired: dropped, or a dead letter.
func TestMaxAge(t *testing.T) {
	t.Parallel()
	r := pipelinetest.Receiver(t, pipelinetest.Answering(func(*pipelinetest.Call) pipelinetest.Answer {
		return pipelinetest.Answer{Status: 503, Header: map[string][]string{"Retry-After": {"1"}}}
	}))
	m := start(t, options{})
	m.apply(soonAgain("buries", r.URL) + "max_age: 2s\n---" + soonAgain("drops", r.URL) + "max_age: 2s\nexpire_to: drop\n")
	m.produce(tickEvent(t, 1))
	m.settled(map[string]endings{
		"buries": {pipeline.Matched: 1, pipeline.DeadLettered: 1}, "drops": {pipeline.Matched: 1, pipeline.Expired: 1},
	})
	if x := m.deadLetters(1)[0]; x.Webhook != "buries" || x.Reason != pipeline.ExpiredDelivery || x.Stage != "sink" || len(x.record.Value) == 0 {
		t.Errorf("dead letter: %+v", x)
	}
}

// A webhook that goes while its delivery waits leaves it removed; one that is
// paused does not match; and one that moves to another lane takes its delivery
// along.
func TestChangesWhileDeliveriesWait(t *testing.T) {
	t.Parallel()
	later := pipelinetest.Answer{Status: 503, Header: map[string][]string{"Retry-After": {"10"}}} // by then the changes are through
	stays := pipelinetest.Receiver(t, pipelinetest.Answering(pipelinetest.InTurn(later, pipelinetest.Answer{})))
	goes := pipelinetest.Receiver(t, pipelinetest.Answering(pipelinetest.InTurn(later, pipelinetest.Answer{})))
	m := start(t, options{})
	m.apply(soonAgain("stays", stays.URL) + "---" + soonAgain("goes", goes.URL) + "---" + soonAgain("rests", goes.URL) + "status: paused\n")
	m.produce(tickEvent(t, 1))
	m.delayed(2)
	m.apply(strings.Replace(soonAgain("stays", stays.URL), "request:", "lane: faster\nrequest:", 1), "--prune")
	m.settled(map[string]endings{
		"stays": {pipeline.Matched: 1, pipeline.Delivered: 1}, "goes": {pipeline.Matched: 1, pipeline.Removed: 1},
	})
	if stays.Count() != 2 || goes.Count() != 1 || len(stays.IDs()) != 1 {
		t.Errorf("%d and %d calls", stays.Count(), goes.Count())
	}
	attempts := m.attempts(3)[stays.Calls()[0].ID()]
	if len(attempts) != 2 || attempts[0].Lane != pipeline.DefaultLane || attempts[1].Lane != "faster" || attempts[1].Attempt != 2 {
		t.Errorf("attempts: %+v", attempts)
	}
}

// With GET the properties are the query; expressions in the URL are filled in;
// the method is that of the definition.
func TestMethodsAndURLs(t *testing.T) {
	t.Parallel()
	r := pipelinetest.Receiver(t)
	m := start(t, options{})
	for _, method := range []string{"GET", "PUT", "PATCH"} {
		m.apply(fmt.Sprintf(`
kind: Destination
name: by-%s
request:
  method: %s
  url: %s/users/{{ event.user }}/tick?k=a%%20b
---
kind: Webhook
name: by-%[1]s
event: tick
properties:
  - from: n
    as: number
  - name: text
    value: "ä&b=c"
destination: by-%[1]s
`, strings.ToLower(method), method, r.URL))
	}
	e := jsonEvent(t, map[string]any{"type": "tick", "user": "a/b c", "properties": map[string]any{"n": 17}})
	m.produce(e)
	r.Wait(t, 3)
	seen := map[string]bool{}
	for _, c := range r.Calls() {
		seen[c.Method] = true
		query, body := "k=a%20b", `{"number":17,"text":"ä&b=c"}`
		if c.Method == http.MethodGet {
			query, body = "k=a%20b&number=17&text=%C3%A4%26b%3Dc", ""
		}
		if c.Path != "/users/a/b c/tick" || c.Query != query || string(c.Body) != body { // the path is unescaped
			t.Errorf("%s %s?%s %s", c.Method, c.Path, c.Query, c.Body)
		}
	}
	if len(seen) != 3 {
		t.Errorf("methods: %v", seen)
	}
}

// While a secret is missing, deliveries wait and /readyz names it. Secrets are
// sent, and shown nowhere.
func TestSecrets(t *testing.T) {
	t.Parallel()
	const secret = "s3cr3t-of-nobody"
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "there"), []byte(secret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r := pipelinetest.Receiver(t, pipelinetest.Answering(func(c *pipelinetest.Call) pipelinetest.Answer {
		return pipelinetest.Answer{Status: 400, Body: []byte("you are " + c.Header.Get("Authorization"))} // an echo
	}))
	m := start(t, options{secrets: dir, idle: true})
	bearer := func(name, placeholder string) string {
		return strings.Replace(soonAgain(name, r.URL), "retry:", "auth: {type: bearer, token: \""+placeholder+"\"}\nretry:", 1)
	}
	m.apply(bearer("has", "${file:there}") + "---" + bearer("lacks-file", "${file:gone}") + "---" +
		bearer("lacks-variable", "${env:MILLRACE_SECRET_OF_NO_TEST}"))
	up := m.run()
	m.produce(tickEvent(t, 1))
	m.ledger(map[string]endings{
		"has": {pipeline.Matched: 1, pipeline.DeadLettered: 1}, "lacks-file": {pipeline.Matched: 1}, "lacks-variable": {pipeline.Matched: 1},
	})
	if c := r.Calls(); len(c) != 1 || c[0].Header.Get("Authorization") != "Bearer "+secret {
		t.Errorf("calls: %v", c)
	}
	for name := range m.waiting(2) {
		if !strings.HasPrefix(name, "lacks-") {
			t.Errorf("%s waits", name)
		}
	}
	eventually(t, "/readyz names what is missing", func() bool {
		text := fmt.Sprint(up.health.Err())
		return strings.Contains(text, "${file:gone}") && strings.Contains(text, "${env:MILLRACE_SECRET_OF_NO_TEST}")
	})
	dead, attempts := m.deadLetters(1), m.attempts(1)
	shown := fmt.Sprintf("%+v %s %v %s", dead, dead[0].record.Value, up.health.Err(), m.command("", "export"))
	for _, as := range attempts {
		shown += fmt.Sprintf("%+v %s", as[0], as[0].Response)
	}
	if strings.Contains(shown+m.log.String(), secret) {
		t.Errorf("a secret shows: %s", shown)
	}
	if err := os.WriteFile(filepath.Join(dir, "gone"), []byte("here it is"), 0o600); err != nil {
		t.Fatal(err)
	}
	eventually(t, "/readyz names the other one alone", func() bool {
		text := fmt.Sprint(up.health.Err())
		return !strings.Contains(text, "${file:gone}") && strings.Contains(text, "${env:MILLRACE_SECRET_OF_NO_TEST}")
	})
}

// A private address is called only where that is allowed.
func TestPrivateAddressIsNotCalled(t *testing.T) {
	t.Parallel()
	r := pipelinetest.Receiver(t)
	m := start(t, options{noLoopback: true})
	m.apply(soonAgain("inside", r.URL))
	m.produce(tickEvent(t, 1))
	for _, d := range m.waiting(1)["inside"] {
		if r.Count() != 0 || d.Attempts != 0 {
			t.Errorf("%d calls, %+v", r.Count(), d)
		}
	}
	for _, as := range m.attempts(1) {
		if as[0].ErrorClass != "blocked" || !strings.Contains(as[0].Error, "egress") {
			t.Errorf("attempt: %+v", as[0])
		}
	}
}
