package stream

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/millrace-io/millrace/pipeline"
	"github.com/millrace-io/millrace/pipeline/pipelinetest"
)

// workerEnv makes the test binary a worker: what it runs, as JSON.
const workerEnv = "MILLRACE_TEST_WORKER"

// work is what a worker process runs until it is killed.
type work struct {
	Runner  string // "stage" or "tracked"
	Brokers []string
	Names   pipeline.Names
}

// TestWorker is no test: it is what a worker process runs.
func TestWorker(t *testing.T) {
	var w work
	if err := json.Unmarshal([]byte(os.Getenv(workerEnv)), &w); err != nil {
		t.Skip("only for the tests of crashes")
	}
	cfg := Config{Brokers: w.Brokers, Names: w.Names, Instance: "test", Log: slog.New(slog.DiscardHandler)}
	if w.Runner == "stage" {
		sc := stageOf(cfg, forward(secondTopic(cfg)))
		sc.Observer.Transaction = func(string, bool, int) { fmt.Println("transaction") }
		t.Fatal(RunStage(context.Background(), sc))
	}
	tr, err := NewTracked(trackedOf(cfg, &caller{called: func(r *pipeline.Record) { fmt.Printf("call %s\n", r.Value) }}))
	if err != nil {
		t.Fatal(err)
	}
	t.Fatal(tr.Run(context.Background()))
}

// worker is a process that runs a runner.
type worker struct {
	cmd   *exec.Cmd
	once  sync.Once
	done  chan struct{}
	lines chan string // what it prints
}

func startWorker(t *testing.T, cfg Config, runner string) *worker {
	t.Helper()
	spec, err := json.Marshal(work{runner, cfg.Brokers, cfg.Names})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestWorker$", "-test.timeout=120s")
	cmd.Env = append(os.Environ(), workerEnv+"="+string(spec))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w := &worker{cmd: cmd, done: make(chan struct{}), lines: make(chan string, 100_000)}
	go func() {
		defer close(w.done)
		defer close(w.lines)
		for s := bufio.NewScanner(out); s.Scan(); {
			w.lines <- s.Text()
		}
	}()
	t.Cleanup(w.kill)
	return w
}

// kill ends it as kill -9 does.
func (w *worker) kill() {
	w.once.Do(func() {
		_ = w.cmd.Process.Kill() // it fails only where the process has ended
		<-w.done
		_ = w.cmd.Wait() // killed, which is an error
	})
}

// Stages that are killed at any moment lose and repeat nothing.
func TestStageCrashes(t *testing.T) {
	t.Parallel()
	const rounds, n = 4, 4_000
	cfg := withTopics(t, testConfig(t), 3)
	out := watch(t, cfg, secondTopic(cfg))
	for round := range rounds {
		w := startWorker(t, cfg, "stage")
		for part := range 10 { // small transactions, so that it is killed in one
			from := round*n/rounds + part*n/rounds/10
			numbers(t, cfg, firstTopic(cfg), from, from+n/rounds/10)
			if part == 2 {
				<-w.lines // it works
			}
		}
		w.kill()
		evict(t, cfg, "filter")
	}
	run := startStage(t, stageOf(cfg, forward(secondTopic(cfg))))
	out.wait(t, n)
	run.stop(t)
	exactlyOnce(t, cfg, secondTopic(cfg), n)
}

// breaking is a broker that can be killed and comes back with its data.
type breaking struct {
	cfg     Config
	kill    func()
	restart func()
}

func breakable(t *testing.T) breaking {
	t.Helper()
	cfg := Config{Names: "millrace.", Instance: "test", Log: slog.New(slog.DiscardHandler)}
	if pipelinetest.RealKafka() {
		k := pipelinetest.StartKafka(t)
		cfg.Brokers = k.Addrs()
		return breaking{cfg, k.Kill, func() { k.Restart(t) }}
	}
	dir := t.TempDir()
	f := pipelinetest.StartFake(t, dir)
	cfg.Brokers = f.Addrs()
	return breaking{cfg, func() { f.Close() }, func() { f = reopen(t, dir, cfg.Brokers[0]) }}
}

// reopen starts a kfake on the data and the port of one that was closed.
func reopen(t *testing.T, dir, addr string) *pipelinetest.Fake {
	t.Helper()
	var port int
	if _, err := fmt.Sscan(addr[strings.LastIndex(addr, ":")+1:], &port); err != nil {
		t.Fatal(err)
	}
	return pipelinetest.StartFake(t, dir, kfake.Ports(port))
}

// A broker that goes away and comes back costs neither runner a record.
func TestBrokerGoesAndComesBack(t *testing.T) {
	t.Parallel()
	const n = 6_000
	b := breakable(t)
	cfg := withTopics(t, b.cfg, 2)
	one := startStage(t, stageOf(cfg, forward(secondTopic(cfg))))
	calls := &caller{}
	two := startTracked(t, trackedOn(cfg, secondTopic(cfg), calls))
	out := watch(t, cfg, cfg.Names.Attempts())
	numbers(t, cfg, firstTopic(cfg), 0, n/3)
	out.wait(t, n/6)
	b.kill()
	b.restart()
	numbers(t, cfg, firstTopic(cfg), n/3, n)
	out.wait(t, n)
	one.stop(t)
	two.stop(t)
	exactlyOnce(t, cfg, secondTopic(cfg), n)
	exactlyOnce(t, cfg, cfg.Names.Attempts(), n)
	if r := calls.repeated(); r > 0 {
		t.Errorf("%d calls were repeated", r)
	}
}

// Without a broker, runners still end in good time: here with a transaction
// that can't be written any more.
func TestRunnersEndWithoutABroker(t *testing.T) {
	t.Parallel()
	cfg, f := fakeConfig(t)
	withTopics(t, cfg, 1)
	numbers(t, cfg, firstTopic(cfg), 0, 10)
	begun, gone := make(chan struct{}, 100), make(chan struct{})
	hold := func() {
		begun <- struct{}{}
		<-gone
	}
	one := startStage(t, stageOf(cfg, func(ctx context.Context, in *pipeline.Record, out *pipeline.Output) error {
		hold()
		return forward(secondTopic(cfg))(ctx, in, out)
	}))
	two := startTracked(t, trackedOn(cfg, firstTopic(cfg), &caller{called: func(*pipeline.Record) { hold() }}))
	<-begun // of either
	<-begun
	f.Close()
	close(gone)
	began := time.Now()
	one.cancel()
	two.stop(t)
	one.stop(t)
	if took := time.Since(began); took > 17*time.Second {
		t.Errorf("it took %v", took)
	}
}

// Sinks that share lanes lose their broker, and with it their membership: what
// comes back to whom, nothing ends twice.
func TestLanesOverABrokerThatComesBack(t *testing.T) {
	t.Parallel()
	const rounds, n = 3, 9_000
	b := breakable(t)
	cfg := withTopics(t, b.cfg, 2)
	lane := cfg.Names.Deliveries("default")
	makeTopic(t, cfg, lane, 6)
	makeTopic(t, cfg, cfg.Names.Redeliveries("default"), 6)
	makeTopic(t, cfg, cfg.Names.Waiting("default"), 6)
	calls := &caller{output: func(r *pipeline.Record) (out pipeline.Output) {
		out.Send(pipeline.Record{Topic: cfg.Names.Attempts(), Key: r.Key, Value: r.Value})
		return out
	}}
	var runs []*running
	for _, name := range []string{"a", "b"} {
		c := cfg
		c.Instance = name
		tc := trackedOn(c, lane, calls)
		tc.Lanes, tc.Topics = true, []string{lane, cfg.Names.Redeliveries("default"), cfg.Names.Waiting("default")}
		runs = append(runs, startTracked(t, tc))
	}
	out := watch(t, cfg, cfg.Names.Attempts())
	for round := range rounds {
		numbers(t, cfg, lane, round*n/rounds, (round+1)*n/rounds)
		out.wait(t, round*n/rounds+n/rounds/3)
		if round == 0 || !pipelinetest.RealKafka() {
			b.kill()
			b.restart()
		}
	}
	out.wait(t, n)
	for _, run := range runs {
		run.stop(t)
	}
	exactlyOnce(t, cfg, cfg.Names.Attempts(), n)
	t.Logf("%d calls were repeated", calls.repeated())
}
