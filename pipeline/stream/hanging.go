package stream

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
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

// The time-out of the transaction that does it says which end it has: the
// coordinator keeps it, so that whoever finds that transaction unfinished can end
// it as it was meant. It is longer than that of others, since when it is over
// Kafka aborts.
const (
	commitTimeout = time.Minute + time.Millisecond
	abortTimeout  = time.Minute + 2*time.Millisecond
)

// leadersTime is how long partitions may have no leader that answers before it
// goes on without them: Kafka notices after 9 s that a broker has died, and after
// a crash of all has leaders within a second.
const leadersTime = 8 * time.Second

// endTime is what the transaction that ends another may take, whatever becomes of
// the runner meanwhile. It takes some 50 ms.
const endTime = 5 * time.Second

// hanging is what the last transaction of a producer has left without an end.
type hanging struct {
	id         string
	producer   int64
	epoch      int16
	open       bool // its coordinator holds it for open too
	ours       bool // it is one that was to end another, and was cut short
	partitions map[string][]int32
	group      string // whose offsets may be held, which only their partitions' new owner can see; or ""
	commit     bool   // how the transaction ended
}

// endHanging gives the last transaction of a transactional id its end wherever
// it hangs. It is called before a producer is made under that id; group is the
// one whose offsets the producer commits, or "". Where Kafka doesn't say how that
// transaction ended, since that is too old or the rights are missing, nothing is
// done.
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
	if known, err := saysWhatHangs(ctx, cl); err != nil || !known {
		return err
	}
	for {
		h, err := findHanging(ctx, cfg, cl, id, group)
		switch _, refused := errors.AsType[*kerr.Error](err); {
		case ctx.Err() != nil, err != nil && !refused:
			return fmt.Errorf("looking for a transaction of %s that hangs: %w", id, errors.Join(err, ctx.Err()))
		case err != nil:
			cfg.log().Warn("can't tell whether Kafka has left a transaction hanging", "transactional_id", id, "error", err)
			return nil
		case h == nil:
			return nil
		}
		if err := h.end(ctx, cl); err != nil {
			return fmt.Errorf("ending a transaction of %s that hangs: %w", id, err)
		}
		if len(h.partitions) > 0 {
			cfg.log().Warn("ended a transaction that Kafka had left hanging",
				"transactional_id", id, "partitions", h.partitions, "committed", h.commit)
		}
		if !h.open && len(h.partitions) == 0 {
			return nil // else Kafka may have left out markers once more
		}
	}
}

// saysWhatHangs says whether the cluster knows the requests of KIP-664, as Apache
// Kafka does from 3.0 on.
func saysWhatHangs(ctx context.Context, cl *kgo.Client) (bool, error) {
	resp, err := askVersions(ctx, cl)
	if err != nil {
		return false, err
	}
	known := map[int16]bool{}
	for _, k := range resp.ApiKeys {
		known[k.ApiKey] = true
	}
	return known[int16(kmsg.DescribeProducers)] && known[int16(kmsg.DescribeTransactions)], nil
}

// findHanging returns what has to be ended; nil if that is nothing.
func findHanging(ctx context.Context, cfg Config, cl *kgo.Client, id, group string) (*hanging, error) {
	last, err := lastTransaction(ctx, kadm.NewClient(cl), id)
	if errors.Is(err, kerr.TransactionalIDNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	h := &hanging{
		id: id, producer: last.ProducerID, epoch: last.ProducerEpoch, group: group,
		open: last.State == "Ongoing", commit: last.State != "CompleteAbort",
	}
	switch time.Duration(last.TimeoutMillis) * time.Millisecond {
	case commitTimeout:
		h.ours, h.commit = true, true
	case abortTimeout:
		h.ours, h.commit = true, false
	}
	switch {
	case h.open && !h.ours && group == "": // another writer's of a log, who may be at it
		return nil, nil
	case h.open:
		return h, nil
	}
	if err := h.look(ctx, cfg, cl); err != nil || len(h.partitions) == 0 && group == "" {
		return nil, err
	}
	return h, nil
}

// lastTransaction says how the last transaction of an id stands, once its
// coordinator is there and through with it.
func lastTransaction(ctx context.Context, adm *kadm.Client, id string) (kadm.DescribedTransaction, error) {
	for {
		all, err := adm.DescribeTransactions(ctx, id)
		last := all[id]
		if err == nil {
			err = last.Err
		}
		again := kerr.IsRetriable(err) || err == nil && strings.HasPrefix(last.State, "Prepare")
		if !again || ctx.Err() != nil {
			return last, err
		}
		sleep(ctx, markersPause)
	}
}

// look finds the partitions in which the producer has a transaction open, in all
// topics with the prefix, since any of them may be written to.
func (h *hanging) look(ctx context.Context, cfg Config, cl *kgo.Client) error {
	began := time.Now()
	unseen, again, err := h.lookOnce(ctx, string(cfg.Names), cl)
	for again && err == nil && time.Since(began) < leadersTime && ctx.Err() == nil {
		sleep(ctx, markersPause)
		unseen, again, err = h.lookOnce(ctx, string(cfg.Names), cl)
	}
	if unseen != nil {
		cfg.log().Warn("can't tell of every partition whether Kafka has left a transaction hanging there",
			"transactional_id", h.id, "error", unseen)
	}
	return err
}

// lookOnce is look, once. unseen is why a partition could not be asked; again,
// whether that may pass.
func (h *hanging) lookOnce(ctx context.Context, prefix string, cl *kgo.Client) (unseen error, again bool, err error) {
	topics, err := kadm.NewClient(cl).ListTopics(ctx)
	if err != nil {
		return nil, false, fmt.Errorf("listing topics: %w", err)
	}
	miss := func(topic string, partition int32, err error) {
		if err != nil {
			refused, ok := errors.AsType[*kerr.Error](err)
			unseen, again = fmt.Errorf("%s/%d: %w", topic, partition, err), again || !ok || refused.Retriable
		}
	}
	req := kmsg.NewPtrDescribeProducersRequest()
	for _, topic := range topics.Sorted() {
		if !strings.HasPrefix(topic.Topic, prefix) {
			continue
		}
		t := kmsg.NewDescribeProducersRequestTopic()
		t.Topic = topic.Topic
		for _, p := range topic.Partitions.Sorted() {
			if p.Leader < 0 {
				miss(topic.Topic, p.Partition, kerr.LeaderNotAvailable)
				continue
			}
			t.Partitions = append(t.Partitions, p.Partition)
		}
		if len(t.Partitions) > 0 {
			req.Topics = append(req.Topics, t)
		}
	}
	h.partitions = map[string][]int32{}
	for _, shard := range cl.RequestSharded(ctx, req) {
		asked := shard.Req.(*kmsg.DescribeProducersRequest).Topics
		if shard.Err != nil {
			for _, t := range asked {
				miss(t.Topic, t.Partitions[0], shard.Err)
			}
			continue
		}
		for _, t := range shard.Resp.(*kmsg.DescribeProducersResponse).Topics {
			for _, p := range t.Partitions {
				miss(t.Topic, p.Partition, kerr.ErrorForCode(p.ErrorCode))
				if slices.ContainsFunc(p.ActiveProducers, h.isOpen) {
					h.partitions[t.Topic] = append(h.partitions[t.Topic], p.Partition)
				}
			}
		}
	}
	return unseen, again, nil
}

func (h *hanging) isOpen(a kmsg.DescribeProducersResponseTopicPartitionActiveProducer) bool {
	return a.ProducerID == h.producer && a.CurrentTxnStartOffset >= 0
}

// end runs a transaction over everything that hangs, or ends one that is open. It
// stops for nothing but Kafka.
func (h *hanging) end(ctx context.Context, cl *kgo.Client) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), endTime)
	defer cancel()
	switch {
	case h.open && !h.ours:
		// Taking the id over aborts it. Kafka may leave out the markers of that too,
		// and then doesn't know any more that it was an abort.
		return h.init(ctx, cl, abortTimeout)
	case !h.open:
		if err := h.begin(ctx, cl); err != nil {
			return err
		}
	}
	req := kmsg.NewPtrEndTxnRequest()
	req.TransactionalID, req.ProducerID, req.ProducerEpoch, req.Commit = h.id, h.producer, h.epoch, h.commit
	return whenCalm(ctx, func() (int16, error) {
		resp, err := req.RequestWith(ctx, cl)
		if err != nil {
			return 0, err
		}
		return resp.ErrorCode, nil
	})
}

func (h *hanging) begin(ctx context.Context, cl *kgo.Client) error {
	err := h.init(ctx, cl, h.timeout())
	if errors.Is(err, kerr.InvalidTransactionTimeout) { // transaction.max.timeout.ms is less
		err = h.init(ctx, cl, txnTimeout)
	}
	if err == nil && len(h.partitions) > 0 {
		err = whenCalm(ctx, func() (int16, error) { return h.addPartitions(ctx, cl) })
	}
	if err == nil && h.group != "" {
		err = addOffsets(ctx, cl, h.id, h.producer, h.epoch, h.group)
	}
	return err
}

func (h *hanging) timeout() time.Duration {
	if h.commit {
		return commitTimeout
	}
	return abortTimeout
}

func (h *hanging) init(ctx context.Context, cl *kgo.Client, timeout time.Duration) error {
	req := kmsg.NewPtrInitProducerIDRequest()
	req.TransactionalID, req.TransactionTimeoutMillis = &h.id, int32(timeout.Milliseconds())
	req.ProducerID, req.ProducerEpoch = -1, -1
	return whenCalm(ctx, func() (int16, error) {
		resp, err := req.RequestWith(ctx, cl)
		switch {
		case err != nil:
			return 0, err
		case resp.ErrorCode == 0 && resp.ProducerID != h.producer: // its epochs were used up; the next try takes this one
			return 0, fmt.Errorf("Kafka gave the id another producer, %d after %d", resp.ProducerID, h.producer)
		}
		h.epoch = resp.ProducerEpoch
		return resp.ErrorCode, nil
	})
}

func (h *hanging) addPartitions(ctx context.Context, cl *kgo.Client) (int16, error) {
	req := kmsg.NewPtrAddPartitionsToTxnRequest()
	req.TransactionalID, req.ProducerID, req.ProducerEpoch = h.id, h.producer, h.epoch
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
