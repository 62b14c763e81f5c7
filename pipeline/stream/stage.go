package stream

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-io/millrace/pipeline"
)

// StageConfig is what RunStage runs.
type StageConfig struct {
	Config

	// Role names the consumer group and the transactional id.
	Role string

	// Topics are what the stage reads; with Regex, patterns of whole names, which
	// never stand for topics that Millrace itself writes to, but for that of the
	// operator events.
	Topics []string
	Regex  bool

	// Stage is what each record goes through.
	Stage pipeline.Stage

	// Start says where a partition without a committed offset begins; logStart
	// is its oldest offset. nil means there. An error stops the runner.
	Start func(topic string, partition int32, logStart int64) (int64, error)

	// OnDeadLetter adds to the output what else is to be written when the runner
	// itself makes a dead letter of a record, such as what the ledger says. It is
	// called by several goroutines, and again after a transaction that was aborted.
	// nil means nothing.
	OnDeadLetter func(in *pipeline.Record, dead *pipeline.PermanentError, out *pipeline.Output)

	// Owner means that nobody else reads the topics: what was committed an
	// hour ago is deleted.
	Owner bool

	Observer Observer
}

// Limits of a runner and its transactions.
const (
	maxPoll     = 10_000           // records
	txnTimeout  = 10 * time.Second // after which Kafka aborts it by itself
	sessTimeout = 10 * time.Second // after which a silent member has left
	leaveMax    = 5 * time.Second  // for telling the group that one leaves
	heartbeat   = time.Second
)

// RunStage reads the topics, takes each record through the stage, and writes
// what comes out together with the committed offsets: one Kafka transaction a
// poll, exactly once whatever crashes. Batches grow by themselves under load.
//
// A record that the stage refuses for good, panics on, or whose output Kafka
// refuses, becomes a dead letter; everything else goes on. Broker trouble and
// "not now" from the stage mean the same records again, after a pause. RunStage
// returns nil when ctx ends, after the transaction under way, for which it has
// 10 s, and an error when it can't go on: a position that no longer exists,
// records of a newer format.
func RunStage(ctx context.Context, cfg StageConfig) error { return newStageRunner(cfg).run(ctx) }

// stopError is one that trying again does not mend.
type stopError struct{ err error }

func (e *stopError) Error() string { return e.err.Error() }
func (e *stopError) Unwrap() error { return e.err }

// position is where a record stands.
type position struct {
	topic     string
	partition int32
	offset    int64
}

func positionOf(r *kgo.Record) position { return position{r.Topic, r.Partition, r.Offset} }

type stageRunner struct {
	cfg      StageConfig
	culprits map[position]*pipeline.PermanentError // records whose output Kafka refuses
	sieve    sieve
	pause    time.Duration // between the end of a transaction and the next
	ended    time.Time     // of the last transaction
	trim     *trimmer
	await    offsetsWatch
	health   health
}

func newStageRunner(cfg StageConfig) *stageRunner {
	return &stageRunner{
		cfg:      cfg,
		culprits: map[position]*pipeline.PermanentError{},
		health:   health{ready: cfg.Observer.Ready},
		trim:     newTrimmer(cfg.Config),
		await:    offsetsWatch{cfg: cfg.Config, group: cfg.Names.Group(cfg.Role)},
	}
}

func (s *stageRunner) run(ctx context.Context) error {
	if s.cfg.Owner {
		defer s.trim.start(ctx)()
	}
	var wait backoff
	for ctx.Err() == nil {
		err := s.session(ctx, &wait)
		if ctx.Err() != nil {
			return nil
		}
		if fatal, ok := errors.AsType[*stopError](err); ok {
			return fmt.Errorf("running %s: %w", s.cfg.Role, fatal.err)
		}
		s.cfg.Observer.rebuilt(s.cfg.Role)
		s.cfg.log().Warn("stage starts over", "role", s.cfg.Role, "error", err)
		sleep(ctx, wait.next())
	}
	return nil
}

// session runs one client until it breaks or ctx ends.
func (s *stageRunner) session(ctx context.Context, wait *backoff) error {
	late, cancel := grace(ctx, txnTimeout) // lets a transaction end after ctx
	defer cancel()
	if _, err := s.cfg.options(); err != nil {
		return &stopError{err}
	}
	if err := endHanging(ctx, s.cfg.Config, s.id(), s.cfg.Names.Group(s.cfg.Role)); err != nil {
		s.health.set(reading, err)
		return err
	}
	sess, err := s.open(late)
	if err != nil {
		return &stopError{err}
	}
	defer func() {
		s.await.came()
		time.AfterFunc(leaveMax, cancel)
		sess.Close()
	}()
	if s.pause, err = pauseFor(ctx, sess.Client()); err != nil {
		s.health.set(reading, err)
		return err
	}
	// What was left open under the id ends now, and not with the first record:
	// the offsets of those may be part of it.
	if _, _, err := sess.Client().ProducerID(ctx); err != nil {
		s.health.set(reading, err)
		return fmt.Errorf("asking for a producer id: %w", err)
	}
	s.health.set(reading, nil)
	var watch sync.WaitGroup
	defer watch.Wait()
	watching, stop := context.WithCancel(ctx)
	defer stop()
	watch.Go(func() { s.await.run(watching, s.offsetsHeld) })
	for {
		fetches := sess.PollRecords(ctx, maxPoll)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err := fetchError(fetches); err != nil {
			s.health.set(reading, err)
			return err
		}
		if fetches.NumRecords() == 0 {
			continue
		}
		if err := s.transact(ctx, late, sess, fetches); err != nil {
			return err
		}
		wait.reset()
	}
}

func (s *stageRunner) id() string { return s.cfg.Names.TransactionalID(s.cfg.Role, s.cfg.Instance) }

func (s *stageRunner) offsetsCame(context.Context, *kgo.Client, *kmsg.OffsetFetchResponse) error {
	s.await.came()
	return nil
}

// offsetsHeld is told why offsets don't come; nil when they do again. What holds
// them is hardly a transaction of our own: that has ended before the session began.
func (s *stageRunner) offsetsHeld(err error) {
	s.health.set(assigning, err)
	if err == nil {
		return
	}
	s.cfg.log().Warn("waiting for partitions", "role", s.cfg.Role, "error", err)
}

// open makes the session's client, which stops short when late ends.
func (s *stageRunner) open(late context.Context) (*kgo.GroupTransactSession, error) {
	opts, err := s.cfg.options()
	if err != nil {
		return nil, err
	}
	names := s.cfg.Names
	opts = append(opts,
		kgo.WithContext(late),
		kgo.ConsumerGroup(names.Group(s.cfg.Role)),
		kgo.ConsumeTopics(s.cfg.Topics...),
		kgo.TransactionalID(s.id()),
		kgo.TransactionTimeout(txnTimeout),
		kgo.SessionTimeout(sessTimeout),
		kgo.HeartbeatInterval(heartbeat),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.FetchMaxWait(500*time.Millisecond),
		kgo.OnPartitionsAssigned(s.await.given),
		kgo.OnPartitionsRevoked(s.await.gone),
		kgo.OnOffsetsFetched(s.offsetsCame),
		kgo.AdjustFetchOffsetsFn(s.start),
	)
	if s.cfg.Regex {
		opts = append(opts, kgo.ConsumeRegex(), kgo.ConsumeExcludeTopics(s.cfg.ownPattern()))
	}
	sess, err := kgo.NewGroupTransactSession(opts...)
	if err != nil {
		return nil, fmt.Errorf("making a Kafka client: %w", err)
	}
	return sess, nil
}

// start gives partitions without a commit an offset to begin at. It has to be a
// real one: an aborted transaction goes back to what was fetched here, and from
// a mere "at the start" the client would not go back at all.
func (s *stageRunner) start(ctx context.Context, offsets map[string]map[int32]kgo.Offset) (map[string]map[int32]kgo.Offset, error) {
	return offsets, startAt(ctx, s.cfg.Config, offsets, s.cfg.Start)
}

// startAt replaces the offsets that stand for "nothing committed".
func startAt(ctx context.Context, cfg Config, offsets map[string]map[int32]kgo.Offset,
	start func(topic string, partition int32, logStart int64) (int64, error),
) error {
	topics := uncommitted(offsets)
	if len(topics) == 0 {
		return nil
	}
	cl, err := cfg.client()
	if err != nil {
		return err
	}
	defer cl.Close()
	first, err := kadm.NewClient(cl).ListStartOffsets(ctx, topics...)
	if err != nil {
		return fmt.Errorf("asking for the start of %v: %w", topics, err)
	}
	for _, topic := range topics {
		for p, o := range offsets[topic] {
			if o.EpochOffset().Offset >= 0 {
				continue
			}
			at, ok := first.Lookup(topic, p)
			if !ok {
				at.Err = kerr.UnknownTopicOrPartition
			}
			if at.Err != nil {
				return fmt.Errorf("asking for the start of %s/%d: %w", topic, p, at.Err)
			}
			begin := at.Offset
			if start != nil {
				if begin, err = start(topic, p, at.Offset); err != nil {
					return &stopError{err}
				}
			}
			offsets[topic][p] = kgo.NewOffset().At(begin)
		}
	}
	return nil
}

// uncommitted returns the topics that have partitions without a commit.
func uncommitted(offsets map[string]map[int32]kgo.Offset) (topics []string) {
	for topic, parts := range offsets {
		for _, o := range parts {
			if o.EpochOffset().Offset < 0 {
				topics = append(topics, topic)
				break
			}
		}
	}
	return topics
}

// fetchError returns what is wrong with a poll, if it is worth starting over or
// stopping for; the client itself tries again what may pass. What stops the
// runner comes before all else.
func fetchError(fetches kgo.Fetches) (err error) {
	for _, e := range fetches.Errors() {
		if stop, ok := errors.AsType[*stopError](e.Err); ok {
			return stop
		}
		this := fmt.Errorf("reading %s/%d: %w", e.Topic, e.Partition, e.Err)
		if e.Topic == "" { // it concerns the group
			this = fmt.Errorf("reading: %w", e.Err)
		}
		switch {
		case errors.Is(e.Err, context.Canceled): // of this poll
		case errors.Is(e.Err, kerr.OffsetOutOfRange):
			return &stopError{fmt.Errorf("%w: records were deleted before they were read; "+
				"commit an offset for this partition to say where to go on", this)}
		case errors.Is(e.Err, kerr.TopicAuthorizationFailed), errors.Is(e.Err, kerr.GroupAuthorizationFailed):
			return &stopError{this}
		case err == nil:
			err = this
		}
	}
	return err
}
