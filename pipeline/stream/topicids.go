package stream

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// TopicIDs knows the UUIDs of topics, which stand in the ids of events that
// have none: a topic that is created again does not repeat them. It is safe for
// concurrent use.
type TopicIDs struct {
	cl      *kgo.Client
	cluster string

	mu  sync.Mutex
	ids map[string]topicID
}

type topicID struct {
	id      string
	learned time.Time
}

// idFresh is how long a topic's id is believed: about as long as it takes the
// client to notice that a topic was created again.
const idFresh = time.Minute

// OpenTopicIDs asks the cluster for its own id.
func OpenTopicIDs(ctx context.Context, cfg Config) (*TopicIDs, error) {
	cl, err := cfg.client()
	if err != nil {
		return nil, err
	}
	m, err := kadm.NewClient(cl).BrokerMetadata(ctx)
	if err != nil {
		cl.Close()
		return nil, fmt.Errorf("asking Kafka which cluster it is: %w", err)
	}
	return &TopicIDs{cl: cl, cluster: m.Cluster, ids: map[string]topicID{}}, nil
}

// Close ends the connections.
func (t *TopicIDs) Close() { t.cl.Close() }

// Cluster is the id of the cluster.
func (t *TopicIDs) Cluster() string { return t.cluster }

// Learn makes sure that a topic's id is known.
func (t *TopicIDs) Learn(ctx context.Context, topic string) error {
	t.mu.Lock()
	fresh := time.Since(t.ids[topic].learned) < idFresh
	t.mu.Unlock()
	if fresh {
		return nil
	}
	topics, err := describe(ctx, kadm.NewClient(t.cl), []string{topic})
	if err != nil {
		return fmt.Errorf("asking for the id of topic %q: %w", topic, err)
	}
	d, ok := topics[topic]
	if !ok {
		return fmt.Errorf("asking for the id of topic %q: %w", topic, errNoTopic)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ids[topic] = topicID{d.ID, time.Now()}
	return nil
}

// TopicID returns the id of a topic that was learned.
func (t *TopicIDs) TopicID(topic string) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.ids[topic].id
}
