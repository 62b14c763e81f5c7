package stream

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"log/slog"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"

	"github.com/millrace-io/millrace/pipeline"
	"github.com/millrace-io/millrace/pipeline/pipelinetest"
)

// credulous starts a Kafka that does not ask whether what is written within a
// transaction belongs to one: so transactions can be made to hang.
func credulous(t *testing.T) []string {
	t.Helper()
	if !pipelinetest.RealKafka() {
		t.Skip("the embedded broker writes markers at once")
	}
	return pipelinetest.StartKafka(t, "transaction.partition.verification.enable=false").Addrs()
}

// leftHanging is a transaction of an id that has ended for its coordinator only.
type leftHanging struct {
	cfg Config
	id  string

	cl       *kgo.Client
	producer int64
	epoch    int16
	sequence map[string]int32 // by topic
}

// olderVersions are those of requests that Kafka takes as a part of a transaction
// without being told.
func olderVersions() *kversion.Versions {
	older := kversion.Stable()
	older.SetMaxKeyVersion(int16(kmsg.Produce), 9)
	older.SetMaxKeyVersion(int16(kmsg.TxnOffsetCommit), 3)
	older.SetMaxKeyVersion(int16(kmsg.EndTxn), 4)
	return older
}

// leaveHanging ends a transaction elsewhere, and goes on with its producer as if
// what follows had been part of it.
func leaveHanging(t *testing.T, cfg Config, id string, commit bool) leftHanging {
	t.Helper()
	h := leftHanging{
		cfg: cfg, id: id, sequence: map[string]int32{},
		cl: clientOf(t, cfg, kgo.TransactionalID(id), kgo.MaxVersions(olderVersions())),
	}
	if err := h.cl.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	if err := h.cl.ProduceSync(t.Context(), &kgo.Record{Topic: thirdTopic(cfg), Value: []byte("before")}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	if err := h.cl.EndTransaction(t.Context(), kgo.TransactionEndTry(commit)); err != nil {
		t.Fatal(err)
	}
	var err error
	if h.producer, h.epoch, err = h.cl.ProducerID(t.Context()); err != nil {
		t.Fatal(err)
	}
	return h
}

// write writes a value to a topic's first partition, in a batch as it is in the
// log (KIP-98).
func (h *leftHanging) write(t *testing.T, topic, key, value string) {
	t.Helper()
	now := time.Now().UnixMilli()
	r := kmsg.Record{Key: []byte(key), Value: []byte(value)}
	r.Length = int32(len(r.AppendTo(nil)) - 1)
	const transactional = 0x10
	batch := kmsg.RecordBatch{
		PartitionLeaderEpoch: -1, Magic: 2, Attributes: transactional,
		FirstTimestamp: now, MaxTimestamp: now,
		ProducerID: h.producer, ProducerEpoch: h.epoch, FirstSequence: h.sequence[topic], NumRecords: 1, Records: r.AppendTo(nil),
	}
	h.sequence[topic]++
	const beforeLength, checked = 12, 21 // bytes that the length and the checksum leave out
	raw := batch.AppendTo(nil)
	batch.Length = int32(len(raw) - beforeLength)
	batch.CRC = int32(crc32.Checksum(raw[checked:], crc32.MakeTable(crc32.Castagnoli)))
	req := kmsg.NewPtrProduceRequest()
	req.TransactionID, req.Acks, req.TimeoutMillis = &h.id, -1, 10_000
	req.Topics = []kmsg.ProduceRequestTopic{{
		Topic: topic, Partitions: []kmsg.ProduceRequestTopicPartition{{Records: batch.AppendTo(nil)}},
	}}
	resp, err := req.RequestWith(t.Context(), h.cl.Broker(1))
	if err == nil {
		err = kerr.ErrorForCode(resp.Topics[0].Partitions[0].ErrorCode)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// commitOffset commits an offset of a topic's first partition for a role's group.
func (h *leftHanging) commitOffset(t *testing.T, role, topic string, offset int64) {
	t.Helper()
	req := kmsg.NewPtrTxnOffsetCommitRequest()
	req.TransactionalID, req.Group = h.id, h.cfg.Names.Group(role)
	req.ProducerID, req.ProducerEpoch, req.Generation = h.producer, h.epoch, -1
	p := kmsg.NewTxnOffsetCommitRequestTopicPartition()
	p.Offset = offset
	req.Topics = []kmsg.TxnOffsetCommitRequestTopic{{Topic: topic, Partitions: []kmsg.TxnOffsetCommitRequestTopicPartition{p}}}
	resp, err := req.RequestWith(t.Context(), h.cl)
	if err == nil {
		err = kerr.ErrorForCode(resp.Topics[0].Partitions[0].ErrorCode)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// What Kafka has left hanging gets the end that its transaction had, before a
// runner begins another: its records are read or not, its offsets hold or not.
// So it is when an earlier try was cut short.
func TestHangingTransactions(t *testing.T) {
	t.Parallel()
	brokers := credulous(t)
	config := func(t *testing.T) Config {
		t.Helper()
		names := pipeline.Names(strings.NewReplacer("/", ".", " ", "-", ",", "", ":", "").Replace(t.Name()) + ".")
		return withTopics(t, Config{Brokers: brokers, Names: names, Instance: "test", Log: slog.New(slog.DiscardHandler)}, 1)
	}
	t.Run("of a log writer", func(t *testing.T) {
		t.Parallel()
		testHangingWriter(t, config(t))
	})
	t.Run("of a log writer that goes on", func(t *testing.T) {
		t.Parallel()
		testHangingKeptWriter(t, config(t))
	})
	t.Run("of another instance", func(t *testing.T) {
		t.Parallel()
		testHeldOffsets(t, config(t))
	})
	for name, cut := range map[string]func(*testing.T, *hanging, *kgo.Client) error{
		"at once":               nil,
		"after a cut beginning": func(t *testing.T, h *hanging, cl *kgo.Client) error { return h.init(t.Context(), cl, h.timeout()) },
		"after a cut end":       func(t *testing.T, h *hanging, cl *kgo.Client) error { return h.begin(t.Context(), cl) },
	} {
		for _, role := range []string{"filter", "sink"} {
			for _, commit := range []bool{true, false} {
				t.Run(fmt.Sprintf("%s, %s, committed: %v", name, role, commit), func(t *testing.T) {
					t.Parallel()
					testHanging(t, config(t), role, commit, cut)
				})
			}
		}
	}
}

func testHanging(t *testing.T, cfg Config, role string, commit bool, cut func(*testing.T, *hanging, *kgo.Client) error) {
	t.Helper()
	const n, done = 10, 4
	numbers(t, cfg, firstTopic(cfg), 0, n)
	left := leaveHanging(t, cfg, cfg.Names.TransactionalID(role, cfg.Instance), commit)
	for i := range done {
		left.write(t, secondTopic(cfg), "", fmt.Sprint(i))
	}
	left.commitOffset(t, role, firstTopic(cfg), done)
	if cut != nil {
		cl := clientOf(t, cfg, kgo.MaxVersions(olderVersions()))
		h, err := findHanging(t.Context(), cfg, cl, left.id, cfg.Names.Group(role))
		if err != nil {
			t.Fatal(err)
		}
		if err := cut(t, h, cl); err != nil {
			t.Fatal(err)
		}
	}
	var run *running
	if role == "filter" {
		run = startStage(t, stageOf(cfg, forward(secondTopic(cfg))))
	} else {
		run = startTracked(t, trackedOf(cfg, &caller{output: func(r *pipeline.Record) (out pipeline.Output) {
			out.Send(pipeline.Record{Topic: secondTopic(cfg), Value: r.Value})
			return out
		}}))
	}
	watch(t, cfg, secondTopic(cfg)).wait(t, n)
	run.stop(t)
	exactlyOnce(t, cfg, secondTopic(cfg), n)
}

// open is a kfake with a transaction of a producer open in secondTopic.
func open(t *testing.T) (cfg Config, f *pipelinetest.Fake, producer int64) {
	t.Helper()
	cfg, f = fakeConfig(t)
	withTopics(t, cfg, 1)
	cl := clientOf(t, cfg, kgo.TransactionalID("x"))
	if err := cl.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	if err := cl.ProduceSync(t.Context(), &kgo.Record{Topic: secondTopic(cfg)}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	producer, _, err := cl.ProducerID(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return cfg, f, producer
}

func wantOpen(t *testing.T, cfg Config, producer int64) {
	t.Helper()
	h := hanging{producer: producer}
	if err := h.look(t.Context(), cfg, clientOf(t, cfg)); err != nil {
		t.Fatal(err)
	}
	if want := map[string][]int32{secondTopic(cfg): {0}}; !reflect.DeepEqual(h.partitions, want) {
		t.Errorf("found %v, want %v", h.partitions, want)
	}
}

// A partition without a leader, which may be one that nobody needs, does not keep
// a runner from starting.
func TestHangingWithoutALeader(t *testing.T) {
	t.Parallel()
	cfg, f, producer := open(t)
	all, err := kmsg.NewPtrMetadataRequest().RequestWith(t.Context(), clientOf(t, cfg))
	if err != nil {
		t.Fatal(err)
	}
	for i := range all.Topics {
		if p := &all.Topics[i].Partitions[0]; *all.Topics[i].Topic == thirdTopic(cfg) {
			p.ErrorCode, p.Leader = kerr.LeaderNotAvailable.Code, -1
		}
	}
	f.ControlKey(int16(kmsg.Metadata), func(req kmsg.Request) (kmsg.Response, error, bool) {
		f.KeepControl()
		resp := *all
		resp.Version = req.GetVersion()
		return &resp, nil, true
	})
	wantOpen(t, cfg, producer)
}

// A broker that can't be asked may have just died: it is asked again.
func TestHangingWithoutAnAnswer(t *testing.T) {
	t.Parallel()
	cfg, f, producer := open(t)
	var asked atomic.Int64
	f.ControlKey(int16(kmsg.DescribeProducers), func(kmsg.Request) (kmsg.Response, error, bool) {
		f.KeepControl()
		if asked.Add(1) > 3 {
			return nil, nil, false
		}
		return nil, errors.New("the connection breaks"), true
	})
	wantOpen(t, cfg, producer)
	if asked.Load() < 4 {
		t.Errorf("it asked %d times", asked.Load())
	}
}

// A writer decides upon what was acknowledged to it, though its end hung.
func testHangingWriter(t *testing.T, cfg Config) {
	t.Helper()
	h := leaveHanging(t, cfg, string(cfg.Names)+"writer", true)
	h.write(t, secondTopic(cfg), "key", "acknowledged")
	w := logWriter(t, cfg)
	if found, err := valueOf(t, w, "key"); err != nil || found != "acknowledged" {
		t.Errorf("found %q, %v", found, err)
	}
}

// A writer whose own last change hangs does not wait for it for ever.
func testHangingKeptWriter(t *testing.T, cfg Config) {
	t.Helper()
	w := logWriter(t, cfg)
	if _, err := w.Write(t.Context(), func(map[string]pipeline.Record, int64) ([]pipeline.Record, error) {
		return []pipeline.Record{{Topic: secondTopic(cfg), Key: []byte("key"), Value: []byte("first")}}, nil
	}); err != nil {
		t.Fatal(err)
	}
	h := leftHanging{cfg: cfg, id: w.txn, sequence: map[string]int32{}, cl: clientOf(t, cfg, kgo.MaxVersions(olderVersions()))}
	if _, err := lastTransaction(t.Context(), kadm.NewClient(h.cl), w.txn); err != nil { // its markers have come
		t.Fatal(err)
	}
	var err error
	if h.producer, h.epoch, err = w.cl.ProducerID(t.Context()); err != nil {
		t.Fatal(err)
	}
	h.write(t, secondTopic(cfg), "key", "acknowledged")
	ends, err := kadm.NewClient(h.cl).ListEndOffsets(t.Context(), secondTopic(cfg))
	if err != nil {
		t.Fatal(err)
	}
	end, _ := ends.Lookup(secondTopic(cfg), 0)
	w.wrote = end.Offset
	if found, err := valueOf(t, w, "key"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("found %q, %v", found, err)
	}
	if found, err := valueOf(t, w, "key"); err != nil || found != "acknowledged" {
		t.Errorf("then found %q, %v", found, err)
	}
}

func logWriter(t *testing.T, cfg Config) *LogWriter {
	t.Helper()
	w, err := OpenLogWriter(t.Context(), cfg, "writer", secondTopic(cfg))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	return w
}

// valueOf is what a writer knows of a key when it decides.
func valueOf(t *testing.T, w *LogWriter, key string) (value string, err error) {
	t.Helper()
	_, err = w.Write(t.Context(), func(current map[string]pipeline.Record, _ int64) ([]pipeline.Record, error) {
		value = string(current[key].Value)
		return nil, nil
	})
	return value, err
}

// Offsets that another one's transaction holds are told of, and come when that
// one is back.
func testHeldOffsets(t *testing.T, cfg Config) {
	t.Helper()
	const n, done = 10, 4
	numbers(t, cfg, firstTopic(cfg), 0, n)
	h := leaveHanging(t, cfg, cfg.Names.TransactionalID("sink", "another"), true)
	h.commitOffset(t, "sink", firstTopic(cfg), done)

	var mu sync.Mutex
	var state error
	tc := trackedOf(cfg, &caller{})
	tc.Observer.Ready = func(err error) {
		mu.Lock()
		defer mu.Unlock()
		state = err
	}
	run := startTracked(t, tc)
	told := func() string {
		mu.Lock()
		defer mu.Unlock()
		return fmt.Sprint(state)
	}
	want := fmt.Sprintf("has held the offsets of group %s for 1 partitions, %s/0 among them", cfg.Names.Group("sink"), firstTopic(cfg))
	eventually(t, "word of the offsets", func() bool { return strings.Contains(told(), want) })
	if err := endHanging(t.Context(), cfg, h.id, cfg.Names.Group("sink")); err != nil {
		t.Fatal(err)
	}
	out := watch(t, cfg, cfg.Names.Attempts())
	out.wait(t, n-done)
	eventually(t, "readiness", func() bool { return told() == "<nil>" })
	run.stop(t)
	for value := range out.all() {
		if value < fmt.Sprint(done) {
			t.Errorf("%s was before the committed offset", value)
		}
	}
}

// What has gone is awaited no more.
func TestOffsetsOfWhatHasGone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var w offsetsWatch
		w.gone(t.Context(), nil, map[string][]int32{"a": {0}})
		w.given(t.Context(), nil, map[string][]int32{"a": {0, 1}, "b": {2}})
		time.Sleep(time.Minute)
		w.given(t.Context(), nil, map[string][]int32{"a": {3}})
		w.gone(t.Context(), nil, map[string][]int32{"a": {0, 1}, "b": {2}})
		if w.waited() != time.Minute {
			t.Errorf("one of four is awaited, for %v", w.waited())
		}
		w.gone(t.Context(), nil, map[string][]int32{"a": {3}})
		if w.waited() != 0 {
			t.Errorf("nothing is awaited, for %v", w.waited())
		}
	})
}
