package sink

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"runtime/debug"
	"time"

	"github.com/millrace-io/millrace/pipeline"
	"github.com/millrace-io/millrace/pipeline/definition"
	"github.com/millrace-io/millrace/pipeline/event"
	"github.com/millrace-io/millrace/pipeline/httpsend"
	"github.com/millrace-io/millrace/pipeline/telemetry"
)

// process makes a call, if it may be made now, and settles its delivery.
func (d *destination) process(c *call) {
	defer func() {
		if p := recover(); p != nil {
			d.Log.Error("panic while sending", telemetry.KeyDestination, d.name,
				"delivery", c.delivery.ID, "panic", p, "stack", string(debug.Stack()))
			d.bury(c, pipeline.Panicked, fmt.Errorf("panic: %v", p), pipeline.Output{})
		}
	}()
	if err := d.awaitCommits(c); err != nil { // not started: the partition's next owner does it
		c.ticket.Release()
		return
	}
	if !d.check(c, d.newest()) {
		return
	}
	now := time.Now()
	rev := d.revision()
	if rev.sender == nil {
		d.putOff(c, now.Add(pausedTime), whyUnusable)
		return
	}
	done, until, why := rev.allow(now)
	if done == nil {
		d.putOff(c, until, why)
		return
	}
	a := &attempt{destination: d, call: c, rev: rev, start: now}
	a.send(done)
	a.settle()
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
	httpsend.Result
}

// send makes the call and tells the breaker. It is not cut short when the
// partition has to go: the partition waits.
func (a *attempt) send(done func(error)) {
	verdict := errNeutral // of a panic
	a.Metrics.AttemptsInFlight.Add(1, a.name)
	defer func() {
		a.Metrics.AttemptsInFlight.Add(-1, a.name)
		done(verdict)
	}()
	span := a.call.span.Call("attempt")
	defer span.End()
	a.Result = a.rev.sender.Send(context.WithoutCancel(a.call.ctx), request(a.call, span, a.rev.def.Request.Method, a.start))
	a.trace(span)
	if verdict = a.health(); verdict == nil {
		a.measure(a.Latency)
	}
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
	if a.made() {
		a.Metrics.Attempts.Add(1, a.name, a.Outcome.String())
		a.Metrics.AttemptDuration.Record(a.Latency.Seconds(), a.name)
	}
	switch a.Outcome {
	case httpsend.NotSent:
		a.wait()
	case httpsend.Success:
		a.end(a.call, pipeline.Delivered, a.output(time.Time{}))
	case httpsend.Pause:
		a.keep(whyRefused)
	case httpsend.Disable:
		a.keep(whyGone)
	case httpsend.Retry:
		a.retry()
	default:
		a.giveUp(pipeline.FinalResponse)
	}
}

// wait puts the delivery off until there may be what was missing, without using
// up an attempt.
func (a *attempt) wait() {
	if a.Class == httpsend.ClassToken {
		a.putOff(a.call, time.Now().Add(a.RetryAfter), whyToken)
		return
	}
	a.putOff(a.call, time.Now().Add(secretTime), whySecret)
}

// keep shuts the gate and keeps the delivery, without using up an attempt:
// somebody has to mend the destination first.
func (a *attempt) keep(why string) {
	until := time.Now().Add(pausedTime)
	a.rev.shut(until, why)
	a.again(a.call.delivery, a.nextSlot(until), why)
}

// throttledTime is how long a destination gets that says 429 and no more.
const throttledTime = time.Second

// retry sends the delivery on its way back, unless that was its last attempt or
// the next one would come too late.
func (a *attempt) retry() {
	now, why := time.Now(), whyRetry
	if a.Status == http.StatusTooManyRequests {
		why = whyThrottled
		a.rev.shut(now.Add(max(a.RetryAfter, throttledTime)), why)
	}
	v := a.call.delivery
	v.Attempts++
	due := now.Add(max(backoff(a.rev.def.Retry, v.Attempts), a.RetryAfter))
	switch {
	case v.Attempts >= a.rev.def.Retry.Attempts:
		a.giveUp(pipeline.AttemptsUsed)
	case !due.Before(a.call.expiry()):
		a.expire(a.call, fmt.Sprintf("attempt %d failed (%v) and the next would be too late", v.Attempts, a.Err), a.output(time.Time{}))
	default:
		a.again(v, due, why)
	}
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
