package stream

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"

	"github.com/millrace-io/millrace/pipeline"
)

// batch is what was polled of one partition, and what came out of it.
type batch struct {
	records []*kgo.Record
	out     pipeline.Output
	upTo    []int // how long out.Records was after each of the records
}

// transact takes what was polled through the stage and writes what comes out;
// late lets it end when ctx does. A nil error means that it was committed, or
// aborted and will be polled again.
func (s *stageRunner) transact(ctx, late context.Context, sess *kgo.GroupTransactSession, fetches kgo.Fetches) error {
	batches, err := s.process(ctx, fetches)
	if err != nil {
		return err
	}
	sleep(late, time.Until(s.ended.Add(s.pause)))
	committed, culprits, err := s.write(late, sess, batches)
	s.ended = time.Now()
	if err != nil {
		s.health.set(writing, err)
		return err
	}
	s.cfg.Observer.transaction(s.cfg.Role, committed, fetches.NumRecords())
	if committed {
		s.advance(batches)
		return nil
	}
	return s.blame(culprits)
}

// write runs one transaction. It names those that are to blame if Kafka
// refuses records.
func (s *stageRunner) write(ctx context.Context, sess *kgo.GroupTransactSession, batches []batch) (committed bool, culprits map[position]error, err error) {
	if err := sess.Begin(); err != nil {
		return false, nil, fmt.Errorf("beginning a transaction: %w", err)
	}
	items, ledger := s.items(batches)
	culprits, err = s.sieve.write(ctx, sess.Client(), s.cfg.maxBytes, items, ledger)
	refused := errors.Is(err, errRefused)
	if err != nil && !refused {
		return false, nil, err
	}
	// End commits the offsets even when records were refused.
	committed, err = sess.End(ctx, kgo.TransactionEndTry(!refused))
	if err != nil {
		return false, nil, fmt.Errorf("ending a transaction: %w", err)
	}
	return committed, culprits, nil
}

func (s *stageRunner) items(batches []batch) (items []item, ledger []pipeline.Record) {
	var tally pipeline.Tally
	for i := range batches {
		b := &batches[i]
		from := 0
		for j, to := range b.upTo {
			if to > from {
				items = append(items, item{positionOf(b.records[j]), b.out.Records[from:to:to]})
			}
			from = to
		}
		for _, c := range b.out.Counts {
			tally.Add(c)
		}
	}
	return items, tally.Records(s.cfg.Names.Ledger())
}

// advance forgets what is behind.
func (s *stageRunner) advance(batches []batch) {
	s.health.set(writing, nil)
	s.sieve.reset()
	for _, b := range batches {
		last := positionOf(b.records[len(b.records)-1])
		s.trim.committed(topicPartition{last.topic, last.partition}, last.offset+1)
		for at := range s.culprits {
			if at.topic == last.topic && at.partition == last.partition && at.offset <= last.offset {
				delete(s.culprits, at)
			}
		}
	}
}

// blame lets the records whose output Kafka refuses become dead letters when
// they are polled again.
func (s *stageRunner) blame(culprits map[position]error) error {
	for at, cause := range culprits {
		if s.culprits[at] != nil { // not even its dead letter can be written
			return &stopError{noDeadLetter(at, cause)}
		}
		s.culprits[at] = refusedError(cause)
	}
	return nil
}

func noDeadLetter(at position, cause error) error {
	return fmt.Errorf("writing the dead letter of %s/%d at offset %d: %w; "+
		"max.message.bytes of the dead-letters topic has to be larger", at.topic, at.partition, at.offset, cause)
}

func refusedError(cause error) *pipeline.PermanentError {
	reason, _ := refusal(cause)
	return &pipeline.PermanentError{Reason: reason, Err: fmt.Errorf("writing what comes out of it: %w", cause)}
}

// process takes every record through the stage, partitions side by side, until
// the stage has an answer for all: it may say "not now" for a while.
func (s *stageRunner) process(ctx context.Context, fetches kgo.Fetches) ([]batch, error) {
	var wait backoff
	for {
		batches, err := s.try(ctx, fetches)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if err == nil {
			s.health.set(processing, nil)
			return batches, nil
		}
		if errors.Is(err, pipeline.ErrNewerFormat) {
			return nil, &stopError{err}
		}
		pause := wait.next()
		if later, ok := errors.AsType[*pipeline.RetryAfterError](err); ok {
			pause = max(pause, later.After)
		}
		s.health.set(processing, err)
		s.cfg.log().Warn("stage waits", "role", s.cfg.Role, "pause", pause, "error", err)
		sleep(ctx, pause)
	}
}

func (s *stageRunner) try(ctx context.Context, fetches kgo.Fetches) ([]batch, error) {
	var batches []batch
	fetches.EachPartition(func(p kgo.FetchTopicPartition) {
		if len(p.Records) > 0 {
			batches = append(batches, batch{records: p.Records})
		}
	})
	var g errgroup.Group
	g.SetLimit(runtime.GOMAXPROCS(0))
	for i := range batches {
		g.Go(func() error { return s.all(ctx, &batches[i]) })
	}
	return batches, g.Wait()
}

// all takes the records of a partition through the stage, in order.
func (s *stageRunner) all(ctx context.Context, b *batch) error {
	b.upTo = make([]int, 0, len(b.records))
	var in pipeline.Record
	for _, k := range b.records {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		in = asRecord(k) // with headers of its own: what comes out may hold them
		if err := s.one(ctx, &in, &b.out); err != nil {
			return fmt.Errorf("processing %s/%d at offset %d: %w", in.Topic, in.Partition, in.Offset, err)
		}
		b.upTo = append(b.upTo, len(b.out.Records))
	}
	return nil
}

// one takes one record through the stage; what can't go on becomes a dead letter.
func (s *stageRunner) one(ctx context.Context, in *pipeline.Record, out *pipeline.Output) error {
	records, counts := len(out.Records), len(out.Counts)
	err := s.guarded(ctx, in, out)
	dead, permanent := pipeline.IsPermanent(err)
	if !permanent || errors.Is(err, pipeline.ErrNewerFormat) {
		return err
	}
	out.Records, out.Counts = out.Records[:records], out.Counts[:counts]
	s.cfg.Observer.deadLetter(s.cfg.Role, dead.Reason)
	out.Send(deadLetter(s.cfg.Config, s.cfg.Role, in, dead))
	if s.cfg.OnDeadLetter != nil {
		s.cfg.OnDeadLetter(in, dead, out)
	}
	return nil
}

// guarded runs the stage; a panic is a permanent error of that record.
func (s *stageRunner) guarded(ctx context.Context, in *pipeline.Record, out *pipeline.Output) (err error) {
	if dead := s.culprits[position{in.Topic, in.Partition, in.Offset}]; dead != nil {
		return dead
	}
	defer func() {
		if p := recover(); p != nil {
			err = panicked(s.cfg.Config, s.cfg.Role, in, p)
		}
	}()
	return s.cfg.Stage.Process(ctx, in, out)
}

func panicked(cfg Config, role string, in *pipeline.Record, p any) *pipeline.PermanentError {
	cfg.log().Error("panic", "role", role, "topic", in.Topic, "partition", in.Partition,
		"offset", in.Offset, "panic", p, "stack", string(debug.Stack()))
	return &pipeline.PermanentError{Reason: pipeline.Panicked, Err: fmt.Errorf("panic: %v", p)}
}

func deadLetter(cfg Config, role string, in *pipeline.Record, dead *pipeline.PermanentError) pipeline.Record {
	return pipeline.NewDeadLetter(cfg.Names.DeadLetters(), in, pipeline.DeadLetter{
		Stage: role, Reason: dead.Reason, Error: dead.Err.Error(), At: time.Now(),
	})
}
