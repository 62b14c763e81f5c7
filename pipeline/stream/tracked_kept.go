package stream

import (
	"bytes"

	"github.com/twmb/franz-go/pkg/kgo"
)

// kept holds endings whose partition went before they could be committed: the
// broker was away for longer than the group waits. If the partition comes back
// before anybody else ended those records, they need no second call.
type kept map[topicPartition]map[int64]*Ticket

// maxKept bounds what is kept for partitions that may never come back.
const maxKept = 10_000

func (k kept) add(tp topicPartition, t *Ticket) {
	n := 0
	for _, tickets := range k {
		n += len(tickets)
	}
	if n >= maxKept {
		return
	}
	if k[tp] == nil {
		k[tp] = map[int64]*Ticket{}
	}
	k[tp][t.Record.Offset] = t
}

func (k kept) take(tp topicPartition) map[int64]*Ticket {
	tickets := k[tp]
	delete(k, tp)
	return tickets
}

// keep keeps an ending whose partition went, or hands it to the partition if it
// is back already. Called with mu held.
func (t *Tracked) keep(k *Ticket) {
	now := t.owned[k.p.topicPartition]
	switch {
	case now == nil || now == k.p:
		t.kept.add(k.p.topicPartition, k)
	case k.Record.Offset >= now.window.next: // else it was taken again, or committed
		if now.kept == nil {
			now.kept = map[int64]*Ticket{}
		}
		now.kept[k.Record.Offset] = k
	}
}

// endAgain ends a record that was just taken with the ending that it had when
// its partition was ours before; false if there is none. Called with mu held.
func (t *Tracked) endAgain(p *partition, r *kgo.Record) bool {
	k := p.kept[r.Offset]
	if k == nil {
		return false
	}
	delete(p.kept, r.Offset)
	if !k.Record.Time.Equal(r.Timestamp) || !bytes.Equal(k.Record.Key, r.Key) {
		return false // the topic was created again
	}
	p.window.end(r.Offset)
	k.p = p
	t.addDone(k)
	return true
}
