package stream

import (
	"context"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Work topics keep their records for ever (retention.ms=-1), so that nothing
// that waits is lost to time; who reads them deletes what is behind.
const (
	trimAfter = time.Hour   // since it was committed
	trimEvery = time.Minute // between two looks
)

// trimmer deletes the records of the partitions that its runner owns, an hour
// after they were committed.
type trimmer struct {
	cl  *kgo.Client
	cfg Config
	on  bool

	mu    sync.Mutex
	marks map[topicPartition][]mark // oldest first, at most one each minute
	last  time.Time
}

type topicPartition struct {
	topic     string
	partition int32
}

// mark is how far a partition was committed at a time.
type mark struct {
	at     time.Time
	offset int64
}

func newTrimmer(cl *kgo.Client, cfg Config, on bool) *trimmer {
	return &trimmer{cl: cl, cfg: cfg, on: on, marks: map[topicPartition][]mark{}, last: time.Now()}
}

// committed notes that everything below offset is done.
func (t *trimmer) committed(topic string, partition int32, offset int64) {
	if !t.on {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	k := topicPartition{topic, partition}
	m := t.marks[k]
	if n := len(m); n == 0 || now.Sub(m[n-1].at) >= trimEvery {
		t.marks[k] = append(m, mark{now, offset})
	}
	if now.Sub(t.last) >= trimEvery {
		t.last = now
		if due := t.due(now); len(due) > 0 {
			go t.delete(due)
		}
	}
}

// due takes out the newest mark of each partition that is old enough.
func (t *trimmer) due(now time.Time) kadm.Offsets {
	var due kadm.Offsets
	for k, m := range t.marks {
		i := 0
		for i < len(m) && now.Sub(m[i].at) >= trimAfter {
			i++
		}
		if i == 0 {
			continue
		}
		due.AddOffset(k.topic, k.partition, m[i-1].offset, -1)
		if t.marks[k] = m[i:]; len(m) == i {
			delete(t.marks, k)
		}
	}
	return due
}

// forget drops a partition that has another owner now.
func (t *trimmer) forget(topic string, partition int32) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.marks, topicPartition{topic, partition})
}

func (t *trimmer) delete(due kadm.Offsets) {
	ctx, cancel := context.WithTimeout(context.Background(), trimEvery)
	defer cancel()
	resp, err := kadm.NewClient(t.cl).DeleteRecords(ctx, due)
	if err == nil {
		err = resp.Error()
	}
	if err != nil { // the next minute tries again with a later mark
		t.cfg.log().Warn("deleting records that are done", "error", err)
	}
}
