package stream

import (
	"errors"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// halfway is a transaction over three topics and the offset of a fourth, on a
// broker of whose data there are copies.
type halfway struct {
	t      *testing.T
	dir    string // of the broker
	broker *Broker
	cfg    Config
	topics []string
	p      producer
}

func newHalfway(t *testing.T) *halfway {
	t.Helper()
	h := &halfway{t: t, dir: t.TempDir()}
	h.broker, h.cfg = openTestBroker(t, h.dir)
	initialize(t, h.cfg, InitOptions{Partitions: 1})
	h.topics = []string{h.cfg.Names.Matches(), h.cfg.Names.Attempts(), h.cfg.Names.Ledger()}
	h.p = producer{cfg: h.cfg, role: "sink", base: t.Context()}
	if err := h.p.open(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.p.drop)
	return h
}

func openTestBroker(t *testing.T, dir string) (*Broker, Config) {
	t.Helper()
	cfg := Config{Names: "millrace.", Instance: "test", Log: slog.New(slog.DiscardHandler)}
	b, err := OpenBroker(BrokerConfig{Dir: dir, Listen: "127.0.0.1:0", Names: cfg.Names, Log: cfg.Log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() }) // what it was asked to keep has been looked at
	cfg.Brokers = b.Addrs()
	return b, cfg
}

// begin writes one record to each topic, and the offset, in a new transaction.
func (h *halfway) begin(value string, offset int64) {
	h.t.Helper()
	ctx := h.t.Context()
	if err := h.p.begin(ctx); err != nil {
		h.t.Fatal(err)
	}
	var rs []*kgo.Record
	for _, topic := range h.topics {
		rs = append(rs, &kgo.Record{Topic: topic, Value: []byte(value)})
	}
	if _, err := produceAll(ctx, h.p.cl, rs); err != nil {
		h.t.Fatal(err)
	}
	if err := h.p.commitOffsets(ctx, &transaction{
		want:       map[topicPartition]commitment{{h.cfg.Names.Events(), 0}: {offset, "about " + value}},
		generation: -1,
	}); err != nil {
		h.t.Fatal(err)
	}
}

func (h *halfway) commit() {
	h.t.Helper()
	if err := h.p.commit(h.t.Context()); err != nil {
		h.t.Fatal(err)
	}
}

// killed returns a copy of the broker's data as it is now: what a kill leaves.
func (h *halfway) killed() string { return h.copyOf(h.dir) }

func (h *halfway) copyOf(dir string) string {
	h.t.Helper()
	to := h.t.TempDir()
	if err := os.CopyFS(to, os.DirFS(dir)); err != nil {
		h.t.Fatal(err)
	}
	return to
}

// replace replaces a file or folder of one copy with that of another.
func (h *halfway) replace(to, from, name string) {
	h.t.Helper()
	data, err := os.ReadFile(filepath.Join(from, name))
	if err == nil {
		err = os.WriteFile(filepath.Join(to, name), data, 0o600)
	} else {
		err = os.RemoveAll(filepath.Join(to, name))
		if err == nil {
			err = os.CopyFS(filepath.Join(to, name), os.DirFS(filepath.Join(from, name)))
		}
	}
	if err != nil {
		h.t.Fatal(err)
	}
}

// check opens a copy and looks whether it has just these values in each topic,
// and this offset.
func (h *halfway) check(what, dir string, values []string, offset int64, metadata string) {
	t := h.t
	t.Helper()
	_, cfg := openTestBroker(t, dir)
	for _, topic := range h.topics {
		if got := slices.Sorted(maps.Keys(readAll(t, cfg, topic))); !slices.Equal(got, values) {
			t.Errorf("%s: %s has %q, expected %q", what, topic, got, values)
		}
	}
	got, err := kadm.NewClient(testClient(t, cfg)).FetchOffsets(t.Context(), cfg.Names.Group("sink"))
	if err != nil && !errors.Is(err, kerr.GroupIDNotFound) {
		t.Fatal(err)
	}
	at, ok := got.Lookup(cfg.Names.Events(), 0)
	if !ok {
		at.At = -1
	}
	if at.At != offset || at.Metadata != metadata {
		t.Errorf("%s: committed is %d %q, expected %d %q", what, at.At, at.Metadata, offset, metadata)
	}
	// Whoever goes on under the same id is seen.
	commitOne(t, cfg, cfg.Names.TransactionalID("sink", "test"), "next")
	if !readAll(t, cfg, cfg.Names.Matches())["next"] {
		t.Errorf("%s: the next transaction can't be read", what)
	}
}

// A kill at any step of a commit leaves all of the transaction or nothing.
func TestBrokerKilledWithinACommit(t *testing.T) {
	t.Parallel()
	h := newHalfway(t)
	h.begin("one", 10)
	h.commit()
	h.begin("two", 20)
	open := h.killed()
	h.commit()
	through := h.killed()
	h.begin("three", 30)
	stale := h.killed()

	note := func(dir string) string { h.replace(dir, through, noteFile); return dir }
	again := func() string { return h.copyOf(open) }
	h.check("before the note", again(), []string{"one"}, 10, "about one")
	h.check("after the note", note(again()), []string{"one", "two"}, 20, "about two")
	for n := 1; n <= len(h.topics); n++ {
		dir := note(again())
		for _, topic := range h.topics[:n] {
			h.replace(dir, through, filepath.Join("partitions", partitionName{topic, 0}.String()))
		}
		h.check("after some markers", dir, []string{"one", "two"}, 20, "about two")
	}
	h.check("in the next transaction", stale, []string{"one", "two"}, 20, "about two")

	torn := note(again())
	if err := os.Truncate(filepath.Join(torn, noteFile), 40); err != nil {
		t.Fatal(err)
	}
	h.check("within the note", torn, []string{"one"}, 10, "about one")
}

// A transaction that was aborted after all is not committed by its note: kfake
// refuses to commit what it has timed out, or fenced.
func TestBrokerKilledAfterARefusedCommit(t *testing.T) {
	t.Parallel()
	h := newHalfway(t)
	h.begin("one", 10)
	open := h.killed()
	h.commit()
	through := h.killed()

	openTestBroker(t, open) // which aborts it
	aborted := h.copyOf(open)
	h.replace(aborted, through, noteFile)
	h.check("after an abort", aborted, nil, -1, "")
}
