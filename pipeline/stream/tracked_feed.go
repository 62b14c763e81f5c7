package stream

import (
	"context"

	"github.com/twmb/franz-go/pkg/kgo"
)

// partition is one partition while it is owned. Its fields are guarded by
// Tracked.mu, but for the first ones, which don't change.
type partition struct {
	topicPartition
	ctx    context.Context // ends when the partition has to go
	cancel context.CancelFunc
	wake   chan struct{} // something changed for the feed

	window window
	queue  []*kgo.Record // fetched, not taken
	bytes  int           // of their values
	paused bool
	open   int               // tickets that are neither ended nor released
	gone   bool              // somebody else's, maybe
	kept   map[int64]*Ticket // ended when the partition was ours before
}

// enqueue hands fetched records to the partition's feed. Fetching pauses while
// the feed is far behind: polling must go on for the other partitions.
func (t *Tracked) enqueue(f kgo.FetchTopicPartition) {
	if len(f.Records) == 0 {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.owned[topicPartition{f.Topic, f.Partition}]
	if p == nil || p.ctx.Err() != nil {
		return
	}
	p.queue = append(p.queue, f.Records...)
	for _, r := range f.Records {
		p.bytes += len(r.Value)
	}
	if !p.paused && (len(p.queue) > queueHigh || p.bytes > queueHighBytes) {
		p.paused = true
		t.cons.PauseFetchPartitions(p.asMap())
	}
	wake(p.wake)
}

// wakeFeeds lets partitions take again, and calls begin: commits keep up,
// windows have room. It is called with mu held.
func (t *Tracked) wakeFeeds() {
	close(t.landing)
	t.landing = make(chan struct{})
	for _, p := range t.owned {
		wake(p.wake)
	}
}

// feed takes one partition's records in order until the partition goes.
func (t *Tracked) feed(p *partition) {
	for k := t.next(p); k != nil; k = t.next(p) {
		err := t.take(p, k)
		if err == nil {
			continue
		}
		k.Release()
		if p.ctx.Err() == nil {
			t.fail(err)
			return
		}
	}
}

func (t *Tracked) take(p *partition, k *Ticket) (err error) {
	defer func() {
		if v := recover(); v != nil {
			t.bury(k, panicked(t.cfg.Config, t.cfg.Role, &k.Record, v))
		}
	}()
	return t.cfg.Handler.Take(p.ctx, k)
}

// next waits for the next record to take; nil once the partition goes.
func (t *Tracked) next(p *partition) *Ticket {
	for {
		if k := t.tryNext(p); k != nil {
			return k
		}
		select {
		case <-p.wake:
		case <-p.ctx.Done():
			return nil
		}
	}
}

func (t *Tracked) tryNext(p *partition) *Ticket {
	t.mu.Lock()
	defer t.mu.Unlock()
	if p.ctx.Err() != nil {
		return nil
	}
	for len(p.queue) > 0 && p.window.room(p.queue[0].Offset) && !t.late() {
		r := p.queue[0]
		p.queue[0] = nil
		p.queue = p.queue[1:]
		p.bytes -= len(r.Value)
		if p.paused && len(p.queue) < queueLow && p.bytes < queueHighBytes/2 {
			p.paused = false
			t.cons.ResumeFetchPartitions(p.asMap())
		}
		if !p.window.take(r.Offset) || t.endAgain(p, r) {
			continue
		}
		p.open++
		return &Ticket{Record: asRecord(r), t: t, p: p}
	}
	return nil
}
