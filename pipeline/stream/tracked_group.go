package stream

import (
	"context"
	"net"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// consume makes the client that reads. It lives as long as base.
func (t *Tracked) consume(base context.Context) (err error) {
	balancer := kgo.CooperativeStickyBalancer()
	if t.cfg.Lanes {
		balancer = newLaneBalancer(t.cfg.Names, t.rejoin)
	}
	t.mu.Lock() // the client calls back at once
	defer t.mu.Unlock()
	t.cons, err = t.cfg.client(
		kgo.WithContext(base),
		kgo.ConsumerGroup(t.cfg.Names.Group(t.cfg.Role)),
		kgo.ConsumeTopics(t.topics...),
		kgo.DisableAutoCommit(),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.Balancers(balancer),
		kgo.SessionTimeout(sessTimeout),
		kgo.HeartbeatInterval(heartbeat/2),
		kgo.RebalanceTimeout(t.cfg.Drain+goodbye),
		kgo.FetchMaxWait(fetchWait),
		kgo.FetchMaxPartitionBytes(1<<20),
		kgo.OnPartitionsAssigned(t.await.given),
		kgo.OnOffsetsFetched(t.fetched),
		kgo.AdjustFetchOffsetsFn(t.start),
		kgo.WithHooks(unreachable(t.renewProducer)),
		kgo.OnPartitionsRevoked(t.revoked),
		kgo.OnPartitionsLost(t.lost),
	)
	return err
}

// fetched makes the window of each partition that comes to this member, from
// what its former owner committed.
func (t *Tracked) fetched(ctx context.Context, cl *kgo.Client, r *kmsg.OffsetFetchResponse) error {
	if err := t.learnSizes(ctx, cl, r); err != nil {
		return err
	}
	t.calm(func() {
		for _, g := range r.Groups {
			for _, topic := range g.Topics {
				for _, p := range topic.Partitions {
					if p.ErrorCode == 0 { // else the client reports it by itself
						t.assign(topicPartition{topic.Topic, p.Partition}, p.Offset, p.Metadata)
					}
				}
			}
		}
	})
	t.await.came()
	t.health.set(reading, nil)
	t.tellOwned()
	return nil
}

// offsetsHeld is told why offsets don't come; nil when they do again. What holds
// them may be a transaction of our own: a new producer ends that.
func (t *Tracked) offsetsHeld(err error) {
	t.health.set(assigning, err)
	if err == nil {
		return
	}
	t.cfg.log().Warn("waiting for partitions", "role", t.cfg.Role, "error", err)
	t.renewProducer()
}

// unreachable is called when a broker can't be reached.
type unreachable func()

// OnBrokerConnect implements kgo.HookBrokerConnect.
func (f unreachable) OnBrokerConnect(_ kgo.BrokerMetadata, _ time.Duration, _ net.Conn, err error) {
	if err != nil {
		f()
	}
}

// renewProducer has a new producer made before the next transaction, or soon:
// Kafka may have crashed.
func (t *Tracked) renewProducer() {
	t.prod.stale.Store(true)
	wake(t.dirty)
}

func (t *Tracked) rejoin() {
	t.mu.Lock()
	cl := t.cons
	t.mu.Unlock()
	cl.ForceRebalance()
}

func (t *Tracked) assign(tp topicPartition, offset int64, metadata *string) {
	p := &partition{topicPartition: tp, wake: make(chan struct{}, 1)}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	if offset >= 0 {
		p.window.next = offset
		if metadata != nil {
			skip, err := decodeEnded(offset, *metadata)
			if err != nil { // someone set the offset by hand: nothing to skip
				t.cfg.log().Warn("commit without Millrace's metadata", "topic", tp.topic, "partition", tp.partition, "error", err)
			}
			p.window.skip = skip
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	p.kept = t.kept.take(tp)
	if old := t.owned[tp]; old != nil {
		old.gone = true
		old.cancel()
	}
	t.owned[tp] = p
	// A pause outlives a rebalance in the client.
	t.cons.ResumeFetchPartitions(tp.asMap())
	t.feeds.Go(func() { t.feed(p) })
}

func (tp topicPartition) asMap() map[string][]int32 {
	return map[string][]int32{tp.topic: {tp.partition}}
}

// start begins partitions without a commit at the start of their log.
func (t *Tracked) start(ctx context.Context, offsets map[string]map[int32]kgo.Offset) (map[string]map[int32]kgo.Offset, error) {
	return offsets, startAt(ctx, t.cfg.Config, offsets, nil)
}

func (t *Tracked) tellOwned() {
	if t.cfg.OnOwned == nil {
		return
	}
	t.telling.Lock()
	defer t.telling.Unlock()
	owned := map[string]Owned{}
	for topic, partitions := range t.all() {
		owned[topic] = Owned{partitions, max(t.size(topic), len(partitions))}
	}
	t.cfg.OnOwned(owned)
}

func (t *Tracked) size(topic string) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return max(1, t.sizes[topic])
}

// learnSizes asks for the number of partitions of topics, if OnOwned wants it.
func (t *Tracked) learnSizes(ctx context.Context, cl *kgo.Client, r *kmsg.OffsetFetchResponse) error {
	if t.cfg.OnOwned == nil {
		return nil
	}
	var topics []string
	for _, g := range r.Groups {
		for _, topic := range g.Topics {
			topics = append(topics, topic.Topic)
		}
	}
	found, err := describe(ctx, kadm.NewClient(cl), topics)
	if err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for name, topic := range found {
		t.sizes[name] = topic.Partitions
	}
	return nil
}

// all returns what is owned.
func (t *Tracked) all() map[string][]int32 {
	t.mu.Lock()
	defer t.mu.Unlock()
	m := map[string][]int32{}
	for tp := range t.owned {
		m[tp.topic] = append(m[tp.topic], tp.partition)
	}
	return m
}

// revoked takes no more of those partitions, waits for what is open in them,
// commits it, and lets them go; the others go on all the while.
func (t *Tracked) revoked(ctx context.Context, cl *kgo.Client, m map[string][]int32) {
	t.await.gone(ctx, cl, m)
	parts := t.leave(m)
	if len(parts) == 0 {
		return
	}
	t.drain(ctx, parts)
	ctx, cancel := context.WithTimeout(ctx, goodbye-sessTimeout)
	defer cancel()
	// The group waits for this, so it is too late to get into step again.
	t.commitUntil(ctx, outOfStep)
	t.forget(parts)
}

// lost forgets partitions that are somebody else's already.
func (t *Tracked) lost(_ context.Context, _ *kgo.Client, m map[string][]int32) {
	t.await.came()
	t.renewProducer()
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

// drain waits until nothing is open in the partitions, for Drain at most.
func (t *Tracked) drain(ctx context.Context, parts []*partition) {
	const look = 50 * time.Millisecond // moved wakes only one of several waiters
	ctx, cancel := context.WithTimeout(ctx, t.cfg.Drain)
	defer cancel()
	tick := time.NewTicker(look)
	defer tick.Stop()
	for t.openIn(parts) > 0 {
		select {
		case <-t.moved:
		case <-tick.C:
		case <-ctx.Done():
			t.cfg.log().Warn("calls were still open when their partitions had to go; they will be made again",
				"role", t.cfg.Role, "open", t.openIn(parts))
			return
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

func (t *Tracked) forget(parts []*partition) {
	t.mu.Lock()
	for _, p := range parts {
		p.gone = true
		if t.owned[p.topicPartition] == p {
			delete(t.owned, p.topicPartition)
		}
	}
	t.mu.Unlock()
	t.tellOwned()
}
