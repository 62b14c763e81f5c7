package sink

import (
	"context"
	"strings"
	"time"

	"github.com/millrace-io/millrace/pipeline"
	"github.com/millrace-io/millrace/pipeline/stream"
)

// delays moves deliveries on when they are due. A tier is a fixed wait from a
// record's timestamp, so the head of a partition is always the next; a delivery
// takes the largest tier that fits the time left, then the next, and with less
// than a second left it goes back to its lane.
type delays struct{ names pipeline.Names }

func delayTopics(names pipeline.Names) []string {
	var topics []string
	for _, t := range pipeline.Tiers() {
		topics = append(topics, names.Delays(t))
	}
	return topics
}

// Take waits until the head of the partition is due and moves it on.
func (m *delays) Take(ctx context.Context, k *stream.Ticket) error {
	header, _ := k.Record.Header(pipeline.EnvelopeHeader)
	v, err := pipeline.ParseDelivery(header)
	if dead, permanent := pipeline.IsPermanent(err); permanent {
		k.End(pipeline.Output{Records: []pipeline.Record{pipeline.NewDeadLetter(m.names.DeadLetters(), &k.Record,
			pipeline.DeadLetter{Stage: DelaysRole, Reason: dead.Reason, Error: dead.Err.Error(), At: time.Now()})}})
		return nil
	}
	if err != nil {
		return err
	}
	if err := waitUntil(ctx, k.Record.Time.Add(m.wait(k.Record.Topic))); err != nil {
		return err
	}
	topic, key, _ := route(m.names, &v, time.Now())
	k.End(pipeline.Output{Records: []pipeline.Record{{Topic: topic, Key: key, Value: k.Record.Value, Headers: k.Record.Headers}}})
	return nil
}

func (m *delays) wait(topic string) time.Duration {
	for _, t := range pipeline.Tiers() {
		if strings.HasSuffix(topic, "."+t.Name) {
			return t.Wait
		}
	}
	return 0
}

// route says where a delivery goes that is due at some time, with its key, and
// the tier it takes, "none" for straight back to its lane.
func route(names pipeline.Names, v *pipeline.Delivery, now time.Time) (topic string, key []byte, tier string) {
	if t, ok := pipeline.TierFor(v.Due.Sub(now)); ok {
		return names.Delays(t), []byte(v.ID), t.Name
	}
	return names.Redeliveries(v.Lane), v.Key(), "none"
}

// waitUntil returns at a time, or with ctx's error when that ends before.
func waitUntil(ctx context.Context, at time.Time) error {
	wait := time.Until(at)
	if wait <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
