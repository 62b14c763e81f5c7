package pipeline

import (
	"strings"
	"time"
)

// DefaultPrefix stands in front of every name where no other is set.
const DefaultPrefix Names = "millrace."

// DefaultLane is the lane that destinations share unless they name their own.
const DefaultLane = "default"

// Names gives the names of topics, groups and transactional ids. Its value is
// the prefix: one prefix is one tenant.
type Names string

// Events is the topic that producers write to where none is set.
func (n Names) Events() string { return string(n) + "events" }

// OperatorEvents is the topic of the events that Millrace itself writes; the
// filter reads it beside those of producers.
func (n Names) OperatorEvents() string { return string(n) + "operator-events" }

// Matches is the topic from the filter to the transform.
func (n Names) Matches() string { return string(n) + "matches" }

// Deliveries is the topic from the transform to the sinks of a lane.
func (n Names) Deliveries(lane string) string { return string(n) + "deliveries." + lane }

// Redeliveries is the topic on which deliveries of a lane come back.
func (n Names) Redeliveries(lane string) string { return string(n) + "redeliveries." + lane }

// Waiting is the topic where deliveries of a lane wait for an unknown time.
func (n Names) Waiting(lane string) string { return string(n) + "waiting." + lane }

// Delays is the topic of one delay tier.
func (n Names) Delays(t Tier) string { return string(n) + "delays." + t.Name }

// DeadLetters is the topic of what could not go on.
func (n Names) DeadLetters() string { return string(n) + "dead-letters" }

// Attempts is the topic of calls made.
func (n Names) Attempts() string { return string(n) + "attempts" }

// Ledger is the topic of counts per webhook and hour.
func (n Names) Ledger() string { return string(n) + "ledger" }

// Definitions is the compacted topic of definitions in force.
func (n Names) Definitions() string { return string(n) + "definitions" }

// Changes is the topic of every revision ever.
func (n Names) Changes() string { return string(n) + "changes" }

// States is the compacted topic of the states of destinations.
func (n Names) States() string { return string(n) + "states" }

// Group is the consumer group of a role.
func (n Names) Group(role string) string { return string(n) + role }

// TransactionalID is the id of a role's producer. An instance that comes back
// under the same id ends what it left open at once.
func (n Names) TransactionalID(role, instance string) string {
	return n.Group(role) + "-" + instance
}

// LaneOf returns the lane of a deliveries, redeliveries or waiting topic. A
// lane's name has no dot, so what another tenant, whose prefix begins with this
// one, calls its topics is none of ours.
func (n Names) LaneOf(topic string) (lane string, ok bool) {
	rest, ours := strings.CutPrefix(topic, string(n))
	kind, lane, _ := strings.Cut(rest, ".")
	switch kind {
	case "deliveries", "redeliveries", "waiting":
		if ours && lane != "" && !strings.Contains(lane, ".") {
			return lane, true
		}
	}
	return "", false
}

// Tier is one delay topic: a fixed wait, counted from a record's timestamp, so
// that the head of a partition is always the next one due.
type Tier struct {
	Name string
	Wait time.Duration
}

// Tiers returns the delay tiers, shortest first.
func Tiers() []Tier {
	return []Tier{
		{"1s", time.Second},
		{"5s", 5 * time.Second},
		{"30s", 30 * time.Second},
		{"2m", 2 * time.Minute},
		{"10m", 10 * time.Minute},
		{"1h", time.Hour},
		{"6h", 6 * time.Hour},
	}
}

// TierFor returns the largest tier that fits the time left; none below the
// shortest.
func TierFor(left time.Duration) (Tier, bool) {
	var best Tier
	for _, t := range Tiers() {
		if t.Wait <= left {
			best = t
		}
	}
	return best, best.Wait > 0
}
