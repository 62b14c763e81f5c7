package sink

import (
	"context"
	"strings"
	"time"

	"github.com/millrace-io/millrace/pipeline"
	"github.com/millrace-io/millrace/pipeline/stream"
	"github.com/millrace-io/millrace/pipeline/telemetry"
)

// delays moves deliveries on when they are due. A tier is a fixed wait from a
// record's timestamp, so the head of a partition is always the next; a delivery
// takes the largest tier that fits the time left, then the next, and with less
// than a second left it goes back to its lane.
type delays struct {
	names   pipeline.Names
	metrics *telemetry.Metrics
	tracer  *telemetry.Tracer
}

func delayTopics(names pipeline.Names) []string {
	var topics []string
	for _, t := range pipeline.Tiers() {
		topics = append(topics, names.Delays(t))
	}
	return topics
}

// Take waits until the head of the partition is due and moves it on.
func (m *delays) Take(ctx context.Context, k *stream.Ticket) error {
	return m.take(ctx, &k.Record, k)
}

func (m *delays) take(ctx context.Context, r *pipeline.Record, t ticket) error {
	header, _ := r.Header(pipeline.EnvelopeHeader)
	v, err := pipeline.ParseDelivery(header)
	if dead, permanent := pipeline.IsPermanent(err); permanent {
		m.metrics.DeadLetters.Add(1, DelaysRole, string(dead.Reason))
		t.End(pipeline.Output{Records: []pipeline.Record{pipeline.NewDeadLetter(m.names.DeadLetters(), r,
			pipeline.DeadLetter{Stage: DelaysRole, Reason: dead.Reason, Error: dead.Err.Error(), At: time.Now()})}})
		return nil
	}
	if err != nil {
		return err
	}
	if err := waitUntil(ctx, r.Time.Add(waitOf(r.Topic))); err != nil {
		return err
	}
	topic, key, _ := route(m.names, &v, time.Now())
	m.trace(r, &v)
	t.End(pipeline.Output{Records: []pipeline.Record{{Topic: topic, Key: key, Value: r.Value, Headers: r.Headers}}})
	return nil
}

// trace shows the time that a delivery has waited here.
func (m *delays) trace(r *pipeline.Record, v *pipeline.Delivery) {
	span := m.tracer.ContinueFrom(r.Time, DelaysRole, r)
	describe(span, v)
	span.End()
}

// waitOf is how long records of a delay topic wait.
func waitOf(topic string) time.Duration {
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
	if t, ok := tierFor(v.Due.Sub(now)); ok {
		return names.Delays(t), []byte(v.ID), t.Name
	}
	return names.Redeliveries(v.Lane), v.Key(), "none"
}

// lateness is how much later than it is due a delivery may come back, to save it
// steps: ten minutes less the instant that has passed since they were set are
// one step, and not the sixteen of 9:59.
const lateness = 100 * time.Millisecond

// tierFor returns the tier for the time left; none below the shortest.
func tierFor(left time.Duration) (pipeline.Tier, bool) { return pipeline.TierFor(left + lateness) }

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
