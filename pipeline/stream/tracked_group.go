package stream

import (
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// fetched makes the window of each partition that comes to this member, from
// what its former owner committed.
func (t *Tracked) fetched(ctx context.Context, cl *kgo.Client, r *kmsg.OffsetFetchResponse) error {
	for _, g := range r.Groups {
		for _, topic := range g.Topics {
			name, err := t.topicName(ctx, cl, topic.Topic, topic.TopicID)
			if err != nil {
				return err
			}
			if err := t.learnSize(ctx, cl, name); err != nil {
				return err
			}
			for _, p := range topic.Partitions {
				if p.ErrorCode != 0 { // the client reports it by itself
					continue
				}
				if err := t.assign(topicPartition{name, p.Partition}, p.Offset, p.Metadata); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// topicName resolves what a response calls a topic: newer ones use ids alone.
func (t *Tracked) topicName(ctx context.Context, cl *kgo.Client, name string, id [16]byte) (string, error) {
	if name != "" {
		return name, nil
	}
	t.mu.Lock()
	name = t.ids[id]
	t.mu.Unlock()
	if name != "" {
		return name, nil
	}
	topics, err := kadm.NewClient(cl).ListTopics(ctx)
	if err != nil {
		return "", fmt.Errorf("resolving the ids of topics: %w", err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, d := range topics {
		t.ids[d.ID] = d.Topic
	}
	if name = t.ids[id]; name == "" {
		return "", fmt.Errorf("topic with id %x is not known", id)
	}
	return name, nil
}

// learnSize asks for a topic's number of partitions, once: it never changes.
func (t *Tracked) learnSize(ctx context.Context, cl *kgo.Client, topic string) error {
	t.mu.Lock()
	known := t.sizes[topic] > 0
	t.mu.Unlock()
	if known || t.cfg.OnOwned == nil {
		return nil
	}
	topics, err := kadm.NewClient(cl).ListTopics(ctx, topic)
	if err == nil {
		err = topics.Error()
	}
	if err != nil {
		return fmt.Errorf("asking for the partitions of %s: %w", topic, err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sizes[topic] = len(topics[topic].Partitions)
	return nil
}

func (t *Tracked) assign(tp topicPartition, offset int64, metadata *string) error {
	p := &partition{topicPartition: tp, wake: make(chan struct{}, 1)}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	if offset >= 0 {
		p.window.next = offset
		p.window.skip.base = offset
		if metadata != nil {
			skip, err := decodeEnded(offset, *metadata)
			if err != nil { // someone set the offset by hand: nothing to skip
				t.cfg.log().Warn("commit without Millrace's metadata", "topic", tp.topic, "partition", tp.partition, "error", err)
			} else {
				p.window.skip = skip
			}
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if old := t.owned[tp]; old != nil {
		old.gone = true
		old.cancel()
	}
	t.owned[tp] = p
	// A pause outlives a rebalance in the client.
	t.cons.ResumeFetchPartitions(map[string][]int32{tp.topic: {tp.partition}})
	t.feeds.Add(1)
	go t.feed(p)
	t.tellOwned()
	return nil
}

// start begins partitions without a commit at the start of their log.
func (t *Tracked) start(ctx context.Context, offsets map[string]map[int32]kgo.Offset) (map[string]map[int32]kgo.Offset, error) {
	return offsets, startAt(ctx, t.cfg.Config, offsets, nil)
}

// tellOwned is called with mu held.
func (t *Tracked) tellOwned() {
	if t.cfg.OnOwned == nil {
		return
	}
	shares := map[string]float64{}
	for tp := range t.owned {
		shares[tp.topic] += 1 / float64(max(1, t.sizes[tp.topic]))
	}
	t.cfg.OnOwned(shares)
}

// revoked takes no more of those partitions, waits for what is open in them,
// commits it, and lets them go; the others go on all the while.
func (t *Tracked) revoked(_ context.Context, _ *kgo.Client, m map[string][]int32) {
	parts := t.leave(m)
	if len(parts) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), t.cfg.Drain)
	defer cancel()
	if n := t.drain(ctx, parts); n > 0 {
		t.cfg.log().Warn("calls were still open when their partitions had to go; they will be made again",
			"role", t.cfg.Role, "open", n)
	}
	var wait backoff
	for t.uncommitted(parts) && ctx.Err() == nil {
		if err := t.commit(ctx); err != nil {
			sleep(ctx, wait.next())
		}
	}
	t.forget(parts)
}

// lost forgets partitions that are somebody else's already.
func (t *Tracked) lost(_ context.Context, _ *kgo.Client, m map[string][]int32) {
	t.forget(t.leave(m))
}

// leave makes the feeds of partitions stop.
func (t *Tracked) leave(m map[string][]int32) []*partition {
	t.mu.Lock()
	defer t.mu.Unlock()
	var parts []*partition
	for topic, ps := range m {
		for _, n := range ps {
			if p := t.owned[topicPartition{topic, n}]; p != nil {
				p.cancel()
				p.queue = nil
				parts = append(parts, p)
			}
		}
	}
	return parts
}

// drain waits until nothing is open in the partitions, and returns what is.
func (t *Tracked) drain(ctx context.Context, parts []*partition) int {
	const look = 50 * time.Millisecond // moved wakes only one of several waiters
	tick := time.NewTicker(look)
	defer tick.Stop()
	for {
		n := t.openIn(parts)
		if n == 0 {
			return 0
		}
		select {
		case <-t.moved:
		case <-tick.C:
		case <-ctx.Done():
			return n
		}
	}
}

func (t *Tracked) openIn(parts []*partition) (n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, p := range parts {
		n += p.open
	}
	return n
}

func (t *Tracked) uncommitted(parts []*partition) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, k := range t.done {
		for _, p := range parts {
			if k.p == p {
				return true
			}
		}
	}
	return false
}

func (t *Tracked) forget(parts []*partition) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, p := range parts {
		p.gone = true
		p.cancel()
		if t.owned[p.topicPartition] == p {
			delete(t.owned, p.topicPartition)
		}
		t.trim.forget(p.topic, p.partition)
	}
	t.tellOwned()
}
