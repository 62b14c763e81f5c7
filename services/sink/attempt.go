package sink

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"runtime"
	"runtime/debug"
	"strings"
	"time"

	"github.com/millrace-io/millrace/pipeline"
	"github.com/millrace-io/millrace/pipeline/definition"
	"github.com/millrace-io/millrace/pipeline/event"
	"github.com/millrace-io/millrace/pipeline/httpsend"
	"github.com/millrace-io/millrace/pipeline/state"
	"github.com/millrace-io/millrace/pipeline/telemetry"
)

// process makes a call, if it may be made now, and settles its delivery.
func (d *destination) process(c *call) {
	defer func() {
		if p := recover(); p != nil {
			d.Log.Error("panic while sending", telemetry.KeyDestination, d.name,
				"delivery", c.delivery.ID, "panic", plainly(p), "stack", string(debug.Stack()))
			d.bury(c, pipeline.Panicked, fmt.Errorf("panic: %s", plainly(p)), pipeline.Output{})
		}
	}()
	defer d.entered(c)
	if err := d.awaitCommits(c); err != nil { // not started: the partition's next owner does it
		c.ticket.Release()
		return
	}
	if !d.check(c, d.newest()) {
		return
	}
	if d.destination(c.delivery.Destination) != d {
		d.passOn(c)
		return
	}
	rev, why := d.mayCall()
	if why != "" {
		d.wait(c, c.delivery, why, nil)
		return
	}
	now := time.Now()
	done, until, why := rev.allow(now)
	d.entered(c)
	switch {
	case done != nil:
	case until.IsZero():
		d.wait(c, c.delivery, why, nil)
		return
	default:
		d.putOff(c, until, why)
		return
	}
	a := &attempt{destination: d, call: c, rev: rev, start: now, probe: rev.isOpen()}
	a.send(done)
	a.settle()
}

// passOn hands over what was queued for a destination that was removed, while
// another one got its name: it is the other one's to send.
func (d *destination) passOn(c *call) {
	d.entered(c)
	again := *c
	again.entered = false
	if err := d.admit(&again); err != nil {
		c.ticket.Release()
	}
}

// plainly is what may be said of a panic. Those of the Go runtime quote nothing;
// others may have what was sent in them.
func plainly(p any) string {
	if err, ok := p.(runtime.Error); ok {
		return err.Error()
	}
	return fmt.Sprintf("a %T, whose text is left out as it may hold secrets", p)
}

// awaitCommits waits until one more call may be at risk. What waited together
// does not go on together: the token that it had from the rate limit is of the
// past, and it waits for another one.
func (d *destination) awaitCommits(c *call) error {
	waited, err := c.ticket.AwaitCommits(c.ctx)
	if err == nil && waited {
		err = d.limiter.Wait(c.ctx)
	}
	return err
}

// attempt is one call: to whom, and how it went.
type attempt struct {
	*destination
	call  *call
	rev   *revision
	start time.Time
	probe bool // of a breaker that is open
	httpsend.Result
}

// send makes the call and tells the breaker. It is not cut short when the
// partition has to go: the partition waits.
func (a *attempt) send(done func(error) turn) {
	verdict := errNeutral // of a panic
	a.Metrics.AttemptsInFlight.Add(1, a.name)
	defer func() {
		a.Metrics.AttemptsInFlight.Add(-1, a.name)
		a.ended(a, time.Now(), verdict, done(verdict))
	}()
	span := a.call.span.Call("attempt")
	defer span.End()
	a.Result = a.rev.sender.Send(context.WithoutCancel(a.call.ctx), request(a.call, span, a.rev.def.Request.Method, a.start))
	a.trace(span)
	verdict = a.health()
}

func request(c *call, span *telemetry.Span, method string, at time.Time) httpsend.Call {
	call := httpsend.Call{ID: c.delivery.ID, URL: c.delivery.URL, At: at}
	if method == http.MethodGet {
		call.Query = c.record.Value
	} else {
		call.Body = c.record.Value
	}
	parent, state := telemetry.TraceContext(span.Headers(c.record.Headers))
	if parent != "" {
		call.Header = append(call.Header, httpsend.Header{Name: "Traceparent", Value: parent})
	}
	if state != "" {
		call.Header = append(call.Header, httpsend.Header{Name: "Tracestate", Value: state})
	}
	return call
}

// health is what a call says about its destination, for the breaker: an answer
// of any kind is a sign of life, and 429 asks for patience, which the gate has.
func (a *attempt) health() error {
	switch {
	case !a.made(), a.Outcome == httpsend.Pause, a.Outcome == httpsend.Disable, a.Status == http.StatusTooManyRequests:
		return errNeutral
	case a.Outcome == httpsend.Retry:
		return a.Err
	}
	return nil
}

// made says whether a request was made at all.
func (a *attempt) made() bool {
	return a.Outcome != httpsend.NotSent && a.Class != httpsend.ClassTooLarge && a.Class != httpsend.ClassInvalid
}

// settle writes down how the call went and what comes of the delivery.
func (a *attempt) settle() {
	a.call.status = a.Status
	if a.made() {
		a.Metrics.Attempts.Add(1, a.name, a.Outcome.String())
		a.Metrics.AttemptDuration.Record(a.Latency.Seconds(), a.name)
	}
	switch a.Outcome {
	case httpsend.NotSent:
		a.notSent()
	case httpsend.Success:
		a.rev.success()
		a.end(a.call, pipeline.Delivered, a.output(time.Time{}))
	case httpsend.Pause:
		a.refused()
	case httpsend.Disable:
		reason := state.Response
		if a.Status == http.StatusGone {
			reason = state.Gone
		}
		a.stop(state.Disabled, reason, whyGone)
	case httpsend.Retry:
		a.retry()
	default:
		a.final()
	}
}

// notSent puts the delivery off until there may be what was missing, without
// using up an attempt.
func (a *attempt) notSent() {
	again := time.Now().Add(a.RetryAfter)
	switch a.Class {
	case httpsend.ClassToken:
		a.putOff(a.call, again, whyToken)
	case httpsend.ClassProxy:
		a.putOff(a.call, again, whyProxy)
	default:
		a.lacksSecret(a.rev)
		a.wait(a.call, a.call.delivery, whySecret, nil)
	}
}

// refused keeps the delivery, without using up an attempt. 401 and 403 may be
// about this delivery alone, so the destination is paused when several of them
// got one; by anything else at once. How long this one backs off is no matter for
// the others, so it takes none of their slots.
func (a *attempt) refused() {
	switch {
	case a.Class == httpsend.ClassBlocked:
		a.stop(state.Paused, state.Blocked, whyPaused)
		return
	case a.Class == httpsend.ClassProxy:
		a.stop(state.Paused, state.Proxy, whyPaused)
		return
	case a.said() || a.Status != http.StatusUnauthorized && a.Status != http.StatusForbidden:
		a.stop(state.Paused, state.Response, whyPaused)
		return
	}
	row, enough := a.rev.refusal(a.call.delivery.ID)
	if enough {
		a.stop(state.Paused, state.Refused, whyPaused)
		return
	}
	a.again(a.call.delivery, time.Now().Add(backoff(a.rev.def.Retry, row)), whyRefused)
}

// said says whether the definition says what the status means.
func (a *attempt) said() bool { return a.rev.says(a.Status) }

// stop keeps the destination from being called, and the delivery for when it may
// be again: somebody has to mend something first.
func (a *attempt) stop(status state.Status, reason state.Reason, why string) {
	if a.rev == a.revision() {
		a.pause(status, reason, a.detail(), quiet(&a.call.delivery))
	}
	out := a.output(time.Time{})
	a.wait(a.call, a.call.delivery, why, &out)
}

// detail says in one line what the destination said.
func (a *attempt) detail() string {
	const most = 300
	text := strings.ReplaceAll(a.Err.Error(), "\n", "; ")
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + "…"
	}
	return text
}

// final makes a dead letter of the delivery. So many in a row that were not
// expected say that it is the definition that is wrong.
func (a *attempt) final() {
	if a.Status != 0 && !a.said() && a.rev.final() && a.rev == a.revision() {
		a.pause(state.Paused, state.FinalResponses, fmt.Sprintf("%d final responses in a row, the last: %s", mostFinals, a.detail()), quiet(&a.call.delivery))
	}
	a.giveUp(pipeline.FinalResponse)
}

// throttledTime is how long a destination gets that says 429 and no more.
const throttledTime = time.Second

// retry sends the delivery on its way back, unless that was its last attempt or
// the next one would come too late.
func (a *attempt) retry() {
	now, why := time.Now(), whyRetry
	if a.Status == http.StatusTooManyRequests {
		why = whyThrottled
		a.rev.shut(now.Add(max(a.RetryAfter, throttledTime)))
	}
	v := a.call.delivery
	if !a.probe { // which nobody would have sent but to see whether the destination is back
		v.Attempts++
	}
	due := now.Add(max(backoff(a.rev.def.Retry, v.Attempts), a.RetryAfter))
	switch {
	case v.Attempts >= a.rev.def.Retry.Attempts:
		a.giveUp(pipeline.AttemptsUsed)
	case a.rev.isOpen():
		a.down(v)
	case !due.Before(a.call.expiry()):
		a.expire(a.call, fmt.Sprintf("attempt %d failed (%v) and the next would be too late", v.Attempts, a.Err), a.output(time.Time{}))
	default:
		a.again(v, due, why)
	}
}

// down keeps a delivery while the breaker is open: one comes back as the probe,
// the others wait.
func (a *attempt) down(v pipeline.Delivery) {
	now := time.Now()
	if until := now.Add(a.RetryAfter); a.rev.staysOpen(until) {
		a.staysOpen(until)
	}
	if at, ok := a.rev.offerProbe(now); ok {
		a.again(v, at, whyBreaker)
		return
	}
	out := a.output(time.Time{})
	a.wait(a.call, v, whyBreaker, &out)
}

// again ends the ticket with the attempt and the delivery, which comes back.
func (a *attempt) again(v pipeline.Delivery, due time.Time, why string) {
	out := a.output(due)
	a.later(a.call, v, due, why, &out)
	a.call.ticket.End(out)
}

// giveUp makes a dead letter of the delivery.
func (a *attempt) giveUp(reason pipeline.Reason) {
	err := a.Err
	if dead, permanent := pipeline.IsPermanent(err); permanent {
		reason, err = dead.Reason, dead.Err
	}
	a.bury(a.call, reason, err, a.output(time.Time{}))
}

// backoff is exponential with full jitter: anything up to first·2ⁿ⁻¹, at most
// cap, before attempt n+1 (AWS Architecture Blog, "Exponential Backoff And
// Jitter").
func backoff(r definition.Retry, n int) time.Duration {
	ceiling := min(float64(r.First)*math.Pow(2, float64(n-1)), float64(r.Cap)) // Pow may be +Inf
	return time.Duration(rand.Float64() * ceiling)
}

// output holds the record of the attempt; nothing if no request was made.
func (a *attempt) output(next time.Time) (out pipeline.Output) {
	if !a.made() {
		return out
	}
	v := &a.call.delivery
	e := event.Attempt{
		DeliveryID: v.ID, Webhook: v.Webhook, Destination: v.Destination, Lane: v.Lane,
		EventID: v.EventID, EventType: v.EventType, Attempt: v.Attempts + 1, At: a.start,
		Latency: a.Latency, Status: a.Status, Outcome: a.Outcome.String(), ErrorClass: string(a.Class),
		Response: a.Response, NextAt: next,
	}
	if a.Err != nil {
		e.Error = a.Err.Error()
	}
	out.Send(pipeline.Record{Topic: a.names.Attempts(), Key: []byte(v.ID), Value: event.AppendAttempt(nil, &e)})
	return out
}
