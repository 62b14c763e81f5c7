package state_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/millrace-io/millrace/pipeline"
	"github.com/millrace-io/millrace/pipeline/pipelinetest"
	"github.com/millrace-io/millrace/pipeline/state"
	"github.com/millrace-io/millrace/pipeline/stream"
)

func TestMain(m *testing.M) { pipelinetest.Main(m) }

const patience = 30 * time.Second

func broker(t *testing.T) stream.Config {
	t.Helper()
	b := pipelinetest.Broker(t)
	cfg := stream.Config{Brokers: b.Addrs, Names: b.Names, Instance: "test", Log: slog.New(slog.DiscardHandler)}
	if _, err := stream.Init(t.Context(), cfg, stream.InitOptions{Partitions: 1, Replication: 1}); err != nil {
		t.Fatal(err)
	}
	return cfg
}

func open(t *testing.T, cfg stream.Config) *state.Writer {
	t.Helper()
	w, err := state.OpenWriter(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	return w
}

// follow reads the states until the test ends; the error that Run ends with
// comes on the channel.
func follow(t *testing.T, cfg stream.Config) (*state.Live, <-chan error) {
	t.Helper()
	l := state.NewLive(cfg)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	var running sync.WaitGroup
	running.Go(func() { ended <- l.Run(ctx) })
	t.Cleanup(func() { cancel(); running.Wait() })
	return l, ended
}

// until waits for a snapshot that is as a test wants it.
func until(t *testing.T, l *state.Live, ok func(*state.Snapshot) bool) *state.Snapshot {
	t.Helper()
	late := time.After(patience)
	for {
		changed := l.Changed()
		if s := l.Snapshot(); s != nil && ok(s) {
			return s
		}
		select {
		case <-changed:
		case <-late:
			t.Fatalf("the states are %v", slices.Collect(l.Snapshot().All()))
		}
	}
}

func to(next state.State) state.Change {
	return func(state.State) (state.State, bool) { return next, true }
}

func TestStatesAreReadAsTheyWereWritten(t *testing.T) {
	t.Parallel()
	cfg := broker(t)
	w := open(t, cfg)
	at := time.Date(2026, 1, 2, 3, 4, 5, 6e6, time.UTC)
	paused := state.State{
		Destination: "crm", Status: state.Paused, By: state.BySink, Reason: state.Refused, Detail: "HTTP 401", Since: at,
		Rate: 12.5, OpenUntil: at.Add(time.Minute), Instance: "sink-1",
	}
	disabled := state.State{Destination: "mail", Status: state.Disabled, By: state.BySink, Reason: state.Gone, Since: at}
	if _, err := w.Change(t.Context(), map[string]state.Change{"crm": to(paused), "mail": to(disabled)}); err != nil {
		t.Fatal(err)
	}
	l, _ := follow(t, cfg)
	s := until(t, l, func(s *state.Snapshot) bool { return s.State("crm") == paused && s.State("mail") == disabled })
	if got := s.State("other"); got != (state.State{Destination: "other", Status: state.Active}) || !got.Callable() || paused.Callable() || disabled.Callable() {
		t.Errorf("a destination without a state has %+v", got)
	}
	_, err := w.Change(t.Context(), map[string]state.Change{"crm": to(state.State{}), "mail": func(now state.State) (state.State, bool) {
		if now != disabled {
			t.Errorf("a change goes out from %+v", now)
		}
		return now, false
	}})
	if err != nil {
		t.Fatal(err)
	}
	s = until(t, l, func(s *state.Snapshot) bool { return s.State("crm").Status == state.Active })
	if all := slices.Collect(s.All()); len(all) != 1 || all[0] != disabled {
		t.Errorf("when one was removed, there are %+v", all)
	}
}

// Of writers at the same time, none undoes what another did.
func TestManyWriters(t *testing.T) {
	t.Parallel()
	cfg := broker(t)
	const writers, each = 3, 5
	var running sync.WaitGroup
	for range writers {
		w := open(t, cfg)
		running.Go(func() {
			for range each {
				err := stream.ErrFenced
				for errors.Is(err, stream.ErrFenced) && t.Context().Err() == nil {
					_, err = w.Change(t.Context(), map[string]state.Change{"crm": func(now state.State) (state.State, bool) {
						now.Rate++
						return now, true
					}})
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	running.Wait()
	l, _ := follow(t, cfg)
	s := until(t, l, func(s *state.Snapshot) bool { return s.State("crm").Rate > 0 })
	if got := s.State("crm").Rate; got != writers*each {
		t.Errorf("of %d changes, %v are there", writers*each, got)
	}
}

func TestUnreadableStates(t *testing.T) {
	t.Parallel()
	cfg := broker(t)
	var log strings.Builder
	cfg.Log = slog.New(slog.NewTextHandler(&log, nil))
	l, ended := follow(t, cfg)
	put := func(key, value string) {
		p, err := stream.NewProducer(cfg)
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		if err := p.Produce(t.Context(), []pipeline.Record{{Topic: cfg.Names.States(), Key: []byte(key), Value: []byte(value)}}); err != nil {
			t.Fatal(err)
		}
	}
	for _, value := range []string{"", "x", `{}`, `{"format":1,"destination":"b","status":"paused"}`, `{"format":1,"destination":"a","status":"x"}`} {
		put("a", value)
	}
	put("b", `{"format":1,"destination":"b","status":"paused"}`)
	s := until(t, l, func(s *state.Snapshot) bool { return s.State("b").Status == state.Paused })
	if !s.State("a").Callable() {
		t.Errorf("of what can't be read, there is %+v", s.State("a"))
	}
	if n := strings.Count(log.String(), `state of destination \"a\"`); n != 5 {
		t.Errorf("the log names %d states:\n%s", n, log.String())
	}
	w := open(t, cfg)
	if _, err := w.Change(t.Context(), map[string]state.Change{"a": to(state.State{Destination: "a", Status: state.Paused})}); err != nil {
		t.Errorf("one that can't be read can't be overwritten: %v", err)
	}
	put("c", fmt.Sprintf(`{"format":%d,"destination":"c","status":"paused"}`, 2))
	if err := <-ended; !errors.Is(err, state.ErrNewerFormat) {
		t.Errorf("after a newer state, reading ended with %v", err)
	}
	if _, err := w.Change(t.Context(), map[string]state.Change{"c": to(state.State{})}); !errors.Is(err, state.ErrNewerFormat) {
		t.Errorf("a newer state was changed: %v", err)
	}
}
