package stream

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/millrace-io/millrace/pipeline"
)

// DefaultPartitions is how many partitions the topics between the stages get.
// A role grows to that many replicas, and the number is fixed from then on:
// keys would move to other partitions.
const DefaultPartitions = 24

// EventsRegex is what an entry of events.topics begins with that is a pattern
// of names rather than a name.
const EventsRegex = "regex:"

const day = 24 * time.Hour

// How long topics keep their records. Work topics and the history keep them
// for ever: those are deleted by who has read them, that never.
const (
	keepEvents      = 7 * day // operator events too
	keepAttempts    = 14 * day
	keepDeadLetters = 30 * day
	keepLedger      = 90 * day
	keepTombstones  = 7 * day // in a compacted topic: how long a removal can be seen
)

// topicSpec is what a topic of ours has to be like.
type topicSpec struct {
	name       string
	partitions int
	configs    map[string]string
}

func millis(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }

// sized makes the settings of a topic that takes batches of its size.
func (c Config) sized(topic string, settings ...string) map[string]string {
	m := map[string]string{"max.message.bytes": strconv.Itoa(int(c.maxBytes(topic)))}
	for i := 0; i+1 < len(settings); i += 2 {
		m[settings[i]] = settings[i+1]
	}
	return m
}

func (c Config) kept(topic string, partitions int, d time.Duration) topicSpec {
	return topicSpec{topic, partitions, c.sized(topic, "cleanup.policy", "delete", "retention.ms", millis(d), "retention.bytes", "-1")}
}

func (c Config) keptForever(topic string, partitions int) topicSpec {
	return c.kept(topic, partitions, -time.Millisecond)
}

// compacted says -1 as well: kfake deletes by age whatever the policy is.
func (c Config) compacted(topic string) topicSpec {
	return topicSpec{topic, 1, c.sized(topic, "cleanup.policy", "compact", "retention.ms", "-1", "delete.retention.ms", millis(keepTombstones))}
}

// laneSpecs are the topics of a lane. They have as many partitions each, since
// one sink owns the same partition of all three.
func (c Config) laneSpecs(lane string, partitions int) []topicSpec {
	return []topicSpec{
		c.keptForever(c.Names.Deliveries(lane), partitions),
		c.keptForever(c.Names.Redeliveries(lane), partitions),
		c.keptForever(c.Names.Waiting(lane), partitions),
	}
}

// ownSpecs are all topics but those that producers write to.
func (c Config) ownSpecs(partitions int, lanes []string) []topicSpec {
	n := c.Names
	specs := []topicSpec{
		c.kept(n.OperatorEvents(), 1, keepEvents),
		c.keptForever(n.Matches(), partitions),
		c.kept(n.DeadLetters(), partitions, keepDeadLetters),
		c.kept(n.Attempts(), partitions, keepAttempts),
		c.kept(n.Ledger(), partitions, keepLedger),
		c.compacted(n.Definitions()),
		c.keptForever(n.Changes(), 1),
		c.compacted(n.States()),
	}
	for _, t := range pipeline.Tiers() {
		specs = append(specs, c.keptForever(n.Delays(t), partitions))
	}
	all := append([]string{pipeline.DefaultLane}, lanes...)
	slices.Sort(all[1:])
	for _, l := range slices.Compact(all) {
		specs = append(specs, c.laneSpecs(l, partitions)...)
	}
	return specs
}

// isOwn says whether a topic is one that Millrace writes to, and so is none of
// producers.
func (c Config) isOwn(topic string) bool {
	if _, lane := c.Names.LaneOf(topic); lane || strings.HasPrefix(topic, c.Names.Delays(pipeline.Tier{})) {
		return true
	}
	return slices.ContainsFunc(c.ownSpecs(1, nil), func(s topicSpec) bool { return s.name == topic })
}

// ownPattern matches the names that isOwn says yes to, but for the operator
// events: those are there to be read.
func (c Config) ownPattern() string {
	names := []string{c.Names.Delays(pipeline.Tier{})}
	for _, kind := range []func(string) string{c.Names.Deliveries, c.Names.Redeliveries, c.Names.Waiting} {
		names = append(names, kind(""))
	}
	for i, name := range names {
		names[i] = regexp.QuoteMeta(name) + ".+"
	}
	for _, s := range c.ownSpecs(1, nil) {
		if s.name != c.Names.OperatorEvents() {
			names = append(names, regexp.QuoteMeta(s.name))
		}
	}
	return "^(?:" + strings.Join(names, "|") + ")$"
}

// Problem is a setting of an existing topic that is not what it has to be.
type Problem struct {
	Topic   string
	Setting string // "partitions", or the name of a topic config
	Found   string
	Want    string
	Fix     string // what to do, in one line
}

func (p Problem) String() string {
	return fmt.Sprintf("topic %s: %s is %s, not %s: %s", p.Topic, p.Setting, cmp.Or(p.Found, "not set"), p.Want, p.Fix)
}

// check compares an existing topic with what it has to be. A topic may take
// larger batches and keep records longer than that.
func (s topicSpec) check(partitions int, configs map[string]string) (out []Problem) {
	if partitions != s.partitions {
		out = append(out, Problem{
			s.name, "partitions", strconv.Itoa(partitions), strconv.Itoa(s.partitions),
			"the number is fixed once there are records; use it for all topics of this prefix, or start with another prefix",
		})
	}
	for _, key := range slices.Sorted(maps.Keys(s.configs)) {
		found, want := configs[key], s.configs[key]
		if enough(key, found, want) {
			continue
		}
		out = append(out, Problem{
			s.name, key, found, want,
			fmt.Sprintf("kafka-configs.sh --alter --entity-type topics --entity-name %s --add-config %s=%s", s.name, key, want),
		})
	}
	return out
}

func enough(key, found, want string) bool {
	if found == want {
		return true
	}
	f, ferr := strconv.ParseInt(found, 10, 64)
	w, werr := strconv.ParseInt(want, 10, 64)
	if ferr != nil || werr != nil {
		return false
	}
	switch key {
	case "retention.ms", "retention.bytes": // -1 is for ever
		return f == -1 || w != -1 && f > w
	default:
		return f > w
	}
}

// Topic is what Kafka says of a topic.
type Topic struct {
	ID         string // its UUID in base64: a topic that is created again has another
	Partitions int
}

// DescribeTopics returns those of the topics that exist, by name.
func DescribeTopics(ctx context.Context, cfg Config, topics ...string) (map[string]Topic, error) {
	cl, err := cfg.client()
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	return describe(ctx, kadm.NewClient(cl), topics)
}

func describe(ctx context.Context, adm *kadm.Client, topics []string) (map[string]Topic, error) {
	if len(topics) == 0 {
		return nil, nil
	}
	found, err := adm.ListTopicsWithInternal(ctx, topics...)
	if err != nil {
		return nil, fmt.Errorf("describing topics: %w", err)
	}
	out := map[string]Topic{}
	for name, d := range found {
		switch {
		case d.Err == nil:
			out[name] = Topic{d.ID.String(), len(d.Partitions)}
		case !errors.Is(d.Err, kerr.UnknownTopicOrPartition):
			return nil, fmt.Errorf("describing topic %q: %w", name, d.Err)
		}
	}
	return out, nil
}

// EventTopics returns the names that events.topics stands for now: its names,
// whether they exist or not, and of its patterns all that exist, apart from
// the topics that Millrace itself writes to. A pattern has to match the whole
// name. An empty list stands for the topic that Millrace creates.
func EventTopics(ctx context.Context, cfg Config, topics []string) ([]string, error) {
	cl, err := cfg.client()
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	return cfg.eventTopics(ctx, kadm.NewClient(cl), topics)
}

func (c Config) eventTopics(ctx context.Context, adm *kadm.Client, topics []string) ([]string, error) {
	names, patterns, err := c.splitEvents(topics)
	if err != nil || len(patterns) == 0 {
		return names, err
	}
	found, err := adm.ListTopics(ctx)
	if err != nil {
		return nil, fmt.Errorf("looking for event topics: %w", err)
	}
	for name := range found {
		if !c.isOwn(name) && slices.ContainsFunc(patterns, func(p *regexp.Regexp) bool { return p.MatchString(name) }) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

func (c Config) splitEvents(topics []string) (names []string, patterns []*regexp.Regexp, err error) {
	if len(topics) == 0 {
		return []string{c.Names.Events()}, nil, nil
	}
	var errs []error
	for _, t := range topics {
		pattern, isPattern := strings.CutPrefix(t, EventsRegex)
		switch {
		case isPattern:
			re, err := regexp.Compile("^(?:" + pattern + ")$")
			if err != nil {
				errs = append(errs, fmt.Errorf("events.topics: %w", err))
				continue
			}
			patterns = append(patterns, re)
		case c.isOwn(t):
			errs = append(errs, fmt.Errorf("events.topics: %q is a topic that Millrace writes to", t))
		default:
			names = append(names, t)
		}
	}
	slices.Sort(names)
	return slices.Compact(names), patterns, errors.Join(errs...)
}
