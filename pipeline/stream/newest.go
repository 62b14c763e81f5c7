package stream

import (
	"context"
	"sync"
	"sync/atomic"

	"github.com/millrace-io/millrace/pipeline"
)

// Newest is what is known of a log: a value that is never changed, but replaced
// as the log goes on. The zero Newest knows nothing yet. It is safe for
// concurrent use.
type Newest[T any] struct {
	value   atomic.Pointer[T]
	mu      sync.Mutex
	changed chan struct{} // closed with the next value; nil: nobody has asked
}

// Publish replaces the value and wakes who waits for that.
func (l *Newest[T]) Publish(v *T) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.value.Store(v)
	if l.changed != nil {
		close(l.changed)
		l.changed = nil
	}
}

// Value returns the newest value; nil before the first.
func (l *Newest[T]) Value() *T { return l.value.Load() }

// Changed returns a channel that is closed when there is a newer value than the
// one that Value returns from now on. Ask for it before the value.
func (l *Newest[T]) Changed() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.changed == nil {
		l.changed = make(chan struct{})
	}
	return l.changed
}

// Await waits for a value that is as wanted, and returns it. The error is ctx's.
func (l *Newest[T]) Await(ctx context.Context, wanted func(*T) bool) (*T, error) {
	for {
		changed := l.Changed()
		if v := l.Value(); v != nil && wanted(v) {
			return v, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// Follow publishes what becomes of the value with the records of a log, until
// ctx ends, the log can't be read any more, or next gives an error. next gets the
// value so far, nil at first, and the offset that the new one is complete up to.
// The first value is that of all that was there when Follow began.
func (l *Newest[T]) Follow(ctx context.Context, cfg Config, topic string, next func(now *T, records []pipeline.Record, offset int64) (*T, error)) error {
	var early []pipeline.Record
	return Follow(ctx, cfg, topic, func(batch []pipeline.Record, offset int64, caughtUp bool) error {
		early = append(early, batch...)
		if !caughtUp {
			return nil
		}
		v, err := next(l.Value(), early, offset)
		if err != nil {
			return err
		}
		early = nil
		l.Publish(v)
		return nil
	})
}
