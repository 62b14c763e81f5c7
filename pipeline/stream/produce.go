package stream

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-io/millrace/pipeline"
)

// asRecord makes a record of its own of the client's.
func asRecord(k *kgo.Record) pipeline.Record {
	var r pipeline.Record
	fromKafka(k, &r)
	return r
}

// Producer writes records outside of any transaction: what comes in from
// outside, at the gateway or by `millrace send`. Records with the same key go
// to the same partition, in order. It is safe for concurrent use.
type Producer struct {
	cfg Config
	cl  *kgo.Client
}

// NewProducer makes a Producer. It does not connect yet.
func NewProducer(cfg Config) (*Producer, error) {
	// A topic that is not there after a few looks is a mistake to be told,
	// not something to wait for.
	cl, err := cfg.client(kgo.RequiredAcks(kgo.AllISRAcks()), kgo.UnknownTopicRetries(4))
	if err != nil {
		return nil, err
	}
	return &Producer{cfg, cl}, nil
}

// Produce writes the records and returns once every replica in sync has them.
// After an error some of them may have been written, in order for each
// partition. It waits for a broker that is away until ctx ends.
func (p *Producer) Produce(ctx context.Context, rs []pipeline.Record) error {
	out := make([]*kgo.Record, len(rs))
	for i := range rs {
		out[i] = toKafka(&rs[i])
	}
	failed, err := produceAll(ctx, p.cl, out)
	if failed != nil {
		return fmt.Errorf("writing to topic %q: %w", failed.Topic, hint(err))
	}
	if err != nil {
		return fmt.Errorf("writing %d records: %w", len(rs), err)
	}
	return nil
}

// produceAll writes records and waits until each is acknowledged or failed. It
// returns the first that failed with its error, or else ctx's error if that
// ends first. The client itself does not let go of a record that it has sent
// and heard nothing of, whatever ctx says: it may have been written.
func produceAll(ctx context.Context, cl *kgo.Client, rs []*kgo.Record) (*kgo.Record, error) {
	type result struct {
		r   *kgo.Record
		err error
	}
	results := make(chan result, len(rs))
	for _, r := range rs {
		cl.Produce(ctx, r, func(r *kgo.Record, err error) { results <- result{r, err} })
	}
	var first result
	for range rs {
		select {
		case got := <-results:
			if got.err != nil && first.err == nil {
				first = got
			}
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return first.r, first.err
}

// noted waits until the client itself has noted the partitions of topics that it
// has written to. In franz-go 1.22 a topic's first records may be written and
// acknowledged before that; a commit then finds that nothing was written, and
// aborts without an error.
func noted(ctx context.Context, cl *kgo.Client, topics map[string]bool) error {
	const look = time.Millisecond
	for topic := range topics {
		for {
			if leader, _, _ := cl.PartitionLeader(topic, 0); leader >= 0 {
				break
			}
			if err := ctx.Err(); err != nil {
				return fmt.Errorf("waiting for the partitions of topic %q: %w", topic, err)
			}
			sleep(ctx, look)
		}
	}
	return nil
}

// Close gives up what has not been acknowledged and ends the connections.
func (p *Producer) Close() { p.cl.Close() }

// errNoTopic is what to do about a topic that is missing.
var errNoTopic = errors.New("the topic does not exist; run `millrace init`")

// hint says what to do where an error alone does not.
func hint(err error) error {
	if errors.Is(err, kerr.UnknownTopicOrPartition) {
		return fmt.Errorf("%w (%w)", errNoTopic, err)
	}
	return err
}

// Start says where reading begins.
type Start struct{ at kgo.Offset }

// FromStart begins with the oldest record that is kept.
func FromStart() Start { return Start{kgo.NoResetOffset().AtStart()} }

// FromEnd begins with what is written from now on.
func FromEnd() Start { return Start{kgo.NoResetOffset().AtEnd()} }

// FromTime begins with the first record written at t or later.
func FromTime(t time.Time) Start { return Start{kgo.NoResetOffset().AfterMilli(t.UnixMilli())} }

// Read calls each with every record of the topics, aborted ones left out,
// until each or Kafka gives an error or ctx ends, whose error it then returns.
// Records of one partition come in order. It is no member of a group: nobody
// else gets fewer records for it. Where Kafka is away it waits.
func Read(ctx context.Context, cfg Config, topics []string, from Start, each func(pipeline.Record) error) error {
	cl, err := cfg.client(kgo.FetchIsolationLevel(kgo.ReadCommitted()))
	if err != nil {
		return err
	}
	defer cl.Close()
	found, err := kadm.NewClient(cl).ListTopics(ctx, topics...)
	if err == nil {
		err = found.Error()
	}
	if err != nil {
		return fmt.Errorf("looking for topics %q: %w", topics, hint(err))
	}
	cl.AddConsumePartitions(allPartitions(found, from.at))
	for {
		fs := cl.PollFetches(ctx)
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := fatal(fs); err != nil {
			return err
		}
		for it := fs.RecordIter(); !it.Done(); {
			if err := each(asRecord(it.Next())); err != nil {
				return err
			}
		}
	}
}

func allPartitions(ts kadm.TopicDetails, at kgo.Offset) map[string]map[int32]kgo.Offset {
	out := map[string]map[int32]kgo.Offset{}
	for t, d := range ts {
		out[t] = map[int32]kgo.Offset{}
		for p := range d.Partitions {
			out[t][p] = at
		}
	}
	return out
}

// fatal returns the first error of a poll that waiting does not mend. The
// client itself tries the others again.
func fatal(fs kgo.Fetches) error {
	for _, e := range fs.Errors() {
		if !transient(e.Err) {
			return fmt.Errorf("reading topic %q, partition %d: %w", e.Topic, e.Partition, e.Err)
		}
	}
	return nil
}

// final are errors that no waiting mends, although they do not come from
// Kafka's list of those.
var final = []error{context.Canceled, kgo.ErrClientClosed, kgo.ErrMaxBuffered}

// transient says that an error may be gone after a while: Kafka is away, or it
// says so itself.
func transient(err error) bool {
	if slices.ContainsFunc(final, func(f error) bool { return errors.Is(err, f) }) {
		return false
	}
	if _, lost := errors.AsType[*kgo.ErrDataLoss](err); lost {
		return false
	}
	if k, ok := errors.AsType[*kerr.Error](err); ok {
		return k.Retriable
	}
	return true
}
