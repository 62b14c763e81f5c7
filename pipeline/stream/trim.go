package stream

import (
	"context"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
)

// Work topics keep their records for ever (retention.ms=-1), so that nothing
// that waits is lost to time; who reads them deletes what is behind.
const (
	trimAfter = time.Hour   // since it was committed
	trimEvery = time.Minute // between two looks
)

// trimmer deletes records an hour after they were committed. A partition may
// have another owner by then: what was committed stays committed.
type trimmer struct {
	cfg    Config
	delete func(context.Context, kadm.Offsets) error

	mu    sync.Mutex
	last  map[topicPartition]int64  // committed since the last look
	marks map[topicPartition][]mark // oldest first, at most one for each look
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

func newTrimmer(cfg Config) *trimmer {
	t := &trimmer{cfg: cfg, last: map[topicPartition]int64{}, marks: map[topicPartition][]mark{}}
	t.delete = t.deleteRecords
	return t
}

// committed notes that everything below offset is done.
func (t *trimmer) committed(p topicPartition, offset int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.last[p] = offset
}

// start looks every minute until ctx ends or the returned function is called,
// which waits for that.
func (t *trimmer) start(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		t.run(ctx)
	}()
	return func() {
		cancel()
		<-done
	}
}

func (t *trimmer) run(ctx context.Context) {
	tick := time.NewTicker(trimEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			t.look(ctx, now)
		}
	}
}

func (t *trimmer) look(ctx context.Context, now time.Time) {
	due := t.due(now)
	if len(due) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, trimEvery)
	defer cancel()
	if err := t.delete(ctx, due); err != nil && ctx.Err() == nil {
		// A later mark of these partitions covers them as well.
		t.cfg.log().Warn("deleting records that are done", "error", err)
	}
}

// due makes a mark of what was committed since the last look, and takes out the
// newest mark of each partition that is old enough.
func (t *trimmer) due(now time.Time) kadm.Offsets {
	t.mu.Lock()
	defer t.mu.Unlock()
	for p, offset := range t.last {
		t.marks[p] = append(t.marks[p], mark{now, offset})
	}
	clear(t.last)
	var due kadm.Offsets
	for p, m := range t.marks {
		i := 0
		for i < len(m) && now.Sub(m[i].at) >= trimAfter {
			i++
		}
		if i > 0 {
			due.AddOffset(p.topic, p.partition, m[i-1].offset, -1)
		}
		if t.marks[p] = m[i:]; len(m) == i {
			delete(t.marks, p)
		}
	}
	return due
}

func (t *trimmer) deleteRecords(ctx context.Context, due kadm.Offsets) error {
	cl, err := t.cfg.client()
	if err != nil {
		return err
	}
	defer cl.Close()
	resp, err := kadm.NewClient(cl).DeleteRecords(ctx, due)
	if err != nil {
		return err
	}
	return resp.Error()
}
