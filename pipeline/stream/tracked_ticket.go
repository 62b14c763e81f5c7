package stream

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/millrace-io/millrace/pipeline"
)

// Ticket is one open record.
type Ticket struct {
	// Record is what was read; it stays valid until the ticket has ended.
	Record pipeline.Record

	t *Tracked
	p *partition

	settled bool // guarded by t.mu
	out     pipeline.Output
	buried  bool // out is a dead letter that the runner made
	stuck   bool // which Kafka refuses as well
}

// End settles the ticket: out is written in the next transaction, together with
// the fact that the record is done. Only the first call of End or Release counts.
//
// Something must come out of every record: one that ends without a trace
// becomes a dead letter, since a transaction can't commit offsets alone.
func (k *Ticket) End(out pipeline.Output) {
	if len(out.Records)+len(out.Counts) == 0 {
		k.t.bury(k, &pipeline.PermanentError{Reason: pipeline.Panicked, Err: errors.New("record ended without a trace")})
		return
	}
	k.t.settle(k, &out, false)
}

// AwaitCommits is called before an effect that a transaction can't hold, such as
// a call to somebody else: it waits until so few of those that ended have no
// commit that a kill would repeat little. It says whether it had to wait, and
// returns ctx's error if that ends.
func (k *Ticket) AwaitCommits(ctx context.Context) (waited bool, err error) {
	for ctx.Err() == nil {
		landing := k.t.atLimit()
		if landing == nil {
			return waited, nil
		}
		waited = true
		select {
		case <-landing:
		case <-ctx.Done():
		}
	}
	return waited, ctx.Err()
}

// Ends says where the logs of topics end, by topic and partition: behind every
// record that was written by what had ended when it was called. It waits until
// that is committed, or until ctx ends. Partitions that can't say, having no
// leader, are left out; the error is that none could. Run must be running.
func (t *Tracked) Ends(ctx context.Context, topics ...string) (map[string]map[int32]int64, error) {
	if err := t.awaitEnded(ctx); err != nil {
		return nil, err
	}
	t.mu.Lock()
	cl := t.cons
	t.mu.Unlock()
	listed, err := kadm.NewClient(cl).ListEndOffsets(ctx, topics...)
	ends := map[string]map[int32]int64{}
	listed.Each(func(o kadm.ListedOffset) {
		if o.Err != nil {
			return
		}
		if ends[o.Topic] == nil {
			ends[o.Topic] = map[int32]int64{}
		}
		ends[o.Topic][o.Partition] = o.Offset
	})
	if err = cmp.Or(err, listed.Error()); err != nil && len(ends) == 0 {
		return nil, fmt.Errorf("asking where topics end: %w", err)
	}
	return ends, nil
}

// awaitEnded waits until what has ended so far is committed.
func (t *Tracked) awaitEnded(ctx context.Context) error {
	t.mu.Lock()
	all := t.ended
	t.mu.Unlock()
	for {
		t.mu.Lock()
		through, landing := t.through >= all, t.landing
		t.mu.Unlock()
		if through {
			return nil
		}
		select {
		case <-landing:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// atLimit returns what the next commit closes if it has to be waited for.
func (t *Tracked) atLimit() <-chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.done)+t.inDoubt < t.atRisk {
		return nil
	}
	return t.landing
}

// Release gives the record back: whoever owns the partition next takes it again.
// It is for when the partition goes; otherwise the record stays open for good.
func (k *Ticket) Release() { k.t.settle(k, nil, false) }

// bury ends a ticket as a dead letter, unless it has ended.
func (t *Tracked) bury(k *Ticket, dead *pipeline.PermanentError) {
	t.mu.Lock()
	settled := k.settled
	t.mu.Unlock()
	if settled {
		return
	}
	out := t.deadOutput(k, dead)
	if t.settle(k, &out, true) {
		t.cfg.Observer.deadLetter(t.cfg.Role, dead.Reason)
	}
}

func (t *Tracked) deadOutput(k *Ticket, dead *pipeline.PermanentError) (out pipeline.Output) {
	out.Send(deadLetter(t.cfg.Config, t.cfg.Role, &k.Record, dead))
	if t.cfg.OnDeadLetter != nil {
		t.cfg.OnDeadLetter(&k.Record, dead, &out)
	}
	return out
}

// settle ends a ticket, or, without out, releases it: it stays open in the
// window then. It returns false if that was done before.
func (t *Tracked) settle(k *Ticket, out *pipeline.Output, buried bool) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if k.settled {
		return false
	}
	k.settled = true
	k.p.open--
	if out != nil {
		k.out, k.buried = *out, buried
		k.p.window.end(k.Record.Offset)
		t.addDone(k)
	}
	wake(t.moved)
	return true
}
