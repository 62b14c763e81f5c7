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

	// Lanes keeps a partition of a lane's deliveries with one owner, together with
	// the same partition of its redeliveries and its waiting, which are among Topics.
	Lanes bool

	// Handler gets the records.
	Handler Handler

	// OnDeadLetter adds to the output what else is to be written when the runner
	// itself makes a dead letter of a record, such as what the ledger says. It is
	// called by several goroutines. nil means nothing.
	OnDeadLetter func(in *pipeline.Record, dead *pipeline.PermanentError, out *pipeline.Output)

	// OnOwned is told what of each topic this runner owns. It is never called
	// concurrently.
	OnOwned func(owned map[string]Owned)

	// Drain is how long a partition that goes to another owner may wait for
	// what is open; default 30 s. It must be longer than the longest call.
	Drain time.Duration

	Observer Observer
}

// Owned is what a runner owns of a topic.
type Owned struct {
	Partitions []int32
	Of         int // so many there are
}

// Limits of a Tracked runner.
const (
	commitEvery = 20 * time.Millisecond
	queueHigh   = 4_000 // fetched records a partition holds before its fetching pauses
	queueLow    = 2_000 // and resumes
	// A partition may stand still for hours with what it holds: so many bytes are
	// enough. A fetch brings up to 1 MiB of a partition.
	queueHighBytes = 4 << 20
	defaultDrain   = 30 * time.Second
	goodbye        = 30 * time.Second // for what comes after Drain, of a rebalance

	// Nobody gets the partitions of a member that died within a transaction before
	// Kafka has aborted that: it looks every 10 s for those that took too long. A
	// transaction takes milliseconds; one that takes longer is written again.
	trackedTxnTimeout = 4 * time.Second

	// A partition that resumes has to wait for the end of the fetch under way,
	// which may be one of partitions without any news. What is queued has to last
	// that long.
	fetchWait = 100 * time.Millisecond

	// While Kafka is away, calls must not go on, since each that can't be
	// committed may have to be made again: no more is taken once an ending has
	// waited that long for its commit, or so many have.
	commitLate     = time.Second
	maxUncommitted = 50_000

	// What a kill between a call and its commit can repeat is bounded: no call
	// begins while so many endings wait for their commit. A commit takes about
	// 5 ms on the embedded broker, 40 ms on Kafka.
	mostAtRisk      = 2_000
	mostAtRiskEmbed = 200
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
	cfg    TrackedConfig
	health health
	trim   *trimmer
	await  offsetsWatch
	feeds  sync.WaitGroup
	failed chan error    // why the runner can't go on
	dirty  chan struct{} // something is in done
	moved  chan struct{} // something ended or was released
	full   chan struct{} // atRisk is reached

	// polling is held while a poll is under way and its records are handed
	// out; calm says how to get it.
	polling sync.Mutex

	// commitMu is held during a transaction, and guards what follows.
	commitMu sync.Mutex
	prod     producer
	sieve    sieve
	unknown  *transaction // nobody told whether it was committed

	mu       sync.Mutex // guards the rest, and every partition; never held while waiting
	cons     *kgo.Client
	topics   []string // to read from the start on
	wakePoll context.CancelFunc
	calls    int // for calm
	owned    map[topicPartition]*partition
	done     []*Ticket      // ended, not yet committed
	ended    int64          // how many ever were in done
	through  int64          // and of those are committed, or not ours to commit any more
	inDoubt  int            // of those ended, in a transaction that is not through
	landing  chan struct{}  // closed by the next commit
	atRisk   int            // endings without a commit, from which on no call begins
	oldest   time.Time      // when the first of either ended
	kept     kept           // ended, but their partition went
	sizes    map[string]int // partitions of topics, where OnOwned asks

	telling sync.Mutex // held while OnOwned is called; before mu
}

// NewTracked makes a runner; Run runs it.
func NewTracked(cfg TrackedConfig) (*Tracked, error) {
	if _, err := cfg.options(); err != nil {
		return nil, err
	}
	if cfg.Drain == 0 {
		cfg.Drain = defaultDrain
	}
	return &Tracked{
		cfg:     cfg,
		health:  health{ready: cfg.Observer.Ready},
		trim:    newTrimmer(cfg.Config),
		await:   offsetsWatch{cfg: cfg.Config, group: cfg.Names.Group(cfg.Role)},
		failed:  make(chan error, 1),
		dirty:   make(chan struct{}, 1),
		moved:   make(chan struct{}, 1),
		full:    make(chan struct{}, 1),
		topics:  cfg.Topics,
		owned:   map[topicPartition]*partition{},
		landing: make(chan struct{}),
		atRisk:  mostAtRisk,
		kept:    kept{},
		sizes:   map[string]int{},
	}, nil
}

// AddTopics makes the runner read more topics: those of a new lane. Topics that
// it reads already change nothing.
func (t *Tracked) AddTopics(topics ...string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.cons == nil {
		t.topics = append(t.topics[:len(t.topics):len(t.topics)], topics...)
		return
	}
	t.cons.AddConsumeTopics(topics...)
}

// Run reads until ctx ends; then it waits for what is open, commits, leaves the
// group and returns nil. An error means that it can't go on. It is called once.
//
// It ends within Drain for what is open, 10 s for the last transaction and 5 s
// for leaving, whether Kafka is there or not.
func (t *Tracked) Run(ctx context.Context) error {
	base, kill := context.WithCancel(context.WithoutCancel(ctx))
	defer kill()
	if !t.connect(ctx, base) {
		t.prod.drop()
		return nil
	}
	err := t.consume(base)
	if err == nil {
		err = t.work(ctx, base, kill)
	}
	t.prod.drop()
	if err != nil {
		return fmt.Errorf("running %s: %w", t.cfg.Role, err)
	}
	return nil
}

// connect makes the producer: what a former run has left open is ended by that,
// before its offsets are asked for. It tries until ctx ends.
func (t *Tracked) connect(ctx, base context.Context) bool {
	t.prod.cfg, t.prod.role, t.prod.base = t.cfg.Config, t.cfg.Role, base
	var wait backoff
	for ctx.Err() == nil {
		err := t.prod.open(ctx)
		if ctx.Err() != nil {
			break
		}
		t.health.set(writing, err)
		if err == nil {
			t.boundRisk()
			return true
		}
		t.cfg.log().Warn("waiting for Kafka", "role", t.cfg.Role, "error", err)
		sleep(ctx, wait.next())
	}
	return false
}

func (t *Tracked) boundRisk() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.prod.pause == 0 {
		t.atRisk = mostAtRiskEmbed
	}
}

// work polls and commits until ctx ends or something fails for good, and leaves
// the group.
func (t *Tracked) work(ctx, base context.Context, kill context.CancelFunc) error {
	defer t.trim.start(base)()
	commits, stop := context.WithCancel(base)
	var loop sync.WaitGroup
	loop.Go(func() { t.commitLoop(commits) })
	loop.Go(func() { t.await.run(commits, t.offsetsHeld) })
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
	err := g.Wait()
	t.leaveGroup(base, kill)
	stop()
	loop.Wait()
	return err
}

// fail stops the runner.
func (t *Tracked) fail(err error) {
	select {
	case t.failed <- err:
	default: // it stops already
	}
}

// leaveGroup lets everything go as a rebalance would, and leaves.
func (t *Tracked) leaveGroup(base context.Context, kill context.CancelFunc) {
	parts := t.leave(t.all())
	t.drain(base, parts)
	last := time.AfterFunc(txnTimeout, kill)
	t.commitAll(base)
	t.forget(parts)
	last.Reset(leaveMax)
	defer last.Stop()
	t.cons.Close()
	t.feeds.Wait()
}

func (t *Tracked) poll(ctx context.Context) error {
	for ctx.Err() == nil {
		if err := t.pollOnce(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (t *Tracked) pollOnce(ctx context.Context) error {
	t.polling.Lock()
	defer t.polling.Unlock()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	t.mu.Lock()
	t.wakePoll = cancel
	if t.calls > 0 {
		cancel()
	}
	t.mu.Unlock()
	fetches := t.cons.PollRecords(ctx, maxPoll)
	err := fetchError(fetches)
	if stop, ok := errors.AsType[*stopError](err); ok {
		return stop.err
	}
	if fetches.IsClientClosed() {
		return err
	}
	if err != nil {
		t.health.set(reading, err)
		t.cfg.log().Warn("reading", "role", t.cfg.Role, "error", err)
	} else if fetches.NumRecords() > 0 {
		t.health.set(reading, nil)
	}
	fetches.EachPartition(t.enqueue)
	return nil
}

// calm calls f while no poll is under way and no records are on their way from
// one. A partition that goes and comes back at once would get records from
// before, skip ahead, and lose what is in between.
func (t *Tracked) calm(f func()) {
	t.mu.Lock()
	t.calls++
	if t.wakePoll != nil {
		t.wakePoll()
	}
	t.mu.Unlock()
	t.polling.Lock()
	defer t.polling.Unlock()
	t.mu.Lock()
	t.calls--
	t.mu.Unlock()
	f()
}

// addDone is called with mu held.
func (t *Tracked) addDone(k *Ticket) {
	if len(t.done)+t.inDoubt == 0 {
		t.oldest = time.Now()
	}
	t.done = append(t.done, k)
	t.ended++
	wake(t.dirty)
	if len(t.done) == t.atRisk {
		wake(t.full)
	}
}

// late says that commits don't keep up. It is called with mu held.
func (t *Tracked) late() bool {
	n := len(t.done) + t.inDoubt
	return n >= maxUncommitted || n > 0 && time.Since(t.oldest) > commitLate
}

func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
