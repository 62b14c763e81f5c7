package stream

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-io/millrace/pipeline"
)

// scanned returns the values that a scan gives, sorted, and what its progress
// ended with.
func scanned(t *testing.T, cfg Config, since time.Time, topics ...string) (values []string, done, total int64) {
	t.Helper()
	err := Scan(t.Context(), cfg, topics, since, func(d, of int64) {
		if d < done || d > of {
			t.Errorf("progress goes from %d to %d of %d", done, d, of)
		}
		done, total = d, of
	}, func(r pipeline.Record) error {
		values = append(values, string(r.Value))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(values)
	return values, done, total
}

func TestScan(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	initialize(t, cfg, InitOptions{Partitions: 3})
	cl := testClient(t, cfg)
	topic, other := cfg.Names.Events(), cfg.Names.Attempts()
	write := func(topic, value string, at time.Time) {
		t.Helper()
		r := &kgo.Record{Topic: topic, Key: []byte(value), Value: []byte(value), Timestamp: at}
		if err := cl.ProduceSync(t.Context(), r).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	if got, _, total := scanned(t, cfg, time.Time{}, topic); got != nil || total != 0 {
		t.Errorf("an empty topic gives %v of %d", got, total)
	}
	now := time.Now()
	for i := range 20 {
		write(topic, fmt.Sprintf("old %02d", i), now.Add(-time.Hour))
	}
	write(topic, "new", now)
	write(other, "other", now)
	inTransaction(t, cfg, topic, "committed", kgo.TryCommit)
	inTransaction(t, cfg, topic, "aborted", kgo.TryAbort)
	// Kafka says that a transaction is committed before its markers are written.
	seen := errors.New("seen")
	err := Read(t.Context(), cfg, []string{topic}, FromStart(), func(r pipeline.Record) error {
		if string(r.Value) == "committed" {
			return seen
		}
		return nil
	})
	if !errors.Is(err, seen) {
		t.Fatal(err)
	}

	got, done, total := scanned(t, cfg, time.Time{}, topic, other)
	if len(got) != 23 || got[0] != "committed" || got[1] != "new" || got[22] != "other" || done != total || total < 23 {
		t.Errorf("it gives %v, %d of %d", got, done, total)
	}
	if got, _, _ := scanned(t, cfg, now.Add(-time.Minute), topic); !slices.Equal(got, []string{"committed", "new"}) {
		t.Errorf("since a time it gives %v", got)
	}
	if got, _, _ := scanned(t, cfg, time.Now().Add(time.Hour), topic); got != nil {
		t.Errorf("since a time to come it gives %v", got)
	}
	if got, _, _ := scanned(t, cfg, time.Time{}); got != nil {
		t.Errorf("no topics give %v", got)
	}
}

// inTransaction writes a value to every partition in a transaction that ends so.
func inTransaction(t *testing.T, cfg Config, topic, value string, end kgo.TransactionEndTry) {
	t.Helper()
	cl, err := cfg.client(kgo.TransactionalID(string(cfg.Names)+value), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	if err := cl.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	if err := cl.ProduceSync(t.Context(), &kgo.Record{Topic: topic, Value: []byte(value), Partition: 1}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	if err := noted(t.Context(), cl, map[string]bool{topic: true}); err != nil {
		t.Fatal(err)
	}
	if err := cl.EndTransaction(t.Context(), end); err != nil {
		t.Fatal(err)
	}
}

// TestScanEndsWithWhatWasThere: what is written meanwhile is left for another
// time, or a scan of a busy topic would have no end.
func TestScanEndsWithWhatWasThere(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	initialize(t, cfg, InitOptions{Partitions: 1})
	p, err := NewProducer(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	one := []pipeline.Record{{Topic: cfg.Names.Events(), Value: []byte("x")}}
	if err := p.Produce(t.Context(), []pipeline.Record{one[0], one[0], one[0]}); err != nil {
		t.Fatal(err)
	}
	n := 0
	err = Scan(t.Context(), cfg, []string{cfg.Names.Events()}, time.Time{}, nil, func(pipeline.Record) error {
		n++
		return p.Produce(t.Context(), one)
	})
	if err != nil || n != 3 {
		t.Errorf("%d records, %v", n, err)
	}
	enough := errors.New("enough")
	err = Scan(t.Context(), cfg, []string{cfg.Names.Events()}, time.Time{}, nil, func(pipeline.Record) error { return enough })
	if !errors.Is(err, enough) {
		t.Errorf("it does not end with the error of each: %v", err)
	}
	if err := Scan(t.Context(), cfg, []string{"not.there"}, time.Time{}, nil, nil); !errors.Is(err, errNoTopic) {
		t.Errorf("of a topic that is not there it says %v", err)
	}
}
