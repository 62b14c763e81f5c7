package stream

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/millrace-io/millrace/pipeline"
)

// transaction is what one transaction writes and commits.
type transaction struct {
	done       []*Ticket
	want       map[topicPartition]commitment
	member     string // who we were in the group when those were ours
	generation int32
}

// commitment is what is committed for a partition.
type commitment struct {
	offset   int64
	metadata string
}

// commitLoop commits what has ended, every 20 ms at most; on a broker that needs
// no pause between transactions more often, and at once where calls wait for it.
func (t *Tracked) commitLoop(ctx context.Context) {
	for {
		select {
		case <-t.dirty:
		case <-ctx.Done():
			return
		}
		t.commitAll(ctx)
		pause := time.NewTimer(t.commitPause())
		select {
		case <-pause.C:
		case <-t.full:
		case <-ctx.Done():
		}
		pause.Stop()
	}
}

func (t *Tracked) commitPause() time.Duration {
	t.commitMu.Lock()
	defer t.commitMu.Unlock()
	if t.prod.pause == 0 {
		return commitEvery / 4
	}
	return commitEvery
}

// commitAll commits until nothing that has ended is left, or ctx ends.
func (t *Tracked) commitAll(ctx context.Context) {
	t.commitUntil(ctx, func(error) bool { return false })
}

// commitUntil is commitAll that gives up after some errors.
func (t *Tracked) commitUntil(ctx context.Context, hopeless func(error) bool) {
	var wait backoff
	for ctx.Err() == nil {
		err := t.commit(ctx)
		switch {
		case errors.Is(err, errRefused):
			continue
		case ctx.Err() != nil:
			return
		case !outOfStep(err): // which a rebalance brings now and then
			t.health.set(writing, err)
		}
		if err == nil || hopeless(err) {
			return
		}
		t.cfg.log().Warn("commit has to be done again", "role", t.cfg.Role, "error", err)
		sleep(ctx, wait.next())
	}
}

// outOfStep says that the group has gone on without this member, or went on
// since the transaction began.
func outOfStep(err error) bool {
	return errors.Is(err, kerr.IllegalGeneration) || errors.Is(err, kerr.UnknownMemberID)
}

// commit writes what has ended since the last one, in one transaction with the
// offsets. After an error the endings stand in the next one.
func (t *Tracked) commit(ctx context.Context) error {
	t.commitMu.Lock()
	defer t.commitMu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, txnTimeout)
	defer cancel()
	if err := t.resolve(ctx); err != nil {
		return err
	}
	tx := t.collect()
	if len(tx.done) == 0 {
		return nil
	}
	err := t.transact(ctx, tx)
	t.cfg.Observer.transaction(t.cfg.Role, err == nil, len(tx.done))
	switch {
	case err == nil:
		t.landed(tx)
	case errors.Is(err, errUnknown):
		t.unknown = tx
		t.cfg.Observer.rebuilt(t.cfg.Role)
	default:
		t.putBack(tx)
	}
	return err
}

// collect takes the endings of partitions that are still owned, and what to
// commit for those. Who we are in the group goes with it: Kafka refuses the
// commit if the group has been through a rebalance meanwhile, after which a
// partition may be somebody else's.
func (t *Tracked) collect() *transaction {
	t.mu.Lock()
	defer t.mu.Unlock()
	tx := &transaction{want: map[topicPartition]commitment{}}
	tx.member, tx.generation = t.cons.GroupMetadata()
	parts := map[*partition]bool{}
	for _, k := range t.done {
		if k.p.gone {
			t.keep(k)
			t.through++
			continue
		}
		tx.done = append(tx.done, k)
		parts[k.p] = true
	}
	t.done, t.inDoubt = nil, len(tx.done)
	if len(tx.done) == 0 {
		t.wakeFeeds()
	}
	for p := range parts {
		e := p.window.ended()
		tx.want[p.topicPartition] = commitment{e.base, e.encode()}
	}
	return tx
}

// landed does what follows a commit.
func (t *Tracked) landed(tx *transaction) {
	t.sieve.reset()
	for tp, c := range tx.want {
		t.trim.committed(tp, c.offset)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.inDoubt, t.oldest = 0, time.Now() // of those that ended since
	t.through += int64(len(tx.done))
	t.wakeFeeds()
}

// putBack lets endings go into the next transaction.
func (t *Tracked) putBack(tx *transaction) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.inDoubt = 0
	var again []*Ticket
	for _, k := range tx.done {
		if k.stuck {
			k.p.window.reopen(k.Record.Offset)
			t.through++
			continue
		}
		again = append(again, k)
	}
	t.done = append(again, t.done...)
	wake(t.dirty)
}

// errUnknown means that nobody told whether the transaction was committed.
var errUnknown = errors.New("ending a transaction")

// transact runs one transaction. After any error but errUnknown it has been
// aborted, or will be as soon as there is a new producer.
func (t *Tracked) transact(ctx context.Context, tx *transaction) error {
	if err := t.prod.begin(ctx); err != nil {
		return err
	}
	items, ledger := t.items(tx)
	culprits, err := t.sieve.write(ctx, t.prod.cl, t.cfg.maxBytes, items, ledger)
	switch {
	case errors.Is(err, errRefused):
		t.prod.abort(ctx)
		t.blame(tx, culprits)
		return err
	case err != nil:
		t.prod.drop() // it may hold records still
		return err
	}
	if err := t.prod.commitOffsets(ctx, tx); err != nil {
		t.prod.abort(ctx)
		return err
	}
	return t.prod.commit(ctx)
}

func (t *Tracked) items(tx *transaction) (items []item, ledger []pipeline.Record) {
	var tally pipeline.Tally
	for _, k := range tx.done {
		items = append(items, item{k.position(), k.out.Records})
		for _, c := range k.out.Counts {
			tally.Add(c)
		}
	}
	return items, tally.Records(t.cfg.Names.Ledger())
}

func (k *Ticket) position() position {
	return position{k.Record.Topic, k.Record.Partition, k.Record.Offset}
}

// blame makes dead letters of those whose output Kafka refuses.
func (t *Tracked) blame(tx *transaction, culprits map[position]error) {
	for _, k := range tx.done {
		cause := culprits[k.position()]
		switch {
		case cause == nil:
		case k.buried: // not even its dead letter can be written
			k.stuck = true
			t.fail(noDeadLetter(k.position(), cause))
		default:
			dead := refusedError(cause)
			t.cfg.Observer.deadLetter(t.cfg.Role, dead.Reason)
			k.out, k.buried = t.deadOutput(k, dead), true
		}
	}
}

// resolve finds out what became of a transaction whose end nobody told: an
// answer may be lost on the way. First it makes a new producer, since from then
// on Kafka has decided. Then the committed offsets tell: each commit differs
// from the one before, and a partition that is ours is committed by nobody else.
func (t *Tracked) resolve(ctx context.Context) error {
	if err := t.prod.open(ctx); err != nil {
		return err
	}
	tx := t.unknown
	if tx == nil {
		return nil
	}
	topics := map[string]bool{}
	for tp := range tx.want {
		topics[tp.topic] = true
	}
	have, err := t.committed(ctx, topics)
	if err != nil {
		return fmt.Errorf("asking what became of a transaction: %w", err)
	}
	t.unknown = nil
	for tp, want := range tx.want {
		if have[tp] == want {
			t.landed(tx)
			return nil
		}
	}
	t.putBack(tx)
	return nil
}

// committed asks for the group's committed offsets.
func (t *Tracked) committed(ctx context.Context, topics map[string]bool) (map[topicPartition]commitment, error) {
	names := make([]string, 0, len(topics))
	for name := range topics {
		names = append(names, name)
	}
	group := t.cfg.Names.Group(t.cfg.Role)
	offsets, err := kadm.NewClient(t.prod.cl).FetchOffsetsForTopics(kadm.RequireStable(ctx), group, names...)
	if err == nil {
		err = offsets.Error()
	}
	if err != nil {
		return nil, err
	}
	have := map[topicPartition]commitment{}
	offsets.Each(func(o kadm.OffsetResponse) {
		have[topicPartition{o.Topic, o.Partition}] = commitment{o.At, o.Metadata}
	})
	return have, nil
}
