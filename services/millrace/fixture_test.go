package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/millrace-io/millrace/pipeline"
	"github.com/millrace-io/millrace/pipeline/event"
	"github.com/millrace-io/millrace/pipeline/pipelinetest"
	"github.com/millrace-io/millrace/pipeline/stream"
	"github.com/millrace-io/millrace/services/filter"
	"github.com/millrace-io/millrace/services/sink"
	"github.com/millrace-io/millrace/services/transform"
)

// patience is how long a test waits for what has to happen.
const patience = 90 * time.Second

// millrace is a Millrace within the test's process, on the tests' broker: the
// code of `millrace up` and of the other commands.
type millrace struct {
	t        testing.TB
	cfg      stream.Config
	opts     options
	producer *stream.Producer
	log      *logBuffer

	processes []process // that were started
}

// options change what start starts.
type options struct {
	cluster    *pipelinetest.Cluster // nil: that of the tests
	partitions int                   // 0: two
	pattern    bool                  // events are read from all topics that begin as ours do
	registry   registrySettings
	secrets    string // directory of secrets
	keyset     string // file with the sinks' keyset
	traces     traceSettings
	proxy      egressProxySettings // what calls go through
	idle       bool                // no role is started; see run
	noLoopback bool                // calls to this machine are not allowed
	asIs       bool                // settings are those of `millrace up`, and its broker where the tests' is kfake
}

// start prepares the topics and starts every role. All of it ends with the test.
func start(t testing.TB, o options) *millrace {
	t.Helper()
	if o.cluster == nil {
		c := o.broker(t)
		o.cluster = &c
	}
	if o.partitions == 0 {
		o.partitions = 2
	}
	m := &millrace{t: t, opts: o, log: &logBuffer{}}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(m.log)
		}
	})
	m.cfg = stream.Config{
		Brokers: o.cluster.Addrs, Names: o.cluster.Names, Instance: "test",
		Log: slog.New(slog.NewTextHandler(m.log, nil)),
	}
	if !o.asIs { // under the race detector lz4 takes longer than all the rest
		m.cfg.Compression = "none"
	}
	if _, err := initialize(t.Context(), m.cfg, &initSettings{Partitions: o.partitions}); err != nil {
		t.Fatalf("creating topics: %v", err)
	}
	var err error
	if m.producer, err = stream.NewProducer(m.cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.producer.Close)
	switch {
	case o.noLoopback:
		m.run(filter.Role, transform.Role, sink.Role)
	case !o.idle:
		m.run()
	}
	return m
}

// broker is the tests' broker, or the one that `up` has, with a data directory.
func (o *options) broker(t testing.TB) pipelinetest.Cluster {
	t.Helper()
	if !o.asIs || pipelinetest.RealKafka() {
		return pipelinetest.Broker(t)
	}
	settings := brokerSettings{Data: t.TempDir(), Kafka: "127.0.0.1:0"}
	b, err := settings.open(&logSettings{Level: "warn", Format: "text"}, streams{err: io.Discard}, pipeline.DefaultPrefix)
	if err != nil {
		t.Fatalf("starting the embedded broker: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- keep(ctx, b, func(ctx context.Context) error {
			<-ctx.Done()
			return nil
		})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("running the embedded broker: %v", err)
		}
	})
	return pipelinetest.Cluster{Addrs: b.Addrs(), Names: pipeline.DefaultPrefix}
}

// process is one process of a Millrace.
type process struct {
	*service
	stop func() // waits until it has ended
}

// run starts one process with the given roles, or with what `up` runs if none
// are given. It ends with the test, or by stop.
func (m *millrace) run(roles ...string) process {
	m.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	started, ended := make(chan *service, 1), make(chan struct{})
	go func() {
		defer close(ended)
		err := runService(ctx, m.cfg, &serviceSettings{HTTP: "127.0.0.1:0", Traces: m.opts.traces}, func(s *service) error {
			started <- s
			return m.add(s, roles)
		})
		if err != nil || ctx.Err() == nil {
			m.t.Errorf("roles %v ended by themselves: %v", roles, err)
		}
	}()
	p := process{stop: sync.OnceFunc(func() {
		cancel()
		<-ended
	})}
	m.t.Cleanup(p.stop)
	select {
	case p.service = <-started:
	case <-ended:
		m.t.FailNow()
	}
	m.processes = append(m.processes, p)
	return p
}

func (m *millrace) add(s *service, roles []string) error {
	up := upCmd{Registry: m.opts.registry, sinkSettings: sinkSettings{
		SecretsDir: m.opts.secrets, keysetSettings: keysetSettings{KeysetFile: m.opts.keyset}, egressProxySettings: m.opts.proxy,
	}}
	if m.opts.pattern {
		up.Topics = []string{stream.EventsRegex + regexp.QuoteMeta(string(m.cfg.Names)) + ".*"}
	}
	if len(roles) == 0 {
		return up.add(s, m.cfg.Log, streams{out: m.log, err: m.log})
	}
	if !m.opts.noLoopback {
		up.EgressAllow = []string{"127.0.0.0/8"}
	}
	for _, role := range roles {
		err := map[string]func() error{
			filter.Role:    func() error { return s.filter(&up.eventSettings, &up.Registry) },
			transform.Role: s.transform,
			sink.Role:      func() error { return s.sink(&up.sinkSettings, nil) },
		}[role]()
		if err != nil {
			return err
		}
	}
	return nil
}

// command runs a command line of the binary and returns what it prints.
func (m *millrace) command(stdin string, args ...string) string {
	m.t.Helper()
	args = append(args, "--brokers", strings.Join(m.cfg.Brokers, ","), "--prefix", string(m.cfg.Names))
	return commandLine(m.t, stdin, args...).must(m.t).out
}

// apply puts definitions in force and waits until every process knows them: an
// event that comes before that is treated under the older ones.
func (m *millrace) apply(yaml string, flags ...string) {
	m.t.Helper()
	_, at, _ := strings.Cut(m.applyOnly(yaml, flags...), "in force at offset ")
	offset, err := strconv.ParseInt(strings.TrimSpace(at), 10, 64)
	if err != nil {
		m.t.Fatalf("millrace apply does not say from which offset on: %v", err)
	}
	for _, p := range m.processes {
		if _, err := p.live.At(m.t.Context(), offset); err != nil {
			m.t.Fatal(err)
		}
	}
}

// applyOnly puts definitions in force, as whoever types `millrace apply` does.
func (m *millrace) applyOnly(yaml string, flags ...string) string {
	m.t.Helper()
	return m.command(yaml, append([]string{"apply", "-"}, flags...)...)
}

// produce writes records to the event topic and waits for the acknowledgement.
func (m *millrace) produce(records ...pipeline.Record) {
	m.t.Helper()
	for i := range records {
		records[i].Topic = m.cfg.Names.Events()
	}
	if err := m.producer.Produce(m.t.Context(), records); err != nil {
		m.t.Fatalf("producing: %v", err)
	}
}

// jsonEvent is an event in Event JSON, given by its members; its key is the user.
func jsonEvent(t testing.TB, members map[string]any) pipeline.Record {
	t.Helper()
	value, err := json.Marshal(members)
	if err != nil {
		t.Fatal(err)
	}
	user, _ := members["user"].(string)
	return pipeline.Record{Key: []byte(user), Value: value}
}

// errSeen ends a read.
var errSeen = errors.New("seen")

// read hands each record of the topics, from their start, to enough until that
// says true. The test fails if it doesn't.
func (m *millrace) read(what string, enough func(*pipeline.Record) bool, topics ...string) {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(m.t.Context(), patience)
	defer cancel()
	err := stream.Read(ctx, m.cfg, topics, stream.FromStart(), func(r pipeline.Record) error {
		if enough(&r) {
			return errSeen
		}
		return nil
	})
	if !errors.Is(err, errSeen) {
		m.t.Fatalf("waiting for %s: %v", what, err)
	}
}

// deadLetter is a dead letter as it was read.
type deadLetter struct {
	pipeline.DeadLetter
	record pipeline.Record
}

// deadLetters waits for n dead letters.
func (m *millrace) deadLetters(n int) (found []deadLetter) {
	m.t.Helper()
	m.read(fmt.Sprint(n, " dead letters"), func(r *pipeline.Record) bool {
		header, _ := r.Header(pipeline.EnvelopeHeader)
		x, err := pipeline.ParseDeadLetter(header)
		if err != nil {
			m.t.Errorf("reading a dead letter: %v", err)
		}
		found = append(found, deadLetter{x, *r})
		return len(found) == n
	}, m.cfg.Names.DeadLetters())
	return found
}

// attempts waits for n attempts and returns them by delivery, in their order.
func (m *millrace) attempts(n int) map[string][]*event.Attempt {
	m.t.Helper()
	found, count := map[string][]*event.Attempt{}, 0
	m.read(fmt.Sprint(n, " attempts"), func(r *pipeline.Record) bool {
		a, err := event.ParseAttempt(r.Value)
		if err != nil {
			m.t.Fatalf("reading an attempt: %v", err)
		}
		found[a.DeliveryID] = append(found[a.DeliveryID], a)
		count++
		return count == n
	}, m.cfg.Names.Attempts())
	return found
}

// delayed waits for n deliveries in the delays and returns them by webhook.
func (m *millrace) delayed(n int) map[string]pipeline.Delivery {
	m.t.Helper()
	var topics []string
	for _, tier := range pipeline.Tiers() {
		topics = append(topics, m.cfg.Names.Delays(tier))
	}
	found := map[string]pipeline.Delivery{}
	m.read(fmt.Sprint(n, " deliveries in the delays"), func(r *pipeline.Record) bool {
		d := parseDelivery(m.t, r)
		found[d.Webhook] = d
		return len(found) == n
	}, topics...)
	return found
}

// waiting waits until n deliveries of the default lane wait for a time that
// nobody knows, and returns them by webhook and id.
func (m *millrace) waiting(n int) map[string]map[string]pipeline.Delivery {
	m.t.Helper()
	found, all := map[string]map[string]pipeline.Delivery{}, map[string]bool{}
	m.read(fmt.Sprint(n, " waiting deliveries"), func(r *pipeline.Record) bool {
		d := parseDelivery(m.t, r)
		if found[d.Webhook] == nil {
			found[d.Webhook] = map[string]pipeline.Delivery{}
		}
		found[d.Webhook][d.ID], all[d.ID] = d, true
		return len(all) == n
	}, m.cfg.Names.Waiting(pipeline.DefaultLane))
	return found
}

func parseDelivery(t testing.TB, r *pipeline.Record) pipeline.Delivery {
	t.Helper()
	header, _ := r.Header(pipeline.EnvelopeHeader)
	d, err := pipeline.ParseDelivery(header)
	if err != nil {
		t.Fatalf("reading a delivery: %v", err)
	}
	return d
}

// endings say how many matches of a webhook there were, and how they ended.
type endings map[pipeline.Ending]int64

// settled waits until the ledger says just that of each webhook, and nothing of
// others; and that the ids that ended are those that were matched.
func (m *millrace) settled(want map[string]endings) {
	m.t.Helper()
	for webhook, sum := range m.ledger(want) {
		if sum != 0 {
			m.t.Errorf("webhook %s: the ids that ended are not those that matched (%#x)", webhook, sum)
		}
	}
}

// ledger waits until the ledger says just that. Of each webhook it returns the
// sum of the ids that ended, less those that matched.
func (m *millrace) ledger(want map[string]endings) (open map[string]uint64) {
	m.t.Helper()
	open = map[string]uint64{}
	got, done := map[string]endings{}, false
	defer func() {
		if !done {
			m.t.Logf("the ledger says %v, expected %v", got, want)
		}
	}()
	m.read("the ledger to be settled", func(r *pipeline.Record) bool {
		var c pipeline.Count
		if err := json.Unmarshal(r.Value, &c); err != nil {
			m.t.Fatalf("reading the ledger: %v", err)
		}
		if got[c.Webhook] == nil {
			got[c.Webhook] = endings{}
		}
		got[c.Webhook][c.Ending] += c.N
		if c.Ending == pipeline.Matched {
			c.Sum = -c.Sum
		}
		open[c.Webhook] += c.Sum
		done = maps.EqualFunc(got, want, maps.Equal[endings, endings])
		return done
	}, m.cfg.Names.Ledger())
	return open
}

// eventually waits until something is so.
func eventually(t testing.TB, what string, so func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !so() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("waiting until %s: %v", what, ctx.Err())
		}
	}
}

// once fails the test if a call was made twice.
func once(t testing.TB, r *pipelinetest.Endpoint) {
	t.Helper()
	for id, n := range r.IDs() {
		if n != 1 || id == "" {
			t.Errorf("delivery %q was called %d times", id, n)
		}
	}
}

// bodies returns the bodies that arrived, sorted.
func bodies(r *pipelinetest.Endpoint) []string {
	var all []string
	for _, c := range r.Calls() {
		all = append(all, string(c.Body))
	}
	slices.Sort(all)
	return all
}

// logBuffer keeps what is logged for the case that a test fails.
type logBuffer struct {
	mu   sync.Mutex
	text strings.Builder
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}
