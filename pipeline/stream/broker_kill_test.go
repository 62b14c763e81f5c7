package stream

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
)

// files of a topic's only partition.
func (h *halfway) files(dir, topic string) (segment, index string) {
	segment = segmentFile(filepath.Join(dir, "partitions", partitionName{topic, 0}.String()), 0)
	return segment, indexFile(segment)
}

// shorten takes bytes off the end of a file.
func (h *halfway) shorten(file string, by int64) {
	h.t.Helper()
	was, err := os.Stat(file)
	if err == nil {
		err = os.Truncate(file, was.Size()-by)
	}
	if err != nil {
		h.t.Fatal(err)
	}
}

// A kill between the two writes that a batch takes leaves it without its entry in
// the index: it is part of its transaction all the same.
func TestBrokerKilledWithinABatch(t *testing.T) {
	t.Parallel()
	h := newHalfway(t)
	h.begin("one", 10)
	h.commit()
	closed := h.killed()
	h.begin("two", 20)
	open := h.killed()
	for _, topic := range h.topics {
		for _, torn := range []int64{1, indexEntry} {
			dir := h.copyOf(open)
			_, index := h.files(dir, topic)
			h.shorten(index, torn)
			h.check("data without its entry in "+topic, dir, []string{"one"}, 10, "about one")
		}
		dir := h.copyOf(closed)
		_, index := h.files(dir, topic)
		h.shorten(index, indexEntry)
		h.check("a marker without its entry in "+topic, dir, []string{"one"}, 10, "about one")

		dir = h.copyOf(closed)
		if _, index = h.files(dir, topic); os.Remove(index) != nil {
			t.Fatal("there is no index")
		}
		h.check("without the index of "+topic, dir, []string{"one"}, 10, "about one")
	}
}

// A kill of the broker while it recovers from a kill.
func TestBrokerKilledWhileItRecovers(t *testing.T) {
	t.Parallel()
	h := newHalfway(t)
	h.begin("one", 10)
	h.commit()
	h.begin("two", 20)
	open := h.killed()
	h.commit()
	through := h.killed()
	h.replace(open, through, noteFile)
	torn := h.copyOf(open)
	groups, err := os.ReadFile(filepath.Join(torn, "groups.log"))
	if err == nil {
		err = os.WriteFile(filepath.Join(torn, "groups.log"), append(groups, 200, 0, 0, 0, 1, 2, 3, 4, 5), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	for what, dir := range map[string]string{"after a kill": open, "after a torn entry": torn} {
		b := &Broker{cfg: BrokerConfig{Dir: dir, Names: h.cfg.Names, Log: h.cfg.Log}, compacted: map[string]int64{}}
		if b.dir, err = openDataDir(dir); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(b.dir.mend(), b.start("127.0.0.1:0"), b.finishCommit(t.Context())); err != nil {
			t.Fatal(err)
		}
		finished := h.copyOf(dir)
		_, err := b.abortOpen(t.Context())
		aborted := h.copyOf(dir)
		b.stop()
		if err := errors.Join(err, b.dir.release()); err != nil {
			t.Fatal(err)
		}
		for step, dir := range map[string]string{"commit finished": finished, "rest aborted": aborted, "stopped": dir} {
			h.check(what+": "+step, dir, []string{"one", "two"}, 20, "about two")
		}
	}
}

// The broker is closed while a transaction is open, and killed after its next
// start: nothing of it was committed.
func TestBrokerClosedWithinATransaction(t *testing.T) {
	t.Parallel()
	h := newHalfway(t)
	h.begin("one", 10)
	h.commit()
	h.begin("two", 20)
	if err := h.broker.Close(); err != nil {
		t.Fatal(err)
	}
	h.p.drop()
	openTestBroker(t, h.dir)
	h.check("after a start", h.killed(), []string{"one"}, 10, "about one")
}

// The broker is killed while it closes: who was in a group then is not any more.
func TestBrokerKilledWhileItCloses(t *testing.T) {
	t.Parallel()
	h := newHalfway(t)
	joined := make(chan struct{}, 10)
	cl := testClient(t, h.cfg, kgo.ConsumerGroup(h.cfg.Names.Group("sink")), kgo.ConsumeTopics(h.cfg.Names.Events()),
		kgo.OnPartitionsAssigned(func(context.Context, *kgo.Client, map[string][]int32) { joined <- struct{}{} }))
	go cl.PollFetches(t.Context())
	<-joined
	h.begin("one", 10)
	h.commit()
	note := h.killed()
	if err := h.broker.Close(); err != nil {
		t.Fatal(err)
	}
	h.replace(h.dir, note, noteFile)
	h.replace(h.dir, note, lockFile)
	h.check("in the end", h.killed(), []string{"one"}, 10, "about one")
}

// A compaction was through but for its last entry in an index.
func TestBrokerKilledAtTheEndOfACompaction(t *testing.T) {
	t.Parallel()
	h := newHalfway(t)
	h.begin("one", 10)
	h.commit()
	dir := h.killed()
	d := &dataDir{path: dir}
	folder := partitionName{h.topics[0], 0}.String()
	live, kept := filepath.Join(d.live(), folder), filepath.Join(d.kept(), folder)
	if err := errors.Join(os.Mkdir(d.kept(), 0o700), os.CopyFS(kept, os.DirFS(live)), os.Remove(filepath.Join(dir, noteFile))); err != nil {
		t.Fatal(err)
	}
	_, index := h.files(dir, h.topics[0])
	h.shorten(index, indexEntry)
	h.check("with its records", dir, []string{"one"}, 10, "about one")
}

// Offsets that somebody set stay as they are, though the last transaction comes
// from before.
func TestBrokerKeepsOffsetsSetByHand(t *testing.T) {
	t.Parallel()
	h := newHalfway(t)
	h.begin("one", 10)
	h.commit()
	var o kadm.Offsets
	o.Add(kadm.Offset{Topic: h.cfg.Names.Events(), Partition: 0, At: 3, LeaderEpoch: -1, Metadata: "by hand"})
	if err := kadm.NewClient(testClient(t, h.cfg)).CommitAllOffsets(t.Context(), h.cfg.Names.Group("sink"), o); err != nil {
		t.Fatal(err)
	}
	h.check("after a kill", h.killed(), []string{"one"}, 3, "by hand")
}

// A partition whose records have all been deleted goes on where it ended.
func TestBrokerKeepsTheEndOfAnEmptyPartition(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b, cfg := openTestBroker(t, dir)
	initialize(t, cfg, InitOptions{Partitions: 1})
	send(t, cfg, cfg.Names.Events(), 10)
	brief := []kadm.AlterConfig{{Op: kadm.SetConfig, Name: "retention.ms", Value: kadm.StringPtr("1")}}
	if _, err := kadm.NewClient(testClient(t, cfg)).AlterTopicConfigs(t.Context(), brief, cfg.Names.Events()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "deletion", func() bool {
		if err := b.tidy(t.Context()); err != nil {
			t.Fatal(err)
		}
		return b.cluster.PartitionInfo(cfg.Names.Events(), 0).LogStartOffset >= 10
	})
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	b, _ = openTestBroker(t, dir)
	if p := b.cluster.PartitionInfo(cfg.Names.Events(), 0); p.HighWatermark < 10 || p.LogStartOffset < 10 {
		t.Errorf("it goes on at %d and begins at %d", p.HighWatermark, p.LogStartOffset)
	}
}

// What the broker could not write down is recovered as after a kill.
func TestBrokerCouldNotWrite(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b, _ := openTestBroker(t, dir)
	brokerLog{slog.New(slog.DiscardHandler), &b.failed}.Logf(kfake.LogLevelError, "disk full")
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	d, err := openDataDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if d.clean {
		t.Error("it counts as closed")
	}
	if err := d.release(); err != nil {
		t.Fatal(err)
	}
}
