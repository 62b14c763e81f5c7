package stream

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"

	"github.com/millrace-io/millrace/pipeline"
)

// transact takes what was polled through the stage and writes what comes out.
// A nil error means that it was committed, or aborted and will be polled again.
func (s *stageRunner) transact(ctx context.Context, sess *kgo.GroupTransactSession, fetches kgo.Fetches) error {
	out, err := s.process(ctx, fetches)
	if err != nil {
		return err
	}
	ctx, cancel := grace(ctx, txnTimeout) // a signal lets it end
	defer cancel()
	sleep(ctx, time.Until(s.ended.Add(s.pause)))
	if err := sess.Begin(); err != nil {
		return fmt.Errorf("beginning a transaction: %w", err)
	}
	failed := produce(ctx, sess.Client(), s.cfg.Names.Ledger(), out)
	if err := sess.Client().Flush(ctx); err != nil {
		return fmt.Errorf("writing: %w", err)
	}
	// End commits the offsets even when records were refused, so every promise
	// is read before.
	cause := failed.Load()
	committed, err := sess.End(ctx, kgo.TransactionEndTry(cause == nil))
	s.ended = time.Now()
	if err != nil {
		return fmt.Errorf("ending a transaction: %w", err)
	}
	s.cfg.Observer.transaction(s.cfg.Role, committed, fetches.NumRecords())
	if cause != nil {
		return s.blame(fetches, *cause)
	}
	if committed {
		s.advance(fetches)
	}
	return nil
}

// advance forgets the culprits that are behind and lets the polls grow again.
func (s *stageRunner) advance(fetches kgo.Fetches) {
	s.limit = min(s.limit*2, maxPoll)
	fetches.EachPartition(func(p kgo.FetchTopicPartition) {
		if len(p.Records) == 0 {
			return
		}
		last := p.Records[len(p.Records)-1].Offset
		s.trim.committed(p.Topic, p.Partition, last+1)
		for at := range s.culprits {
			if at.topic == p.Topic && at.partition == p.Partition && at.offset <= last {
				delete(s.culprits, at)
			}
		}
	})
}

// blame finds the record whose output Kafka refuses for good: the transaction
// was aborted, and comes again with half as many records until there is one.
func (s *stageRunner) blame(fetches kgo.Fetches, cause error) error {
	reason, forGood := refusal(cause)
	if !forGood {
		return fmt.Errorf("writing: %w", cause)
	}
	n := fetches.NumRecords()
	if n > 1 {
		s.limit = n / 2
		return nil
	}
	r := fetches.Records()[0]
	at := position{r.Topic, r.Partition, r.Offset}
	if s.culprits[at] != nil { // not even its dead letter can be written
		return &stopError{fmt.Errorf("writing the dead letter of %s/%d at offset %d: %w; "+
			"max.message.bytes of the dead-letters topic has to be larger", r.Topic, r.Partition, r.Offset, cause)}
	}
	s.culprits[at] = &pipeline.PermanentError{Reason: reason, Err: fmt.Errorf("writing what comes out of it: %w", cause)}
	return nil
}

// process takes every record through the stage, partitions side by side, until
// the stage has an answer for all: it may say "not now" for a while.
func (s *stageRunner) process(ctx context.Context, fetches kgo.Fetches) ([]pipeline.Output, error) {
	var parts [][]*kgo.Record
	fetches.EachPartition(func(p kgo.FetchTopicPartition) {
		if len(p.Records) > 0 {
			parts = append(parts, p.Records)
		}
	})
	var wait backoff
	for {
		out, err := s.try(ctx, parts)
		if err == nil || ctx.Err() != nil {
			return out, errors.Join(err, ctx.Err())
		}
		if errors.Is(err, pipeline.ErrNewerFormat) {
			return nil, &stopError{err}
		}
		pause := wait.next()
		if later, ok := errors.AsType[*pipeline.RetryAfterError](err); ok {
			pause = max(pause, later.After)
		}
		s.cfg.Observer.ready(err)
		s.cfg.log().Warn("stage waits", "role", s.cfg.Role, "pause", pause, "error", err)
		sleep(ctx, pause)
	}
}

func (s *stageRunner) try(ctx context.Context, parts [][]*kgo.Record) ([]pipeline.Output, error) {
	outs := make([]pipeline.Output, len(parts))
	var g errgroup.Group
	g.SetLimit(runtime.GOMAXPROCS(0))
	for i, records := range parts {
		g.Go(func() error {
			var in pipeline.Record
			for _, r := range records {
				fromKafka(r, &in)
				if err := s.one(ctx, &in, &outs[i]); err != nil {
					return fmt.Errorf("processing %s/%d at offset %d: %w", in.Topic, in.Partition, in.Offset, err)
				}
			}
			return nil
		})
	}
	return outs, g.Wait()
}

// one takes one record through the stage; what can't go on becomes a dead letter.
func (s *stageRunner) one(ctx context.Context, in *pipeline.Record, out *pipeline.Output) error {
	records, counts := len(out.Records), len(out.Counts)
	err := s.guarded(ctx, in, out)
	dead, permanent := pipeline.IsPermanent(err)
	if !permanent {
		return err
	}
	out.Records, out.Counts = out.Records[:records], out.Counts[:counts]
	s.cfg.Observer.deadLetter(s.cfg.Role, dead.Reason)
	out.Send(pipeline.NewDeadLetter(s.cfg.Names.DeadLetters(), in, pipeline.DeadLetter{
		Stage: s.cfg.Role, Reason: dead.Reason, Error: dead.Err.Error(), At: time.Now(),
	}))
	if s.cfg.OnDeadLetter != nil {
		for _, c := range s.cfg.OnDeadLetter(in) {
			out.Count(c)
		}
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

func panicked(cfg Config, role string, in *pipeline.Record, p any) error {
	cfg.log().Error("panic", "role", role, "topic", in.Topic, "partition", in.Partition,
		"offset", in.Offset, "panic", p, "stack", string(debug.Stack()))
	return pipeline.Permanent(pipeline.Panicked, fmt.Errorf("panic: %v", p))
}

// produce writes outputs and their ledger records in the client's transaction,
// and returns where the first error will stand once the client is flushed.
func produce(ctx context.Context, cl *kgo.Client, ledger string, outs []pipeline.Output) *atomic.Pointer[error] {
	var failed atomic.Pointer[error]
	promise := func(_ *kgo.Record, err error) {
		if err != nil {
			failed.CompareAndSwap(nil, &err)
		}
	}
	var tally pipeline.Tally
	for i := range outs {
		for j := range outs[i].Records {
			cl.Produce(ctx, toKafka(&outs[i].Records[j]), promise)
		}
		for _, c := range outs[i].Counts {
			tally.Add(c)
		}
	}
	for _, r := range tally.Records(ledger) {
		cl.Produce(ctx, toKafka(&r), promise)
	}
	return &failed
}
