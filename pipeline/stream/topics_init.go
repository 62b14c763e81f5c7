package stream

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/millrace-io/millrace/pipeline"
)

// Where the filter begins in event topics that were there before Millrace.
const (
	Latest   = "latest"
	Earliest = "earliest"
)

// InitOptions says what Init shall create.
type InitOptions struct {
	// Partitions of the topics between the stages, of dead letters, attempts
	// and the ledger. 0 means as many as there are, else DefaultPartitions.
	Partitions int

	// Replication is how many copies there are; 0 means the brokers' default.
	// From 3 on, two of them have to have a record before it counts.
	Replication int16

	// EventTopics are names or patterns ("regex:…"). Empty means one topic,
	// events under our prefix, which is created. Others have to exist.
	EventTopics []string

	// EventPartitions of the event topic where it is created. 0 means as many
	// as the others have.
	EventPartitions int

	// Start is Latest (the default) or Earliest.
	Start string

	// Lanes are created besides the default one.
	Lanes []string
}

// InitReport says what Init did and found.
type InitReport struct {
	Created  []string
	Problems []Problem // of topics that were there before; nothing was changed about them
	Notes    []string  // what else a user should know

	// Starts are the offsets at which the filter begins, of every event topic
	// there is. They belong into the definitions.
	Starts []TopicStart

	// MaxEventBytes is what the sizes of all topics were derived from.
	MaxEventBytes int32
}

// TopicStart is where the filter begins in the partitions of one topic.
type TopicStart struct {
	Topic      string
	ID         string          // as in Topic
	Partitions map[int32]int64 // partition to offset
}

// Init creates the topics that are missing, compares those that exist with
// what they have to be, and commits where the filter begins, as long as it
// never ran on them. It may be called as often as one likes: what is there is
// left as it is.
func Init(ctx context.Context, cfg Config, o InitOptions) (InitReport, error) {
	if err := errors.Join(cfg.Validate(), o.validate()); err != nil {
		return InitReport{}, err
	}
	cl, err := cfg.client()
	if err != nil {
		return InitReport{}, err
	}
	defer cl.Close()
	in := &initializer{cfg: cfg, o: o, adm: kadm.NewClient(cl)}
	for _, step := range []func(context.Context) error{in.events, in.topics, in.starts} {
		if err := step(ctx); err != nil {
			return in.report, fmt.Errorf("initializing: %w", err)
		}
	}
	return in.report, nil
}

var laneName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`)

func (o InitOptions) validate() error {
	var errs []error
	if o.Partitions < 0 || o.EventPartitions < 0 || o.Partitions > 10_000 || o.EventPartitions > 10_000 {
		errs = append(errs, errors.New("partitions: the number is between 1 and 10000, or 0 for the default"))
	}
	if o.Replication < 0 {
		errs = append(errs, errors.New("replication: the number is 1 or more, or 0 for the brokers' default"))
	}
	if o.Start != "" && o.Start != Latest && o.Start != Earliest {
		errs = append(errs, fmt.Errorf("start: %q is neither %s nor %s", o.Start, Latest, Earliest))
	}
	for _, l := range o.Lanes {
		if !laneName.MatchString(l) {
			errs = append(errs, fmt.Errorf("lanes: %q is not a name like %s", l, laneName))
		}
	}
	return errors.Join(errs...)
}

// patience is for how long init tries again what Kafka is not ready for.
const patience = 30 * time.Second

type initializer struct {
	cfg    Config
	o      InitOptions
	adm    *kadm.Client
	report InitReport

	eventNames []string // that exist, or will
	existed    map[string]Topic
}

// events finds the event topics, and how large events may be.
func (in *initializer) events(ctx context.Context) (err error) {
	if in.eventNames, err = in.cfg.eventTopics(ctx, in.adm, in.o.EventTopics); err != nil {
		return err
	}
	if in.existed, err = describe(ctx, in.adm, in.eventNames); err != nil {
		return err
	}
	size := in.cfg.eventBytes()
	configs, err := topicConfigs(ctx, in.adm, slices.Collect(maps.Keys(in.existed)))
	if err != nil {
		return err
	}
	for _, c := range configs {
		if n, err := strconv.ParseInt(c["max.message.bytes"], 10, 32); err == nil {
			size = max(size, int32(n))
		}
	}
	in.cfg.MaxEventBytes, in.report.MaxEventBytes = size, size
	return nil
}

// topics creates what is missing and checks what is not.
func (in *initializer) topics(ctx context.Context) error {
	n, err := in.partitions(ctx)
	if err != nil {
		return err
	}
	specs := in.cfg.ownSpecs(n, in.o.Lanes)
	own := in.cfg.Names.Events()
	if _, there := in.existed[own]; slices.Contains(in.eventNames, own) && !there {
		specs = append(specs, in.cfg.kept(own, orElse(in.o.EventPartitions, n), keepEvents))
	}
	in.missingEvents(own)
	created, problems, err := ensure(ctx, in.adm, in.o.Replication, specs)
	in.report.Created, in.report.Problems = created, problems
	return err
}

func orElse(n, other int) int {
	if n > 0 {
		return n
	}
	return other
}

// partitions is how many there are, once there are.
func (in *initializer) partitions(ctx context.Context) (int, error) {
	if in.o.Partitions > 0 {
		return in.o.Partitions, nil
	}
	return existingPartitions(ctx, in.adm, in.cfg.Names.Matches())
}

func existingPartitions(ctx context.Context, adm *kadm.Client, topic string) (int, error) {
	found, err := describe(ctx, adm, []string{topic})
	if err != nil {
		return 0, err
	}
	return orElse(found[topic].Partitions, DefaultPartitions), nil
}

// missingEvents notes event topics that were named and do not exist: creating
// them would hide a typing error.
func (in *initializer) missingEvents(own string) {
	there := in.eventNames[:0:0]
	for _, t := range in.eventNames {
		if _, ok := in.existed[t]; ok || t == own {
			there = append(there, t)
			continue
		}
		in.report.Notes = append(in.report.Notes,
			fmt.Sprintf("event topic %s does not exist: create it, or take it out of events.topics", t))
	}
	in.eventNames = there
}

// ensure creates the topics that are missing and checks the others.
func ensure(ctx context.Context, adm *kadm.Client, replication int16, specs []topicSpec) (created []string, problems []Problem, err error) {
	names := make([]string, len(specs))
	for i, s := range specs {
		names[i] = s.name
	}
	found, err := describe(ctx, adm, names)
	if err != nil {
		return nil, nil, err
	}
	configs, err := topicConfigs(ctx, adm, slices.Collect(maps.Keys(found)))
	if err != nil {
		return nil, nil, err
	}
	for _, s := range specs {
		if t, there := found[s.name]; there {
			problems = append(problems, s.check(t.Partitions, configs[s.name])...)
			continue
		}
		if err := create(ctx, adm, replication, s); err != nil {
			return created, problems, err
		}
		created = append(created, s.name)
	}
	return created, problems, visible(ctx, adm, created)
}

// visible waits until topics that were just created are known to whoever is
// asked: that takes Kafka a moment.
func visible(ctx context.Context, adm *kadm.Client, topics []string) error {
	if len(topics) == 0 {
		return nil
	}
	err := patiently(ctx, func(ctx context.Context) error {
		found, err := adm.ListEndOffsets(ctx, topics...)
		return errors.Join(err, found.Error())
	})
	if err != nil {
		return fmt.Errorf("waiting for the topics that were created: %w", err)
	}
	return nil
}

// patiently tries again what may be gone after a while: a Kafka that has just
// started has no coordinators yet, and one that has just created a topic does
// not know it everywhere.
func patiently(ctx context.Context, do func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for wait := (backoff{}); ; sleep(ctx, wait.next()) {
		err := do(ctx)
		if err == nil || ctx.Err() != nil || !transient(err) {
			return err
		}
	}
}

func create(ctx context.Context, adm *kadm.Client, replication int16, s topicSpec) error {
	configs := map[string]*string{}
	for k, v := range s.configs {
		configs[k] = kadm.StringPtr(v)
	}
	if replication >= 3 {
		configs["min.insync.replicas"] = kadm.StringPtr("2")
	}
	if replication == 0 {
		replication = -1
	}
	_, err := adm.CreateTopic(ctx, int32(s.partitions), replication, configs, s.name)
	if err != nil && !errors.Is(err, kerr.TopicAlreadyExists) { // by another init at the same time
		return fmt.Errorf("creating topic %q: %w", s.name, err)
	}
	return nil
}

// topicConfigs returns the settings in force, by topic and key.
func topicConfigs(ctx context.Context, adm *kadm.Client, topics []string) (map[string]map[string]string, error) {
	if len(topics) == 0 {
		return nil, nil
	}
	found, err := adm.DescribeTopicConfigs(ctx, topics...)
	if err != nil {
		return nil, fmt.Errorf("reading the settings of topics: %w", err)
	}
	out := map[string]map[string]string{}
	for _, r := range found {
		if r.Err != nil {
			return nil, fmt.Errorf("reading the settings of topic %q: %w", r.Name, r.Err)
		}
		out[r.Name] = map[string]string{}
		for _, c := range r.Configs {
			out[r.Name][c.Key] = c.MaybeValue()
		}
	}
	return out, nil
}

// EnsureLane creates the topics of a lane, if they are missing, with as many
// partitions as the topics of this prefix have. Who writes a destination calls
// it first. A lane whose topics do not fit together is an error.
func EnsureLane(ctx context.Context, cfg Config, lane string) error {
	if !laneName.MatchString(lane) {
		return fmt.Errorf("creating lane %q: the name is not like %s", lane, laneName)
	}
	cfg, err := cfg.Sized(ctx)
	if err != nil {
		return err
	}
	cl, err := cfg.client()
	if err != nil {
		return err
	}
	defer cl.Close()
	adm := kadm.NewClient(cl)
	like := cfg.Names.Deliveries(pipeline.DefaultLane)
	found, replicas, err := shape(ctx, adm, like)
	if err != nil {
		return fmt.Errorf("creating lane %q: looking at topic %q: %w", lane, like, err)
	}
	_, problems, err := ensure(ctx, adm, replicas, cfg.laneSpecs(lane, found))
	if err != nil {
		return fmt.Errorf("creating lane %q: %w", lane, err)
	}
	var errs []error
	for _, p := range problems {
		errs = append(errs, errors.New(p.String()))
	}
	return errors.Join(errs...)
}

// shape returns how many partitions a topic has, and how many copies of each.
func shape(ctx context.Context, adm *kadm.Client, topic string) (partitions int, replicas int16, err error) {
	found, err := adm.ListTopics(ctx, topic)
	if err == nil {
		err = found.Error()
	}
	if err != nil {
		return 0, 0, hint(err)
	}
	ps := found[topic].Partitions
	return len(ps), int16(ps.NumReplicas()), nil
}

// Sized returns the config with MaxEventBytes as Init derived it from the
// event topics. A role calls it before it makes anything of its config. It is an
// error if Init has not run since the topic of operator events came to be: who
// wrote there would wait for ever.
func (c Config) Sized(ctx context.Context) (Config, error) {
	cl, err := c.client()
	if err != nil {
		return c, err
	}
	defer cl.Close()
	configs, err := topicConfigs(ctx, kadm.NewClient(cl), []string{c.Names.Matches(), c.Names.OperatorEvents()})
	if err != nil {
		return c, hint(err)
	}
	n, err := strconv.ParseInt(configs[c.Names.Matches()]["max.message.bytes"], 10, 32)
	if err != nil {
		return c, fmt.Errorf("reading max.message.bytes of topic %q: %w", c.Names.Matches(), err)
	}
	c.MaxEventBytes = max(int32(n)-workHeadroom, 1024)
	return c, nil
}
