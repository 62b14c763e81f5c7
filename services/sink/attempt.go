package sink

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"time"

	"github.com/millrace-io/millrace/pipeline"
	"github.com/millrace-io/millrace/pipeline/event"
	"github.com/millrace-io/millrace/pipeline/httpsend"
)

// process makes a call, if it may be made now, and settles its delivery.
func (d *destination) process(c *call) {
	defer func() {
		if p := recover(); p != nil {
			d.Log.Error("panic while sending", "destination", d.name, "delivery", c.delivery.ID, "panic", p)
			_ = d.bury(c, pipeline.Permanent(pipeline.Panicked, fmt.Errorf("panic: %v", p)))
		}
	}()
	if c.ctx.Err() != nil { // not started: the partition's next owner does it
		c.ticket.Release()
		return
	}
	if !d.turn(c) {
		return
	}
	done, until, why := d.admission(time.Now())
	if done == nil {
		d.hold(c, until, why)
		return
	}
	start := time.Now()
	d.Metrics.AttemptsInFlight.Add(1, d.name)
	r := d.sender.Send(context.WithoutCancel(c.ctx), request(c, d.def.Request.Method, start))
	d.Metrics.AttemptsInFlight.Add(-1, d.name)
	done(health(r))
	if r.Outcome == httpsend.NotSent {
		d.hold(c, spread(start.Add(pausedTime)), "secret missing")
		return
	}
	d.measure(r.Latency)
	d.Metrics.Attempts.Add(1, d.name, r.Outcome.String())
	d.Metrics.AttemptDuration.Record(r.Latency.Seconds(), d.name)
	d.settle(c, r, start)
}

// turn waits for the rate limit; false if that would take long, and the
// delivery was put off.
func (d *destination) turn(c *call) bool {
	now := time.Now()
	r := d.limiter.ReserveN(now, 1)
	wait := r.DelayFrom(now)
	if wait <= 0 {
		return true
	}
	if wait > maxLimit {
		r.CancelAt(now)
		d.hold(c, d.nextSlot(now), "rate limit")
		return false
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-c.ctx.Done():
		r.CancelAt(now)
		c.ticket.Release()
		return false
	}
}

func request(c *call, method string, at time.Time) httpsend.Call {
	call := httpsend.Call{ID: c.delivery.ID, URL: c.delivery.URL, At: at}
	if method == http.MethodGet {
		call.Query = c.ticket.Record.Value
	} else {
		call.Body = c.ticket.Record.Value
	}
	for _, h := range c.ticket.Record.Headers {
		if h.Key == "traceparent" || h.Key == "tracestate" {
			call.Header = append(call.Header, httpsend.Header{Name: http.CanonicalHeaderKey(h.Key), Value: string(h.Value)})
		}
	}
	return call
}

// health is what a call says about its destination, for the breaker: an answer
// of any kind is a sign of life, and 429 asks for patience, which the gate has.
func health(r httpsend.Result) error {
	switch {
	case r.Outcome == httpsend.NotSent, r.Outcome == httpsend.Pause, r.Outcome == httpsend.Disable,
		r.Status == http.StatusTooManyRequests, r.Class == httpsend.ClassTooLarge, r.Class == httpsend.ClassInvalid:
		return errNeutral
	case r.Outcome == httpsend.Retry:
		return r.Err
	}
	return nil
}

// settle writes down how a call went and what comes of the delivery.
func (d *destination) settle(c *call, r httpsend.Result, start time.Time) {
	v := c.delivery
	switch r.Outcome {
	case httpsend.Success:
		d.end(c, pipeline.Delivered, d.attempt(c, r, start, time.Time{}))
	case httpsend.Pause, httpsend.Disable: // keeps its deliveries, and uses up no attempt
		due := start.Add(pausedTime)
		d.shutUntil(due, r.Outcome.String())
		d.retry(c, v, r, start, spread(due), r.Outcome.String())
	case httpsend.Retry:
		v.Attempts++
		if v.Attempts >= d.def.Retry.Attempts {
			d.giveUp(c, r, start, pipeline.AttemptsUsed)
			return
		}
		wait := max(d.backoff(v.Attempts), r.RetryAfter)
		if r.Status == http.StatusTooManyRequests {
			d.shutUntil(start.Add(wait), "too many requests")
		}
		d.retry(c, v, r, start, start.Add(wait), "retry")
	default:
		d.giveUp(c, r, start, pipeline.FinalResponse)
	}
}

// retry sends a delivery on its way back.
func (d *destination) retry(c *call, v pipeline.Delivery, r httpsend.Result, start, due time.Time, why string) {
	out := d.attempt(c, r, start, due)
	out.Send(d.later(c, v, due, why))
	c.ticket.End(out)
}

// giveUp makes a dead letter of a delivery.
func (d *destination) giveUp(c *call, r httpsend.Result, start time.Time, reason pipeline.Reason) {
	dead, permanent := pipeline.IsPermanent(r.Err)
	if !permanent {
		dead = &pipeline.PermanentError{Reason: reason, Err: r.Err}
	}
	out := d.attempt(c, r, start, time.Time{})
	out.Send(d.deadLetter(c, dead))
	d.end(c, pipeline.DeadLettered, out)
}

// backoff is exponential with full jitter: anything up to first·2ⁿ⁻¹, at most
// cap, before attempt n+1 (AWS Architecture Blog, "Exponential Backoff And
// Jitter").
func (d *destination) backoff(n int) time.Duration {
	ceiling := float64(d.def.Retry.First) * math.Pow(2, float64(n-1))
	ceiling = min(ceiling, float64(d.def.Retry.Cap))
	return time.Duration(rand.Float64() * ceiling)
}

// attempt is the record of a call. There is none if nothing was sent.
func (d *destination) attempt(c *call, r httpsend.Result, start, next time.Time) pipeline.Output {
	v := &c.delivery
	a := event.Attempt{
		DeliveryID: v.ID, Webhook: v.Webhook, Destination: v.Destination, Lane: v.Lane,
		EventID: v.EventID, EventType: v.EventType, Attempt: v.Attempts + 1, At: start,
		Latency: r.Latency, Status: r.Status, Outcome: r.Outcome.String(), ErrorClass: string(r.Class),
		Response: r.Response, NextAt: next,
	}
	if r.Err != nil {
		a.Error = r.Err.Error()
	}
	return pipeline.Output{Records: []pipeline.Record{{
		Topic: d.names.Attempts(), Key: []byte(v.ID), Value: event.AppendAttempt(nil, &a),
	}}}
}
