package pipeline_test

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/millrace-io/millrace/pipeline"
)

func TestNames(t *testing.T) {
	t.Parallel()
	for _, n := range []pipeline.Names{pipeline.DefaultPrefix, "", "a.b-", "deliveries."} {
		p := string(n)
		for want, got := range map[string]string{
			"events": n.Events(), "operator-events": n.OperatorEvents(), "matches": n.Matches(), "deliveries.l": n.Deliveries("l"), "redeliveries.l": n.Redeliveries("l"),
			"waiting.l": n.Waiting("l"), "delays.30s": n.Delays(pipeline.Tier{Name: "30s"}), "dead-letters": n.DeadLetters(),
			"attempts": n.Attempts(), "ledger": n.Ledger(), "definitions": n.Definitions(), "changes": n.Changes(),
			"states": n.States(), "sink": n.Group("sink"), "sink-host-1": n.TransactionalID("sink", "host-1"),
		} {
			if got != p+want {
				t.Errorf("with %q: %s, want %s", p, got, p+want)
			}
		}
	}
}

func TestLaneOf(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		prefix pipeline.Names
		topic  string
		lane   string
	}{
		{"millrace.", "millrace.deliveries.default", "default"},
		{"millrace.", "millrace.redeliveries.crm-2", "crm-2"},
		{"millrace.", "millrace.waiting.w", "w"},
		{"millrace.", "millrace.deliveries.deliveries", "deliveries"},
		{"", "deliveries.default", "default"},
		{"a.b.", "a.b.deliveries.l", "l"},
		{"deliveries.", "deliveries.deliveries.l", "l"},
		{"waiting.deliveries.", "waiting.deliveries.redeliveries.l", "l"},
		{"no-dot", "no-dotdeliveries.l", "l"},

		{"millrace.", "millrace.deliveries.", ""},
		{"millrace.", "millrace.deliveries", ""},
		{"millrace.", "millrace.matches", ""},
		{"millrace.", "millrace.delays.1s", ""},
		{"millrace.", "millrace.dead-letters", ""},
		{"millrace.", "millrace.Deliveries.l", ""},
		{"millrace.", "millrace.xdeliveries.l", ""},
		{"millrace.", "deliveries.l", ""},
		{"millrace.", "other.deliveries.l", ""},
		{"millrace.", "xmillrace.deliveries.l", ""},
		{"millrace.", "", ""},
		{"deliveries.", "deliveries.matches", ""},
		{"deliveries.", "deliveries.l", ""},
		{"a.", "a.b.deliveries.l", ""},
		{"a.", "a.deliveries.deliveries.l", ""}, // of the tenant "a.deliveries."
	} {
		if lane, ok := c.prefix.LaneOf(c.topic); lane != c.lane || ok != (c.lane != "") {
			t.Errorf("%q of %q: %q, %v; want %q", c.topic, c.prefix, lane, ok, c.lane)
		}
	}
}

// TestLanesComeBack: whatever the prefix, a lane's topics lead to the lane and
// no other topic to any.
func TestLanesComeBack(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		n := pipeline.Names(rapid.StringMatching(`([a-z-]|deliveries|waiting|redeliveries|\.){0,6}`).Draw(t, "prefix"))
		lane := rapid.StringMatching(`[a-z0-9][a-z0-9-]{0,20}|deliveries|default`).Draw(t, "lane")
		for _, topic := range []string{n.Deliveries(lane), n.Redeliveries(lane), n.Waiting(lane)} {
			if got, ok := n.LaneOf(topic); got != lane || !ok {
				t.Errorf("%q of %q: %q, %v", topic, n, got, ok)
			}
		}
		for _, topic := range []string{
			n.Events(), n.OperatorEvents(), n.Matches(), n.DeadLetters(), n.Attempts(), n.Ledger(), n.Definitions(), n.Changes(), n.States(),
			n.Delays(pipeline.Tiers()[0]), n.Group("deliveries"),
		} {
			if got, ok := n.LaneOf(topic); ok {
				t.Errorf("%q of %q is of the lane %q", topic, n, got)
			}
		}
	})
}

func TestTierFor(t *testing.T) {
	t.Parallel()
	const ms = time.Millisecond
	for _, c := range []struct {
		left time.Duration
		want string
	}{
		{-time.Hour, ""},
		{0, ""},
		{time.Second - 1, ""},
		{time.Second, "1s"},
		{5*time.Second - ms, "1s"},
		{5 * time.Second, "5s"},
		{29 * time.Second, "5s"},
		{30 * time.Second, "30s"},
		{2*time.Minute - ms, "30s"},
		{2 * time.Minute, "2m"},
		{10 * time.Minute, "10m"},
		{59 * time.Minute, "10m"},
		{time.Hour, "1h"},
		{6*time.Hour - 1, "1h"},
		{6 * time.Hour, "6h"},
		{365 * 24 * time.Hour, "6h"},
	} {
		if got, ok := pipeline.TierFor(c.left); got.Name != c.want || ok != (c.want != "") {
			t.Errorf("%v left: %q, %v; want %q", c.left, got.Name, ok, c.want)
		}
	}
}

// TestTiers: the names are parts of topics' names and say how long the wait is.
func TestTiers(t *testing.T) {
	t.Parallel()
	last := time.Duration(0)
	for _, tier := range pipeline.Tiers() {
		if wait, err := time.ParseDuration(tier.Name); err != nil || wait != tier.Wait || wait <= last {
			t.Errorf("%+v after %v: %v", tier, last, err)
		}
		last = tier.Wait
	}
}
