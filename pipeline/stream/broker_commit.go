package stream

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// commitNote is what a transaction comprises. kfake commits one in many steps: a
// marker for each partition, then each offset. A kill in between would leave
// some of its records and not others, or records whose input is read again. So
// the note is on disk before the first step, and from then on the transaction is
// committed: after a kill, recover takes the steps that are missing.
type commitNote struct {
	ProducerID int64
	Epoch      int16
	Partitions []notedPartition
	Offsets    []notedOffset
}

// notedPartition is a partition as a request names it: by name or by id.
type notedPartition struct {
	Topic     string
	ID        [16]byte
	Partition int32
}

type notedOffset struct {
	notedPartition
	Group    string
	Offset   int64
	Metadata string
}

// commitNotes watches the transactions of a broker and keeps a note of the last
// one that was to be committed: kfake commits one after the other.
type commitNotes struct {
	file *os.File
	sync bool
	log  *slog.Logger
	open map[string]*commitNote // by transactional id; those seen from their beginning
	last *commitNote            // on disk; nil: none
}

const noteFile = "millrace.commit"

func openNotes(dir *dataDir, cfg *BrokerConfig) (*commitNotes, error) {
	f, err := os.OpenFile(filepath.Join(dir.path, noteFile), os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	return &commitNotes{file: f, sync: cfg.Sync, log: cfg.Log, open: map[string]*commitNote{}}, nil
}

// watch sees every request before kfake does what it says; one at a time.
func (n *commitNotes) watch(c *kfake.Cluster) {
	if n == nil {
		return
	}
	for _, key := range []kmsg.Key{
		kmsg.InitProducerID, kmsg.Produce, kmsg.TxnOffsetCommit, kmsg.EndTxn,
		kmsg.OffsetCommit, kmsg.OffsetDelete, kmsg.DeleteGroups,
	} {
		c.ControlKey(int16(key), func(r kmsg.Request) (kmsg.Response, error, bool) {
			c.KeepControl()
			n.see(r)
			return nil, nil, false
		})
	}
}

func (n *commitNotes) see(r kmsg.Request) {
	switch r := r.(type) {
	case *kmsg.InitProducerIDRequest: // which aborts what was open
		if r.TransactionalID != nil {
			n.open[*r.TransactionalID] = &commitNote{}
		}
	case *kmsg.ProduceRequest:
		if r.TransactionID != nil {
			n.open[*r.TransactionID].produced(r)
		}
	case *kmsg.TxnOffsetCommitRequest:
		n.open[r.TransactionalID].committed(r)
	case *kmsg.EndTxnRequest:
		n.end(r)
	case *kmsg.OffsetCommitRequest:
		n.overtaken(r.Group)
	case *kmsg.OffsetDeleteRequest:
		n.overtaken(r.Group)
	case *kmsg.DeleteGroupsRequest:
		n.overtaken(r.Groups...)
	}
}

// overtaken drops the note, which has been carried out by now, when somebody sets
// offsets of its groups without a transaction: those shall stay.
func (n *commitNotes) overtaken(groups ...string) {
	if n.last == nil || !slices.ContainsFunc(n.last.Offsets, func(o notedOffset) bool { return slices.Contains(groups, o.Group) }) {
		return
	}
	n.last = nil
	if err := n.file.Truncate(0); err != nil {
		n.log.Error("a kill of the broker just now may set offsets back to the last transaction", "error", err)
	}
}

func (n *commitNote) produced(r *kmsg.ProduceRequest) {
	if n == nil {
		return
	}
	for _, t := range r.Topics {
		for _, p := range t.Partitions {
			if at := (notedPartition{t.Topic, t.TopicID, p.Partition}); !slices.Contains(n.Partitions, at) {
				n.Partitions = append(n.Partitions, at)
			}
		}
	}
}

func (n *commitNote) committed(r *kmsg.TxnOffsetCommitRequest) {
	if n == nil {
		return
	}
	for _, t := range r.Topics {
		for _, p := range t.Partitions {
			o := notedOffset{notedPartition: notedPartition{t.Topic, t.TopicID, p.Partition}, Group: r.Group, Offset: p.Offset}
			if p.Metadata != nil {
				o.Metadata = *p.Metadata
			}
			n.Offsets = append(n.Offsets, o)
		}
	}
}

// end writes the note of a transaction that is about to be committed. Of clients
// that use one epoch for several transactions it keeps none: after a kill
// nobody could tell whose records are there.
func (n *commitNotes) end(r *kmsg.EndTxnRequest) {
	note := n.open[r.TransactionalID]
	n.open[r.TransactionalID] = &commitNote{}
	if note == nil || len(note.Partitions) == 0 || !r.Commit || r.Version < 5 {
		return
	}
	note.ProducerID, note.Epoch = r.ProducerID, r.ProducerEpoch
	n.last = note
	if err := n.write(note); err != nil {
		n.log.Error("a kill of the broker just now would leave a transaction in pieces", "error", err)
	}
}

// write writes length, checksum and JSON at once, over the note before.
func (n *commitNotes) write(note *commitNote) error {
	text, err := json.Marshal(note)
	if err != nil {
		return err
	}
	b := binary.BigEndian.AppendUint32(nil, uint32(len(text)))
	b = binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(text))
	if _, err := n.file.WriteAt(append(b, text...), 0); err != nil {
		return fmt.Errorf("noting a transaction: %w", err)
	}
	if n.sync {
		return n.file.Sync()
	}
	return nil
}

// close forgets the note: kfake has been closed, so nothing is missing.
func (n *commitNotes) close() error {
	if n == nil {
		return nil
	}
	return errors.Join(n.file.Truncate(0), n.file.Close())
}

// lastNote reads the note that a killed broker left; nil if there is none, or
// only part of one: kfake had not begun then.
func (d *dataDir) lastNote() (*commitNote, error) {
	b, err := os.ReadFile(filepath.Join(d.path, noteFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil || len(b) < 8 {
		return nil, err
	}
	size, sum, text := binary.BigEndian.Uint32(b), binary.BigEndian.Uint32(b[4:]), b[8:]
	if uint64(size) > uint64(len(text)) || crc32.ChecksumIEEE(text[:size]) != sum {
		return nil, nil
	}
	note := &commitNote{}
	if err := json.Unmarshal(text[:size], note); err != nil {
		return nil, fmt.Errorf("reading %s: %w", noteFile, err)
	}
	return note, nil
}

// finishCommit takes the missing steps of the transaction that was being
// committed when the broker was killed. kfake, which has started meanwhile, does
// not know what the markers mean: it has to read its partitions anew.
func (b *Broker) finishCommit(ctx context.Context) error {
	note, err := b.dir.lastNote()
	if note == nil || err != nil {
		return err
	}
	adm := kadm.NewClient(b.cl)
	topics, err := adm.ListTopicsWithInternal(ctx)
	if err != nil {
		return err
	}
	partitions := note.partitions(topics)
	if done, err := b.dir.holds(partitions, note); !done || err != nil {
		return err
	}
	set := kadm.TopicsSet{}
	for _, p := range partitions {
		set.Add(p.topic, p.partition)
	}
	written, err := adm.WriteTxnMarkers(ctx, kadm.TxnMarkers{
		ProducerID: note.ProducerID, ProducerEpoch: note.Epoch, Commit: true, Topics: set,
	})
	if err != nil {
		return err
	}
	var errs []error
	written.EachPartition(func(p kadm.TxnMarkersPartitionResponse) { errs = append(errs, p.Err) })
	for group, offsets := range note.offsets(topics) {
		errs = append(errs, adm.CommitAllOffsets(ctx, group, offsets))
	}
	return errors.Join(errs...)
}

// name resolves a partition; false if its topic is no longer there.
func (p *notedPartition) name(topics kadm.TopicDetails) (partitionName, bool) {
	for _, t := range topics {
		if t.Topic == p.Topic || p.Topic == "" && t.ID == p.ID {
			return partitionName{t.Topic, p.Partition}, true
		}
	}
	return partitionName{}, false
}

func (n *commitNote) partitions(topics kadm.TopicDetails) (out []partitionName) {
	for _, p := range n.Partitions {
		if name, ok := p.name(topics); ok {
			out = append(out, name)
		}
	}
	return out
}

func (n *commitNote) offsets(topics kadm.TopicDetails) map[string]kadm.Offsets {
	out := map[string]kadm.Offsets{}
	for _, o := range n.Offsets {
		name, ok := o.name(topics)
		if !ok {
			continue
		}
		group := out[o.Group]
		group.Add(kadm.Offset{Topic: name.topic, Partition: name.partition, At: o.Offset, LeaderEpoch: -1, Metadata: o.Metadata})
		out[o.Group] = group
	}
	return out
}

// holds says whether the newest there is of the producer in each of the
// partitions is the noted transaction, open or committed. Where it is a newer
// one, the noted one was through; where it is aborted, kfake had refused to
// commit it.
func (d *dataDir) holds(partitions []partitionName, note *commitNote) (bool, error) {
	for _, p := range partitions {
		newest, err := d.newestOf(p, note.ProducerID)
		if err != nil {
			return false, err
		}
		if newest == nil || newest.epoch() != note.Epoch || newest.isAbort() {
			return false, nil
		}
	}
	return len(partitions) > 0, nil
}

// newestOf finds the last batch that a producer has in a partition; nil if there
// is none.
func (d *dataDir) newestOf(p partitionName, producer int64) (newest rawBatch, err error) {
	dir := filepath.Join(d.live(), p.String())
	bases, err := segments(dir)
	if err != nil {
		return nil, err
	}
	for _, base := range slices.Backward(bases) {
		data, err := os.ReadFile(segmentFile(dir, base))
		if err != nil {
			return nil, err
		}
		for b := range batches(data) {
			if b.producer() == producer {
				newest = b
			}
		}
		if newest != nil {
			return newest, nil
		}
	}
	return nil, nil
}
