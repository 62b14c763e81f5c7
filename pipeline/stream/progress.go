package stream

import (
	"context"
	"fmt"

	"github.com/twmb/franz-go/pkg/kadm"
)

// Progress is how far roles have come with the topics that they read.
type Progress struct{ at map[place]ended }

// ReadProgress reads what roles have committed. Whoever then scans the topics
// finds what came of each record that has ended, since both were written in one
// transaction; though Kafka shows that partition by partition, and so perhaps a
// moment later.
func ReadProgress(ctx context.Context, cfg Config, roles ...string) (*Progress, error) {
	cl, err := cfg.client()
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	p := &Progress{map[place]ended{}}
	for _, role := range roles {
		group := cfg.Names.Group(role)
		offsets, err := committed(ctx, kadm.NewClient(cl), group)
		if err != nil {
			return nil, fmt.Errorf("reading what group %s has committed: %w", group, err)
		}
		offsets.Each(func(o kadm.OffsetResponse) {
			if o.Err != nil || o.At < 0 {
				return
			}
			// Metadata that is not ours says nothing of what is above the offset.
			above, _ := decodeEnded(o.At, o.Metadata)
			p.at[place{o.Topic, o.Partition}] = above
		})
	}
	return p, nil
}

// Ended says whether a record has been worked off: nothing comes of it any more.
func (p *Progress) Ended(topic string, partition int32, offset int64) bool {
	above, ok := p.at[place{topic, partition}]
	return ok && (offset < above.base || above.has(offset))
}
