package stream

import (
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-io/millrace/pipeline"
)

// Scan calls each with every record of the topics that is there when it begins,
// aborted ones left out: those written at since or later, or all where that is
// zero. Then it returns; sooner, with its error, if each gives one or ctx ends.
// Records of one partition come in order. progress, which may be nil, is told
// how many offsets of how many have been read.
func Scan(ctx context.Context, cfg Config, topics []string, since time.Time, progress func(done, total int64), each func(pipeline.Record) error) error {
	if len(topics) == 0 {
		return nil
	}
	cl, err := cfg.client(kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords())
	if err != nil {
		return err
	}
	defer cl.Close()
	s := scan{progress: progress}
	if err := s.open(ctx, kadm.NewClient(cl), topics, since); err != nil {
		return fmt.Errorf("looking for the records of topics %q: %w", topics, hint(err))
	}
	cl.AddConsumePartitions(s.begin())
	for len(s.left) > 0 {
		fs := cl.PollFetches(ctx)
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := fatal(fs); err != nil {
			return err
		}
		for it := fs.RecordIter(); !it.Done(); {
			if err := s.take(it.Next(), each); err != nil {
				return err
			}
		}
		if s.progress != nil {
			s.progress(s.done, s.total)
		}
	}
	return nil
}

// scan is what is left to be read.
type scan struct {
	progress    func(done, total int64)
	left        map[place]extent
	done, total int64
}

// place is a partition of a topic.
type place struct {
	topic     string
	partition int32
}

// extent is the offsets from one up to, and without, another.
type extent struct{ next, end int64 }

// open finds out what there is to read: up to the last stable offset, since what
// comes after it is not there yet.
func (s *scan) open(ctx context.Context, adm *kadm.Client, topics []string, since time.Time) error {
	ends, err := adm.ListCommittedOffsets(ctx, topics...)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return err
	}
	starts, err := adm.ListStartOffsets(ctx, topics...)
	if err == nil && !since.IsZero() {
		starts, err = adm.ListOffsetsAfterMilli(ctx, since.UnixMilli(), topics...)
	}
	if err == nil {
		err = starts.Error()
	}
	if err != nil {
		return err
	}
	s.left = map[place]extent{}
	starts.Each(func(o kadm.ListedOffset) {
		end, ok := ends.Lookup(o.Topic, o.Partition)
		if ok && o.Offset < end.Offset {
			s.left[place{o.Topic, o.Partition}] = extent{o.Offset, end.Offset}
			s.total += end.Offset - o.Offset
		}
	})
	return nil
}

func (s *scan) begin() map[string]map[int32]kgo.Offset {
	out := map[string]map[int32]kgo.Offset{}
	for p, e := range s.left {
		if out[p.topic] == nil {
			out[p.topic] = map[int32]kgo.Offset{}
		}
		out[p.topic][p.partition] = kgo.NoResetOffset().At(e.next)
	}
	return out
}

// take hands a record on, if it was there when the scan began.
func (s *scan) take(r *kgo.Record, each func(pipeline.Record) error) error {
	p := place{r.Topic, r.Partition}
	e, ok := s.left[p]
	if !ok {
		return nil
	}
	next := min(r.Offset+1, e.end)
	s.done += next - e.next
	s.left[p] = extent{next, e.end}
	if next == e.end {
		delete(s.left, p)
	}
	if r.Offset >= e.end || r.Attrs.IsControl() {
		return nil
	}
	return each(asRecord(r))
}
