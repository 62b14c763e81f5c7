package stream

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-io/millrace/pipeline"
)

// fromKafka makes r of k. The bytes are k's own; r's header slice is reused.
func fromKafka(k *kgo.Record, r *pipeline.Record) {
	headers := r.Headers[:0]
	for _, h := range k.Headers {
		headers = append(headers, pipeline.Header(h))
	}
	*r = pipeline.Record{
		Topic: k.Topic, Partition: k.Partition, Offset: k.Offset, Time: k.Timestamp,
		Key: k.Key, Value: k.Value, Headers: headers,
	}
}

// toKafka makes what is produced of r. It carries no timestamp: every record
// has the time of its own writing, or retention would delete it too early.
func toKafka(r *pipeline.Record) *kgo.Record {
	k := &kgo.Record{Topic: r.Topic, Key: r.Key, Value: r.Value}
	if len(r.Headers) > 0 {
		k.Headers = make([]kgo.RecordHeader, len(r.Headers))
		for i, h := range r.Headers {
			k.Headers[i] = kgo.RecordHeader(h)
		}
	}
	return k
}

// markersPause is how long a transaction on Apache Kafka waits after the end of
// the one before. A produce that arrives before those markers are written is
// answered CONCURRENT_TRANSACTIONS, and is then tried again only after the next
// refresh of the metadata.
const markersPause = 20 * time.Millisecond

// embeddedCluster begins the cluster id of brokers that write markers at once:
// kfake, as it is and as Millrace embeds it.
const embeddedCluster = "kfake"

// pauseFor returns the pause between transactions that the cluster needs.
func pauseFor(ctx context.Context, cl *kgo.Client) (time.Duration, error) {
	m, err := kadm.NewClient(cl).BrokerMetadata(ctx)
	if err != nil {
		return 0, fmt.Errorf("asking Kafka which cluster it is: %w", err)
	}
	if strings.HasPrefix(m.Cluster, embeddedCluster) {
		return 0, nil
	}
	return markersPause, nil
}

// sleep waits for d or until ctx ends.
func sleep(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// backoff grows from 100 ms to 5 s, each wait drawn from its upper half.
type backoff struct{ n int }

func (b *backoff) next() time.Duration {
	d := min(100*time.Millisecond<<min(b.n, 6), 5*time.Second)
	b.n++
	return d/2 + rand.N(d/2)
}

func (b *backoff) reset() { b.n = 0 }

// grace returns a context that ends d after ctx does: what is under way when a
// signal comes may end well, but not take for ever.
func grace(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	late, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		sleep(late, d)
		cancel()
	})
	return late, func() { stop(); cancel() }
}
