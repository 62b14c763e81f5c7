package pipelinetest

import (
	"context"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Configure changes a setting of a topic, as whoever runs the cluster might.
func (c Cluster) Configure(t testing.TB, topic, setting, value string) {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(c.Addrs...), kgo.DisableClientMetrics())
	if err != nil {
		t.Fatalf("making a client: %v", err)
	}
	defer client.Close()
	changed, err := kadm.NewClient(client).AlterTopicConfigs(context.Background(),
		[]kadm.AlterConfig{{Op: kadm.SetConfig, Name: setting, Value: &value}}, topic)
	if err == nil {
		_, err = changed.On(topic, func(r *kadm.AlterConfigsResponse) error { return r.Err })
	}
	if err != nil {
		t.Fatalf("setting %s of topic %s to %s: %v", setting, topic, value, err)
	}
}

// RefuseWrites has kfake refuse what is written to a topic, as if replicas were
// missing, so that clients try again. accept waits until something was refused,
// and ends it. An Apache Kafka of one node can't be brought to that.
func (c Cluster) RefuseWrites(t testing.TB, topic string) (accept func()) {
	t.Helper()
	if c.fake == nil {
		t.Fatal("only kfake refuses writes on demand")
	}
	refusing := c.fake.Fault(kfake.Fault{
		Keys: []kmsg.Key{kmsg.Produce}, Topic: topic, Err: kerr.NotEnoughReplicas, Count: -1,
	})
	return func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := refusing.Wait(ctx, 1); err != nil {
			t.Errorf("waiting for a write to topic %s: %v", topic, err)
		}
		refusing.Remove()
	}
}
