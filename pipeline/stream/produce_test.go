package stream

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-io/millrace/pipeline"
	"github.com/millrace-io/millrace/pipeline/pipelinetest"
)

func TestProduceAndRead(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	initialize(t, cfg, InitOptions{Partitions: 3})
	p, err := NewProducer(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	topic := cfg.Names.Events()
	produce := func(values ...string) {
		t.Helper()
		var rs []pipeline.Record
		for _, v := range values {
			rs = append(rs, pipeline.Record{
				Topic: topic, Key: []byte(v), Value: []byte(v), Headers: []pipeline.Header{{Key: "h", Value: []byte(v)}},
			})
		}
		if err := p.Produce(t.Context(), rs); err != nil {
			t.Fatal(err)
		}
	}
	read := func(from Start, n int) map[string]bool {
		t.Helper()
		got, enough := map[string]bool{}, errors.New("enough")
		err := Read(t.Context(), cfg, []string{topic}, from, func(r pipeline.Record) error {
			if h, ok := r.Header("h"); !ok || string(h) != string(r.Value) || r.Topic != topic || r.Time.IsZero() {
				t.Errorf("read %+v", r)
			}
			if got[string(r.Value)] = true; len(got) == n {
				return enough
			}
			return nil
		})
		if !errors.Is(err, enough) {
			t.Fatal(err)
		}
		return got
	}
	produce("a", "b", "c", "d")
	if got := read(FromStart(), 4); !maps.Equal(got, map[string]bool{"a": true, "b": true, "c": true, "d": true}) {
		t.Errorf("from the start there are %v", got)
	}
	if got := read(FromTime(time.Now().Add(-time.Hour)), 4); len(got) != 4 {
		t.Errorf("from an hour ago there are %v", got)
	}
}

func TestReadFromEnd(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	initialize(t, cfg, InitOptions{Partitions: 1})
	send(t, cfg, cfg.Names.Events(), 3)
	// The reader finds the end by itself, so what it misses at first comes
	// again: until it has seen one, nothing older than the start may come.
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	first := make(chan pipeline.Record, 1)
	done := make(chan error, 1)
	go func() {
		done <- Read(ctx, cfg, []string{cfg.Names.Events()}, FromEnd(), func(r pipeline.Record) error {
			select {
			case first <- r:
			default:
			}
			return nil
		})
	}()
	for {
		send(t, cfg, cfg.Names.Events(), 1)
		select {
		case r := <-first:
			if r.Offset < 3 {
				t.Errorf("from the end on it read offset %d", r.Offset)
			}
			cancel()
			if err := <-done; !errors.Is(err, context.Canceled) {
				t.Errorf("then it returned %v", err)
			}
			return
		case err := <-done:
			t.Fatal(err)
		default:
		}
	}
}

func TestTopicThatDoesNotExist(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	p, err := NewProducer(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	err = p.Produce(t.Context(), []pipeline.Record{{Topic: cfg.Names.Events(), Value: []byte("x")}})
	wantError(t, err, "millrace init")
	err = Read(t.Context(), cfg, []string{cfg.Names.Events()}, FromStart(), func(pipeline.Record) error { return nil })
	wantError(t, err, "millrace init")
}

// A record that was sent and is not answered does not hold the caller longer
// than it wants to wait.
func TestProduceEndsWithItsContext(t *testing.T) {
	t.Parallel()
	f := pipelinetest.StartFake(t, "")
	cfg := Config{Brokers: f.Addrs(), Names: "millrace.", Instance: "test", Log: slog.New(slog.DiscardHandler)}
	makeLog(t, cfg)
	ctx, cancel := context.WithCancel(t.Context())
	f.ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) {
		f.KeepControl()
		cancel()
		return nil, nil, true // and no answer
	})
	p, err := NewProducer(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if err := p.Produce(ctx, []pipeline.Record{{Topic: cfg.Names.Changes(), Value: []byte("x")}}); !errors.Is(err, context.Canceled) {
		t.Errorf("producing: %v", err)
	}
}

// The same for a change of the definitions, which was not made then.
func TestWriteEndsWithItsContext(t *testing.T) {
	t.Parallel()
	cfg, f := fakeLog(t)
	ctx, cancel := context.WithCancel(t.Context())
	f.ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) {
		cancel()
		return nil, nil, true
	})
	w := openLog(t, cfg)
	if _, err := w.Write(ctx, put(cfg, "1", "a")); !errors.Is(err, context.Canceled) {
		t.Errorf("writing: %v", err)
	}
	write(t, w, put(cfg, "2", "b"))
	s := followLog(t, cfg)
	s.wait(t, "the end", func() bool { return s.caughtUp })
	if len(s.keys) != 1 || s.keys["b"] != "2" {
		t.Errorf("got %v", s.keys)
	}
}

func TestFollowSurvivesARestart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b, cfg := openBroker(t, BrokerConfig{Dir: dir})
	initialize(t, cfg, InitOptions{Partitions: 1})
	addr := b.Addrs()[0]
	w := openLog(t, cfg)
	write(t, w, put(cfg, "1", "a"))
	s := followLog(t, cfg)
	s.wait(t, "the end", func() bool { return s.caughtUp && s.keys["a"] == "1" })
	closeBroker(t, b)
	b, err := OpenBroker(BrokerConfig{Dir: dir, Listen: addr, Log: cfg.Log})
	if err != nil {
		t.Fatal(err)
	}
	defer closeBroker(t, b)
	write(t, w, put(cfg, "2", "a"))
	s.wait(t, "what came after", func() bool { return s.keys["a"] == "2" })
}

func TestPatiently(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		calls := 0
		away := errors.New("away")
		if err := patiently(t.Context(), func(context.Context) error { calls++; return away }); !errors.Is(err, away) {
			t.Errorf("got %v", err)
		}
		if d := time.Since(began); d < patience/2 || d > patience+time.Second || calls < 5 {
			t.Errorf("gave up after %v and %d calls", d, calls)
		}
	})
}

// The same with Apache Kafka, killed, and with a password.
func TestKafkaIsKilled(t *testing.T) {
	t.Parallel()
	if !pipelinetest.RealKafka() {
		t.Skip("of Apache Kafka: set MILLRACE_TEST_KAFKA=1")
	}
	k := pipelinetest.StartKafka(t,
		"listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:SASL_PLAINTEXT",
		"sasl.enabled.mechanisms=PLAIN", "sasl.mechanism.inter.broker.protocol=PLAIN",
		"listener.name.plaintext.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required "+
			`username="mill" password="right" user_mill="right";`,
	)
	login := func(password string) *SASLConfig {
		return &SASLConfig{Mechanism: Plain, Username: "mill", Password: func() (string, error) { return password, nil }}
	}
	cfg := Config{Brokers: k.Addrs(), Names: "millrace.", Instance: "test", Log: slog.New(slog.DiscardHandler), SASL: login("wrong")}
	wantError(t, cfg.Ping(t.Context()), "refused the user name or password")
	cfg.SASL = login("right")
	wantError(t, cfg.Ping(t.Context()), "")
	initialize(t, cfg, InitOptions{Partitions: 1})
	w := openLog(t, cfg)
	write(t, w, put(cfg, "1", "a"))
	s := followLog(t, cfg)
	s.wait(t, "the end", func() bool { return s.caughtUp && s.keys["a"] == "1" })
	k.Kill()
	k.Restart(t)
	write(t, w, put(cfg, "2", "a"))
	s.wait(t, "what came after", func() bool { return s.keys["a"] == "2" })
}

// slowPartitioner holds a topic's second record back, and with it the client's
// note of the topic's partitions: both happen in one goroutine.
type slowPartitioner struct {
	release chan struct{}
	calls   atomic.Int64
}

func (p *slowPartitioner) ForTopic(string) kgo.TopicPartitioner { return p }
func (*slowPartitioner) RequiresConsistency(*kgo.Record) bool   { return true }
func (p *slowPartitioner) Partition(*kgo.Record, int) int {
	if p.calls.Add(1) == 2 {
		<-p.release
	}
	return int(p.calls.Load() - 1)
}

// What is written before the client has noted the topic's partitions is
// committed: without that note, the client aborts and says nothing.
func TestNotedBeforeCommit(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	initialize(t, cfg, InitOptions{Partitions: 2})
	slow := &slowPartitioner{release: make(chan struct{})}
	cl := testClient(t, cfg, kgo.TransactionalID(string(cfg.Names)+"noted"), kgo.RecordPartitioner(slow))
	if err := cl.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	topic := cfg.Names.Matches()
	written := []chan error{make(chan error, 1), make(chan error, 1)}
	for _, w := range written {
		cl.Produce(t.Context(), &kgo.Record{Topic: topic, Value: []byte("x")}, func(_ *kgo.Record, err error) { w <- err })
	}
	if err := <-written[0]; err != nil {
		t.Fatal(err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := noted(ended, cl, map[string]bool{topic: true}); !errors.Is(err, context.Canceled) {
		t.Errorf("before the client has noted anything: %v", err)
	}
	close(slow.release)
	if err := <-written[1]; err != nil {
		t.Fatal(err)
	}
	if err := noted(t.Context(), cl, map[string]bool{topic: true}); err != nil {
		t.Fatal(err)
	}
	if err := cl.EndTransaction(t.Context(), kgo.TryCommit); err != nil {
		t.Fatal(err)
	}
	n := 0
	enough := errors.New("enough")
	err := Read(t.Context(), cfg, []string{topic}, FromStart(), func(pipeline.Record) error {
		if n++; n == 2 {
			return enough
		}
		return nil
	})
	if !errors.Is(err, enough) {
		t.Error(err)
	}
}
