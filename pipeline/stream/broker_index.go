package stream

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"strings"
)

// Beside each segment kfake has an index, with an entry for each batch: a version,
// a checksum, the leader's epoch, a time that kfake works out anew, and whether
// the batch belongs to a transaction.
const (
	indexSuffix  = ".idx"
	indexEntry   = 15
	indexVersion = 1
	indexEpoch   = 2
	indexInTx    = 14
)

// completeIndexes adds what is missing at the end of each partition's index. kfake
// writes a batch and its entry one after the other; after a kill in between it
// would take the batch for committed, whatever transaction it is part of, and give
// the batches behind it the entries of others.
func (d *dataDir) completeIndexes() error {
	names, err := d.partitions()
	if err != nil {
		return err
	}
	for _, name := range names {
		dir := filepath.Join(d.live(), name.String())
		bases, err := segments(dir)
		if err != nil {
			return err
		}
		if len(bases) == 0 {
			continue
		}
		if err := completeIndex(segmentFile(dir, bases[len(bases)-1])); err != nil {
			return fmt.Errorf("completing the index of partition %s: %w", name, err)
		}
	}
	return nil
}

func completeIndex(segment string) error {
	data, err := os.ReadFile(segment)
	if err != nil {
		return err
	}
	file := indexFile(segment)
	index, err := os.ReadFile(file)
	if gone(err) != nil {
		return err
	}
	whole := index[:len(index)/indexEntry*indexEntry]
	added, epoch, n := whole, []byte{0, 0, 0, 0}, 0
	if len(whole) > 0 {
		epoch = whole[len(whole)-indexEntry+indexEpoch:][:len(epoch)]
	}
	for b := range batches(data) {
		if n++; n*indexEntry > len(whole) {
			added = append(added, entryFor(b, epoch)...)
		}
	}
	if len(added) == len(index) {
		return nil
	}
	return replaceFile(file, added)
}

func indexFile(segment string) string {
	return strings.TrimSuffix(segment, segmentSuffix) + indexSuffix
}

func entryFor(b rawBatch, epoch []byte) []byte {
	entry := make([]byte, indexEntry)
	entry[0] = indexVersion
	copy(entry[indexEpoch:], epoch)
	if b.attributes()&transactionalBatch != 0 && b.attributes()&controlBatch == 0 {
		entry[indexInTx] = 1
	}
	entry[1] = byte(crc32.Checksum(entry[indexEpoch:], castagnoli()))
	return entry
}

// Heads of the entries of kfake's logs of producers and groups: the length of what
// follows and its checksum.
const logEntryHead = 8

// cutLogs cuts off what a kill left of an entry: kfake skips it but writes behind
// it, and could not read that the next time.
func (d *dataDir) cutLogs() error {
	for _, name := range []string{"pids.log", "groups.log"} {
		file := filepath.Join(d.path, name)
		data, err := os.ReadFile(file)
		if err != nil {
			if gone(err) == nil {
				continue
			}
			return err
		}
		if whole := wholeEntries(data); whole < len(data) {
			if err := os.Truncate(file, int64(whole)); err != nil {
				return fmt.Errorf("cutting %s: %w", name, err)
			}
		}
	}
	return nil
}

// wholeEntries is how many bytes the entries have that are all there.
func wholeEntries(data []byte) (n int) {
	for len(data)-n >= logEntryHead {
		size, sum := binary.LittleEndian.Uint32(data[n:]), binary.LittleEndian.Uint32(data[n+4:])
		text := data[n+logEntryHead:]
		if size < 2 || uint64(size) > uint64(len(text)) || crc32.Checksum(text[:size], castagnoli()) != sum {
			break
		}
		n += logEntryHead + int(size)
	}
	return n
}

func castagnoli() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) }
