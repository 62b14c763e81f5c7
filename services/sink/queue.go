package sink

import "time"

// queueFor is how many calls may wait in memory for one that can be open.
const queueFor = 4

// minQueue is the shortest queue of a destination.
const minQueue = 256

// enqueue adds a call to the destination's queue, and starts a worker for it if
// there may be one more; false if the queue is full.
func (d *destination) enqueue(c *call) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.open < d.most {
		d.open++
		go d.work(c)
		return true
	}
	if len(d.queue) >= max(minQueue, queueFor*d.most) {
		return false
	}
	d.queue = append(d.queue, c)
	return true
}

// wait adds a call once there is room. Its error is the context's: the partition
// goes to another sink.
func (d *destination) wait(c *call) error {
	for {
		d.mu.Lock()
		room := d.room
		d.mu.Unlock()
		if d.enqueue(c) {
			return nil
		}
		select {
		case <-room:
		case <-c.ctx.Done():
			return c.ctx.Err()
		}
	}
}

// work makes calls until none is queued.
func (d *destination) work(c *call) {
	for c != nil {
		d.process(c)
		c = d.next()
	}
}

// next takes a call off the queue; without one the worker ends.
func (d *destination) next() *call {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.queue) == 0 || d.open > d.most {
		d.open--
		return nil
	}
	c := d.queue[0]
	d.queue[0] = nil
	d.queue = d.queue[1:]
	if len(d.queue) == max(minQueue, queueFor*d.most)/2 {
		close(d.room)
		d.room = make(chan struct{})
	}
	return c
}

// measure takes a call's latency into the average.
func (d *destination) measure(latency time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.latency += (latency - d.latency) / 8
}
