package stream

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
)

// sequences are kfake's seq_windows.json: by producer and partition, which batches
// it wrote last. From them the broker knows a batch that a producer sends again
// since nobody had acknowledged it.
type sequences struct {
	Version int              `json:"version"`
	Windows []sequenceWindow `json:"windows"`
}

// sequenceWindow is what a producer wrote to a partition last: a ring of its newest
// batches, in which At is the place of the next one.
type sequenceWindow struct {
	Producer  int64            `json:"pid"`
	Topic     string           `json:"topic"`
	Partition int32            `json:"partition"`
	Batches   [5]sequenceBatch `json:"entries"`
	Count     uint8            `json:"count"`
	At        uint8            `json:"at"`
	Epoch     int16            `json:"epoch"`
	Seen      bool             `json:"seen"`
	Next      int32            `json:"next_seq"`
}

type sequenceBatch struct {
	First  int32 `json:"first_seq"`
	Next   int32 `json:"next_seq"`
	Offset int64 `json:"offset"`
}

// sequenceSegments is how many of a partition's segments are looked at: what is
// sent again was on its way when the broker was killed, so it is at the end.
const sequenceSegments = 2

// restoreSequences writes seq_windows.json from the records: kfake does so when it
// is closed only. A producer that outlives the broker would write what it had
// on its way once more, or, with the numbers of a former day, could not go on.
// Transactions are left out: whoever had one open has to begin again.
func (d *dataDir) restoreSequences() error {
	names, err := d.partitions()
	if err != nil {
		return err
	}
	all := sequences{Version: 1}
	for _, name := range names {
		windows, err := d.sequencesOf(name)
		if err != nil {
			return err
		}
		for _, w := range windows {
			all.Windows = append(all.Windows, *w)
		}
	}
	text, err := json.Marshal(all)
	if err != nil {
		return err
	}
	if err := replaceFile(filepath.Join(d.path, "seq_windows.json"), text); err != nil {
		return fmt.Errorf("noting what producers wrote last: %w", err)
	}
	return nil
}

func (d *dataDir) sequencesOf(p partitionName) (map[int64]*sequenceWindow, error) {
	dir := filepath.Join(d.live(), p.String())
	bases, err := segments(dir)
	if err != nil {
		return nil, err
	}
	windows := map[int64]*sequenceWindow{}
	for _, base := range bases[max(0, len(bases)-sequenceSegments):] {
		data, err := os.ReadFile(segmentFile(dir, base))
		if err != nil {
			return nil, err
		}
		for b := range batches(data) {
			if b.producer() < 0 || b.attributes()&(transactionalBatch|controlBatch) != 0 {
				continue
			}
			w := windows[b.producer()]
			if w == nil || w.Epoch != b.epoch() { // a new epoch counts from 0
				w = &sequenceWindow{Producer: b.producer(), Topic: p.topic, Partition: p.partition, Epoch: b.epoch(), Seen: true}
				windows[b.producer()] = w
			}
			w.add(b)
		}
	}
	return windows, nil
}

func (w *sequenceWindow) add(b rawBatch) {
	first, n := b.sequence()
	w.Next = int32((int64(first) + int64(n)) % math.MaxInt32) // as kfake has it
	w.Batches[w.At] = sequenceBatch{first, w.Next, int64(binary.BigEndian.Uint64(b))}
	w.At = (w.At + 1) % uint8(len(w.Batches))
	w.Count = min(w.Count+1, uint8(len(w.Batches)))
}
