package stream

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"

	"github.com/millrace-io/millrace/pipeline"
)

// brokerDir names the variable that makes the test binary a broker.
const brokerDir = "MILLRACE_TEST_BROKER_DIR"

// serveBroker runs a broker until it is killed, or its parent is gone.
func serveBroker(dir string) {
	b, err := OpenBroker(BrokerConfig{Dir: dir, Listen: "127.0.0.1:0", Names: "millrace."})
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	fmt.Println("address", b.Addrs()[0])
	_, _ = io.Copy(io.Discard, os.Stdin)
}

// brokerProcess is a broker in a process of its own.
type brokerProcess struct {
	cmd  *exec.Cmd
	cfg  Config
	once sync.Once
}

func startBroker(t *testing.T, dir string) *brokerProcess {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), brokerDir+"="+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := cmd.StdinPipe(); err != nil { // it ends with us
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &brokerProcess{cmd: cmd}
	t.Cleanup(p.kill)
	line, err := bufio.NewReader(out).ReadString('\n')
	addr, ok := strings.CutPrefix(strings.TrimSpace(line), "address ")
	if !ok {
		t.Fatalf("the broker says %q, %v", line, err)
	}
	p.cfg = Config{Brokers: []string{addr}, Names: "millrace.", Instance: "test", Log: slog.New(slog.DiscardHandler)}
	return p
}

func (p *brokerProcess) kill() {
	p.once.Do(func() {
		_ = p.cmd.Process.Kill()
		_ = p.cmd.Wait() // killed, which is an error
	})
}

// keepWriting writes numbered records, one transaction each, until ctx ends,
// and returns those that were acknowledged as committed. enough is closed when
// there are some.
func keepWriting(ctx context.Context, t *testing.T, cfg Config, round int, enough chan<- struct{}) (committed []string) {
	t.Helper()
	cl, err := cfg.client(kgo.TransactionalID("millrace.filter-test"))
	if err != nil {
		t.Error(err)
		return nil
	}
	defer cl.Close()
	for i := 0; ; i++ {
		value := fmt.Sprint(round, "/", i)
		if err := commitRecord(ctx, cl, cfg.Names.Matches(), value); err != nil {
			return committed
		}
		if committed = append(committed, value); i == 20 {
			close(enough)
		}
	}
}

// openTransaction leaves a transaction open, with a record in it.
func openTransaction(t *testing.T, cfg Config) {
	t.Helper()
	cl := testClient(t, cfg, kgo.TransactionalID("millrace.transform-test"))
	if err := cl.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	r := &kgo.Record{Topic: cfg.Names.Matches(), Value: []byte("never committed")}
	if err := cl.ProduceSync(t.Context(), r).FirstErr(); err != nil {
		t.Fatal(err)
	}
}

func TestBrokerSurvivesAKill(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var want []string
	for round := range 3 {
		b := startBroker(t, dir)
		initialize(t, b.cfg, InitOptions{Partitions: 1})
		openTransaction(t, b.cfg)
		send(t, b.cfg, b.cfg.Names.Events(), 100)
		enough := make(chan struct{})
		var got []string
		var wg sync.WaitGroup
		ctx, cancel := context.WithCancel(t.Context())
		wg.Go(func() { got = keepWriting(ctx, t, b.cfg, round, enough) })
		<-enough
		b.kill()
		cancel() // the client would wait for another broker
		wg.Wait()
		want = append(want, got...)
	}
	b := startBroker(t, dir)
	// Of the same ids, after the restart, readers see the newest as well.
	for _, role := range []string{"filter", "transform"} {
		want = append(want, "last of "+role)
		commitOne(t, b.cfg, b.cfg.Names.TransactionalID(role, "test"), "last of "+role)
	}
	got := readAll(t, b.cfg, b.cfg.Names.Matches())
	for _, v := range want {
		if !got[v] {
			t.Errorf("%q was acknowledged, and can't be read", v)
		}
	}
	if got["never committed"] {
		t.Error("what was never committed can be read")
	}
	if n := len(readRecords(t, b.cfg, b.cfg.Names.Events())); n != 300 {
		t.Errorf("of 300 events that were acknowledged, there are %d", n)
	}
}

func commitOne(t *testing.T, cfg Config, txn, value string) {
	t.Helper()
	if err := commitRecord(t.Context(), testClient(t, cfg, kgo.TransactionalID(txn)), cfg.Names.Matches(), value); err != nil {
		t.Fatal(err)
	}
}

// commitRecord writes a record in a transaction of its own, as the runners do.
func commitRecord(ctx context.Context, cl *kgo.Client, topic, value string) error {
	if err := cl.BeginTransaction(); err != nil {
		return err
	}
	if _, err := produceAll(ctx, cl, []*kgo.Record{{Topic: topic, Value: []byte(value)}}); err != nil {
		return err
	}
	if err := noted(ctx, cl, map[string]bool{topic: true}); err != nil {
		return err
	}
	return cl.EndTransaction(ctx, kgo.TryCommit)
}

func readAll(t *testing.T, cfg Config, topic string) map[string]bool {
	t.Helper()
	out := map[string]bool{}
	for _, r := range readRecords(t, cfg, topic) {
		out[string(r.Value)] = true
	}
	return out
}

// readRecords reads the committed records of a topic with one partition, up to
// its stable end.
func readRecords(t *testing.T, cfg Config, topic string) (out []pipeline.Record) {
	t.Helper()
	cl := testClient(t, cfg, logReader(topic)...)
	start, end, err := logBounds(t.Context(), cfg, cl, topic)
	if err != nil {
		t.Fatal(err)
	}
	for next := start; next < end; {
		var batch []pipeline.Record
		if batch, next, err = pollLog(t.Context(), cl); err != nil {
			t.Fatal(err)
		}
		out = append(out, batch...)
	}
	return out
}

// A producer that outlives the broker sends what was on its way again: that must
// not be there twice, whether the broker was killed after its first start or
// after one that had been closed properly.
func TestBrokerKnowsRepeatedBatchesAfterAKill(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b, err := OpenBroker(BrokerConfig{Dir: dir, Listen: "127.0.0.1:0", Names: "millrace."})
	if err != nil {
		t.Fatal(err)
	}
	cfg := Config{Brokers: b.Addrs(), Names: "millrace.", Instance: "test", Log: slog.New(slog.DiscardHandler)}
	initialize(t, cfg, InitOptions{Partitions: 1})
	id := idempotentProducer(t, cfg)
	var want []string
	write := func(cfg Config, first int32, values ...string) {
		t.Helper()
		if got := produceBatch(t, cfg, id, first, values...); got != int64(first) {
			t.Errorf("the batch %v was written at %d, expected %d", values, got, first)
		}
		if len(want) <= int(first) {
			want = append(want, values...)
		}
	}
	write(cfg, 0, "a", "b")
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	for round := range int32(2) {
		p := startBroker(t, dir)
		at := 2 + 7*round
		for i := range int32(7) { // more than the broker keeps in mind
			write(p.cfg, at+i, fmt.Sprint(round, "/", i))
		}
		p.kill()
		p = startBroker(t, dir)
		for i := int32(3); i < 7; i++ {
			write(p.cfg, at+i, fmt.Sprint(round, "/", i))
		}
		p.kill()
	}
	p := startBroker(t, dir)
	write(p.cfg, 16, "last")
	var got []string
	for _, r := range readRecords(t, p.cfg, p.cfg.Names.Events()) {
		got = append(got, string(r.Value))
	}
	if !slices.Equal(got, want) {
		t.Errorf("the topic has %v, expected %v", got, want)
	}
}

func idempotentProducer(t *testing.T, cfg Config) int64 {
	t.Helper()
	resp, err := kmsg.NewPtrInitProducerIDRequest().RequestWith(t.Context(), testClient(t, cfg))
	if err == nil {
		err = kerr.ErrorForCode(resp.ErrorCode)
	}
	if err != nil {
		t.Fatal(err)
	}
	return resp.ProducerID
}

// produceBatch writes one batch to the events, as a producer whose next number is
// first would, and returns its offset.
func produceBatch(t *testing.T, cfg Config, producer int64, first int32, values ...string) int64 {
	t.Helper()
	batch := kmsg.RecordBatch{
		Magic: 2, PartitionLeaderEpoch: -1, LastOffsetDelta: int32(len(values) - 1),
		ProducerID: producer, FirstSequence: first, NumRecords: int32(len(values)),
	}
	for i, v := range values {
		r := kmsg.Record{OffsetDelta: int32(i), Value: []byte(v)}
		r.Length = int32(len(r.AppendTo(nil)) - 1) // the length itself takes one byte
		batch.Records = r.AppendTo(batch.Records)
	}
	raw := batch.AppendTo(nil)
	binary.BigEndian.PutUint32(raw[8:], uint32(len(raw)-12))
	binary.BigEndian.PutUint32(raw[17:], crc32.Checksum(raw[21:], crc32.MakeTable(crc32.Castagnoli)))

	req := kmsg.NewPtrProduceRequest()
	req.Acks, req.TimeoutMillis = -1, 5000
	topic := kmsg.NewProduceRequestTopic()
	topic.Topic = cfg.Names.Events()
	partition := kmsg.NewProduceRequestTopicPartition()
	partition.Records = raw
	topic.Partitions = append(topic.Partitions, partition)
	req.Topics = append(req.Topics, topic)
	versions := kversion.Stable() // later versions name topics by id
	versions.SetMaxKeyVersion(int16(kmsg.Produce), 12)
	resp, err := req.RequestWith(t.Context(), testClient(t, cfg, kgo.MaxVersions(versions)))
	if err != nil {
		t.Fatal(err)
	}
	answer := resp.Topics[0].Partitions[0]
	if err := kerr.ErrorForCode(answer.ErrorCode); err != nil {
		t.Fatalf("batch %d, %v: %v", first, values, err)
	}
	return answer.BaseOffset
}
