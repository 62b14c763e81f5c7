package stream

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
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

// testLog is a config on a broker that has the definitions and the changes.
func testLog(t *testing.T) Config {
	t.Helper()
	cfg := testConfig(t)
	makeLog(t, cfg)
	return cfg
}

func makeLog(t *testing.T, cfg Config) {
	t.Helper()
	compact := map[string]*string{"cleanup.policy": kadm.StringPtr("compact")}
	for topic, configs := range map[string]map[string]*string{cfg.Names.Definitions(): compact, cfg.Names.Changes(): nil} {
		if _, err := kadm.NewClient(testClient(t, cfg)).CreateTopic(t.Context(), 1, 1, configs, topic); err != nil {
			t.Fatal(err)
		}
	}
}

func testClient(t *testing.T, cfg Config, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	cl, err := cfg.client(opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return cl
}

func openLog(t *testing.T, cfg Config) *LogWriter {
	t.Helper()
	w, err := OpenLogWriter(t.Context(), cfg, "definitions-writer", cfg.Names.Definitions())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	return w
}

// put decides to set keys, whatever is there.
func put(cfg Config, value string, keys ...string) func(map[string]pipeline.Record, int64) ([]pipeline.Record, error) {
	return func(map[string]pipeline.Record, int64) (out []pipeline.Record, err error) {
		for _, k := range keys {
			r := pipeline.Record{Topic: cfg.Names.Definitions(), Key: []byte(k)}
			if value != "" {
				r.Value = []byte(value)
			}
			out = append(out, r, pipeline.Record{Topic: cfg.Names.Changes(), Key: []byte(k), Value: []byte(value)})
		}
		return out, nil
	}
}

func write(t *testing.T, w *LogWriter, decide func(map[string]pipeline.Record, int64) ([]pipeline.Record, error)) int64 {
	t.Helper()
	next, err := w.Write(t.Context(), decide)
	if err != nil {
		t.Fatal(err)
	}
	return next
}

// state follows a log in the background and tells what it knows.
type state struct {
	mu       sync.Mutex
	cond     *sync.Cond
	keys     map[string]string
	next     int64
	caughtUp bool
	err      error
}

func followLog(t *testing.T, cfg Config) *state {
	t.Helper()
	s := &state{keys: map[string]string{}}
	s.cond = sync.NewCond(&s.mu)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		err := Follow(ctx, cfg, cfg.Names.Definitions(), s.apply)
		s.mu.Lock()
		defer s.mu.Unlock()
		s.err = err
		s.cond.Broadcast()
	}()
	t.Cleanup(func() { cancel(); <-done })
	return s
}

func (s *state) apply(batch []pipeline.Record, next int64, caughtUp bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range batch {
		if r.Value == nil {
			delete(s.keys, string(r.Key))
			continue
		}
		s.keys[string(r.Key)] = string(r.Value)
	}
	if next < s.next {
		return fmt.Errorf("next went back from %d to %d", s.next, next)
	}
	s.next, s.caughtUp = next, caughtUp
	s.cond.Broadcast()
	return nil
}

// wait returns once ok holds; the test's deadline is what ends it otherwise.
func (s *state) wait(t *testing.T, what string, ok func() bool) {
	t.Helper()
	late := false
	timer := time.AfterFunc(60*time.Second, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		late = true
		s.cond.Broadcast()
	})
	defer timer.Stop()
	s.mu.Lock()
	defer s.mu.Unlock()
	for !ok() {
		if late || s.err != nil {
			t.Fatalf("waiting for %s: next %d, caught up %v, keys %v, error %v", what, s.next, s.caughtUp, s.keys, s.err)
		}
		s.cond.Wait()
	}
}

func TestFollowOfAnEmptyLogIsCaughtUp(t *testing.T) {
	t.Parallel()
	s := followLog(t, testLog(t))
	s.wait(t, "the end", func() bool { return s.caughtUp })
}

func TestFollowReachesTheEndBehindAMarker(t *testing.T) {
	t.Parallel()
	cfg := testLog(t)
	w := openLog(t, cfg)
	write(t, w, put(cfg, "1", "a", "b"))
	next := write(t, w, put(cfg, "2", "b"))
	s := followLog(t, cfg)
	s.wait(t, "the end", func() bool { return s.caughtUp && s.next >= next })
	write(t, w, put(cfg, "", "a")) // a tombstone, while it follows
	s.wait(t, "the removal", func() bool { return len(s.keys) == 1 && s.keys["b"] == "2" })
}

func TestFollowLeavesAbortedRecordsOut(t *testing.T) {
	t.Parallel()
	cfg := testLog(t)
	cl := testClient(t, cfg, kgo.TransactionalID(string(cfg.Names)+"aborts"))
	if err := cl.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	r := &kgo.Record{Topic: cfg.Names.Definitions(), Key: []byte("gone"), Value: []byte("x")}
	if err := cl.ProduceSync(t.Context(), r).FirstErr(); err != nil {
		t.Fatal(err)
	}
	if err := cl.EndTransaction(t.Context(), kgo.TryAbort); err != nil {
		t.Fatal(err)
	}
	s := followLog(t, cfg)
	s.wait(t, "the end", func() bool { return s.caughtUp })
	write(t, openLog(t, cfg), put(cfg, "1", "a"))
	s.wait(t, "a", func() bool { return s.keys["a"] == "1" && len(s.keys) == 1 })
}

func TestLogThatDoesNotExist(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	err := Follow(t.Context(), cfg, cfg.Names.Definitions(), func([]pipeline.Record, int64, bool) error { return nil })
	_, werr := OpenLogWriter(t.Context(), cfg, "definitions-writer", cfg.Names.Definitions())
	for _, err := range []error{err, werr} {
		if err == nil || !strings.Contains(err.Error(), "millrace init") {
			t.Errorf("error %v does not say `millrace init`", err)
		}
	}
}

func TestFollowEndsWithApplysError(t *testing.T) {
	t.Parallel()
	cfg := testLog(t)
	broken := errors.New("broken")
	err := Follow(t.Context(), cfg, cfg.Names.Definitions(), func([]pipeline.Record, int64, bool) error { return broken })
	if !errors.Is(err, broken) {
		t.Fatalf("got %v", err)
	}
}

func TestWriteSeesWhatOthersWrote(t *testing.T) {
	t.Parallel()
	cfg := testLog(t)
	a, b := openLog(t, cfg), openLog(t, cfg)
	for i := range 6 {
		w := a
		if i%2 == 1 {
			w = b
		}
		seen := 0 // by the decision that counted: a writer that was fenced may see less at first
		write(t, w, func(cur map[string]pipeline.Record, next int64) ([]pipeline.Record, error) {
			seen = len(cur)
			return put(cfg, "1", fmt.Sprint("k", i))(cur, next)
		})
		if seen != i {
			t.Errorf("write %d decided upon %d keys", i, seen)
		}
	}
}

func TestWriteSeesItsOwnLastWrite(t *testing.T) {
	t.Parallel()
	cfg := testLog(t)
	w := openLog(t, cfg)
	for i := range 20 {
		write(t, w, func(cur map[string]pipeline.Record, next int64) ([]pipeline.Record, error) {
			if last := string(cur["a"].Value); i > 0 && last != fmt.Sprint(i-1) {
				t.Errorf("write %d decides upon %q", i, last)
			}
			return put(cfg, fmt.Sprint(i), "a")(cur, next)
		})
	}
}

func TestOfTwoWritersOneWins(t *testing.T) {
	t.Parallel()
	cfg := testLog(t)
	slow, fast := openLog(t, cfg), openLog(t, cfg)
	_, err := slow.Write(t.Context(), func(cur map[string]pipeline.Record, next int64) ([]pipeline.Record, error) {
		write(t, fast, put(cfg, "fast", "a")) // between the other's look and its write
		return put(cfg, "slow", "a", "b")(cur, next)
	})
	if !errors.Is(err, ErrFenced) {
		t.Fatalf("the slower one got %v; want ErrFenced", err)
	}
	s := followLog(t, cfg)
	s.wait(t, "the end", func() bool { return s.caughtUp })
	if s.keys["a"] != "fast" || len(s.keys) != 1 {
		t.Fatalf("got %v", s.keys)
	}
	// And it goes on after that, without being told to.
	write(t, slow, put(cfg, "slow", "b"))
	s.wait(t, "b", func() bool { return s.keys["b"] == "slow" })
}

// Many add one at the same time: every success counts, and nothing else does.
func TestConcurrentWritersLoseNothing(t *testing.T) {
	t.Parallel()
	cfg := testLog(t)
	var wg sync.WaitGroup
	var mu sync.Mutex
	won := 0
	for range 4 {
		w := openLog(t, cfg)
		wg.Go(func() {
			for range 5 {
				_, err := w.Write(t.Context(), func(cur map[string]pipeline.Record, next int64) ([]pipeline.Record, error) {
					return put(cfg, string(cur["n"].Value)+"|", "n")(cur, next)
				})
				switch {
				case err == nil:
					mu.Lock()
					won++
					mu.Unlock()
				case !errors.Is(err, ErrFenced):
					t.Errorf("writing: %v", err)
				}
			}
		})
	}
	wg.Wait()
	s := followLog(t, cfg)
	s.wait(t, "the end", func() bool { return s.caughtUp })
	if got := len(s.keys["n"]); got != won || won == 0 {
		t.Fatalf("%d writes succeeded, the log counts %d", won, got)
	}
}

func TestDecideSaysNo(t *testing.T) {
	t.Parallel()
	cfg := testLog(t)
	w := openLog(t, cfg)
	no := errors.New("no")
	if _, err := w.Write(t.Context(), func(map[string]pipeline.Record, int64) ([]pipeline.Record, error) { return nil, no }); !errors.Is(err, no) {
		t.Fatalf("got %v", err)
	}
	write(t, w, func(map[string]pipeline.Record, int64) ([]pipeline.Record, error) { return nil, nil })
	if _, err := w.Write(t.Context(), func(map[string]pipeline.Record, int64) ([]pipeline.Record, error) {
		return []pipeline.Record{{Topic: cfg.Names.Changes()}}, nil
	}); err == nil {
		t.Fatal("a change with nothing for the log was written")
	}
}

// fakeLog is a log on a kfake of its own, for faults.
func fakeLog(t *testing.T) (Config, *pipelinetest.Fake) {
	t.Helper()
	f := pipelinetest.StartFake(t, "")
	cfg := Config{Brokers: f.Addrs(), Names: "millrace.", Instance: "test", Log: slog.New(slog.DiscardHandler)}
	makeLog(t, cfg)
	return cfg, f
}

// The End takes effect, but its answer is lost for good, and the same id is
// taken over before it is asked again.
func TestLostEnd(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		applied bool
		answer  *kerr.Error
		written bool
	}{
		"committed":     {true, kerr.UnknownServerError, true},
		"not committed": {false, kerr.UnknownServerError, true}, // by another try
		"refused":       {false, kerr.TransactionalIDAuthorizationFailed, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg, f := fakeLog(t)
			w := openLog(t, cfg)
			write(t, w, put(cfg, "1", "a"))
			loseEnds(t, cfg, f, c.applied, c.answer)
			next, err := w.Write(t.Context(), put(cfg, "", "a")) // a removal: nothing in the state tells
			if c.written && (err != nil || next == 0) {
				t.Fatalf("it was written, but got %d, %v", next, err)
			}
			if !c.written && err == nil {
				t.Fatal("it was not written, and there is no error")
			}
			s := followLog(t, cfg)
			s.wait(t, "the end", func() bool { return s.caughtUp })
			if _, there := s.keys["a"]; there == c.written {
				t.Fatalf("written %v, and the log has %v", c.written, s.keys)
			}
		})
	}
}

// loseEnds answers the next commit with an error that nobody tries again,
// having done it or not.
func loseEnds(t *testing.T, cfg Config, f *pipelinetest.Fake, apply bool, answer *kerr.Error) {
	t.Helper()
	other := testClient(t, cfg)
	var lost atomic.Bool
	f.ControlKey(int16(kmsg.EndTxn), func(req kmsg.Request) (kmsg.Response, error, bool) {
		end := req.(*kmsg.EndTxnRequest)
		if !end.Commit || lost.Swap(true) {
			return nil, nil, false
		}
		if apply {
			again := *end
			f.SleepControl(func() {
				if _, err := again.RequestWith(context.Background(), other); err != nil {
					t.Errorf("committing in its place: %v", err)
				}
			})
		}
		resp := end.ResponseKind().(*kmsg.EndTxnResponse)
		resp.ErrorCode = answer.Code
		return resp, nil, true
	})
}

func TestRefusedRecordAbortsTheWhole(t *testing.T) {
	t.Parallel()
	cfg := testLog(t)
	w := openLog(t, cfg)
	_, err := w.Write(t.Context(), func(map[string]pipeline.Record, int64) ([]pipeline.Record, error) {
		return []pipeline.Record{
			{Topic: cfg.Names.Definitions(), Key: []byte("a"), Value: []byte("1")},
			{Topic: cfg.Names.Changes(), Key: []byte("a"), Value: make([]byte, DefaultMaxEventBytes+1)},
		}, nil
	})
	if err == nil || errors.Is(err, ErrFenced) {
		t.Fatalf("got %v", err)
	}
	write(t, w, put(cfg, "2", "b"))
	s := followLog(t, cfg)
	s.wait(t, "the end", func() bool { return s.caughtUp })
	if _, there := s.keys["a"]; there || s.keys["b"] != "2" {
		t.Fatalf("got %v", s.keys)
	}
}
