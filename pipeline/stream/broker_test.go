package stream

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-io/millrace/pipeline"
)

func openBroker(t *testing.T, cfg BrokerConfig) (*Broker, Config) {
	t.Helper()
	cfg.Listen, cfg.Names, cfg.Log = "127.0.0.1:0", "millrace.", slog.New(slog.DiscardHandler)
	b, err := OpenBroker(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return b, Config{Brokers: b.Addrs(), Names: cfg.Names, Instance: "test", Log: cfg.Log}
}

func closeBroker(t *testing.T, b *Broker) {
	t.Helper()
	if err := b.Close(); err != nil {
		t.Errorf("closing the broker: %v", err)
	}
}

func tidy(t *testing.T, b *Broker) {
	t.Helper()
	if err := b.tidy(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestBrokerKeepsItsDataWhenClosed(t *testing.T) {
	t.Parallel()
	for _, sync := range []bool{false, true} {
		t.Run(fmt.Sprint("sync ", sync), func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "made", "by", "it")
			b, cfg := openBroker(t, BrokerConfig{Dir: dir, Sync: sync})
			initialize(t, cfg, InitOptions{Partitions: 1})
			send(t, cfg, cfg.Names.Events(), 10)
			closeBroker(t, b)
			b, cfg = openBroker(t, BrokerConfig{Dir: dir, Sync: sync})
			defer closeBroker(t, b)
			if n := len(readRecords(t, cfg, cfg.Names.Events())); n != 10 {
				t.Errorf("of 10 records there are %d", n)
			}
		})
	}
}

func TestBrokerInMemory(t *testing.T) {
	t.Parallel()
	b, cfg := openBroker(t, BrokerConfig{})
	defer closeBroker(t, b)
	initialize(t, cfg, InitOptions{Partitions: 1})
	send(t, cfg, cfg.Names.Events(), 1)
	tidy(t, b)
}

func TestOneBrokerToADirectory(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b, _ := openBroker(t, BrokerConfig{Dir: dir})
	if _, err := OpenBroker(BrokerConfig{Dir: dir, Listen: "127.0.0.1:0"}); !errors.Is(err, errLocked) {
		t.Errorf("a second one got %v", err)
	}
	closeBroker(t, b)
	b, _ = openBroker(t, BrokerConfig{Dir: dir})
	closeBroker(t, b)
}

func TestBrokerSaysThatThePortIsTaken(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	dir := t.TempDir()
	_, err = OpenBroker(BrokerConfig{Dir: dir, Listen: l.Addr().String()})
	if err == nil || !strings.Contains(err.Error(), l.Addr().String()+" is taken") || !strings.Contains(err.Error(), "choose another address") {
		t.Errorf("got %v", err)
	}
	b, _ := openBroker(t, BrokerConfig{Dir: dir}) // the directory is free again
	closeBroker(t, b)
}

func TestBrokerRefusesNonsense(t *testing.T) {
	t.Parallel()
	for _, listen := range []string{"nonsense", "0.0.0.0:9092", ":9092", "[::]:9092", "127.0.0.1:http"} {
		if _, err := OpenBroker(BrokerConfig{Listen: listen}); err == nil || !strings.Contains(err.Error(), "listen") {
			t.Errorf("listening on %q: %v", listen, err)
		}
	}
	if _, err := OpenBroker(BrokerConfig{MaxDiskBytes: -1}); err == nil {
		t.Error("a negative limit is no error")
	}
}

func TestBrokerRefusesEventsWhenItsDiskIsFull(t *testing.T) {
	t.Parallel()
	b, cfg := openBroker(t, BrokerConfig{Dir: t.TempDir(), MaxDiskBytes: 1 << 20})
	defer closeBroker(t, b)
	initialize(t, cfg, InitOptions{Partitions: 1})
	cfg.Compression = "none"
	p, err := NewProducer(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	big := []pipeline.Record{{Topic: cfg.Names.Events(), Value: make([]byte, 900_000)}}
	for range 2 {
		tidy(t, b)
		if err := p.Produce(t.Context(), big); err != nil {
			t.Fatalf("with room: %v", err)
		}
	}
	for range 2 { // it stays so
		tidy(t, b)
		if err := p.Produce(t.Context(), big); !errors.Is(err, kerr.PolicyViolation) {
			t.Fatalf("without room: %v", err)
		}
	}
	for _, topic := range []string{cfg.Names.Matches(), cfg.Names.Deliveries("default"), cfg.Names.Ledger()} {
		if err := p.Produce(t.Context(), []pipeline.Record{{Topic: topic, Value: []byte("x")}}); err != nil {
			t.Errorf("%s goes on: %v", topic, err)
		}
	}
	if err := b.cluster.DeleteRecords(cfg.Names.Events(), 0, -1); err != nil {
		t.Fatal(err)
	}
	tidy(t, b)
	if err := p.Produce(t.Context(), big); err != nil {
		t.Errorf("with room again: %v", err)
	}
}

// fill writes some megabytes of few keys into the definitions.
func fill(t *testing.T, cfg Config) map[string]string {
	t.Helper()
	p, err := NewProducer(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	want := map[string]string{}
	for i := range 30 {
		var rs []pipeline.Record
		for k := range 3 {
			key, value := fmt.Sprint("k", k), fmt.Sprint(i)+strings.Repeat("x", 50_000)
			rs = append(rs, pipeline.Record{Topic: cfg.Names.Definitions(), Key: []byte(key), Value: []byte(value)})
			want[key] = value
		}
		if err := p.Produce(t.Context(), rs); err != nil {
			t.Fatal(err)
		}
	}
	return want
}

func definitions(t *testing.T, cfg Config) map[string]string {
	t.Helper()
	got := map[string]string{}
	for _, r := range readRecords(t, cfg, cfg.Names.Definitions()) {
		got[string(r.Key)] = string(r.Value)
	}
	return got
}

func TestBrokerCompacts(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b, cfg := openBroker(t, BrokerConfig{Dir: dir})
	cfg.Compression = "none"
	initialize(t, cfg, InitOptions{Partitions: 1})
	want := fill(t, cfg)
	before := b.cluster.PartitionInfo(cfg.Names.Definitions(), 0).NumBytes
	tidy(t, b)
	if after := b.cluster.PartitionInfo(cfg.Names.Definitions(), 0).NumBytes; after >= before/2 {
		t.Errorf("%d bytes before, %d after", before, after)
	}
	if got := definitions(t, cfg); !maps.Equal(got, want) {
		t.Errorf("after it there are %d of %d keys", len(got), len(want))
	}
	if left, err := os.ReadDir(b.dir.kept()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it left %v, %v behind", left, err)
	}
	closeBroker(t, b)
	b, cfg = openBroker(t, BrokerConfig{Dir: dir})
	defer closeBroker(t, b)
	if got := definitions(t, cfg); !maps.Equal(got, want) {
		t.Errorf("after a restart there are %d of %d keys", len(got), len(want))
	}
}

// What an open transaction wrote must not push out what is committed.
func TestBrokerDoesNotCompactUnderATransaction(t *testing.T) {
	t.Parallel()
	b, cfg := openBroker(t, BrokerConfig{})
	defer closeBroker(t, b)
	cfg.Compression = "none"
	initialize(t, cfg, InitOptions{Partitions: 1})
	want := fill(t, cfg)
	cl := testClient(t, cfg, kgo.TransactionalID("open"))
	if err := cl.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	for key := range want {
		r := &kgo.Record{Topic: cfg.Names.Definitions(), Key: []byte(key), Value: []byte("uncommitted")}
		if err := cl.ProduceSync(t.Context(), r).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	tidy(t, b)
	if err := cl.EndTransaction(t.Context(), kgo.TryAbort); err != nil {
		t.Fatal(err)
	}
	tidy(t, b)
	if got := definitions(t, cfg); !maps.Equal(got, want) {
		t.Errorf("there are %d of %d keys", len(got), len(want))
	}
}

// A kill while kfake rewrites the files: the old ones are gone, the new ones
// not there, or not whole.
func TestBrokerSurvivesAKillWhileItCompacts(t *testing.T) {
	t.Parallel()
	for name, damage := range map[string]func(*testing.T, string){
		"nothing written": func(t *testing.T, dir string) { clearDir(t, dir) },
		"half written": func(t *testing.T, dir string) {
			t.Helper()
			clearDir(t, dir)
			if err := os.WriteFile(filepath.Join(dir, "0.dat"), make([]byte, 100), 0o600); err != nil {
				t.Fatal(err)
			}
		},
		"all written": func(*testing.T, string) {},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			b, cfg := openBroker(t, BrokerConfig{Dir: dir})
			initialize(t, cfg, InitOptions{Partitions: 1})
			part := partitionName{cfg.Names.Definitions(), 0}
			if err := b.dir.keepCompacted([]partitionName{part}); err != nil {
				t.Fatal(err)
			}
			send(t, cfg, part.topic, 1)
			if err := b.dir.keepCompacted([]partitionName{part}); err != nil {
				t.Fatal(err)
			}
			want := fill(t, cfg) // while the files are kept
			killed(t, b)
			damage(t, filepath.Join(dir, "partitions", part.String()))
			b, cfg = openBroker(t, BrokerConfig{Dir: dir})
			defer closeBroker(t, b)
			got := definitions(t, cfg)
			if delete(got, "k"); !maps.Equal(got, want) {
				t.Errorf("there are %d of %d keys", len(got), len(want))
			}
		})
	}
}

func clearDir(t *testing.T, dir string) {
	t.Helper()
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
}

// killed stops a broker without the note that it was closed.
func killed(t *testing.T, b *Broker) {
	t.Helper()
	b.stop()
	if err := b.dir.release(); err != nil {
		t.Fatal(err)
	}
}

func TestLastBatchOfATornSegment(t *testing.T) {
	t.Parallel()
	b, cfg := openBroker(t, BrokerConfig{Dir: t.TempDir()})
	initialize(t, cfg, InitOptions{Partitions: 1})
	for range 3 {
		send(t, cfg, cfg.Names.Events(), 1)
	}
	file := filepath.Join(b.dir.live(), partitionName{cfg.Names.Events(), 0}.String(), "0.dat")
	closeBroker(t, b)
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got := lastBatch(data); got != 2 {
		t.Errorf("the last offset is %d, not 2", got)
	}
	if got := lastBatch(data[:len(data)-1]); got != 1 {
		t.Errorf("with the last byte missing, it is %d, not 1", got)
	}
	if got := lastBatch(nil); got != -1 {
		t.Errorf("of nothing, it is %d, not -1", got)
	}
}

func FuzzLastBatch(f *testing.F) {
	f.Add(make([]byte, batchHead))
	f.Fuzz(func(t *testing.T, data []byte) {
		t.Parallel()
		lastBatch(data)
	})
}

func TestBrokerRunEndsWithItsContext(t *testing.T) {
	t.Parallel()
	b, _ := openBroker(t, BrokerConfig{Dir: t.TempDir(), MaxDiskBytes: 1 << 30})
	defer closeBroker(t, b)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- b.Run(ctx) }()
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
