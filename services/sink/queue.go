package sink

import (
	"context"
	"time"
)

// What may wait in memory.
const (
	queueFor  = 4                // calls, for one that may be open
	minQueue  = 256              // calls, however few may be open
	queueTime = 10 * time.Second // at the pace at which the destination takes them
	maxHeld   = 256 << 20        // bytes, for all destinations together
)

// What calls weigh, roughly: beside its body, one that waits, and one under way
// with its goroutines and its connection.
const (
	waitWeight = 1 << 10
	openWeight = 32 << 10
)

// backEvery is how many calls there are for one that came back, as long as there
// are live ones: those keep 80%.
const backEvery = 5

type queue []*call

func (q *queue) pop() *call {
	c := (*q)[0]
	(*q)[0] = nil
	*q = (*q)[1:]
	return c
}

// enqueue starts a call or adds it to the destination's queue. Where it does not
// fit, it returns a channel that is closed when it may. Where the destination
// must not be called, and nobody knows for how long, it says why.
func (d *destination) enqueue(c *call) (room <-chan struct{}, why string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := time.Now()
	d.adopt(now)
	why = d.closed(now)
	if c.ctx.Err() == nil && why == "" { // else its partition's calls were released already
		q := &d.live
		if c.back {
			q = &d.back
		}
		started := len(d.live)+len(d.back) == 0 && d.mayOpen() && d.token()
		if started || d.fits(*q) {
			d.held.Add(c.weight())
			if started {
				d.run(c)
			} else {
				*q = append(*q, c)
			}
			return nil, ""
		}
	}
	if d.room == nil {
		d.room = make(chan struct{})
	}
	return d.room, why
}

// fits says whether one more may wait. What waits long keeps its partition from
// being committed, so time is a limit too. Called with mu held.
func (d *destination) fits(q queue) bool {
	most := min(max(minQueue, queueFor*d.most), int(queueTime/d.each(time.Now())))
	return len(q) < most && d.held.Load() < maxHeld
}

// mayOpen says whether one more call may be under way. When all destinations
// together take too much memory, each may have one. Called with mu held.
func (d *destination) mayOpen() bool {
	return d.open == 0 || d.open < d.most && d.held.Load() < maxHeld
}

// token takes a token of the rate limit. If there is none, the alarm is set for
// the next one. Called with mu held.
func (d *destination) token() bool {
	now := time.Now()
	r := d.limiter.ReserveN(now, 1)
	wait := r.DelayFrom(now)
	if wait <= 0 {
		return true
	}
	r.CancelAt(now)
	if d.alarm == nil {
		d.alarm = time.AfterFunc(wait, d.ring)
	}
	return false
}

func (d *destination) ring() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.resume()
}

// resume starts what may be started, with the limits as they are now, and has
// those who wait for room try again. Called with mu held.
func (d *destination) resume() {
	if d.alarm != nil {
		d.alarm.Stop()
		d.alarm = nil
	}
	for c := d.next(); c != nil; c = d.next() {
		d.run(c)
	}
	d.tell()
}

// next takes a call off the queue if one more may be under way. Called with mu
// held.
func (d *destination) next() *call {
	if len(d.live)+len(d.back) == 0 || !d.mayOpen() || !d.token() {
		return nil
	}
	switch {
	case len(d.back) == 0:
		return d.live.pop()
	case len(d.live) == 0:
		return d.back.pop()
	}
	d.turn++
	if d.turn%backEvery == 0 {
		return d.back.pop()
	}
	return d.live.pop()
}

// run makes a call under way. Called with mu held.
func (d *destination) run(c *call) {
	d.begin()
	go d.work(c)
}

// begin takes a call into the books. Called with mu held.
func (d *destination) begin() {
	d.open++
	d.entering++
	d.held.Add(openWeight)
}

// entered says that a call is through the guard, or is not to be made.
func (d *destination) entered(c *call) {
	if c.entered {
		return
	}
	c.entered = true
	d.mu.Lock()
	defer d.mu.Unlock()
	d.entering--
}

// work makes calls until none may be made.
func (d *destination) work(c *call) {
	for c != nil {
		d.process(c)
		c = d.done(c)
	}
}

// done takes a call off the books and returns the next one for its worker.
func (d *destination) done(c *call) *call {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.open--
	d.held.Add(-c.weight() - openWeight)
	d.tell()
	c = d.next()
	if c != nil {
		d.begin()
		d.resume() // there may be room for more
	}
	return c
}

// tell wakes those who wait for room. Called with mu held.
func (d *destination) tell() {
	if d.room != nil {
		close(d.room)
		d.room = nil
	}
}

// release gives back what is queued of a partition that goes to another sink.
func (d *destination) release(partition context.Context) {
	for _, c := range d.unqueue(func(c *call) bool { return c.ctx == partition }) {
		c.ticket.Release()
	}
}

// unqueue takes calls off the queue.
func (d *destination) unqueue(which func(*call) bool) (taken []*call) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, q := range []*queue{&d.live, &d.back} {
		var kept queue
		for _, c := range *q {
			if which(c) {
				taken = append(taken, c)
				d.held.Add(-c.weight())
			} else {
				kept = append(kept, c)
			}
		}
		*q = kept
	}
	if len(taken) > 0 {
		d.resume()
	}
	return taken
}
