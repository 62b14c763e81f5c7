package stream

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-io/millrace/pipeline"
)

// commitLoop commits what has ended every 20 ms, or as soon as there are many.
func (t *Tracked) commitLoop(ctx context.Context) {
	var wait backoff
	last := time.Now()
	for ctx.Err() == nil {
		select {
		case <-t.dirty:
		case <-ctx.Done():
			return
		}
		if t.ready() < commitAt {
			sleep(ctx, time.Until(last.Add(commitEvery)))
		}
		for ctx.Err() == nil {
			err := t.commit(ctx)
			if err == nil {
				wait.reset()
				break
			}
			t.cfg.log().Warn("commit has to be done again", "role", t.cfg.Role, "error", err)
			sleep(ctx, wait.next())
		}
		last = time.Now()
	}
}

func (t *Tracked) ready() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.done)
}

// committed is what a transaction commits for a partition.
type committed struct {
	offset   int64
	metadata string
}

// commit writes what has ended since the last one, in one transaction with the
// offsets. After an error the endings stand in the next one.
func (t *Tracked) commit(ctx context.Context) error {
	t.commitMu.Lock()
	defer t.commitMu.Unlock()
	done, want := t.collect()
	if len(done) == 0 {
		return nil
	}
	refused, err := t.transact(ctx, done, want)
	if err != nil && !errors.Is(err, errRefused) {
		var landed bool
		if landed, err = t.recover(ctx, want, err); landed {
			err = nil
		}
	}
	t.cfg.Observer.transaction(t.cfg.Role, err == nil, len(done))
	if err != nil {
		t.putBack(done, refused)
		return err
	}
	for tp, c := range want {
		t.trim.committed(tp.topic, tp.partition, c.offset)
	}
	return nil
}

// collect takes the endings of partitions that are still owned, and what to
// commit for those.
func (t *Tracked) collect() ([]*Ticket, map[topicPartition]committed) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var done []*Ticket
	want := map[topicPartition]committed{}
	parts := map[*partition]bool{}
	for _, k := range t.done {
		if !k.p.gone { // else the next owner does it again
			done = append(done, k)
			parts[k.p] = true
		}
	}
	t.done = nil
	for p := range parts {
		low := p.window.low()
		want[p.topicPartition] = committed{low, p.window.metadata(low)}
		wake(p.wake) // the window may have room again
	}
	return done, want
}

// putBack lets endings go into the next transaction. Those whose output Kafka
// refuses for good end as dead letters instead.
func (t *Tracked) putBack(done []*Ticket, refused map[*Ticket]error) {
	for k, err := range refused {
		reason, _ := refusal(err)
		t.cfg.Observer.deadLetter(t.cfg.Role, reason)
		k.out = pipeline.Output{}
		k.out.Send(pipeline.NewDeadLetter(t.cfg.Names.DeadLetters(), &k.Record, pipeline.DeadLetter{
			Stage: t.cfg.Role, Reason: reason, Error: err.Error(), At: time.Now(),
		}))
		if t.cfg.OnDeadLetter != nil {
			k.out.Counts = t.cfg.OnDeadLetter(&k.Record)
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.done = append(done, t.done...)
	wake(t.dirty)
}

// errRefused means that the transaction was aborted because Kafka refuses some
// records for good.
var errRefused = errors.New("Kafka refuses records")

// errUnknown means that nobody told whether the transaction was committed.
var errUnknown = errors.New("committing a transaction")

// transact runs one transaction. With errRefused it names the tickets whose
// output is to blame; the transaction has been aborted then.
func (t *Tracked) transact(ctx context.Context, done []*Ticket, want map[topicPartition]committed) (map[*Ticket]error, error) {
	if err := t.prod.BeginTransaction(); err != nil {
		return nil, fmt.Errorf("beginning a transaction: %w", err)
	}
	refused, err := t.write(ctx, done)
	if err != nil {
		return nil, err
	}
	if len(refused) > 0 {
		if err := t.prod.EndTransaction(ctx, kgo.TryAbort); err != nil {
			return nil, fmt.Errorf("aborting a transaction: %w", err)
		}
		return refused, errRefused
	}
	if err := t.commitOffsets(ctx, want); err != nil {
		return nil, err
	}
	if err := t.prod.EndTransaction(ctx, kgo.TryCommit); err != nil {
		return nil, fmt.Errorf("%w: %w", errUnknown, err)
	}
	return nil, nil
}

// write produces the endings' records and waits for all promises.
func (t *Tracked) write(ctx context.Context, done []*Ticket) (map[*Ticket]error, error) {
	type verdict struct {
		k   *Ticket
		err error
	}
	var n int
	for _, k := range done {
		n += len(k.out.Records)
	}
	var tally pipeline.Tally
	for _, k := range done {
		for _, c := range k.out.Counts {
			tally.Add(c)
		}
	}
	ledger := tally.Records(t.cfg.Names.Ledger())
	n += len(ledger)
	verdicts := make(chan verdict, n)
	for _, k := range done {
		for i := range k.out.Records {
			t.prod.Produce(ctx, toKafka(&k.out.Records[i]), func(_ *kgo.Record, err error) { verdicts <- verdict{k, err} })
		}
	}
	for i := range ledger {
		t.prod.Produce(ctx, toKafka(&ledger[i]), func(_ *kgo.Record, err error) { verdicts <- verdict{nil, err} })
	}
	refused := map[*Ticket]error{}
	var failed error
	for range n {
		switch v := <-verdicts; {
		case v.err == nil:
		case v.k != nil && isRefusal(v.err):
			refused[v.k] = v.err
		case failed == nil:
			failed = fmt.Errorf("writing: %w", v.err)
		}
	}
	return refused, failed
}

func isRefusal(err error) bool {
	_, forGood := refusal(err)
	return forGood
}

// commitOffsets adds the consumer's offsets to the producer's transaction.
func (t *Tracked) commitOffsets(ctx context.Context, want map[topicPartition]committed) error {
	id, epoch, err := t.prod.ProducerID(ctx)
	if err != nil {
		return fmt.Errorf("asking for a producer id: %w", err)
	}
	group := t.cfg.Names.Group(t.cfg.Role)
	txn := t.cfg.Names.TransactionalID(t.cfg.Role, t.cfg.Instance)
	if !t.newer {
		if err := t.addOffsets(ctx, txn, group, id, epoch); err != nil {
			return err
		}
	}
	req := kmsg.NewPtrTxnOffsetCommitRequest()
	req.TransactionalID, req.Group, req.ProducerID, req.ProducerEpoch = txn, group, id, epoch
	req.MemberID, req.Generation = t.cons.GroupMetadata()
	if req.Topics, err = t.commitTopics(ctx, want); err != nil {
		return err
	}
	resp, err := req.RequestWith(ctx, t.prod)
	if err != nil {
		return fmt.Errorf("committing offsets: %w", err)
	}
	for _, topic := range resp.Topics {
		for _, p := range topic.Partitions {
			if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
				return fmt.Errorf("committing the offset of partition %d: %w", p.Partition, err)
			}
		}
	}
	return nil
}

// addOffsets ties the group to the transaction, which the older protocol needs.
func (t *Tracked) addOffsets(ctx context.Context, txn, group string, id int64, epoch int16) error {
	req := kmsg.NewPtrAddOffsetsToTxnRequest()
	req.TransactionalID, req.Group, req.ProducerID, req.ProducerEpoch = txn, group, id, epoch
	for {
		resp, err := req.RequestWith(ctx, t.prod)
		if err == nil {
			err = kerr.ErrorForCode(resp.ErrorCode)
		}
		if errors.Is(err, kerr.ConcurrentTransactions) && ctx.Err() == nil {
			sleep(ctx, 5*time.Millisecond)
			continue
		}
		if err != nil {
			return fmt.Errorf("adding offsets to the transaction: %w", err)
		}
		return nil
	}
}

func (t *Tracked) commitTopics(ctx context.Context, want map[topicPartition]committed) ([]kmsg.TxnOffsetCommitRequestTopic, error) {
	byTopic := map[string]*kmsg.TxnOffsetCommitRequestTopic{}
	for tp, c := range want {
		topic := byTopic[tp.topic]
		if topic == nil {
			id, err := t.topicID(ctx, tp.topic)
			if err != nil {
				return nil, err
			}
			made := kmsg.NewTxnOffsetCommitRequestTopic()
			topic = &made
			topic.Topic, topic.TopicID = tp.topic, id // by id from version 6 on
			byTopic[tp.topic] = topic
		}
		p := kmsg.NewTxnOffsetCommitRequestTopicPartition()
		p.Partition, p.Offset, p.Metadata = tp.partition, c.offset, &c.metadata
		topic.Partitions = append(topic.Partitions, p)
	}
	topics := make([]kmsg.TxnOffsetCommitRequestTopic, 0, len(byTopic))
	for _, topic := range byTopic {
		topics = append(topics, *topic)
	}
	return topics, nil
}

func (t *Tracked) topicID(ctx context.Context, name string) ([16]byte, error) {
	t.mu.Lock()
	for id, n := range t.ids {
		if n == name {
			t.mu.Unlock()
			return id, nil
		}
	}
	t.mu.Unlock()
	topics, err := kadm.NewClient(t.cons).ListTopics(ctx, name)
	if err != nil {
		return [16]byte{}, fmt.Errorf("asking for the id of %s: %w", name, err)
	}
	d := topics[name]
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ids[d.ID] = name
	return d.ID, d.Err
}

// recover ends a transaction that failed, and says whether it was committed
// after all: an answer may be lost on the way. A new producer id first, since
// from then on Kafka has decided; then the committed offsets tell, for each
// commit with endings differs from the one before.
func (t *Tracked) recover(ctx context.Context, want map[topicPartition]committed, cause error) (landed bool, err error) {
	if !errors.Is(cause, errUnknown) && t.prod.EndTransaction(ctx, kgo.TryAbort) == nil {
		return false, cause
	}
	t.cfg.Observer.rebuilt(t.cfg.Role)
	t.prod.CloseAllowingRebalance()
	if t.prod, err = t.producer(); err != nil {
		return false, err
	}
	var wait backoff
	for ctx.Err() == nil {
		if landed, err = t.landed(ctx, want); err == nil {
			return landed, cause
		}
		t.cfg.log().Warn("asking what became of a transaction", "role", t.cfg.Role, "error", err)
		sleep(ctx, wait.next())
	}
	return false, errors.Join(cause, ctx.Err())
}

// landed says whether the group's committed offsets are what was wanted.
func (t *Tracked) landed(ctx context.Context, want map[topicPartition]committed) (bool, error) {
	if _, _, err := t.prod.ProducerID(ctx); err != nil {
		return false, fmt.Errorf("asking for a new producer id: %w", err)
	}
	req := kmsg.NewPtrOffsetFetchRequest()
	group := kmsg.NewOffsetFetchRequestGroup()
	group.Group = t.cfg.Names.Group(t.cfg.Role)
	for tp := range want {
		id, err := t.topicID(ctx, tp.topic)
		if err != nil {
			return false, err
		}
		topic := kmsg.NewOffsetFetchRequestGroupTopic()
		topic.Topic, topic.TopicID, topic.Partitions = tp.topic, id, []int32{tp.partition}
		group.Topics = append(group.Topics, topic)
	}
	req.Groups, req.RequireStable = append(req.Groups, group), true
	resp, err := req.RequestWith(ctx, t.cons)
	if err != nil {
		return false, fmt.Errorf("asking for committed offsets: %w", err)
	}
	for _, g := range resp.Groups {
		if err := kerr.ErrorForCode(g.ErrorCode); err != nil {
			return false, fmt.Errorf("asking for committed offsets: %w", err)
		}
		for _, topic := range g.Topics {
			name, err := t.topicName(ctx, t.cons, topic.Topic, topic.TopicID)
			if err != nil {
				return false, err
			}
			for _, p := range topic.Partitions {
				if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
					return false, fmt.Errorf("asking for committed offsets: %w", err)
				}
				have := committed{offset: p.Offset}
				if p.Metadata != nil {
					have.metadata = *p.Metadata
				}
				if have != want[topicPartition{name, p.Partition}] {
					return false, nil
				}
			}
		}
	}
	return true, nil
}
