package stream

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-io/millrace/pipeline"
)

// A log is a compacted topic with one partition: definitions, states. Its
// offsets number its states, so every reader of the same offset knows the same.

// ChangeHeader is the header that LogWriter adds to what it writes. All
// records of one Write have the same value, and no other record has it.
const ChangeHeader = "millrace-change"

// ErrFenced means that another writer of the same log came in between. Nothing
// was written; read what the other one wrote and decide again.
var ErrFenced = errors.New("somebody else changed this at the same moment; nothing was written, look at their change and try again")

// logTimeout is how long a transaction of a log may take, and ending one.
const logTimeout = 10 * time.Second

// topicChecks is how often a topic has to be missing to be believed: one just
// created takes a moment to be known everywhere.
const topicChecks = 4

// Follow reads a log from its start and never stops: Kafka may go and come
// back. It returns when ctx ends, when apply gives an error, or when the log
// can't be read any more (it does not exist, its position is gone).
//
// apply gets records in order, aborted ones left out; a nil value means that
// the key is gone. next is the offset that it is now complete up to, markers
// of transactions counted; it may grow without records. caughtUp turns true
// once, with the call that reaches what was the end when Follow began: the
// first call already where the log is empty. It is never called concurrently.
func Follow(ctx context.Context, cfg Config, topic string, apply func(batch []pipeline.Record, next int64, caughtUp bool) error) error {
	cl, err := cfg.client(logReader(topic)...)
	if err != nil {
		return err
	}
	defer cl.Close()
	start, end, err := logBounds(ctx, cfg, cl, topic)
	if err != nil {
		return fmt.Errorf("following topic %q: %w", topic, err)
	}
	caughtUp := start >= end
	if caughtUp {
		if err := apply(nil, start, true); err != nil {
			return err
		}
	}
	for {
		batch, next, err := pollLog(ctx, cl)
		if err != nil {
			return err
		}
		caughtUp = caughtUp || next >= end
		if err := apply(batch, next, caughtUp); err != nil {
			return err
		}
	}
}

func logReader(topic string) []kgo.Opt {
	return []kgo.Opt{
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {0: kgo.NoResetOffset().AtStart()}}),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		// The last offset is often a marker: without these, nobody would ever
		// reach the end.
		kgo.KeepControlRecords(),
	}
}

// pollLog waits for records and returns them without the markers, and the
// offset after the last of either.
func pollLog(ctx context.Context, cl *kgo.Client) (batch []pipeline.Record, next int64, err error) {
	for next == 0 {
		fs := cl.PollFetches(ctx)
		if err := ctx.Err(); err != nil {
			return nil, 0, err
		}
		if err := fatal(fs); err != nil {
			return nil, 0, err
		}
		for it := fs.RecordIter(); !it.Done(); {
			r := it.Next()
			next = r.Offset + 1
			if !r.Attrs.IsControl() {
				batch = append(batch, asRecord(r))
			}
		}
	}
	return batch, next, nil
}

// logBounds returns where a log starts and its last stable offset. It waits
// for Kafka as long as ctx lasts.
func logBounds(ctx context.Context, cfg Config, cl *kgo.Client, topic string) (start, end int64, err error) {
	var pause backoff
	for missing := 0; ; {
		start, end, err = listBounds(ctx, cl, topic)
		switch {
		case err == nil:
			return start, end, nil
		case ctx.Err() != nil:
			return 0, 0, ctx.Err()
		case errors.Is(err, kerr.UnknownTopicOrPartition):
			if missing++; missing == topicChecks {
				return 0, 0, hint(err)
			}
		case !transient(err):
			return 0, 0, err
		default:
			cfg.log().Warn("waiting for Kafka", "topic", topic, "error", err)
		}
		sleep(ctx, pause.next())
	}
}

func listBounds(ctx context.Context, cl *kgo.Client, topic string) (start, end int64, err error) {
	adm := kadm.NewClient(cl)
	one := func(list func(context.Context, ...string) (kadm.ListedOffsets, error)) int64 {
		if err != nil {
			return 0
		}
		var l kadm.ListedOffsets
		if l, err = list(ctx, topic); err == nil {
			err = l.Error()
		}
		o, ok := l.Lookup(topic, 0)
		if err == nil && !ok {
			err = kerr.UnknownTopicOrPartition
		}
		return o.Offset
	}
	start = one(adm.ListStartOffsets)
	end = one(adm.ListCommittedOffsets)
	return start, end, err
}

// LogWriter writes to a log, one writer at a time: of two that decide upon the
// same state, one succeeds. It is safe for concurrent use.
type LogWriter struct {
	cfg   Config
	txn   string
	topic string

	mu      sync.Mutex
	cl      *kgo.Client // nil until needed, and after an error
	current map[string]pipeline.Record
	next    int64 // current is complete up to here
	wrote   int64 // the least that next must reach before deciding again

	sought string // the change that lookFor wants to see
	found  int64  // the offset after its last record
}

// OpenLogWriter makes a writer of a log. Writers with the same name fence each
// other, in whatever process they are. It finds out whether the log exists.
func OpenLogWriter(ctx context.Context, cfg Config, name, topic string) (*LogWriter, error) {
	cl, err := cfg.client()
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	if _, _, err := logBounds(ctx, cfg, cl, topic); err != nil {
		return nil, fmt.Errorf("opening topic %q to write: %w", topic, err)
	}
	return &LogWriter{cfg: cfg, txn: string(cfg.Names) + name, topic: topic}, nil
}

// Close ends the writer's connections.
func (w *LogWriter) Close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.drop()
}

// Write lets decide look at the newest state, by key, and writes the records
// that it returns: all of them or none, and only if nobody wrote in between.
// At least one goes to the log; others may go to other topics (a history). It returns the offset that a
// reader's next has to reach to know them.
//
// decide may be called twice and must not change the map. Its error is
// returned as it is, and no records means that nothing is to be written.
// ErrFenced says that another writer was faster. After any other error nothing
// was written either, unless Kafka could not be asked any more whether it was:
// then the error says that the outcome is unknown.
func (w *LogWriter) Write(ctx context.Context, decide func(current map[string]pipeline.Record, next int64) ([]pipeline.Record, error)) (next int64, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	kept := w.cl != nil
	next, err = w.write(ctx, decide)
	switch {
	case kept && errors.Is(err, ErrFenced):
		// Somebody wrote since our last time, perhaps long ago: not a conflict
		// yet. From here on it would be.
	case confused(err):
	default:
		return next, err
	}
	return w.write(ctx, decide)
}

// confused says that an error is what Kafka may say when two writers fence each
// other at the same moment: nothing was written.
func confused(err error) bool {
	_, unknown := errors.AsType[*unknownOutcome](err)
	return errors.Is(err, kerr.UnknownServerError) && !unknown
}

// fencedTries is how often WriteAmong tries again.
const fencedTries = 5

// WriteAmong is Write where others may write at the same time: it decides again
// on what they wrote, a few times. Two that begin at the same moment fence each
// other, so the pauses between differ.
func (w *LogWriter) WriteAmong(ctx context.Context, decide func(current map[string]pipeline.Record, next int64) ([]pipeline.Record, error)) (next int64, err error) {
	next, err = w.Write(ctx, decide)
	for range fencedTries {
		if !errors.Is(err, ErrFenced) && !confused(err) || ctx.Err() != nil {
			break
		}
		sleep(ctx, mathrand.N(500*time.Millisecond))
		next, err = w.Write(ctx, decide)
	}
	return next, err
}

func (w *LogWriter) write(ctx context.Context, decide func(map[string]pipeline.Record, int64) ([]pipeline.Record, error)) (int64, error) {
	if err := w.catchUp(ctx); err != nil {
		w.drop()
		return 0, fmt.Errorf("reading topic %q before a change: %w", w.topic, asFenced(err))
	}
	out, err := decide(w.current, w.next)
	if err != nil || len(out) == 0 {
		return w.next, err
	}
	if !slices.ContainsFunc(out, func(r pipeline.Record) bool { return r.Topic == w.topic }) {
		return 0, fmt.Errorf("changing topic %q: none of the %d records is for it", w.topic, len(out))
	}
	change := rand.Text()
	next, err := w.commit(ctx, change, out)
	if err == nil {
		w.wrote = next
		return next, nil
	}
	w.drop()
	if unknown, ok := errors.AsType[*unknownOutcome](err); ok {
		return w.lookFor(ctx, change, unknown.error)
	}
	return 0, fmt.Errorf("changing topic %q: %w", w.topic, asFenced(err))
}

// catchUp makes this the only writer, and only then reads to the end: whatever
// another one commits after that, it can't.
func (w *LogWriter) catchUp(ctx context.Context) error {
	if w.cl == nil {
		if err := endHanging(ctx, w.cfg, w.txn, ""); err != nil {
			return err
		}
		cl, err := w.cfg.client(append(logReader(w.topic),
			kgo.TransactionalID(w.txn), kgo.TransactionTimeout(logTimeout), kgo.UnknownTopicRetries(4))...)
		if err != nil {
			return err
		}
		w.cl, w.current, w.next, w.wrote = cl, map[string]pipeline.Record{}, 0, 0
	}
	if _, _, err := w.cl.ProducerID(ctx); err != nil {
		return err
	}
	start, end, err := logBounds(ctx, w.cfg, w.cl, w.topic)
	if err != nil {
		return err
	}
	// Kafka says that a transaction is committed before its markers are
	// written: our own last one may lie beyond the stable end.
	end = max(end, w.wrote)
	for w.next = max(w.next, start); w.next < end; {
		if err := w.readOn(ctx); err != nil {
			return err
		}
	}
	return nil
}

// readOn reads some more. What is there comes at once; our own last write does
// not if its transaction hangs, which a new client ends.
func (w *LogWriter) readOn(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, logTimeout)
	defer cancel()
	batch, next, err := pollLog(ctx, w.cl)
	if err != nil {
		return err
	}
	w.apply(batch)
	w.next = next
	return nil
}

func (w *LogWriter) apply(batch []pipeline.Record) {
	for _, r := range batch {
		if id, ok := r.Header(ChangeHeader); ok && string(id) == w.sought {
			w.found = r.Offset + 1
		}
		if r.Value == nil {
			delete(w.current, string(r.Key))
			continue
		}
		w.current[string(r.Key)] = r
	}
}

// unknownOutcome wraps the error of an End: the transaction may have been
// committed.
type unknownOutcome struct{ error }

func (u *unknownOutcome) Unwrap() error { return u.error }

func (w *LogWriter) commit(ctx context.Context, change string, out []pipeline.Record) (next int64, err error) {
	if err := w.cl.BeginTransaction(); err != nil {
		return 0, err
	}
	rs := make([]*kgo.Record, len(out))
	for i := range out {
		rs[i] = toKafka(&out[i])
		rs[i].Headers = append(rs[i].Headers, kgo.RecordHeader{Key: ChangeHeader, Value: []byte(change)})
	}
	failed, err := produceAll(ctx, w.cl, rs)
	if failed != nil {
		return 0, errors.Join(err, w.abort(ctx))
	}
	if err != nil {
		return 0, err // the next writer aborts it, or Kafka after the time-out
	}
	next = w.next
	topics := map[string]bool{}
	for _, r := range rs {
		topics[r.Topic] = true
		if r.Topic == w.topic {
			next = max(next, r.Offset+1)
		}
	}
	if err := noted(ctx, w.cl, topics); err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), logTimeout)
	defer cancel()
	if err := w.cl.EndTransaction(ctx, kgo.TryCommit); err != nil {
		return 0, &unknownOutcome{err}
	}
	return next, nil
}

// abort ends a transaction that failed, whatever became of ctx. Where it can't,
// the next writer ends it, or Kafka after the time-out: nobody reads of it.
func (w *LogWriter) abort(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), logTimeout)
	defer cancel()
	if err := w.cl.AbortBufferedRecords(ctx); err != nil {
		return err
	}
	err := w.cl.EndTransaction(ctx, kgo.TryAbort)
	if asFenced(err) == ErrFenced { //nolint:errorlint // which of the two is the question
		return nil // ended by the other writer
	}
	return err
}

// lookFor finds out whether a transaction whose End gave an error was
// committed: taking over the id ends it one way or the other, and then its
// records are there or not.
func (w *LogWriter) lookFor(ctx context.Context, change string, cause error) (int64, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), logTimeout)
	defer cancel()
	w.sought, w.found = change, 0
	if err := w.catchUp(ctx); err != nil {
		w.drop()
		return 0, &unknownOutcome{fmt.Errorf("changing topic %q: the outcome is unknown: %w", w.topic, errors.Join(cause, err))}
	}
	if w.found > 0 {
		return w.found, nil
	}
	return 0, fmt.Errorf("changing topic %q: %w", w.topic, asFenced(cause))
}

func (w *LogWriter) drop() {
	if w.cl != nil {
		w.cl.Close()
		w.cl = nil
	}
}

// asFenced turns what Kafka answers to a producer whose id was taken over into
// ErrFenced: its transaction is aborted (INVALID_TXN_STATE), and its epoch old.
// An id that was not used for a week is forgotten, which ends the same way.
func asFenced(err error) error {
	for _, k := range []error{
		kerr.ProducerFenced, kerr.InvalidProducerEpoch, kerr.InvalidTxnState,
		kerr.InvalidProducerIDMapping, kerr.UnknownProducerID,
	} {
		if errors.Is(err, k) {
			return ErrFenced
		}
	}
	return err
}
