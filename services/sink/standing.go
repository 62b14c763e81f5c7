package sink

import (
	"time"

	"github.com/millrace-io/millrace/pipeline/definition"
	"github.com/millrace-io/millrace/pipeline/httpsend"
	"github.com/millrace-io/millrace/pipeline/state"
	"github.com/millrace-io/millrace/pipeline/telemetry"
)

// How a destination stands: whether it may be called at all, what follows when
// it must not be any more, and how it comes back.

// barred says why the destination must not be called before somebody has done
// something; "" if it may be. Called with mu held.
func (d *destination) barred() string {
	switch {
	case d.current.def.Status == definition.Paused:
		return whyPaused
	case d.status.Status == state.Disabled:
		return whyGone
	case d.status.Status == state.Paused:
		return whyPaused
	case d.current.sender == nil:
		return whyUnusable
	case d.current.lacking.Load():
		return whySecret
	}
	return ""
}

// closed is barred, or that the breaker is open and has its probe, if it is time
// for one. Called with mu held.
func (d *destination) closed(now time.Time) string {
	if d.gone { // what is left for it ends by the definitions
		return ""
	}
	why := d.barred()
	if why == "" && d.current.holds(now, d.entering+len(d.live)+len(d.back) > 0) {
		why = whyBreaker
	}
	return why
}

// standing is closed, for those who do not hold mu.
func (d *destination) standing() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.closed(time.Now())
}

// mayCall is barred, for those who do not hold mu, and the revision by which to
// call.
func (d *destination) mayCall() (rev *revision, why string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.current, d.barred()
}

// inherit takes over the state that there is before the first call. Called with
// mu held.
func (d *destination) inherit(s state.State) {
	d.status = s.Of(d.created)
	d.before = d.status.Rate
}

// adopt takes over what another sink knew that had the destination before: that
// its breaker is open, or that it has come back just now. As long as we make
// calls ourselves, we know better. A breaker is open for no longer than it may
// be: the other's clock may be wrong. Called with mu held, when there is something
// to send.
func (d *destination) adopt(now time.Time) {
	if now.Sub(d.called) < time.Duration(d.current.def.Breaker.Open) || d.current.isOpen() {
		return
	}
	s := d.status
	switch {
	case !s.OpenUntil.IsZero() && !s.OpenUntil.Equal(d.adopted):
		d.adopted, d.restored = s.OpenUntil, true
		d.before = s.Rate
		d.current.restore(earlier(s.OpenUntil, now.Add(max(longestOpen(d.current.def), httpsend.MaxRetryAfter))))
		d.look()
	case s.Back.After(d.returned) && now.Sub(s.Back) < backLately:
		d.before = s.Rate
		d.comesBack(s.Back)
	}
}

// backLately is how long ago a destination came back that is not yet taken to be
// as it was before.
const backLately = 10 * time.Minute

// ended takes note of a call that was made: what it says about the destination's
// pace, and what its breaker has turned to.
func (d *destination) ended(a *attempt, now time.Time, verdict error, t turn) {
	d.mu.Lock()
	d.called = now
	if verdict == nil {
		d.measure(a.Latency)
		d.answered.add(now, 1/d.ours.share())
	}
	if d.pace.told(now, a.Outcome == httpsend.Retry) {
		a.rev.shut(now.Add(throttledTime))
		d.limit()
	}
	if a.rev != d.current {
		t = steady // the breaker of an older definition
	}
	switch {
	case t == opened:
		d.opened(now, quiet(&a.call.delivery))
	case t == recovered:
		d.comesBack(now)
		d.save(closeBreaker(now))
	case verdict == nil && d.leftOpen(now):
		d.save(closeLeftOpen(now))
	}
	d.mu.Unlock()
	if t == opened {
		d.sweep()
	}
}

// opened notes how many calls the destination took before its breaker opened,
// and tells other sinks; and users, unless it is to be kept quiet. Called with mu
// held.
func (d *destination) opened(now time.Time, quiet bool) {
	d.remember(now)
	until, _ := d.current.opensAt()
	d.adopted, d.restored = until, false
	before, instance := d.before, d.Stream.Instance
	d.save(func(s state.State) (state.State, bool) {
		s.Destination, s.OpenUntil, s.Rate, s.Instance = d.name, until, before, instance
		s.QuietBreaker = quiet
		return s, true
	})
	d.look()
}

func closeBreaker(now time.Time) state.Change {
	now = now.UTC().Truncate(time.Millisecond)
	return func(s state.State) (state.State, bool) {
		open := !s.OpenUntil.IsZero()
		s.OpenUntil, s.Instance, s.Back = time.Time{}, "", now
		s.Closed = s.Closed || open
		return s, open
	}
}

// cameBack says that calls can be made again since now, after something else than
// an open breaker, and how many there were; unless another sink has just said so.
func cameBack(now time.Time, before float64) state.Change {
	closes := closeBreaker(now)
	return func(s state.State) (state.State, bool) {
		next, open := closes(s)
		if before > 0 {
			next.Rate = before
		}
		return next, open || now.Sub(s.Back) >= time.Minute
	}
}

// leftOpen says whether what is written of the breaker is that of a sink which is
// gone, or has nothing to send: its time is over, and ours is closed. Called with
// mu held.
func (d *destination) leftOpen(now time.Time) bool {
	until := d.status.OpenUntil
	return !until.IsZero() && until.Before(now) && d.unsaved == 0 && !d.current.isOpen()
}

// closeLeftOpen is for a destination that answers: it need not come back.
func closeLeftOpen(now time.Time) state.Change {
	return func(s state.State) (state.State, bool) {
		left := !s.OpenUntil.IsZero() && s.OpenUntil.Before(now)
		if left {
			s.OpenUntil, s.Instance, s.Closed = time.Time{}, "", true
		}
		return s, left
	}
}

// staysOpen tells other sinks that the breaker is open for longer.
func (d *destination) staysOpen(until time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.adopted = until
	d.save(func(s state.State) (state.State, bool) {
		longer := !s.OpenUntil.IsZero() && until.After(s.OpenUntil)
		if longer {
			s.OpenUntil = until
		}
		return s, longer
	})
}

// remember keeps the rate before. Where it falls within a slow start, half of
// what was known before that counts. Called with mu held.
func (d *destination) remember(now time.Time) {
	before := d.answered.rate(now)
	if d.pace.active() {
		before = max(before, d.before/2)
	}
	if before > 0 { // else there were no calls that would say so
		d.before = before
	}
	d.pace = pace{}
}

// comesBack begins the slow start of a destination that was away until then, and
// has those look again who wait for it. Called with mu held.
func (d *destination) comesBack(at time.Time) {
	now := time.Now()
	if at.After(d.returned) {
		d.returned = at
	}
	d.restored = false
	before := d.before
	if l := d.current.def.Limits; l.Rate > 0 { // who set it knows that it takes as many
		before = max(before, l.Rate)
	}
	d.pace.start(now, before*d.ours.share())
	d.slot = time.Time{}
	d.limit()
	d.emptyAt(now)
	d.look()
	d.waiting.want(d.name, now)
	d.resume()
}

// look sees to it that the pace goes on, that the probe of an open breaker is
// not forgotten, and that those hear of it who hold up their own lane. Called
// with mu held.
func (d *destination) look() {
	d.stopWatch()
	if d.gone || d.rests {
		return
	}
	now := time.Now()
	next := now
	switch until, open := d.current.opensAt(); {
	case open && d.barred() != "": // whoever lets it be called again looks again
	case open && now.Before(until):
		next = until
	case open && d.closedElsewhere(now):
		d.anew(d.status.Back)
		return
	case open:
		d.tell()
		d.seekProbe(now)
		next = now.Add(d.seek + time.Millisecond)
	case d.pace.active():
		if d.pace.next(now, d.current.isShut(now)) {
			d.limit()
			d.resume()
		}
		next = d.pace.step.Add(paceStep)
	}
	if next.After(now) {
		d.watch = time.AfterFunc(next.Sub(now), d.lookAgain)
	}
}

// seekProbe has what waits gone over for a probe, if the one that was to come has
// not. As long as none is found, less and less often: what waits may all be of a
// webhook that can't be used, and each pass writes it again. Called with mu held.
func (d *destination) seekProbe(now time.Time) {
	if !d.current.lacksProbe(now) {
		d.seek = probeTime
		return
	}
	d.waiting.want(d.name, now)
	d.seek = min(max(2*d.seek, probeTime), passEvery)
}

// closedElsewhere says whether our breaker is open only since we have nothing to
// send: its probe has not come, and another sink has closed it. Called with mu
// held.
func (d *destination) closedElsewhere(now time.Time) bool {
	return d.status.OpenUntil.IsZero() && d.unsaved == 0 && d.current.lacksProbe(now)
}

func (d *destination) lookAgain() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.look()
}

// stopWatch is called with mu held.
func (d *destination) stopWatch() {
	if d.watch != nil {
		d.watch.Stop()
		d.watch = nil
	}
}

// sweep has everything wait that is queued.
func (d *destination) sweep() {
	why := d.standing()
	if why == "" {
		return
	}
	for _, c := range d.unqueue(func(*call) bool { return true }) {
		d.wait(c, c.delivery, why, nil)
	}
}

// pause stops the calls to the destination until somebody resumes it. Users are
// told, unless it is to be kept quiet.
func (d *destination) pause(status state.Status, reason state.Reason, detail string, quiet bool) {
	now := time.Now().UTC().Truncate(time.Millisecond)
	d.mu.Lock()
	if !d.status.Callable() || d.gone {
		d.mu.Unlock()
		return
	}
	d.remember(now)
	before := d.before
	change := func(s state.State) (state.State, bool) {
		if !s.Callable() {
			return s, false
		}
		s.Destination, s.Status, s.By, s.Reason, s.Detail, s.Since, s.Rate = d.name, status, state.BySink, reason, detail, now, before
		s.QuietStatus = quiet
		return s, true
	}
	d.status, _ = change(d.status)
	d.save(change)
	d.mu.Unlock()
	d.Log.Warn("no more calls to this destination until `millrace destinations resume`",
		telemetry.KeyDestination, d.name, "status", status, "reason", reason, "detail", detail)
	d.sweep()
}

// follow takes over the state that is written.
func (d *destination) follow(s state.State) {
	s = s.Of(d.created)
	d.mu.Lock()
	if d.unsaved > 0 || s == d.status {
		d.mu.Unlock()
		return
	}
	was := d.status
	d.status = s
	switch {
	case was.Callable() && !s.Callable():
		d.remember(time.Now())
	case !was.Callable() && s.Callable():
		d.resumed(s)
	case d.restored && s.OpenUntil.IsZero(): // the other sink goes on with it
		d.anew(s.Back)
	case !was.OpenUntil.IsZero() && s.OpenUntil.IsZero():
		d.look()
	}
	d.mu.Unlock()
	d.sweep()
}

// resumed lets calls be made again that somebody had stopped. Called with mu held.
func (d *destination) resumed(s state.State) {
	d.before = max(d.before, s.Rate)
	d.Log.Info("destination resumed", telemetry.KeyDestination, d.name, "by", s.By)
	d.anew(s.Back)
}

// anew begins with the gate open, the breaker closed, and slowly, for a
// destination that was away until then. Called with mu held.
func (d *destination) anew(back time.Time) {
	d.current.retire()
	was := d.current
	d.current = &revision{guard: newGuard(was.def, d.Log, d.Metrics), def: was.def, sender: was.sender}
	d.current.lacking.Store(was.lacking.Load())
	d.comesBack(back)
}

// save has a change of the state written. Called with mu held.
func (d *destination) save(c state.Change) {
	r := resourceOf(d.known.Load(), d.name)
	if d.gone || r == nil || r.Created != d.created {
		return // it has been removed; the state of whoever has its name now is another
	}
	revision := r.Revision
	d.unsaved++
	d.states.add(d.name, change{by: d, Change: func(now state.State) (state.State, bool) {
		next, changed := c(now.Of(d.created))
		next.Revision = max(next.Revision, revision)
		return next, changed
	}})
}

// saved says that a change is written.
func (d *destination) saved() {
	d.mu.Lock()
	d.unsaved--
	d.mu.Unlock()
	d.follow(d.stateOf(d.name))
}

// comeback says when a delivery that waits may come back: as the probe, or at
// the next slot that is not too far away; false if it has to wait on.
func (d *destination) comeback(now time.Time) (due time.Time, ok bool, why string) {
	d.mu.Lock()
	if why = d.barred(); why != "" {
		d.mu.Unlock()
		return time.Time{}, false, why
	}
	d.adopt(now)
	rev := d.current
	far := d.slot.Sub(now) > comebackTime
	d.mu.Unlock()
	if rev.isOpen() {
		due, ok = rev.offerProbe(now)
		return due, ok, whyBreaker
	}
	if far {
		return time.Time{}, false, whyTurn
	}
	return d.nextSlot(now), true, whyTurn
}

// comebackTime is how far ahead slots are given to what has waited: by then the
// destination may take more, or less.
const comebackTime = 2 * time.Minute
