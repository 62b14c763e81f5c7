package stream

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"
)

// offsetsLate is how long a member may wait for the offsets of partitions that
// it was given, before it looks what holds them: transactions take milliseconds,
// but one of a producer that died is ended after 4 to 20 s.
const offsetsLate = 5 * time.Second

// offsetsWatch notices that Kafka keeps back the offsets of partitions that this
// member was given.
type offsetsWatch struct {
	cfg   Config
	group string

	mu         sync.Mutex
	since      time.Time          // when they were given; zero while nothing is awaited
	partitions map[string][]int32 // which
}

// given is for kgo.OnPartitionsAssigned.
func (w *offsetsWatch) given(_ context.Context, _ *kgo.Client, m map[string][]int32) {
	if len(m) == 0 {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.since.IsZero() {
		w.since, w.partitions = time.Now(), map[string][]int32{}
	}
	for topic, partitions := range m {
		w.partitions[topic] = append(w.partitions[topic], partitions...)
	}
}

// gone is for kgo.OnPartitionsRevoked.
func (w *offsetsWatch) gone(_ context.Context, _ *kgo.Client, m map[string][]int32) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.since.IsZero() {
		return
	}
	for topic, partitions := range m {
		w.partitions[topic] = slices.DeleteFunc(w.partitions[topic], func(p int32) bool { return slices.Contains(partitions, p) })
		if len(w.partitions[topic]) == 0 {
			delete(w.partitions, topic)
		}
	}
	if len(w.partitions) == 0 {
		w.since = time.Time{}
	}
}

// came says that the offsets came, or are awaited no more.
func (w *offsetsWatch) came() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.since, w.partitions = time.Time{}, nil
}

// waited says for how long offsets have been awaited, 0 where none are.
func (w *offsetsWatch) waited() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.since.IsZero() {
		return 0
	}
	return time.Since(w.since)
}

// request asks for what is awaited.
func (w *offsetsWatch) request() *kmsg.OffsetFetchRequest {
	w.mu.Lock()
	defer w.mu.Unlock()
	g := kmsg.NewOffsetFetchRequestGroup()
	g.Group = w.group
	for topic, partitions := range w.partitions {
		t := kmsg.NewOffsetFetchRequestGroupTopic()
		t.Topic, t.Partitions = topic, slices.Clone(partitions)
		g.Topics = append(g.Topics, t)
	}
	req := kmsg.NewPtrOffsetFetchRequest()
	req.RequireStable, req.Groups = true, []kmsg.OffsetFetchRequestGroup{g}
	return req
}

// run tells of offsets that are kept back, first after 5 s, then less and less
// often, and with nil once they are not, until ctx ends.
func (w *offsetsWatch) run(ctx context.Context, tell func(error)) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	next, told := offsetsLate, false
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			if told {
				tell(nil)
			}
			return
		}
		waited := w.waited()
		if waited < offsetsLate {
			if told {
				tell(nil)
			}
			next, told = offsetsLate, false
		}
		if waited < next {
			continue
		}
		next += min(next, time.Minute)
		err := w.held(ctx, waited)
		if err != nil || told {
			tell(err)
		}
		told = err != nil
	}
}

// held returns an error that says which offsets are kept back; nil if none are.
func (w *offsetsWatch) held(ctx context.Context, waited time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, pingTimeout)
	defer cancel()
	versions := kversion.Stable()
	versions.SetMaxKeyVersion(int16(kmsg.OffsetFetch), 9) // the last that names topics
	cl, err := w.cfg.client(kgo.MaxVersions(versions))
	if err != nil {
		return err
	}
	defer cl.Close()
	req := w.request()
	if len(req.Groups[0].Topics) == 0 { // they have come meanwhile
		return nil
	}
	resp, err := req.RequestWith(ctx, cl)
	if err != nil {
		return fmt.Errorf("asking for the offsets of group %s: %w", w.group, err)
	}
	n, one := 0, topicPartition{}
	for _, g := range resp.Groups {
		for _, t := range g.Topics {
			for _, p := range t.Partitions {
				if kerr.ErrorForCode(p.ErrorCode) == kerr.UnstableOffsetCommit { //nolint:errorlint // never wrapped
					n, one = n+1, topicPartition{t.Topic, p.Partition}
				}
			}
		}
	}
	if n == 0 {
		return nil
	}
	return fmt.Errorf("an open transaction has held the offsets of group %s for %d partitions, %s/%d among them, for %v: "+
		"it ends by itself within 20 s, or when the instance that began it is back; "+
		"if it does not, look for it with kafka-transactions.sh find-hanging",
		w.group, n, one.topic, one.partition, waited.Round(time.Second))
}
