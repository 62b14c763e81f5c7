package stream

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"
)

// A transaction hangs where the marker that ends it is missing although its
// coordinator says that it is complete. Apache Kafka 4.3.1 leaves such behind
// when it comes back from a crash: it takes partitions that have no leader yet
// for deleted, and skips their markers (KAFKA-20734); every fifth kill of a
// one-node Kafka under load does it. From there on readers of committed records
// stand still, and where the group's offsets were part of it, nobody gets those
// partitions any more.
//
// The next transaction of the same producer that touches the same partitions
// ends the former one too, as whatever it ends itself. So that has to be one
// made for it, before any other.

// hanging is what the last transaction of a producer has left without an end.
type hanging struct {
	id         string
	producer   int64
	partitions map[string][]int32
	group      string // whose offsets may be held, which only their partitions' new owner can see; or ""
	commit     bool   // how the transaction ended
}

// endHanging gives the last transaction of a transactional id its end wherever
// it hangs. It is called before a producer is made under that id; group is the
// one whose offsets the producer commits, or "". Where the rights to look are
// missing, nothing is ended.
func endHanging(ctx context.Context, cfg Config, id, group string) error {
	ctx, cancel := context.WithTimeout(ctx, txnTimeout)
	defer cancel()
	versions := kversion.Stable()
	versions.SetMaxKeyVersion(int16(kmsg.EndTxn), 4) // the older protocol, as AddPartitionsToTxn is
	cl, err := cfg.client(kgo.MaxVersions(versions))
	if err != nil {
		return err
	}
	defer cl.Close()
	pause, err := pauseFor(ctx, cl)
	if err != nil || pause == 0 { // the embedded broker mends its own at its start
		return err
	}
	h, err := findHanging(ctx, cfg, cl, id, group)
	for kerr.IsRetriable(err) && ctx.Err() == nil { // coordinators may have to be found first
		sleep(ctx, markersPause)
		h, err = findHanging(ctx, cfg, cl, id, group)
	}
	if ctx.Err() != nil {
		return fmt.Errorf("looking for a transaction of %s that hangs: %w", id, errors.Join(err, ctx.Err()))
	}
	if err != nil {
		cfg.log().Warn("can't tell whether Kafka has left a transaction hanging", "transactional_id", id, "error", err)
		return nil
	}
	if len(h.partitions) == 0 && h.group == "" {
		return nil
	}
	if err := h.end(ctx, cl); err != nil {
		return fmt.Errorf("ending a transaction of %s that hangs: %w", id, err)
	}
	if len(h.partitions) > 0 {
		cfg.log().Warn("ended a transaction that Kafka had left hanging",
			"transactional_id", id, "partitions", h.partitions, "committed", h.commit)
	}
	return nil
}

// findHanging looks at all topics with the prefix, since any of them may be
// written to.
func findHanging(ctx context.Context, cfg Config, cl *kgo.Client, id, group string) (hanging, error) {
	adm := kadm.NewClient(cl)
	last, err := lastTransaction(ctx, adm, id)
	if err != nil || last.State == "Ongoing" { // which the next producer ends
		return hanging{}, ignore(err, kerr.TransactionalIDNotFound)
	}
	h := hanging{id: id, producer: last.ProducerID, group: group, commit: last.State != "CompleteAbort"}
	h.partitions, err = openIn(ctx, cl, string(cfg.Names), h.producer)
	return h, err
}

func ignore(err, this error) error {
	if errors.Is(err, this) {
		return nil
	}
	return err
}

// lastTransaction says how the last transaction of an id stands, once its
// coordinator is through with it.
func lastTransaction(ctx context.Context, adm *kadm.Client, id string) (kadm.DescribedTransaction, error) {
	for {
		all, err := adm.DescribeTransactions(ctx, id)
		if err != nil {
			return kadm.DescribedTransaction{}, fmt.Errorf("asking for the last transaction: %w", err)
		}
		last := all[id]
		if last.Err != nil || !strings.HasPrefix(last.State, "Prepare") || ctx.Err() != nil {
			return last, last.Err
		}
		sleep(ctx, markersPause)
	}
}

// openIn returns the partitions of topics with a prefix in which a producer has
// a transaction open. Partitions that can't say are left out.
func openIn(ctx context.Context, cl *kgo.Client, prefix string, producer int64) (map[string][]int32, error) {
	topics, err := kadm.NewClient(cl).ListTopics(ctx)
	if err != nil {
		return nil, fmt.Errorf("listing topics: %w", err)
	}
	req := kmsg.NewPtrDescribeProducersRequest()
	for _, topic := range topics.Sorted() {
		if strings.HasPrefix(topic.Topic, prefix) {
			t := kmsg.NewDescribeProducersRequestTopic()
			t.Topic, t.Partitions = topic.Topic, topic.Partitions.Numbers()
			req.Topics = append(req.Topics, t)
		}
	}
	open := map[string][]int32{}
	for _, shard := range cl.RequestSharded(ctx, req) {
		if shard.Err != nil {
			return nil, fmt.Errorf("asking for the producers of topics: %w", shard.Err)
		}
		for _, t := range shard.Resp.(*kmsg.DescribeProducersResponse).Topics {
			for _, p := range t.Partitions {
				if slices.ContainsFunc(p.ActiveProducers, func(a kmsg.DescribeProducersResponseTopicPartitionActiveProducer) bool {
					return a.ProducerID == producer && a.CurrentTxnStartOffset >= 0
				}) {
					open[t.Topic] = append(open[t.Topic], p.Partition)
				}
			}
		}
	}
	return open, nil
}

// end runs a transaction over everything that hangs.
func (h *hanging) end(ctx context.Context, cl *kgo.Client) error {
	init := kmsg.NewPtrInitProducerIDRequest()
	init.TransactionalID, init.TransactionTimeoutMillis = &h.id, int32(txnTimeout.Milliseconds())
	init.ProducerID, init.ProducerEpoch = -1, -1
	var epoch int16
	err := whenCalm(ctx, func() (int16, error) {
		resp, err := init.RequestWith(ctx, cl)
		if err != nil {
			return 0, err
		}
		if resp.ErrorCode == 0 && resp.ProducerID != h.producer {
			return 0, fmt.Errorf("Kafka gave the id another producer, %d after %d", resp.ProducerID, h.producer)
		}
		epoch = resp.ProducerEpoch
		return resp.ErrorCode, nil
	})
	if err == nil && len(h.partitions) > 0 {
		err = whenCalm(ctx, func() (int16, error) { return h.addPartitions(ctx, cl, epoch) })
	}
	if err == nil && h.group != "" {
		err = addOffsets(ctx, cl, h.id, h.producer, epoch, h.group)
	}
	if err != nil {
		return err
	}
	end := kmsg.NewPtrEndTxnRequest()
	end.TransactionalID, end.ProducerID, end.ProducerEpoch, end.Commit = h.id, h.producer, epoch, h.commit
	return whenCalm(ctx, func() (int16, error) {
		resp, err := end.RequestWith(ctx, cl)
		if err != nil {
			return 0, err
		}
		return resp.ErrorCode, nil
	})
}

func (h *hanging) addPartitions(ctx context.Context, cl *kgo.Client, epoch int16) (int16, error) {
	req := kmsg.NewPtrAddPartitionsToTxnRequest()
	req.TransactionalID, req.ProducerID, req.ProducerEpoch = h.id, h.producer, epoch
	for topic, partitions := range h.partitions {
		t := kmsg.NewAddPartitionsToTxnRequestTopic()
		t.Topic, t.Partitions = topic, partitions
		req.Topics = append(req.Topics, t)
	}
	resp, err := req.RequestWith(ctx, cl)
	if err != nil {
		return 0, err
	}
	for _, t := range resp.Topics {
		for _, p := range t.Partitions {
			if p.ErrorCode != 0 {
				return p.ErrorCode, nil
			}
		}
	}
	return resp.ErrorCode, nil
}

// addOffsets makes a group's offsets part of a transaction.
func addOffsets(ctx context.Context, cl *kgo.Client, id string, producer int64, epoch int16, group string) error {
	req := kmsg.NewPtrAddOffsetsToTxnRequest()
	req.TransactionalID, req.ProducerID, req.ProducerEpoch, req.Group = id, producer, epoch, group
	return whenCalm(ctx, func() (int16, error) {
		resp, err := req.RequestWith(ctx, cl)
		if err != nil {
			return 0, err
		}
		return resp.ErrorCode, nil
	})
}

// whenCalm asks again while Kafka still writes the markers of the transaction before.
func whenCalm(ctx context.Context, ask func() (code int16, err error)) error {
	for {
		code, err := ask()
		if err == nil {
			err = kerr.ErrorForCode(code)
		}
		if !errors.Is(err, kerr.ConcurrentTransactions) || ctx.Err() != nil {
			return err
		}
		sleep(ctx, 5*time.Millisecond)
	}
}

// offsetsLate is how long a member may wait for the offsets of partitions that
// it was given, before it looks what holds them: transactions take milliseconds,
// but one of a producer that died is ended after 4 to 14 s.
const offsetsLate = 5 * time.Second

// offsetsWatch notices that Kafka keeps back the offsets of partitions that this
// member was given.
type offsetsWatch struct {
	cfg   Config
	group string

	mu         sync.Mutex
	since      time.Time          // when they were given; zero while nothing is awaited
	partitions map[string][]int32 // which, and some that have gone again
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
		t.Topic, t.Partitions = topic, slices.Compact(slices.Sorted(slices.Values(partitions)))
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
		if err := w.held(ctx, waited); err != nil {
			tell(err)
			told = true
		}
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
	resp, err := w.request().RequestWith(ctx, cl)
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
		"it ends by itself within 15 s, or when the instance that began it is back; "+
		"if it does not, look for it with kafka-transactions.sh find-hanging",
		w.group, n, one.topic, one.partition, waited.Round(time.Second))
}
