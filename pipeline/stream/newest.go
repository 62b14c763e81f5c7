package stream

import (
	"sync"
	"sync/atomic"
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
