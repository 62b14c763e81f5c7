package stream

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"
)

// producer writes a Tracked runner's transactions. It is dropped whenever its
// state is in doubt: the next one, under the same transactional id, ends what
// it has left open.
type producer struct {
	cfg  Config
	role string
	base context.Context // of the client

	cl    *kgo.Client // nil when there is none
	stale atomic.Bool // it must not begin another transaction: Kafka may have left the last one hanging
	newer bool        // transaction version 2: no AddOffsetsToTxn
	pause time.Duration
	ended time.Time // of the last transaction
}

func (p *producer) drop() {
	if p.cl != nil {
		p.cl.Close()
		p.cl = nil
	}
}

// open makes the client, if there is none, and gets it a producer id.
func (p *producer) open(ctx context.Context) error {
	if p.stale.Load() {
		p.drop()
	}
	if p.cl != nil {
		return nil
	}
	p.stale.Store(false)
	if err := p.ask(ctx); err != nil {
		return err
	}
	if err := endHanging(ctx, p.cfg, p.id(), p.cfg.Names.Group(p.role)); err != nil {
		return err
	}
	// From version 6 on, TxnOffsetCommit names topics by id alone; up to 4 it
	// belongs to the older protocol.
	versions := kversion.Stable()
	versions.SetMaxKeyVersion(int16(kmsg.TxnOffsetCommit), 5)
	if !p.newer {
		versions.SetMaxKeyVersion(int16(kmsg.TxnOffsetCommit), 4)
	}
	cl, err := p.cfg.client(
		kgo.WithContext(p.base),
		kgo.MaxVersions(versions),
		kgo.TransactionalID(p.id()),
		kgo.TransactionTimeout(trackedTxnTimeout),
		kgo.ConcurrentTransactionsBackoff(5*time.Millisecond),
	)
	if err != nil {
		return err
	}
	p.cl = cl
	if _, _, err := cl.ProducerID(ctx); err != nil {
		p.drop()
		return fmt.Errorf("asking for a producer id: %w", err)
	}
	return nil
}

// ask finds out how transactions go on this cluster.
func (p *producer) ask(ctx context.Context) error {
	cl, err := p.cfg.client()
	if err != nil {
		return err
	}
	defer cl.Close()
	version, err := transactionVersion(ctx, cl)
	if err != nil {
		return err
	}
	p.newer = version >= 2
	p.pause, err = pauseFor(ctx, cl)
	return err
}

func (p *producer) id() string { return p.cfg.Names.TransactionalID(p.role, p.cfg.Instance) }

func (p *producer) begin(ctx context.Context) error {
	sleep(ctx, time.Until(p.ended.Add(p.pause)))
	if err := p.cl.BeginTransaction(); err != nil {
		p.drop()
		return fmt.Errorf("beginning a transaction: %w", err)
	}
	return nil
}

func (p *producer) abort(ctx context.Context) {
	if err := p.cl.EndTransaction(ctx, kgo.TryAbort); err != nil {
		p.drop()
	}
	p.ended = time.Now()
}

// commit ends the transaction. With errUnknown Kafka may or may not have
// committed it; after another error it has not.
func (p *producer) commit(ctx context.Context) error {
	err := p.cl.EndTransaction(ctx, kgo.TryCommit)
	p.ended = time.Now()
	switch {
	case err == nil:
		return nil
	case errors.Is(err, kerr.OperationNotAttempted):
		p.abort(ctx)
		return fmt.Errorf("committing a transaction: %w", err)
	default:
		p.drop()
		return fmt.Errorf("%w: %w", errUnknown, err)
	}
}

// commitOffsets adds the consumer's offsets to the transaction.
func (p *producer) commitOffsets(ctx context.Context, tx *transaction) error {
	id, epoch, err := p.cl.ProducerID(ctx)
	if err != nil {
		return fmt.Errorf("asking for the producer id: %w", err)
	}
	req := kmsg.NewPtrTxnOffsetCommitRequest()
	req.TransactionalID, req.Group = p.id(), p.cfg.Names.Group(p.role)
	req.ProducerID, req.ProducerEpoch = id, epoch
	req.MemberID, req.Generation = tx.member, tx.generation
	req.Topics = tx.topics()
	if !p.newer {
		if err := addOffsets(ctx, p.cl, p.id(), id, epoch, req.Group); err != nil {
			return fmt.Errorf("adding offsets to the transaction: %w", err)
		}
	}
	resp, err := req.RequestWith(ctx, p.cl)
	if err != nil {
		return fmt.Errorf("committing offsets: %w", err)
	}
	for _, topic := range resp.Topics {
		for _, p := range topic.Partitions {
			if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
				return fmt.Errorf("committing the offset of %s/%d: %w", topic.Topic, p.Partition, err)
			}
		}
	}
	return nil
}

func (tx *transaction) topics() (topics []kmsg.TxnOffsetCommitRequestTopic) {
	at := map[string]int{}
	for tp, c := range tx.want {
		i, ok := at[tp.topic]
		if !ok {
			i = len(topics)
			at[tp.topic] = i
			topics = append(topics, kmsg.NewTxnOffsetCommitRequestTopic())
			topics[i].Topic = tp.topic
		}
		p := kmsg.NewTxnOffsetCommitRequestTopicPartition()
		p.Partition, p.Offset, p.Metadata = tp.partition, c.offset, kmsg.StringPtr(c.metadata)
		topics[i].Partitions = append(topics[i].Partitions, p)
	}
	return topics
}
