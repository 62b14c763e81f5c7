package stream

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-io/millrace/pipeline"
	"github.com/millrace-io/millrace/pipeline/pipelinetest"
)

// forward is a stage that hands records on to a topic.
func forward(topic string) pipeline.StageFunc {
	return func(_ context.Context, in *pipeline.Record, out *pipeline.Output) error {
		out.Send(pipeline.Record{Topic: topic, Key: in.Key, Value: in.Value, Headers: in.Headers})
		return nil
	}
}

// stageOf runs from the first topic of the chain to the second.
func stageOf(cfg Config, stage pipeline.StageFunc) StageConfig {
	return StageConfig{Config: cfg, Role: "filter", Topics: []string{firstTopic(cfg)}, Stage: stage}
}

func startStage(t testing.TB, sc StageConfig) *running {
	return start(t, func(ctx context.Context) error { return RunStage(ctx, sc) })
}

func TestChainOfStages(t *testing.T) {
	t.Parallel()
	const n = 5_000
	cfg := withTopics(t, testConfig(t), 4)
	out := watch(t, cfg, thirdTopic(cfg))
	numbers(t, cfg, firstTopic(cfg), 0, n/2)
	one := startStage(t, stageOf(cfg, forward(secondTopic(cfg))))
	two := startStage(t, StageConfig{Config: cfg, Role: "transform", Topics: []string{secondTopic(cfg)}, Stage: forward(thirdTopic(cfg))})
	numbers(t, cfg, firstTopic(cfg), n/2, n)
	out.wait(t, n)
	one.stop(t)
	two.stop(t)
	exactlyOnce(t, cfg, thirdTopic(cfg), n)
	inOrderByKey(t, committedRecords(t, cfg, thirdTopic(cfg)))
}

func inOrderByKey(t *testing.T, rs []pipeline.Record) {
	t.Helper()
	last := map[string]int{}
	for _, r := range rs {
		var v int
		if _, err := fmt.Sscan(string(r.Value), &v); err != nil {
			t.Fatal(err)
		}
		if before, ok := last[string(r.Key)]; ok && before >= v {
			t.Fatalf("%s: %d came after %d", r.Key, v, before)
		}
		last[string(r.Key)] = v
	}
}

// What is behind a dead letter moves on, and it is untouched.
func TestStageDeadLetters(t *testing.T) {
	t.Parallel()
	cfg := withTopics(t, testConfig(t), 1)
	envelope := (&pipeline.Delivery{ID: "d1", Webhook: "w", Lane: "default"}).AppendTo(nil)
	headers := []pipeline.Header{{Key: "ce_id", Value: []byte("1")}, {Key: pipeline.EnvelopeHeader, Value: envelope}, {Key: "raw", Value: []byte{0, 255}}}
	writeRecords(t, cfg,
		pipeline.Record{Topic: firstTopic(cfg), Key: []byte("k"), Value: []byte("0")},
		pipeline.Record{Topic: firstTopic(cfg), Key: []byte{0, 1, 2}, Value: []byte("no\xffgood"), Headers: headers},
		pipeline.Record{Topic: firstTopic(cfg), Key: []byte("k"), Value: []byte("panic")},
		pipeline.Record{Topic: firstTopic(cfg), Key: []byte("k"), Value: []byte("1")})
	var counted atomic.Int32
	sc := stageOf(cfg, func(_ context.Context, in *pipeline.Record, out *pipeline.Output) error {
		out.Send(pipeline.Record{Topic: secondTopic(cfg), Key: in.Key, Value: in.Value})
		switch string(in.Value) {
		case "no\xffgood":
			return fmt.Errorf("reading: %w", pipeline.Permanent(pipeline.Undecodable, errors.New("no good")))
		case "panic":
			panic("on purpose")
		}
		return nil
	})
	sc.OnDeadLetter = func(_ *pipeline.Record, _ *pipeline.PermanentError, out *pipeline.Output) {
		out.Count(pipeline.One("w", time.Unix(0, 0), pipeline.DeadLettered, "00000000000000ff"))
	}
	sc.Observer.DeadLetter = func(role string, _ pipeline.Reason) {
		if role == "filter" {
			counted.Add(1)
		}
	}
	out := watch(t, cfg, secondTopic(cfg))
	run := startStage(t, sc)
	out.wait(t, 2)
	run.stop(t)
	exactlyOnce(t, cfg, secondTopic(cfg), 2)
	dead := committedRecords(t, cfg, cfg.Names.DeadLetters())
	if len(dead) != 2 || counted.Load() != 2 {
		t.Fatalf("%d dead letters, %d counted", len(dead), counted.Load())
	}
	x := deadLetterOf(t, dead[0])
	if x.Stage != "filter" || x.Reason != pipeline.Undecodable || x.Error != "no good" || x.Topic != firstTopic(cfg) || x.Offset != 1 {
		t.Errorf("it says %+v", x)
	}
	if !bytes.Equal(x.Envelope, envelope) || string(dead[0].Value) != "no\xffgood" || !bytes.Equal(dead[0].Key, []byte{0, 1, 2}) {
		t.Errorf("the record was touched: %+v, %+v", dead[0], x)
	}
	if raw, _ := dead[0].Header("raw"); !bytes.Equal(raw, []byte{0, 255}) {
		t.Errorf("header is %v", raw)
	}
	if x := deadLetterOf(t, dead[1]); x.Reason != pipeline.Panicked || !strings.Contains(x.Error, "on purpose") {
		t.Errorf("the panic says %+v", x)
	}
	var ledger string
	for _, r := range committedRecords(t, cfg, cfg.Names.Ledger()) {
		ledger += string(r.Value)
	}
	if !strings.Contains(ledger, `"count":2,"sum":"510"`) && strings.Count(ledger, `"sum":"255"`) != 2 {
		t.Errorf("the ledger says %s", ledger)
	}
}

func deadLetterOf(t testing.TB, r pipeline.Record) pipeline.DeadLetter {
	t.Helper()
	envelope, _ := r.Header(pipeline.EnvelopeHeader)
	x, err := pipeline.ParseDeadLetter(envelope)
	if err != nil {
		t.Fatal(err)
	}
	return x
}

// Several outputs are larger than their topic: those alone are dead letters.
func TestStageOutputTooLarge(t *testing.T) {
	t.Parallel()
	const n = 3_000
	cfg := withTopics(t, testConfig(t), 3)
	large := map[string]bool{"7": true, "1500": true, "1501": true, "2999": true}
	out := watch(t, cfg, secondTopic(cfg))
	numbers(t, cfg, firstTopic(cfg), 0, n)
	run := startStage(t, stageOf(cfg, func(_ context.Context, in *pipeline.Record, out *pipeline.Output) error {
		r := pipeline.Record{Topic: secondTopic(cfg), Key: in.Key, Value: in.Value}
		if large[string(in.Value)] {
			r.Value = make([]byte, 2<<20)
		}
		out.Send(r)
		return nil
	}))
	out.wait(t, n-len(large))
	dead := watch(t, cfg, cfg.Names.DeadLetters())
	dead.wait(t, len(large))
	run.stop(t)
	checkSplit(t, cfg, n, large, pipeline.TooLarge)
}

// checkSplit checks that the bad ones are dead letters for a reason, and all
// others on the second topic, each once.
func checkSplit(t *testing.T, cfg Config, n int, bad map[string]bool, reason pipeline.Reason) {
	t.Helper()
	times := map[string]int{}
	for _, r := range committedRecords(t, cfg, secondTopic(cfg)) {
		times[string(r.Value)]++
	}
	for _, r := range committedRecords(t, cfg, cfg.Names.DeadLetters()) {
		if !bad[string(r.Value)] {
			t.Errorf("%s is a dead letter: %s", r.Value, deadLetterOf(t, r).Error)
		}
		if x := deadLetterOf(t, r); x.Reason != reason {
			t.Errorf("%s is a dead letter for %s, not %s", r.Value, x.Reason, reason)
		}
		times[string(r.Value)]++
	}
	wrong := 0
	for i := range n {
		if times[fmt.Sprint(i)] != 1 {
			wrong++
		}
	}
	if wrong > 0 || len(times) != n {
		t.Errorf("%d of %d did not arrive exactly once; %d values in all", wrong, n, len(times))
	}
}

// refuse answers every produce with a record of such a value in it with an
// error: a broker refuses the whole batch, and does not say which.
func refuse(f *pipelinetest.Fake, topic string, bad map[string]bool, err *kerr.Error) *atomic.Int32 {
	var refused atomic.Int32
	f.Fault(faultOf(topic, err, func(batch []byte) bool {
		for v := range bad {
			if bytes.Contains(batch, []byte("="+v+";")) {
				refused.Add(1)
				return true
			}
		}
		return false
	}))
	return &refused
}

func TestStageRecordsRefused(t *testing.T) {
	t.Parallel()
	for name, err := range map[string]*kerr.Error{"invalid": kerr.InvalidRecord, "policy": kerr.PolicyViolation} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const n = 2_000
			cfg, f := fakeConfig(t)
			cfg.Compression = "none"
			withTopics(t, cfg, 2)
			bad := map[string]bool{"3": true, "700": true, "701": true, "1999": true}
			refused := refuse(f, secondTopic(cfg), bad, err)
			numbers(t, cfg, firstTopic(cfg), 0, n)
			out := watch(t, cfg, secondTopic(cfg))
			dead := watch(t, cfg, cfg.Names.DeadLetters())
			run := startStage(t, stageOf(cfg, func(_ context.Context, in *pipeline.Record, out *pipeline.Output) error {
				out.Send(pipeline.Record{
					Topic: secondTopic(cfg), Key: in.Key, Value: in.Value,
					Headers: []pipeline.Header{{Key: "mark", Value: fmt.Appendf(nil, "=%s;", in.Value)}},
				})
				return nil
			}))
			dead.wait(t, len(bad))
			out.wait(t, n-len(bad))
			run.stop(t)
			checkSplit(t, cfg, n, bad, pipeline.Refused)
			if refused.Load() == 0 {
				t.Error("nothing was refused")
			}
		})
	}
}

// A topic that takes less than it was made for refuses whole batches, although
// most records would fit.
func TestStageTopicIsSmallerThanItWas(t *testing.T) {
	t.Parallel()
	const n = 800
	cfg := testConfig(t)
	cfg.Compression = "none"
	withTopics(t, cfg, 1)
	small := string(cfg.Names) + "small"
	makeTopic(t, cfg, small, 1, "max.message.bytes", "3000")
	numbers(t, cfg, firstTopic(cfg), 0, n)
	out := watch(t, cfg, small)
	dead := watch(t, cfg, cfg.Names.DeadLetters())
	run := startStage(t, stageOf(cfg, func(_ context.Context, in *pipeline.Record, out *pipeline.Output) error {
		r := pipeline.Record{Topic: small, Key: in.Key, Value: in.Value}
		if string(in.Value) == "400" {
			r.Headers = []pipeline.Header{{Key: "large", Value: make([]byte, 4000)}}
		}
		out.Send(r)
		return nil
	}))
	dead.wait(t, 1)
	out.wait(t, n-1)
	run.stop(t)
	got := committedRecords(t, cfg, small)
	letters := committedRecords(t, cfg, cfg.Names.DeadLetters())
	if len(got) != n-1 || len(letters) != 1 || string(letters[0].Value) != "400" || deadLetterOf(t, letters[0]).Reason != pipeline.TooLarge {
		t.Errorf("%d arrived, dead letters: %v", len(got), letters)
	}
	inOrderByKey(t, got)
}

// "Not now" means the same records again, with the others of the poll.
func TestStageNotNow(t *testing.T) {
	t.Parallel()
	const n = 500
	cfg := withTopics(t, testConfig(t), 2)
	var tries atomic.Int32
	var mu sync.Mutex
	var states []error
	sc := stageOf(cfg, func(ctx context.Context, in *pipeline.Record, out *pipeline.Output) error {
		if string(in.Value) == "250" && tries.Add(1) <= 3 {
			return pipeline.RetryAfter(10*time.Millisecond, errors.New("registry is away"))
		}
		return forward(secondTopic(cfg))(ctx, in, out)
	})
	sc.Observer.Ready = func(err error) {
		mu.Lock()
		defer mu.Unlock()
		states = append(states, err)
	}
	out := watch(t, cfg, secondTopic(cfg))
	numbers(t, cfg, firstTopic(cfg), 0, n)
	run := startStage(t, sc)
	out.wait(t, n)
	run.stop(t)
	exactlyOnce(t, cfg, secondTopic(cfg), n)
	mu.Lock()
	defer mu.Unlock()
	if len(states) != 5 || states[0] != nil || states[4] != nil || !strings.Contains(fmt.Sprint(states[1]), "registry is away") {
		t.Errorf("ready was told %v", states)
	}
}

// Ready is told of a trouble with writing until something was written.
func TestStageReady(t *testing.T) {
	t.Parallel()
	cfg, f := fakeConfig(t)
	withTopics(t, cfg, 1)
	states := make(chan error, 1000)
	sc := stageOf(cfg, forward(secondTopic(cfg)))
	sc.Observer.Ready = func(err error) { states <- err }
	fault := f.Fault(faultOf(secondTopic(cfg), kerr.TopicAuthorizationFailed, func([]byte) bool { return true }))
	run := startStage(t, sc)
	if err := <-states; err != nil {
		t.Fatalf("at first it is told %v", err)
	}
	numbers(t, cfg, firstTopic(cfg), 0, 10)
	for range 2 { // although Kafka is there, and the session made anew
		if err := <-states; !errors.Is(err, kerr.TopicAuthorizationFailed) {
			t.Fatalf("then it is told %v", err)
		}
	}
	fault.Remove()
	for <-states != nil {
	}
	run.stop(t)
	exactlyOnce(t, cfg, secondTopic(cfg), 10)
}

// An aborted transaction goes back to where its partition began, although
// nothing was committed there yet.
func TestStageAbortBeforeTheFirstCommit(t *testing.T) {
	t.Parallel()
	const n = 300
	cfg := withTopics(t, testConfig(t), 1)
	numbers(t, cfg, firstTopic(cfg), 0, n)
	sc := stageOf(cfg, func(_ context.Context, in *pipeline.Record, out *pipeline.Output) error {
		r := pipeline.Record{Topic: secondTopic(cfg), Key: in.Key, Value: in.Value}
		if string(in.Value) == "299" {
			r.Value = make([]byte, 2<<20)
		}
		out.Send(r)
		return nil
	})
	var began []int64
	sc.Start = func(_ string, _ int32, logStart int64) (int64, error) {
		began = append(began, logStart)
		return 100, nil
	}
	aborted := make(chan bool, 100)
	sc.Observer.Transaction = func(_ string, committed bool, _ int) { aborted <- !committed }
	out := watch(t, cfg, secondTopic(cfg))
	run := startStage(t, sc)
	out.wait(t, 199)
	run.stop(t)
	if !<-aborted {
		t.Fatal("the first transaction was not aborted")
	}
	if got := committedRecords(t, cfg, secondTopic(cfg)); len(got) != 199 || string(got[0].Value) != "100" {
		t.Errorf("%d records, the first %s", len(got), got[0].Value)
	}
	if len(began) != 1 || began[0] != 0 {
		t.Errorf("was asked for the start with %v", began)
	}
}

func TestStageStops(t *testing.T) {
	t.Parallel()
	t.Run("newer format", func(t *testing.T) {
		t.Parallel()
		cfg := withTopics(t, testConfig(t), 1)
		numbers(t, cfg, firstTopic(cfg), 0, 3)
		// Even if the stage takes it for a broken envelope.
		run := startStage(t, stageOf(cfg, func(context.Context, *pipeline.Record, *pipeline.Output) error {
			return pipeline.Permanent(pipeline.BrokenEnvelope, fmt.Errorf("format 9: %w", pipeline.ErrNewerFormat))
		}))
		if err := run.wait(t); !errors.Is(err, pipeline.ErrNewerFormat) {
			t.Errorf("ended with %v", err)
		}
		if dead := committedRecords(t, cfg, cfg.Names.DeadLetters()); len(dead) > 0 {
			t.Errorf("%d dead letters", len(dead))
		}
	})
	t.Run("start is not known", func(t *testing.T) {
		t.Parallel()
		cfg := withTopics(t, testConfig(t), 1)
		numbers(t, cfg, firstTopic(cfg), 0, 3)
		sc := stageOf(cfg, forward(secondTopic(cfg)))
		sc.Start = func(string, int32, int64) (int64, error) { return 0, errors.New("say where from") }
		if err := startStage(t, sc).wait(t); err == nil || !strings.Contains(err.Error(), "say where from") {
			t.Errorf("ended with %v", err)
		}
	})
	t.Run("out of range", func(t *testing.T) {
		t.Parallel()
		cfg := withTopics(t, testConfig(t), 1)
		numbers(t, cfg, firstTopic(cfg), 0, 10)
		commitAt(t, cfg, "filter", firstTopic(cfg), 5)
		deleteTo(t, cfg, firstTopic(cfg), 8)
		err := startStage(t, stageOf(cfg, forward(secondTopic(cfg)))).wait(t)
		if !errors.Is(err, kerr.OffsetOutOfRange) || !strings.Contains(err.Error(), "commit an offset") {
			t.Errorf("ended with %v", err)
		}
	})
	t.Run("dead letter does not fit", func(t *testing.T) {
		t.Parallel()
		cfg, f := fakeConfig(t)
		withTopics(t, cfg, 1)
		f.Fault(faultOf(cfg.Names.DeadLetters(), kerr.MessageTooLarge, func([]byte) bool { return true }))
		numbers(t, cfg, firstTopic(cfg), 0, 3)
		err := startStage(t, stageOf(cfg, func(context.Context, *pipeline.Record, *pipeline.Output) error {
			return pipeline.Permanent(pipeline.Undecodable, errors.New("no good"))
		})).wait(t)
		if err == nil || !strings.Contains(err.Error(), "dead-letters topic has to be larger") {
			t.Errorf("ended with %v", err)
		}
	})
}

// When its context ends, a stage ends the transaction under way.
func TestStageEndsWithItsContext(t *testing.T) {
	t.Parallel()
	cfg, f := fakeConfig(t)
	withTopics(t, cfg, 1)
	numbers(t, cfg, firstTopic(cfg), 0, 10)
	run := startStage(t, stageOf(cfg, forward(secondTopic(cfg))))
	producing, release := make(chan struct{}), make(chan struct{})
	f.ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) {
		close(producing)
		f.SleepControl(func() { <-release })
		return nil, nil, false
	})
	<-producing
	run.cancel()
	close(release)
	if err := run.wait(t); err != nil {
		t.Fatal(err)
	}
	exactlyOnce(t, cfg, secondTopic(cfg), 10)
}

func TestStageEndsWhileItWaits(t *testing.T) {
	t.Parallel()
	cfg := withTopics(t, testConfig(t), 1)
	numbers(t, cfg, firstTopic(cfg), 0, 10)
	asked := make(chan struct{}, 100)
	run := startStage(t, stageOf(cfg, func(context.Context, *pipeline.Record, *pipeline.Output) error {
		asked <- struct{}{}
		return pipeline.RetryAfter(time.Hour, errors.New("not now"))
	}))
	<-asked
	began := time.Now()
	run.stop(t)
	if took := time.Since(began); took > 15*time.Second {
		t.Errorf("it took %v", took)
	}
}

func commitAt(t testing.TB, cfg Config, role, topic string, offset int64) {
	t.Helper()
	var os kadm.Offsets
	os.AddOffset(topic, 0, offset, -1)
	if err := kadm.NewClient(clientOf(t, cfg)).CommitAllOffsets(t.Context(), cfg.Names.Group(role), os); err != nil {
		t.Fatal(err)
	}
}

func deleteTo(t testing.TB, cfg Config, topic string, offset int64) {
	t.Helper()
	var os kadm.Offsets
	os.AddOffset(topic, 0, offset, -1)
	resp, err := kadm.NewClient(clientOf(t, cfg)).DeleteRecords(t.Context(), os)
	if err == nil {
		err = resp.Error()
	}
	if err != nil {
		t.Fatal(err)
	}
}

func leaveFor(t testing.TB, cfg Config, g kadm.DescribedGroup) {
	t.Helper()
	req := kmsg.NewPtrLeaveGroupRequest()
	req.Group = g.Group
	for _, m := range g.Members {
		member := kmsg.NewLeaveGroupRequestMember()
		member.MemberID = m.MemberID
		req.Members = append(req.Members, member)
	}
	if _, err := req.RequestWith(t.Context(), clientOf(t, cfg, kgo.WithLogger(nil))); err != nil {
		t.Fatal(err)
	}
}
