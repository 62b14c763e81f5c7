package stream

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-io/millrace/pipeline"
)

func initialize(t *testing.T, cfg Config, o InitOptions) InitReport {
	t.Helper()
	r, err := Init(t.Context(), cfg, o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func makeTopic(t *testing.T, cfg Config, name string, partitions int32, configs ...string) {
	t.Helper()
	m := map[string]*string{}
	for i := 0; i < len(configs); i += 2 {
		m[configs[i]] = &configs[i+1]
	}
	adm := kadm.NewClient(testClient(t, cfg))
	if _, err := adm.CreateTopic(t.Context(), partitions, 1, m, name); err != nil {
		t.Fatal(err)
	}
	if err := visible(t.Context(), adm, []string{name}); err != nil {
		t.Fatal(err)
	}
}

func settings(t *testing.T, cfg Config, topic string) map[string]string {
	t.Helper()
	m, err := topicConfigs(t.Context(), kadm.NewClient(testClient(t, cfg)), []string{topic})
	if err != nil {
		t.Fatal(err)
	}
	return m[topic]
}

func TestInitCreatesEveryTopic(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	n := cfg.Names
	r := initialize(t, cfg, InitOptions{Partitions: 3, EventPartitions: 2, Lanes: []string{"big"}})
	const forever, work, dead = "-1", "1114124", "1179660" // events of 1 MiB and 12, plus 64 and 128 KiB
	want := []struct {
		topic           string
		partitions      int
		retention, size string
		policy          string
	}{
		{n.Events(), 2, "604800000", "1048588", "delete"},
		{n.Matches(), 3, forever, work, "delete"},
		{n.Deliveries("default"), 3, forever, work, "delete"},
		{n.Redeliveries("default"), 3, forever, work, "delete"},
		{n.Waiting("default"), 3, forever, work, "delete"},
		{n.Deliveries("big"), 3, forever, work, "delete"},
		{n.Redeliveries("big"), 3, forever, work, "delete"},
		{n.Waiting("big"), 3, forever, work, "delete"},
		{n.DeadLetters(), 3, "2592000000", dead, "delete"},
		{n.Attempts(), 3, "1209600000", "1048588", "delete"},
		{n.Ledger(), 3, "7776000000", "1048588", "delete"},
		{n.Definitions(), 1, forever, "1048588", "compact"},
		{n.Changes(), 1, forever, "1048588", "delete"},
		{n.States(), 1, forever, "1048588", "compact"},
		{n.OperatorEvents(), 1, "604800000", "1048588", "delete"},
	}
	for _, tier := range pipeline.Tiers() {
		want = append(want, want[1])
		want[len(want)-1].topic = n.Delays(tier)
	}
	if len(r.Created) != len(want) || len(r.Problems) > 0 || len(r.Notes) > 0 {
		t.Errorf("created %q, problems %v, notes %q", r.Created, r.Problems, r.Notes)
	}
	for _, w := range want {
		found, err := DescribeTopics(t.Context(), cfg, w.topic)
		if err != nil {
			t.Fatal(err)
		}
		if got := found[w.topic].Partitions; got != w.partitions {
			t.Errorf("%s has %d partitions, not %d", w.topic, got, w.partitions)
		}
		s := settings(t, cfg, w.topic)
		if s["retention.ms"] != w.retention || s["max.message.bytes"] != w.size || s["cleanup.policy"] != w.policy {
			t.Errorf("%s keeps %s, takes %s, policy %s", w.topic, s["retention.ms"], s["max.message.bytes"], s["cleanup.policy"])
		}
	}
}

func TestInitAgainChangesNothing(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	first := initialize(t, cfg, InitOptions{Partitions: 2})
	again := initialize(t, cfg, InitOptions{})
	if len(again.Created) > 0 || len(again.Problems) > 0 || len(again.Notes) > 0 {
		t.Errorf("created %q, problems %v, notes %q", again.Created, again.Problems, again.Notes)
	}
	if len(again.Starts) != 1 || again.Starts[0].ID != first.Starts[0].ID || len(again.Starts[0].Partitions) != 2 {
		t.Errorf("starts %v, then %v", first.Starts, again.Starts)
	}
}

func TestInitReportsWhatDoesNotFit(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	makeTopic(t, cfg, cfg.Names.Matches(), 2, "retention.ms", "3600000")
	makeTopic(t, cfg, cfg.Names.Definitions(), 4)
	makeTopic(t, cfg, cfg.Names.Attempts(), 2, "retention.ms", "-1") // longer than ours is fine
	r := initialize(t, cfg, InitOptions{Partitions: 3})
	got := map[string]bool{}
	for _, p := range r.Problems {
		got[strings.TrimPrefix(p.Topic, string(cfg.Names))+" "+p.Setting] = true
		if !strings.Contains(p.String(), p.Fix) || p.Fix == "" {
			t.Errorf("%q does not say what to do", p)
		}
	}
	for _, want := range []string{
		"matches partitions", "matches retention.ms", "matches max.message.bytes",
		"definitions partitions", "definitions cleanup.policy", "attempts partitions",
	} {
		if !got[want] {
			t.Errorf("nothing about %s", want)
		}
	}
	if got["attempts retention.ms"] {
		t.Error("attempts may be kept longer")
	}
}

func TestSizesFollowTheEvents(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	makeTopic(t, cfg, string(cfg.Names)+"theirs", 1, "max.message.bytes", "3000000")
	r := initialize(t, cfg, InitOptions{Partitions: 1, EventTopics: []string{string(cfg.Names) + "theirs"}})
	if slices.Contains(r.Created, cfg.Names.Events()) {
		t.Error("it created an event topic although there is one")
	}
	sized, err := cfg.Sized(t.Context())
	if err != nil || sized.MaxEventBytes != 3_000_000 || r.MaxEventBytes != 3_000_000 {
		t.Fatalf("events have %d, then %d bytes, %v", r.MaxEventBytes, sized.MaxEventBytes, err)
	}
	// And what they say is so: a producer fills them to the brim.
	p, err := NewProducer(sized)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	for topic, bytes := range map[string]int{cfg.Names.Matches(): 3_060_000, cfg.Names.DeadLetters(): 3_130_000} {
		if err := p.Produce(t.Context(), []pipeline.Record{{Topic: topic, Value: make([]byte, bytes)}}); err != nil {
			t.Errorf("%d bytes to %s: %v", bytes, topic, err)
		}
	}
}

// A role of this version does not start on the topics of an older one.
func TestInitHasToRunAgain(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	makeTopic(t, cfg, cfg.Names.Matches(), 1)
	if _, err := cfg.Sized(t.Context()); err == nil || !strings.Contains(err.Error(), cfg.Names.OperatorEvents()) || !strings.Contains(err.Error(), "millrace init") {
		t.Errorf("without a topic: %v", err)
	}
	initialize(t, cfg, InitOptions{})
	if _, err := cfg.Sized(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestEnsureLane(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	if err := EnsureLane(t.Context(), cfg, "big"); err == nil || !strings.Contains(err.Error(), "millrace init") {
		t.Errorf("before init: %v", err)
	}
	initialize(t, cfg, InitOptions{Partitions: 2})
	for range 2 {
		if err := EnsureLane(t.Context(), cfg, "big"); err != nil {
			t.Fatal(err)
		}
	}
	found, err := DescribeTopics(t.Context(), cfg, cfg.Names.Deliveries("big"), cfg.Names.Redeliveries("big"), cfg.Names.Waiting("big"))
	if err != nil || len(found) != 3 {
		t.Fatalf("got %v, %v", found, err)
	}
	for name, topic := range found {
		if topic.Partitions != 2 || topic.ID == "" {
			t.Errorf("%s: %+v", name, topic)
		}
	}
	makeTopic(t, cfg, cfg.Names.Deliveries("odd"), 3)
	if err := EnsureLane(t.Context(), cfg, "odd"); err == nil {
		t.Error("a lane of unequal topics is no error")
	}
	if err := EnsureLane(t.Context(), cfg, "Not.A.Lane"); err == nil {
		t.Error("a lane of that name is no error")
	}
}

func TestStarts(t *testing.T) {
	t.Parallel()
	for start, want := range map[string]int64{"": 3, Latest: 3, Earliest: 0} {
		t.Run("start "+start, func(t *testing.T) {
			t.Parallel()
			cfg := testConfig(t)
			theirs := string(cfg.Names) + "theirs"
			makeTopic(t, cfg, theirs, 1)
			send(t, cfg, theirs, 3)
			o := InitOptions{Partitions: 1, Start: start, EventTopics: []string{theirs, cfg.Names.Events()}}
			r := initialize(t, cfg, o)
			got := map[string]int64{}
			for _, s := range r.Starts {
				got[s.Topic] = s.Partitions[0]
			}
			if len(got) != 2 || got[theirs] != want || got[cfg.Names.Events()] != 0 {
				t.Errorf("starts %v; want %d", r.Starts, want)
			}
			if at := committedAt(t, cfg, theirs); at != want {
				t.Errorf("committed %d, not %d", at, want)
			}
			// What the filter has committed since then stays.
			send(t, cfg, theirs, 2)
			if again := initialize(t, cfg, o); again.Starts[0].Partitions[0] != want && again.Starts[1].Partitions[0] != want {
				t.Errorf("then starts %v", again.Starts)
			}
		})
	}
}

func send(t *testing.T, cfg Config, topic string, n int) {
	t.Helper()
	p, err := NewProducer(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	rs := make([]pipeline.Record, n)
	for i := range rs {
		rs[i] = pipeline.Record{Topic: topic, Key: []byte("k"), Value: []byte("v")}
	}
	if err := p.Produce(t.Context(), rs); err != nil {
		t.Fatal(err)
	}
}

func committedAt(t *testing.T, cfg Config, topic string) int64 {
	t.Helper()
	os, err := committed(t.Context(), kadm.NewClient(testClient(t, cfg)), cfg.Names.Group("filter"))
	if err != nil {
		t.Fatal(err)
	}
	o, ok := os.Lookup(topic, 0)
	if !ok {
		return -1
	}
	return o.At
}

func TestStartsWhileTheFilterRuns(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	initialize(t, cfg, InitOptions{Partitions: 1})
	joined := make(chan struct{})
	filter := testClient(t, cfg, kgo.ConsumerGroup(cfg.Names.Group("filter")), kgo.ConsumeTopics(cfg.Names.Events()),
		kgo.OnPartitionsAssigned(func(_ context.Context, _ *kgo.Client, m map[string][]int32) {
			if len(m) > 0 {
				close(joined)
			}
		}))
	go filter.PollFetches(t.Context())
	<-joined
	theirs := string(cfg.Names) + "theirs"
	makeTopic(t, cfg, theirs, 1)
	send(t, cfg, theirs, 3)
	r := initialize(t, cfg, InitOptions{EventTopics: []string{cfg.Names.Events(), theirs}})
	if len(r.Notes) != 1 || !strings.Contains(r.Notes[0], "stop it") {
		t.Errorf("notes %q", r.Notes)
	}
	if at := committedAt(t, cfg, theirs); at != -1 {
		t.Errorf("committed %d behind the filter's back", at)
	}
}

func TestEventTopics(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	p := string(cfg.Names)
	initialize(t, cfg, InitOptions{Partitions: 1})
	for _, name := range []string{"web.clicks", "web.views", "other"} {
		makeTopic(t, cfg, p+name, 1)
	}
	for _, c := range []struct{ topics, want string }{
		{"", "events"},
		{"other missing", "missing other"},
		{`regex:web\..*`, "web.clicks web.views"},
		{`regex:web\..*|other web.views`, "other web.clicks web.views"},
		{`regex:.*`, "events other web.clicks web.views"}, // not what we write ourselves
		{`regex:web`, ""},                                 // the whole name
	} {
		var topics []string
		for _, s := range strings.Fields(c.topics) {
			if re, ok := strings.CutPrefix(s, EventsRegex); ok {
				topics = append(topics, EventsRegex+strings.ReplaceAll(p, ".", `\.`)+"(?:"+re+")")
				continue
			}
			topics = append(topics, p+s)
		}
		got, err := EventTopics(t.Context(), cfg, topics)
		if err != nil {
			t.Fatal(err)
		}
		if s := strings.ReplaceAll(strings.Join(got, " "), p, ""); s != c.want {
			t.Errorf("%q gives %q; want %q", c.topics, s, c.want)
		}
	}
	if _, err := EventTopics(t.Context(), cfg, []string{"regex:("}); err == nil {
		t.Error("a broken pattern is no error")
	}
	for _, own := range []string{cfg.Names.Matches(), cfg.Names.OperatorEvents()} {
		if _, err := EventTopics(t.Context(), cfg, []string{own}); err == nil {
			t.Errorf("%s as a topic of producers is no error", own)
		}
	}
}

func TestMissingEventTopicIsNoted(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	r := initialize(t, cfg, InitOptions{Partitions: 1, EventTopics: []string{"no-such-topic"}})
	if len(r.Notes) != 1 || !strings.Contains(r.Notes[0], "no-such-topic does not exist") || len(r.Starts) > 0 {
		t.Errorf("notes %q, starts %v", r.Notes, r.Starts)
	}
}

func TestInitRefusesNonsense(t *testing.T) {
	t.Parallel()
	o := InitOptions{Partitions: -1, Replication: -2, Start: "yesterday", Lanes: []string{"a.b"}}
	_, err := Init(t.Context(), Config{Names: "mill race"}, o)
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{"brokers", "prefix", "partitions", "replication", "yesterday", "a.b"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error does not name %s: %v", want, err)
		}
	}
}
