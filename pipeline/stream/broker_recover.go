package stream

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// recoverWithin bounds the recovery after a kill; it takes about as long as the
// start itself.
const recoverWithin = 5 * time.Minute

// recover puts the data of a broker that was killed in order. It does so on an
// address that nobody knows: roles that outlived the broker wait until it is
// through.
//
// kfake takes transactions that were open for aborted, but writes no marker.
// A client that reads committed records goes by the markers: it would take the
// next transactions of the same producer for aborted too, for ever.
func (b *Broker) recover() error {
	if b.dir.clean {
		return nil
	}
	started := time.Now()
	if err := b.dir.mend(); err != nil {
		return err
	}
	n, err := b.endTransactions()
	if err != nil {
		return err
	}
	if err := b.dir.forgetState(); err != nil {
		return err
	}
	b.cfg.Log.Warn("the broker was not closed properly last time; open transactions are ended",
		"transactional_ids", n, "took", time.Since(started).Round(time.Millisecond))
	return nil
}

// mend makes the files such that kfake makes the right thing of them. Each step
// may be cut short, and is done again then.
func (d *dataDir) mend() error {
	for _, step := range []func() error{
		d.forgetState, d.cutLogs, d.restoreCompacted, d.completeIndexes, d.restoreSequences,
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// endTransactions commits the one that was being committed, and aborts all that
// were open. It returns how many transactional ids there are.
func (b *Broker) endTransactions() (int, error) {
	if err := b.start("127.0.0.1:0"); err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), recoverWithin)
	defer cancel()
	defer b.stop()
	if err := b.finishCommit(ctx); err != nil {
		return 0, fmt.Errorf("finishing a commit: %w", err)
	}
	n, err := b.abortOpen(ctx)
	if err != nil {
		return 0, fmt.Errorf("ending open transactions: %w", err)
	}
	return n, nil
}

// forgetState has kfake read its partitions from their records when it starts,
// rather than what it believed of them when it closed, and forget who was in a
// group: none of that holds after a kill.
func (d *dataDir) forgetState() error {
	files, err := filepath.Glob(filepath.Join(d.live(), "*", "snapshot.json"))
	if err != nil {
		return err
	}
	for _, f := range append(files, filepath.Join(d.path, "session_state.json")) {
		if err := gone(os.Remove(f)); err != nil {
			return err
		}
	}
	return nil
}

// abortOpen writes an abort marker of every producer with a transactional id
// into every partition, since kfake does not tell where a transaction was open,
// and fences who still uses the id. It returns how many ids there are.
func (b *Broker) abortOpen(ctx context.Context) (int, error) {
	adm := kadm.NewClient(b.cl)
	listed, err := adm.ListTransactions(ctx, nil, nil)
	if err != nil || len(listed) == 0 {
		return 0, err
	}
	ids := slices.Sorted(maps.Keys(listed))
	open, err := adm.DescribeTransactions(ctx, ids...)
	if err != nil {
		return 0, err
	}
	topics, err := adm.ListTopicsWithInternal(ctx)
	if err != nil {
		return 0, err
	}
	for _, id := range ids {
		t := open[id]
		if t.Err != nil {
			return 0, fmt.Errorf("describing %q: %w", id, t.Err)
		}
		if err := b.fence(ctx, id); err != nil {
			return 0, fmt.Errorf("fencing %q: %w", id, err)
		}
		if err := b.abortMarkers(ctx, t.ProducerID, t.ProducerEpoch, topics.TopicsSet()); err != nil {
			return 0, err
		}
	}
	return len(ids), nil
}

func (b *Broker) abortMarkers(ctx context.Context, producer int64, epoch int16, where kadm.TopicsSet) error {
	written, err := kadm.NewClient(b.cl).WriteTxnMarkers(ctx, kadm.TxnMarkers{ProducerID: producer, ProducerEpoch: epoch, Topics: where})
	if err != nil {
		return err
	}
	var errs []error
	written.EachPartition(func(p kadm.TxnMarkersPartitionResponse) { errs = append(errs, p.Err) })
	return errors.Join(errs...)
}

// keepEnds writes a marker that means nothing into each partition whose records
// have all been deleted: of one without any, kfake forgets the end when it
// closes, and new records would begin at 0, where consumers have long been.
func (b *Broker) keepEnds(ctx context.Context) error {
	found, err := kadm.NewClient(b.cl).ListTopicsWithInternal(ctx)
	if err != nil {
		return fmt.Errorf("looking for empty partitions: %w", err)
	}
	empty := kadm.TopicsSet{}
	for topic := range found {
		for _, p := range b.cluster.PartitionInfos(topic) {
			if p.HighWatermark > 0 && p.LogStartOffset == p.HighWatermark {
				empty.Add(topic, p.Partition)
			}
		}
	}
	if len(empty) == 0 {
		return nil
	}
	return b.abortMarkers(ctx, 0, 0, empty)
}

// fence raises the epoch of a transactional id.
func (b *Broker) fence(ctx context.Context, id string) error {
	req := kmsg.NewPtrInitProducerIDRequest()
	req.TransactionalID = &id
	req.TransactionTimeoutMillis = int32(logTimeout.Milliseconds())
	resp, err := req.RequestWith(ctx, b.cl)
	if err != nil {
		return err
	}
	return kerr.ErrorForCode(resp.ErrorCode)
}

// worthCompacting is how large a compacted topic has to be at least, and
// compactAt how many times its size after the last compaction.
const (
	worthCompacting = 1 << 20
	compactAt       = 2
)

// compact compacts the topics that want it, when one has grown. kfake does that
// all at once, deletes files before it writes their successors, and takes
// records of open transactions for the newest. So it runs rarely, with the old
// files kept until it is through, and not while a transaction is open there.
func (b *Broker) compact(ctx context.Context) error {
	topics, err := b.compactTopics(ctx)
	if err != nil {
		return err
	}
	grown := false
	var keep []partitionName
	for _, t := range topics {
		for _, p := range b.cluster.PartitionInfos(t) {
			if p.LastStableOffset < p.HighWatermark {
				return nil // the next look finds it quiet
			}
			name := partitionName{t, p.Partition}
			grown = grown || p.NumBytes > worthCompacting && p.NumBytes > compactAt*b.compacted[name.String()]
			keep = append(keep, name)
		}
	}
	if !grown {
		return nil
	}
	if b.dir != nil {
		if err := b.dir.keepCompacted(keep); err != nil {
			return fmt.Errorf("keeping topics before their compaction: %w", err)
		}
	}
	b.cluster.Compact()
	for _, name := range keep {
		if p := b.cluster.PartitionInfo(name.topic, name.partition); p != nil {
			b.compacted[name.String()] = p.NumBytes
		}
	}
	if b.dir == nil {
		return nil
	}
	return b.dir.dropKept()
}

func (b *Broker) compactTopics(ctx context.Context) (out []string, err error) {
	found, err := kadm.NewClient(b.cl).ListTopics(ctx)
	if err != nil {
		return nil, fmt.Errorf("looking for compacted topics: %w", err)
	}
	for _, t := range found.Names() {
		info := b.cluster.TopicInfo(t)
		if info == nil { // deleted meanwhile
			continue
		}
		if p := info.Configs["cleanup.policy"]; p != nil && *p == "compact" {
			out = append(out, t)
		}
	}
	return out, nil
}
