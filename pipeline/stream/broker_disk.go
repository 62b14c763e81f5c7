package stream

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// dataDir is the folder of an embedded broker, held by one process at a time.
// The lock file says whether the last one closed it.
type dataDir struct {
	path  string
	lock  *os.File
	clean bool // it is new, or was closed properly
}

const (
	lockFile = "millrace.lock"
	inUse    = "in use"
	closed   = "closed"
)

// errLocked means that another process has the folder.
var errLocked = errors.New("another broker uses this data directory; stop it, or choose another directory")

func openDataDir(path string) (*dataDir, error) {
	path, err := filepath.Abs(path)
	if err == nil {
		err = os.MkdirAll(path, 0o700)
	}
	if err != nil {
		return nil, fmt.Errorf("making the data directory: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(path, lockFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening the data directory: %w", err)
	}
	d := &dataDir{path: path, lock: f}
	if err := lockSoon(f); err != nil {
		return nil, errors.Join(fmt.Errorf("locking %s: %w", path, err), f.Close())
	}
	said, err := io.ReadAll(f)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("reading %s: %w", f.Name(), err), d.release())
	}
	_, err = os.Stat(filepath.Join(path, "meta.json"))
	d.clean = string(said) == closed || errors.Is(err, fs.ErrNotExist)
	if err := d.say(inUse); err != nil {
		return nil, errors.Join(err, d.release())
	}
	return d, nil
}

// lockPatience is how long to wait for a lock: a process that was killed a
// moment ago holds its locks until the system has taken it apart.
const lockPatience = 2 * time.Second

func lockSoon(f *os.File) error {
	for until := time.Now().Add(lockPatience); ; time.Sleep(lockPatience / 100) {
		err := flock(f)
		if !errors.Is(err, errLocked) || time.Now().After(until) {
			return err
		}
	}
}

func (d *dataDir) say(what string) error {
	err := d.lock.Truncate(0)
	if err == nil {
		_, err = d.lock.WriteAt([]byte(what), 0)
	}
	if err == nil {
		err = d.lock.Sync()
	}
	if err != nil {
		return fmt.Errorf("writing %s: %w", d.lock.Name(), err)
	}
	return nil
}

// close notes that all was written down, and lets go of the folder.
func (d *dataDir) close() error { return errors.Join(d.say(closed), d.release()) }

// release lets go of the folder as it is.
func (d *dataDir) release() error {
	if d == nil {
		return nil
	}
	return d.lock.Close() // and with it the lock
}

// size is how many bytes the files have.
func (d *dataDir) size() (n int64, err error) {
	err = filepath.WalkDir(d.path, func(_ string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return gone(err)
		}
		info, err := e.Info()
		if err == nil {
			n += info.Size()
		}
		return gone(err)
	})
	return n, err
}

// gone lets pass that a file is no longer there: the broker goes on meanwhile.
func gone(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

type partitionName struct {
	topic     string
	partition int32
}

// String is the name of its folder, as kfake has it.
func (p partitionName) String() string {
	return fmt.Sprintf("%s-%d", url.PathEscape(p.topic), p.partition)
}

// parsePartition is the opposite of partitionName.String.
func parsePartition(folder string) (partitionName, bool) {
	dash := strings.LastIndexByte(folder, '-')
	if dash < 0 {
		return partitionName{}, false
	}
	topic, err := url.PathUnescape(folder[:dash])
	n, numErr := strconv.ParseInt(folder[dash+1:], 10, 32)
	return partitionName{topic, int32(n)}, err == nil && numErr == nil
}

// partitions are those that kfake has a folder of.
func (d *dataDir) partitions() (names []partitionName, err error) {
	folders, err := os.ReadDir(d.live())
	if err != nil {
		return nil, gone(err)
	}
	for _, f := range folders {
		if name, ok := parsePartition(f.Name()); ok {
			names = append(names, name)
		}
	}
	return names, nil
}

// replaceFile writes a file, all of it or nothing.
func replaceFile(name string, data []byte) error {
	if err := os.WriteFile(name+".tmp", data, 0o600); err != nil {
		return err
	}
	return os.Rename(name+".tmp", name)
}

// live is where kfake has the partitions, kept where their files are kept over
// a compaction.
func (d *dataDir) live() string { return filepath.Join(d.path, "partitions") }
func (d *dataDir) kept() string { return filepath.Join(d.path, "millrace.compacting") }

// keepCompacted links the files of partitions into a folder of their own. What
// is appended to a file until kfake deletes it, is in both.
func (d *dataDir) keepCompacted(names []partitionName) error {
	if err := d.dropKept(); err != nil {
		return err
	}
	for _, name := range names {
		if err := linkAll(filepath.Join(d.live(), name.String()), filepath.Join(d.kept(), name.String())); err != nil {
			return err
		}
	}
	return nil
}

func (d *dataDir) dropKept() error { return os.RemoveAll(d.kept()) }

func linkAll(from, to string) error {
	files, err := os.ReadDir(from)
	if err != nil {
		return gone(err) // nothing was written yet
	}
	if err := os.MkdirAll(to, 0o700); err != nil {
		return err
	}
	for _, f := range files {
		if err := os.Link(filepath.Join(from, f.Name()), filepath.Join(to, f.Name())); err != nil {
			return err
		}
	}
	return nil
}

// restoreCompacted brings back the partitions of which a compaction was cut
// short. A compaction writes from the front and always leaves the last batch,
// so it was through where that is there.
func (d *dataDir) restoreCompacted() error {
	kept, err := os.ReadDir(d.kept())
	if err != nil {
		return gone(err)
	}
	for _, p := range kept {
		from, to := filepath.Join(d.kept(), p.Name()), filepath.Join(d.live(), p.Name())
		old, err := lastOffset(from)
		if err != nil {
			return err
		}
		now, err := lastOffset(to)
		if err != nil {
			return err
		}
		if now >= old {
			continue
		}
		if err := d.restore(from, to); err != nil {
			return fmt.Errorf("restoring partition %s: %w", p.Name(), err)
		}
	}
	return d.dropKept()
}

// restore puts one folder in the place of another, all of it or nothing.
func (d *dataDir) restore(from, to string) error {
	made := filepath.Join(d.path, "millrace.restoring")
	if err := errors.Join(os.RemoveAll(made), linkAll(from, made), os.RemoveAll(to)); err != nil {
		return err
	}
	return os.Rename(made, to)
}

// lastOffset is the last offset in the segments of a partition's folder; -1 if
// there is none.
func lastOffset(dir string) (int64, error) {
	bases, err := segments(dir)
	last := int64(-1)
	for _, base := range bases {
		data, err := os.ReadFile(segmentFile(dir, base))
		if err != nil {
			return -1, err
		}
		last = max(last, lastBatch(data))
	}
	return last, err
}

const segmentSuffix = ".dat"

func segmentFile(dir string, base int64) string {
	return filepath.Join(dir, strconv.FormatInt(base, 10)+segmentSuffix)
}

// segments returns the first offsets of a partition's segments, in order.
func segments(dir string) (bases []int64, err error) {
	files, err := os.ReadDir(dir)
	if err != nil {
		return nil, gone(err)
	}
	for _, f := range files {
		name, isSegment := strings.CutSuffix(f.Name(), segmentSuffix)
		if base, err := strconv.ParseInt(name, 10, 64); isSegment && err == nil {
			bases = append(bases, base)
		}
	}
	slices.Sort(bases)
	return bases, nil
}

// rawBatch is a record batch as it is on disk: Kafka's format.
type rawBatch []byte

// Where a batch has what.
const (
	batchLength     = 8
	batchAfterHead  = 12
	batchAttributes = 21
	batchLastDelta  = 23
	batchProducer   = 43
	batchEpoch      = 51
	batchSequence   = 53
	batchRecords    = 57
	batchHead       = 61
)

// Bits of the attributes.
const (
	transactionalBatch = 0x10
	controlBatch       = 0x20
)

func (b rawBatch) last() int64 {
	return int64(binary.BigEndian.Uint64(b)) + int64(binary.BigEndian.Uint32(b[batchLastDelta:]))
}

func (b rawBatch) producer() int64 { return int64(binary.BigEndian.Uint64(b[batchProducer:])) }
func (b rawBatch) epoch() int16    { return int16(binary.BigEndian.Uint16(b[batchEpoch:])) }

func (b rawBatch) attributes() uint16 { return binary.BigEndian.Uint16(b[batchAttributes:]) }

// sequence returns the producer's number of the first record, and how many there
// are.
func (b rawBatch) sequence() (first, n int32) {
	return int32(binary.BigEndian.Uint32(b[batchSequence:])), int32(binary.BigEndian.Uint32(b[batchRecords:]))
}

// isAbort says whether it is the marker of an aborted transaction.
func (b rawBatch) isAbort() bool {
	if b.attributes()&controlBatch == 0 {
		return false
	}
	var marker kmsg.Record
	var key kmsg.ControlRecordKey
	return marker.ReadFrom(b[batchHead:]) != nil || key.ReadFrom(marker.Key) != nil || key.Type == kmsg.ControlRecordKeyTypeAbort
}

// batches are those of a segment; one that was cut short is left out.
func batches(segment []byte) iter.Seq[rawBatch] {
	return func(yield func(rawBatch) bool) {
		for len(segment) >= batchHead {
			n := batchAfterHead + int64(binary.BigEndian.Uint32(segment[batchLength:]))
			if n < batchHead || n > int64(len(segment)) || !yield(segment[:n]) {
				return
			}
			segment = segment[n:]
		}
	}
}

// lastBatch is the last offset of the batches in a segment; -1 if there is none.
func lastBatch(segment []byte) int64 {
	last := int64(-1)
	for b := range batches(segment) {
		last = b.last()
	}
	return last
}
