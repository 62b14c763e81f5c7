package stream

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-io/millrace/pipeline"
)

// item is one input of a transaction and what came out of it.
type item struct {
	at      position
	records []pipeline.Record
}

// errRefused means that Kafka refuses some of the records for good: the
// transaction has to be aborted, and then comes again.
var errRefused = errors.New("Kafka refuses records")

// refusal says why Kafka will never take a record, if err says so.
func refusal(err error) (pipeline.Reason, bool) {
	switch {
	case errors.Is(err, kerr.MessageTooLarge), errors.Is(err, kerr.RecordListTooLarge):
		return pipeline.TooLarge, true
	case errors.Is(err, kerr.InvalidRecord), errors.Is(err, kerr.PolicyViolation):
		return pipeline.Refused, true
	}
	return "", false
}

// sieve finds the inputs whose output Kafka refuses for good. Kafka refuses a
// batch as a whole, and then the client fails all that it holds for that
// partition: that gives suspects. They are written again in groups, each apart
// from all else, which get smaller from one transaction to the next, until one
// that stands alone is refused: that one is to blame.
type sieve struct {
	suspects map[position]bool
	group    int // how many suspects are written together
}

// finer is how many groups are made of one.
const finer = 8

// reset forgets the suspects: everything was written.
func (s *sieve) reset() { *s = sieve{} }

// write writes the items in order, and the ledger's records, in the client's
// open transaction, and waits for the answers. With errRefused it names those
// that are to blame, which may be none for now. After any other error the
// client may still hold records.
func (s *sieve) write(ctx context.Context, cl *kgo.Client, maxBytes func(topic string) int32,
	items []item, ledger []pipeline.Record,
) (culprits map[position]error, err error) {
	w := writer{
		cl: cl, maxBytes: maxBytes, sieve: s, topics: map[string]bool{},
		culprits: map[position]error{}, suspects: map[position]bool{},
	}
	began, held := time.Now(), 0
	for i := range items {
		suspect := s.suspects[items[i].at]
		if suspect && held == 0 {
			if err := w.flush(ctx); err != nil {
				return nil, err
			}
		}
		w.send(ctx, &items[i])
		if !suspect {
			continue
		}
		if held++; held < s.group {
			continue
		}
		held = 0
		if err := w.flush(ctx); err != nil {
			return nil, err
		}
		if w.refused() && time.Since(began) > trackedTxnTimeout/2 {
			break // what is known by now is worth an abort in good time
		}
	}
	w.send(ctx, &item{records: ledger})
	if err := w.flush(ctx); err != nil {
		return nil, err
	}
	if !w.refused() {
		if w.trouble != nil {
			return nil, w.trouble
		}
		return nil, noted(ctx, cl, w.topics)
	}
	s.narrow(w.suspects)
	return w.culprits, errRefused
}

// narrow makes the groups of the next time.
func (s *sieve) narrow(suspects map[position]bool) {
	if s.group == 0 {
		s.group = len(suspects)
	}
	s.suspects, s.group = suspects, max(1, s.group/finer)
	if len(suspects) == 0 {
		s.reset()
	}
}

// writer is one pass of write.
type writer struct {
	cl       *kgo.Client
	maxBytes func(topic string) int32
	sieve    *sieve
	topics   map[string]bool // written to

	culprits map[position]error
	suspects map[position]bool
	trouble  error // what is no refusal

	mu     sync.Mutex
	failed map[*item]error // since the last flush
}

func (w *writer) refused() bool { return len(w.culprits)+len(w.suspects) > 0 }

func (w *writer) send(ctx context.Context, it *item) {
	if len(it.records) == 0 {
		return
	}
	promise := func(_ *kgo.Record, err error) {
		if err != nil {
			w.fail(it, err)
		}
	}
	for i := range it.records {
		w.topics[it.records[i].Topic] = true
		w.cl.Produce(ctx, toKafka(&it.records[i]), promise)
	}
}

func (w *writer) fail(it *item, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.failed == nil {
		w.failed = map[*item]error{}
	}
	w.failed[it] = err
}

// flush waits for all answers and judges those that are bad.
func (w *writer) flush(ctx context.Context) error {
	if err := w.cl.Flush(ctx); err != nil {
		return fmt.Errorf("writing: %w", err)
	}
	w.mu.Lock()
	failed := w.failed
	w.failed = nil
	w.mu.Unlock()
	for it, err := range failed {
		switch _, forGood := refusal(err); {
		case !forGood, it.at == position{}: // the ledger's belong to no input
			w.trouble = fmt.Errorf("writing: %w", err)
		case len(failed) == 1, w.tooLarge(it):
			w.culprits[it.at] = err
		default:
			continue
		}
		delete(failed, it)
	}
	w.suspect(failed)
	return nil
}

// suspect notes those of a refused group that were suspects before, or all.
func (w *writer) suspect(group map[*item]error) {
	known := false
	for it := range group {
		known = known || w.sieve.suspects[it.at]
	}
	for it := range group {
		if !known || w.sieve.suspects[it.at] {
			w.suspects[it.at] = true
		}
	}
}

// tooLarge says that one of the records does not fit its topic, whatever else
// is in the batch.
func (w *writer) tooLarge(it *item) bool {
	for i := range it.records {
		r := &it.records[i]
		n := len(r.Key) + len(r.Value)
		for _, h := range r.Headers {
			n += len(h.Key) + len(h.Value)
		}
		if n > int(w.maxBytes(r.Topic)) {
			return true
		}
	}
	return false
}
