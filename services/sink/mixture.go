package sink

import (
	"sync"
	"time"

	"github.com/millrace-io/millrace/pipeline"
)

// mixture knows which partitions hold deliveries of several destinations. In
// those, a destination that does not keep up must not hold up the others; where
// it is alone it may, which saves the way through the delays. The zero value is
// ready.
type mixture struct {
	mu   sync.Mutex
	last map[place]seen
}

type place struct {
	topic     string
	partition int32
}

type seen struct {
	destination string
	mixedUntil  time.Time
}

// mixedFor is how long a partition counts as mixed after two destinations were
// seen in it one after the other.
const mixedFor = 10 * time.Second

// see notes a delivery and says whether its partition is mixed.
func (m *mixture) see(r *pipeline.Record, destination string, now time.Time) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	at := place{r.Topic, r.Partition}
	was, ok := m.last[at]
	if ok && was.destination != destination {
		was.mixedUntil = now.Add(mixedFor)
	}
	was.destination = destination
	if m.last == nil {
		m.last = map[place]seen{}
	}
	m.last[at] = was
	return now.Before(was.mixedUntil)
}
