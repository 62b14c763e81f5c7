package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/millrace-io/millrace/pipeline"
	"github.com/millrace-io/millrace/pipeline/definition"
	"github.com/millrace-io/millrace/pipeline/event"
	"github.com/millrace-io/millrace/pipeline/state"
	"github.com/millrace-io/millrace/pipeline/stream"
	"github.com/millrace-io/millrace/services/sink"
	"github.com/millrace-io/millrace/services/transform"
)

// trail is what an event and its delivery left behind in our topics.
type trail struct {
	matchedAt   time.Time        // zero: no match, nor what came of one, is kept
	definitions int64            // offset of those it was matched or, without atMatch, mapped under
	atMatch     bool             // the match itself is kept
	attempts    []*event.Attempt // in their order
	seen        []sighting       // of the delivery
}

// made notes under which definitions a record of the event was made. A match
// says more than what came of it, and the first of several is the one.
func (t *trail) made(at time.Time, definitions int64, match bool) {
	if t.matchedAt.IsZero() || match && !t.atMatch || match == t.atMatch && definitions < t.definitions {
		t.matchedAt, t.definitions, t.atMatch = at, definitions, match
	}
}

// The states of a delivery.
const (
	stateNone       = "none"        // the webhook does not fire
	stateUnmatched  = "not_matched" // it fires, but there is no trace of it
	stateUnderWay   = "under_way"
	stateWaiting    = "waiting"
	stateDelivered  = "delivered"
	stateDeadLetter = "dead_letter"
	stateEnded      = "ended" // removed, or expired and dropped: the ledger alone knows
)

// sighting is what one record says of where a delivery is.
type sighting struct {
	at     time.Time
	state  string
	detail string
	place  source
}

// final says whether nothing comes after that by itself.
func (s sighting) final() bool { return s.state == stateDelivered || s.state == stateDeadLetter }

func (t *trail) see(r *pipeline.Record, at time.Time, state, detail string) {
	t.seen = append(t.seen, sighting{at, state, detail, sourceOf(r)})
}

// standing is where the delivery is: in a record that nobody has worked off yet,
// or where it ended; if there are several, since an event was sent again, in the
// newest. What has been worked off says nothing, whatever its time: clocks differ.
func (t *trail) standing(progress *stream.Progress) (s sighting, ended bool) {
	for _, seen := range t.seen {
		if !seen.final() && progress.Ended(seen.place.Topic, seen.place.Partition, seen.place.Offset) {
			continue
		}
		if c := seen.at.Compare(s.at); c > 0 || c == 0 && !s.final() {
			s = seen
		}
	}
	return s, s.state == "" && len(t.seen) > 0
}

// clockMargin is how much the clocks of those who write may differ.
const clockMargin = 5 * time.Minute

// follow reads what became of the event.
func (q *inquiry) follow(ctx context.Context, since time.Time) error {
	topics, err := q.workTopics(ctx)
	if err != nil {
		return err
	}
	if err := q.scan(ctx, topics, since, "looking for the delivery", q.read); err != nil {
		return err
	}
	if q.progress, err = stream.ReadProgress(ctx, q.cfg, transform.Role, sink.Role, sink.DelaysRole); err != nil {
		return err
	}
	slices.SortStableFunc(q.attempts, func(a, b *event.Attempt) int { return a.At.Compare(b.At) })
	return nil
}

// workTopics are the topics that a delivery leaves traces in.
func (q *inquiry) workTopics(ctx context.Context) ([]string, error) {
	names := q.cfg.Names
	topics := []string{names.Matches(), names.Attempts(), names.DeadLetters()}
	for _, tier := range pipeline.Tiers() {
		topics = append(topics, names.Delays(tier))
	}
	for _, lane := range q.defs.Lanes() {
		topics = append(topics, names.Deliveries(lane), names.Redeliveries(lane), names.Waiting(lane))
	}
	there, err := stream.DescribeTopics(ctx, q.cfg, topics...)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(topics, func(t string) bool { _, ok := there[t]; return !ok }), nil
}

// read takes what a record says of the delivery. What can't be read is somebody
// else's, or for `millrace tail` to show.
func (q *inquiry) read(r *pipeline.Record) error {
	header, _ := r.Header(pipeline.EnvelopeHeader)
	switch r.Topic {
	case q.cfg.Names.Matches():
		q.readMatch(r, header)
	case q.cfg.Names.Attempts():
		q.readAttempt(r)
	case q.cfg.Names.DeadLetters():
		q.readDeadLetter(r, header)
	default:
		q.readDelivery(r, header)
	}
	return nil
}

func (q *inquiry) readMatch(r *pipeline.Record, header []byte) {
	m, err := pipeline.ParseMatch(header)
	if err != nil || !q.matches(&m) {
		return
	}
	q.made(m.At, m.Definitions, true)
	q.see(r, m.At, stateUnderWay, "to the transform")
}

// matches says whether a match is of the event and names the webhook.
func (q *inquiry) matches(m *pipeline.Match) bool {
	return m.Event.ID == q.event.ID && slices.Contains(m.Webhooks, q.Webhook) && pipeline.DeliveryID(&m.Event, q.Webhook) == q.id
}

func (q *inquiry) readAttempt(r *pipeline.Record) {
	if string(r.Key) != q.id {
		return
	}
	a, err := event.ParseAttempt(r.Value)
	if err != nil {
		return
	}
	q.attempts = append(q.attempts, a)
	if a.Outcome == "success" {
		q.see(r, r.Time, stateDelivered, fmt.Sprintf("by attempt %d", a.Attempt))
	}
}

func (q *inquiry) readDeadLetter(r *pipeline.Record, header []byte) {
	x, err := pipeline.ParseDeadLetter(header)
	if err != nil {
		return
	}
	m, matchErr := pipeline.ParseMatch(x.Envelope)
	whole := matchErr == nil && x.Delivery == "" && q.matches(&m) // a match that could not go on
	if x.Delivery != q.id && !whole {
		return
	}
	if matchErr == nil {
		q.made(m.At, m.Definitions, true)
	} else if d, err := pipeline.ParseDelivery(x.Envelope); err == nil {
		q.made(d.MatchedAt, d.Definitions, false)
	}
	q.see(r, x.At, stateDeadLetter, fmt.Sprintf("%s at the %s: %s", x.Reason, x.Stage, x.Error))
}

func (q *inquiry) readDelivery(r *pipeline.Record, header []byte) {
	d, err := pipeline.ParseDelivery(header)
	if err != nil || d.ID != q.id {
		return
	}
	q.made(d.MatchedAt, d.Definitions, false)
	is, detail := stateUnderWay, "to the sinks of lane "+d.Lane
	for _, tier := range pipeline.Tiers() {
		if r.Topic == q.cfg.Names.Delays(tier) {
			is, detail = stateWaiting, fmt.Sprintf("in delay tier %s, due at %s", tier.Name, d.Due.UTC().Format(time.RFC3339))
		}
	}
	why := q.notCalled(d.Destination)
	switch {
	case r.Topic == q.cfg.Names.Waiting(d.Lane) && why == "":
		is, detail = stateWaiting, "until its turn comes, or a sink has the secret or the token that it lacks (its /readyz says so)"
	case is == stateUnderWay && why != "", r.Topic == q.cfg.Names.Waiting(d.Lane):
		is, detail = stateWaiting, "until destination "+d.Destination+" takes calls again: "+why
	}
	q.see(r, r.Time, is, detail)
}

// notCalled says why a destination is not called; "" where definition and state
// don't tell.
func (q *inquiry) notCalled(destination string) string {
	switch r := standingOf(q.defs, q.states.State(destination), time.Now()); r.Status {
	case string(state.Active):
		return ""
	case statusOpen:
		return r.Why
	case statusBroken:
		return "its definition can't be used: " + r.Why
	default:
		return fmt.Sprintf("it is %s by %s (%s)", r.Status, r.By, r.Why)
	}
}

// where says where the delivery stands.
func (q *inquiry) where() sighting {
	s, ended := q.standing(q.progress)
	switch {
	case ended:
		return sighting{state: stateEnded, detail: q.whyEnded()}
	case s.state != "":
		return s
	case len(q.attempts) > 0:
		return sighting{state: stateEnded, detail: "nothing is kept of it but its attempts"}
	case q.why == nil:
		return sighting{state: stateNone, detail: "no such webhook is in force"}
	case !q.why.Fires:
		return sighting{state: stateNone, detail: "the webhook does not fire"}
	case q.paused():
		return sighting{state: stateUnmatched, detail: "the webhook is paused: it matches nothing, which is counted and not kept"}
	}
	return sighting{state: stateUnmatched, detail: "no match is kept: the filter has not come to it, or it was another " +
		"definition or paused then, or it was delivered so long ago that all traces are gone"}
}

func (q *inquiry) paused() bool {
	c := q.then.Webhooks[q.Webhook]
	return c != nil && c.Webhook.Status == definition.Paused
}

// whyEnded says why a delivery may have ended that left neither a dead letter nor
// a successful attempt: the ledger alone knows.
func (q *inquiry) whyEnded() string {
	const removed = "its webhook was removed meanwhile, and its deliveries with it"
	c := q.defs.Webhooks[q.Webhook]
	if c == nil || c.Webhook.ExpireTo != definition.ExpireToDrop || time.Since(q.matchedAt) < time.Duration(c.Webhook.MaxAge) {
		return removed
	}
	return "it was older than max_age, and expire_to of the webhook is drop; or " + removed
}
