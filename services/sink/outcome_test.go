package sink

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sony/gobreaker/v2"

	"github.com/millrace-io/millrace/pipeline"
	"github.com/millrace-io/millrace/pipeline/definition"
	"github.com/millrace-io/millrace/pipeline/httpsend"
	"github.com/millrace-io/millrace/pipeline/pipelinetest"
	"github.com/millrace-io/millrace/pipeline/state"
)

const plain = "retry: {attempts: 3, first: 1s, cap: 1m}"

// verdicts of a call about the health of a destination.
const (
	alive   = "alive"
	failing = "failing"
	silent  = "says nothing"
)

// TestOutcomes has for each outcome of a call what is written, what it means for
// the delivery, and what for the destination.
func TestOutcomes(t *testing.T) {
	t.Parallel()
	final := pipeline.Permanent(pipeline.FinalResponse, errors.New("destination responded 400"))
	for name, c := range map[string]struct {
		result  httpsend.Result
		before  int // attempts used before
		want    gone
		used    int           // attempts used after, of one that comes back
		waits   bool          // for a time that nobody knows
		status  state.Status  // of the destination after that; "" for active
		wait    time.Duration // at least, until it comes back
		upTo    time.Duration // at most
		gate    time.Duration // shut for that long
		verdict string
	}{
		"success":         {result: ok(), want: gone{ending: pipeline.Delivered, attempts: []string{"1 success"}}, verdict: alive},
		"success, cut":    {result: httpsend.Result{Status: 200, Outcome: httpsend.Success, Class: httpsend.ClassMaxResponse}, want: gone{ending: pipeline.Delivered, attempts: []string{"1 success"}}, verdict: alive},
		"server error":    {result: failed(500, "", 0), want: gone{attempts: []string{"1 retry"}}, used: 1, upTo: time.Second, verdict: failing},
		"no connection":   {result: failed(0, httpsend.ClassConnect, 0), want: gone{attempts: []string{"1 retry"}}, used: 1, upTo: time.Second, verdict: failing},
		"second failure":  {result: failed(500, "", 0), before: 1, want: gone{attempts: []string{"2 retry"}}, used: 2, upTo: 2 * time.Second, verdict: failing},
		"last failure":    {result: failed(500, "", 0), before: 2, want: gone{ending: pipeline.DeadLettered, reason: pipeline.AttemptsUsed, attempts: []string{"3 retry"}}, verdict: failing},
		"asked to wait":   {result: failed(503, "", time.Minute), want: gone{attempts: []string{"1 retry"}}, used: 1, wait: time.Minute, upTo: time.Minute, verdict: failing},
		"throttled":       {result: failed(429, "", 0), want: gone{attempts: []string{"1 retry"}}, used: 1, upTo: time.Second, gate: throttledTime, verdict: silent},
		"throttled long":  {result: failed(429, "", time.Minute), want: gone{attempts: []string{"1 retry"}}, used: 1, wait: time.Minute, upTo: time.Minute, gate: time.Minute, verdict: silent},
		"throttled, last": {result: failed(429, "", time.Minute), before: 2, want: gone{ending: pipeline.DeadLettered, reason: pipeline.AttemptsUsed, attempts: []string{"3 retry"}}, gate: time.Minute, verdict: silent},
		"final":           {result: httpsend.Result{Status: 400, Outcome: httpsend.DeadLetter, Err: final}, want: gone{ending: pipeline.DeadLettered, reason: pipeline.FinalResponse, attempts: []string{"1 dead_letter"}}, verdict: alive},
		"too large": {
			result:  httpsend.Result{Outcome: httpsend.DeadLetter, Class: httpsend.ClassTooLarge, Err: pipeline.Permanent(pipeline.TooLarge, errors.New("body"))},
			want:    gone{ending: pipeline.DeadLettered, reason: pipeline.TooLarge},
			verdict: silent,
		},
		"no request": {
			result:  httpsend.Result{Outcome: httpsend.DeadLetter, Class: httpsend.ClassInvalid, Err: pipeline.Permanent(pipeline.InvalidRequest, errors.New("url"))},
			want:    gone{ending: pipeline.DeadLettered, reason: pipeline.InvalidRequest},
			verdict: silent,
		},
		"refused": {
			result: httpsend.Result{Status: 401, Outcome: httpsend.Pause, Err: errors.New("401")}, before: 1,
			want: gone{attempts: []string{"2 pause"}}, used: 1, upTo: time.Second, verdict: silent,
		},
		"blocked": {
			result: httpsend.Result{Outcome: httpsend.Pause, Class: httpsend.ClassBlocked, Err: errors.New("private")},
			want:   gone{attempts: []string{"1 pause"}}, waits: true, status: state.Paused, verdict: silent,
		},
		"gone": {
			result: httpsend.Result{Status: 410, Outcome: httpsend.Disable, Err: errors.New("410")},
			want:   gone{attempts: []string{"1 disable"}}, waits: true, status: state.Disabled, verdict: silent,
		},
		"secret missing": {
			result: httpsend.Result{Outcome: httpsend.NotSent, Class: httpsend.ClassSecret, Err: errors.New("missing")}, before: 2,
			used: 2, waits: true, verdict: silent,
		},
		"no token": {
			result: httpsend.Result{Outcome: httpsend.NotSent, Class: httpsend.ClassToken, Err: errors.New("down"), RetryAfter: 7 * time.Second}, before: 2,
			used: 2, wait: 7 * time.Second, upTo: 7 * time.Second, verdict: silent,
		},
		"no login at the proxy": {
			result: httpsend.Result{Outcome: httpsend.NotSent, Class: httpsend.ClassProxy, Err: errors.New("407"), RetryAfter: 7 * time.Second}, before: 2,
			used: 2, wait: 7 * time.Second, upTo: 7 * time.Second, verdict: silent,
		},
	} {
		t.Run(name, func(t *testing.T) {
			test(t, aDestination("crm", plain)+aDestination("neighbour", "")+aWebhook("hook", "crm", ""), func(t *testing.T, h *house) {
				const latency = 5 * time.Second // waits begin when the answer is there
				h.answer("crm", always(c.result, latency))
				v := h.delivery("hook")
				v.Attempts = c.before
				start := time.Now()
				got := h.became(h.takes(t.Context(), h.slipOf(v)))
				ended := start.Add(latency)
				if c.want.ending == "" {
					if got.again == nil {
						t.Fatalf("the delivery does not come back: %+v", got)
					}
					if used := got.again.Attempts; used != c.used {
						t.Errorf("%d attempts are used, expected %d", used, c.used)
					}
					if waits := got.topic == h.names.Waiting("default"); waits != c.waits || waits != got.again.Due.Equal(time.UnixMilli(time.Time{}.UnixMilli())) {
						t.Errorf("it goes to %s, due at %v", got.topic, got.again.Due)
					} else if wait := got.again.Due.Sub(ended); !waits && (wait < c.wait || wait > c.upTo) {
						t.Errorf("it comes back %v after the call, expected %v to %v", wait, c.wait, c.upTo)
					}
					if v.Attempts = got.again.Attempts; got.again.ID != v.ID || got.again.Webhook != v.Webhook || !got.again.MatchedAt.Equal(v.MatchedAt) {
						t.Errorf("what comes back is %+v, expected %+v", got.again, v)
					}
				}
				got.again, got.topic, got.error = nil, "", ""
				if !reflect.DeepEqual(got, c.want) {
					t.Errorf("it became %+v, expected %+v", got, c.want)
				}
				h.expectGuard(t, "crm", ended.Add(c.gate), c.verdict)
				synctest.Wait()
				if got := h.stateNow("crm").Status; got != cmp.Or(c.status, state.Active) {
					t.Errorf("the destination is %s, expected %q", got, c.status)
				}
			})
		})
	}
}

func failed(status int, class httpsend.Class, after time.Duration) httpsend.Result {
	return httpsend.Result{
		Status: status, Class: class, Outcome: httpsend.Retry, RetryAfter: after,
		Err: fmt.Errorf("destination responded %d", status),
	}
}

// expectGuard checks until when the gate is shut and what the breaker was told,
// after one call.
func (h *house) expectGuard(t *testing.T, name string, gate time.Time, verdict string) {
	t.Helper()
	rev := h.destination(name).revision()
	if rev.gate.After(gate) || rev.gate.Before(gate) && gate.After(time.Now()) {
		t.Errorf("the gate is shut until %v, expected %v", rev.gate, gate)
	}
	want := map[string]gobreaker.Counts{
		alive:   {Requests: 1, TotalSuccesses: 1, ConsecutiveSuccesses: 1},
		failing: {Requests: 1, TotalFailures: 1, ConsecutiveFailures: 1},
		silent:  {Requests: 1, TotalExclusions: 1},
	}[verdict]
	if got := rev.breaker.Counts(); got != want {
		t.Errorf("the breaker counted %+v, expected %+v", got, want)
	}
}

// TestStatuses has for each status of a real response what becomes of the
// delivery.
func TestStatuses(t *testing.T) {
	t.Parallel()
	const comesBack, keeps = "comes back", "is kept"
	for status, want := range map[int]string{
		200: "delivered", 201: "delivered", 202: "delivered", 204: "delivered", 299: "delivered",
		301: "dead_letter", 302: "dead_letter", 304: "dead_letter", 307: "dead_letter",
		400: "dead_letter", 404: "dead_letter", 405: "dead_letter", 409: "dead_letter", 413: "dead_letter", 422: "dead_letter", 451: "dead_letter",
		401: keeps, 403: keeps, 410: keeps,
		408: comesBack, 425: comesBack, 429: comesBack,
		500: comesBack, 501: comesBack, 502: comesBack, 503: comesBack, 504: comesBack, 599: comesBack,
	} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			t.Parallel()
			r := pipelinetest.Receiver(t, pipelinetest.Answering(func(*pipelinetest.Call) pipelinetest.Answer {
				return pipelinetest.Answer{Status: status, Body: []byte("because")}
			}))
			h := build(t, strings.Replace(aDestination("crm", ""), "https://crm.example", r.URL, 1)+aWebhook("hook", "crm", ""))
			h.overHTTP()
			v := h.delivery("hook")
			got := h.became(h.takes(t.Context(), h.slipOf(v)))
			said := string(got.ending)
			switch {
			case got.again != nil && got.again.Attempts == 1:
				said = comesBack
			case got.again != nil:
				said = keeps
			}
			if said != want {
				t.Errorf("the delivery %s, expected %s", said, want)
			}
			if len(got.attempts) != 1 || !slices.Equal(slices.Collect(keysOf(r.IDs())), []string{v.ID}) {
				t.Errorf("attempts %v, calls %v", got.attempts, r.IDs())
			}
		})
	}
}

func keysOf(m map[string]int) func(func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

// overHTTP lets the house make real calls.
func (h *house) overHTTP() {
	h.t.Helper()
	h.overHTTPWith(httpsend.Options{})
}

func (h *house) overHTTPWith(o httpsend.Options) {
	h.t.Helper()
	o.Allow = []string{"127.0.0.1"}
	client, err := httpsend.New(o)
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(client.Close)
	h.newSender = func(def *definition.Destination) (sender, error) { return client.Target(target(def)) }
}

func TestRequestIsMadeOfTheDelivery(t *testing.T) {
	t.Parallel()
	r := pipelinetest.Receiver(t)
	text := strings.Replace(aDestination("crm", ""), "https://crm.example}", r.URL+"/in, headers: {X-Team: a}}", 1) +
		strings.Replace(aDestination("search", ""), "https://search.example}", `"`+r.URL+`/find?a=1", method: GET}`, 1) +
		"kind: Destination\nname: dynamic\nrequest:\n  url: " + r.URL + "/{{ event.user }}\n---\n" +
		aWebhook("hook", "crm", "") + aWebhook("get", "search", "") + aWebhook("to", "dynamic", "")
	h := build(t, text)
	h.overHTTP()
	for _, c := range []struct {
		webhook, url, value string
		method, path, query string
	}{
		{"hook", "", `{"a":1}`, "POST", "/in", ""},
		{"get", "", "b=2&c=3", "GET", "/find", "a=1&b=2&c=3"},
		{"get", "", "", "GET", "/find", "a=1"},
		{"to", r.URL + "/ada", `{}`, "POST", "/ada", ""},
	} {
		v := h.delivery(c.webhook)
		v.URL = c.url
		s := h.slipOf(v)
		s.record.Value = []byte(c.value)
		s.record.Headers = append(s.record.Headers, pipeline.Header{Key: "traceparent", Value: []byte("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")})
		if got := h.became(h.takes(t.Context(), s)); got.ending != pipeline.Delivered {
			t.Fatalf("%s became %+v", c.webhook, got)
		}
		calls := r.Calls()
		call := calls[len(calls)-1]
		body := c.value
		if c.method == http.MethodGet {
			body = ""
		}
		if call.Method != c.method || call.Path != c.path || call.Query != c.query || string(call.Body) != body ||
			call.ID() != v.ID || call.Header.Get("Traceparent") != "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01" {
			t.Errorf("%s made the call %+v", c.webhook, call)
		}
	}
	if got := r.Calls()[0].Header.Get("X-Team"); got != "a" {
		t.Errorf("the destination's header is %q", got)
	}
}

func TestBackoff(t *testing.T) {
	t.Parallel()
	r := definition.Retry{First: definition.Duration(time.Second), Cap: definition.Duration(time.Hour)}
	for n, ceiling := range map[int]time.Duration{
		1: time.Second, 2: 2 * time.Second, 5: 16 * time.Second, 12: 2048 * time.Second,
		13: time.Hour, 64: time.Hour, 1000: time.Hour, 100_000: time.Hour,
	} {
		var low, high time.Duration = ceiling, 0
		for range 2000 {
			w := backoff(r, n)
			low, high = min(low, w), max(high, w)
		}
		if low < 0 || high > ceiling {
			t.Errorf("after %d attempts it waits %v to %v, expected 0 to %v", n, low, high, ceiling)
		}
		if low > ceiling/20 || high < ceiling-ceiling/20 {
			t.Errorf("after %d attempts it waits %v to %v, which is not all of 0 to %v", n, low, high, ceiling)
		}
	}
}
