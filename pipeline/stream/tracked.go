package stream

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"

	"github.com/millrace-io/millrace/pipeline"
)

// Handler gets the records of a Tracked runner.
type Handler interface {
	// Take is called for each record of a partition in order, by one goroutine
	// a partition. It may block: that holds up this partition alone. It or
	// whatever it hands the ticket to must end or release the ticket, sooner or
	// later. ctx ends when the partition has to go: what was not started should
	// be released then, what was started should end.
	//
	// An error that is not ctx's stops the runner. A panic makes the record a
	// dead letter.
	Take(ctx context.Context, t *Ticket) error
}

// TrackedConfig is what a Tracked runner runs.
type TrackedConfig struct {
	Config

	// Role names the consumer group and the transactional id.
	Role string

	// Topics are read from the start on; AddTopics adds more.
	Topics []string

	// Lanes keeps the deliveries and redeliveries of a lane with one owner.
	Lanes bool

	// Handler gets the records.
	Handler Handler

	// OnDeadLetter returns what the ledger says when the runner itself makes
	// a dead letter of a record. nil means nothing.
	OnDeadLetter func(in *pipeline.Record) []pipeline.Count

	// OnOwned is told what part of each topic's partitions this runner owns,
	// from 0 to 1, whenever that changes.
	OnOwned func(shares map[string]float64)

	// Drain is how long a partition that goes to another owner may wait for
	// what is open; default 30 s. It must be longer than the longest call.
	Drain time.Duration

	Observer Observer
}

// Limits of a Tracked runner.
const (
	commitEvery  = 20 * time.Millisecond // unless there are
	commitAt     = 2_000                 // endings before
	queueHigh    = 4_000                 // fetched records a partition holds before its fetching pauses
	queueLow     = 1_000                 // and resumes
	defaultDrain = 30 * time.Second
	rebalanceMax = 60 * time.Second
)

// Tracked reads topics with many records of a partition open at once, in any
// order of ending. What ended is written in one transaction every 20 ms: its
// output, and for each partition the oldest open offset with, in the commit's
// metadata, what has ended above it. A new owner skips those.
//
// Two clients, tied by KIP-447: one consumes in the group, one produces in
// transactions. So partitions can leave, once what is open in them has ended,
// while the others go on.
type Tracked struct {
	cfg  TrackedConfig
	cons *kgo.Client
	prod *kgo.Client

	commitMu sync.Mutex // one transaction at a time; guards prod
	newer    bool       // transaction version 2: no AddOffsetsToTxn
	trim     *trimmer

	mu     sync.Mutex
	owned  map[topicPartition]*partition
	ids    map[[16]byte]string // topics by id
	sizes  map[string]int      // partitions of topics, where OnOwned asks
	done   []*Ticket           // ended, not yet committed
	dirty  chan struct{}       // something is in done
	moved  chan struct{}       // something ended or was released
	feeds  sync.WaitGroup
	failed chan error // from feeds
}

// partition is one partition while it is owned.
type partition struct {
	topicPartition
	ctx    context.Context
	cancel context.CancelFunc

	// guarded by Tracked.mu
	window window
	queue  []*kgo.Record // fetched, not taken
	paused bool
	open   int
	gone   bool // not owned any more
	wake   chan struct{}
}

// Ticket is one open record.
type Ticket struct {
	// Record is what was read; it stays valid until the ticket has ended.
	Record pipeline.Record

	t     *Tracked
	p     *partition
	ended bool // guarded by t.mu
	out   pipeline.Output
}

// End settles the ticket: out is written in the next transaction, together with
// the fact that the record is done. Only the first call of End or Release counts.
//
// Something must come out of every record: one that ends without a trace
// becomes a dead letter, since a transaction can't commit offsets alone.
func (k *Ticket) End(out pipeline.Output) {
	if len(out.Records)+len(out.Counts) == 0 {
		k.t.bury(k, pipeline.Permanent(pipeline.Panicked, errors.New("record ended without a trace")))
		return
	}
	k.t.settle(k, &out)
}

// Release gives the record back: whoever owns the partition next takes it again.
// It is for when the partition goes; otherwise the record stays open for good.
func (k *Ticket) Release() { k.t.settle(k, nil) }

// NewTracked makes a runner; Run runs it.
func NewTracked(cfg TrackedConfig) (*Tracked, error) {
	t := &Tracked{
		cfg: cfg, owned: map[topicPartition]*partition{}, ids: map[[16]byte]string{}, sizes: map[string]int{},
		dirty: make(chan struct{}, 1), moved: make(chan struct{}, 1), failed: make(chan error, 1),
	}
	if t.cfg.Drain == 0 {
		t.cfg.Drain = defaultDrain
	}
	balancer := kgo.CooperativeStickyBalancer()
	if cfg.Lanes {
		balancer = laneBalancer{GroupBalancer: balancer, names: cfg.Names}
	}
	var err error
	t.cons, err = cfg.client(
		kgo.ConsumerGroup(cfg.Names.Group(cfg.Role)),
		kgo.ConsumeTopics(cfg.Topics...),
		kgo.DisableAutoCommit(),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.RequireStableFetchOffsets(),
		kgo.Balancers(balancer),
		kgo.SessionTimeout(sessTimeout),
		kgo.HeartbeatInterval(500*time.Millisecond),
		kgo.RebalanceTimeout(rebalanceMax),
		kgo.FetchMaxWait(500*time.Millisecond),
		kgo.FetchMaxPartitionBytes(1<<20),
		kgo.OnOffsetsFetched(t.fetched),
		kgo.AdjustFetchOffsetsFn(t.start),
		kgo.OnPartitionsRevoked(t.revoked),
		kgo.OnPartitionsLost(t.lost),
	)
	if err != nil {
		return nil, err
	}
	t.trim = newTrimmer(t.cons, cfg.Config, true)
	return t, nil
}

// AddTopics makes the runner read more topics: those of a new lane.
func (t *Tracked) AddTopics(topics ...string) { t.cons.AddConsumeTopics(topics...) }

// Run reads until ctx ends; then it waits for what is open, commits, leaves the
// group and returns nil. An error means that it can't go on.
func (t *Tracked) Run(ctx context.Context) error {
	if err := t.connect(ctx); err != nil {
		t.cons.Close()
		return err
	}
	t.cfg.Observer.ready(nil)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return t.poll(ctx) })
	g.Go(func() error {
		select {
		case err := <-t.failed:
			return err
		case <-ctx.Done():
			return nil
		}
	})
	commits, stop := context.WithCancel(context.WithoutCancel(ctx))
	committed := make(chan struct{})
	go func() {
		defer close(committed)
		t.commitLoop(commits)
	}()
	err := g.Wait()
	// Leaving the group revokes everything, which waits for what is open and
	// commits it.
	t.cons.CloseAllowingRebalance()
	t.feeds.Wait()
	stop()
	<-committed
	t.prod.Close()
	if err != nil {
		return fmt.Errorf("running %s: %w", t.cfg.Role, err)
	}
	return nil
}

func (t *Tracked) connect(ctx context.Context) (err error) {
	var wait backoff
	for ctx.Err() == nil {
		var version int16
		if version, err = transactionVersion(ctx, t.cons); err == nil {
			t.newer = version >= 2
			t.prod, err = t.producer()
			return err
		}
		t.cfg.Observer.ready(err)
		sleep(ctx, wait.next())
	}
	return errors.Join(err, ctx.Err())
}

func (t *Tracked) producer() (*kgo.Client, error) {
	opts := []kgo.Opt{
		kgo.TransactionalID(t.cfg.Names.TransactionalID(t.cfg.Role, t.cfg.Instance)),
		kgo.TransactionTimeout(txnTimeout),
		kgo.ConcurrentTransactionsBackoff(5 * time.Millisecond),
	}
	return t.cfg.client(opts...)
}

func (t *Tracked) poll(ctx context.Context) error {
	for {
		fetches := t.cons.PollRecords(ctx, maxPoll)
		if ctx.Err() != nil {
			return nil
		}
		if err := fetchError(fetches); err != nil {
			if stop, ok := errors.AsType[*stopError](err); ok {
				return stop.err
			}
			if fetches.IsClientClosed() {
				return err
			}
			t.cfg.log().Warn("reading", "role", t.cfg.Role, "error", err)
		}
		fetches.EachPartition(func(p kgo.FetchTopicPartition) { t.enqueue(p) })
	}
}

// enqueue hands fetched records to the partition's feed. Fetching pauses while
// the feed is far behind: polling must go on for the other partitions.
func (t *Tracked) enqueue(f kgo.FetchTopicPartition) {
	if len(f.Records) == 0 {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.owned[topicPartition{f.Topic, f.Partition}]
	if p == nil || p.ctx.Err() != nil {
		return
	}
	p.queue = append(p.queue, f.Records...)
	if len(p.queue) > queueHigh && !p.paused {
		p.paused = true
		t.cons.PauseFetchPartitions(map[string][]int32{p.topic: {p.partition}})
	}
	wake(p.wake)
}

func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// feed takes one partition's records in order until the partition goes.
func (t *Tracked) feed(p *partition) {
	defer t.feeds.Done()
	for {
		k := t.next(p)
		if k == nil {
			return
		}
		if err := t.take(p, k); err != nil {
			k.Release()
			if p.ctx.Err() == nil {
				select {
				case t.failed <- err:
				default:
				}
				return
			}
		}
	}
}

func (t *Tracked) take(p *partition, k *Ticket) (err error) {
	defer func() {
		if v := recover(); v != nil {
			t.bury(k, panicked(t.cfg.Config, t.cfg.Role, &k.Record, v))
		}
	}()
	return t.cfg.Handler.Take(p.ctx, k)
}

// bury ends a ticket as a dead letter.
func (t *Tracked) bury(k *Ticket, err error) {
	dead, _ := pipeline.IsPermanent(err)
	t.cfg.Observer.deadLetter(t.cfg.Role, dead.Reason)
	var out pipeline.Output
	out.Send(pipeline.NewDeadLetter(t.cfg.Names.DeadLetters(), &k.Record, pipeline.DeadLetter{
		Stage: t.cfg.Role, Reason: dead.Reason, Error: dead.Err.Error(), At: time.Now(),
	}))
	if t.cfg.OnDeadLetter != nil {
		out.Counts = t.cfg.OnDeadLetter(&k.Record)
	}
	k.End(out)
}

// next waits for the next record to take; nil once the partition goes.
func (t *Tracked) next(p *partition) *Ticket {
	for {
		if k, ok := t.tryNext(p); ok {
			return k
		}
		select {
		case <-p.wake:
		case <-p.ctx.Done():
			return nil
		}
	}
}

func (t *Tracked) tryNext(p *partition) (*Ticket, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if p.ctx.Err() != nil {
		return nil, true
	}
	for len(p.queue) > 0 && !p.window.full() {
		k := &Ticket{t: t, p: p}
		fromKafka(p.queue[0], &k.Record)
		p.queue[0] = nil
		p.queue = p.queue[1:]
		if p.paused && len(p.queue) < queueLow {
			p.paused = false
			t.cons.ResumeFetchPartitions(map[string][]int32{p.topic: {p.partition}})
		}
		if p.window.take(k) {
			p.open++
			return k, true
		}
	}
	return nil, false
}

func (t *Tracked) settle(k *Ticket, out *pipeline.Output) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if k.ended || k.p == nil {
		return
	}
	p := k.p
	p.open--
	if out == nil {
		k.p = nil // released: stays open in the window
	} else {
		k.ended, k.out = true, *out
		t.done = append(t.done, k)
		wake(t.dirty)
	}
	wake(t.moved)
}
