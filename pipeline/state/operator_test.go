package state_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/millrace-io/millrace/pipeline"
	"github.com/millrace-io/millrace/pipeline/state"
	"github.com/millrace-io/millrace/pipeline/stream"
)

// told are the first n operator events: type, time and what they say.
func told(t *testing.T, cfg stream.Config, n int) (out []string) {
	t.Helper()
	enough := errors.New("enough")
	ids := map[string]bool{}
	err := stream.Read(t.Context(), cfg, []string{cfg.Names.OperatorEvents()}, stream.FromStart(), func(r pipeline.Record) error {
		var e struct {
			ID, Type   string
			Time       time.Time
			Properties json.RawMessage
		}
		if err := json.Unmarshal(r.Value, &e); err != nil {
			return err
		}
		if ids[e.ID] || time.Since(e.Time) > time.Hour {
			t.Errorf("an event of %v has the id %s; so far %v", e.Time, e.ID, ids)
		}
		ids[e.ID] = true
		out = append(out, fmt.Sprint(e.Type, " ", string(e.Properties)))
		if len(out) == n {
			return enough
		}
		return nil
	})
	if !errors.Is(err, enough) {
		t.Fatal(err)
	}
	return out
}

// What is told of a destination as its state changes, step by step.
func TestOperatorEvents(t *testing.T) {
	t.Parallel()
	cfg := broker(t)
	w := open(t, cfg)
	until := time.Date(2026, 1, 2, 3, 4, 5, 6e6, time.UTC)
	active := state.State{Destination: "crm", Status: state.Active}
	paused := state.State{Destination: "crm", Status: state.Paused, By: state.BySink, Reason: state.Refused, Detail: "HTTP 401", Since: time.Now()}
	byHand := state.State{Destination: "crm", Status: state.Paused, By: "ada", Reason: state.Operator, Since: time.Now().Add(time.Second)}
	gone := state.State{Destination: "crm", Status: state.Disabled, By: state.BySink, Reason: state.Gone, Since: time.Now()}
	goneAgain := gone
	goneAgain.Since = gone.Since.Add(time.Second)
	tripped := func(minutes int) state.State {
		s := active
		s.OpenUntil = until.Add(time.Duration(minutes) * time.Minute)
		return s
	}
	quiet := func(s state.State) state.State { s.QuietStatus = true; return s }
	quietly := func(s state.State) state.State { s.QuietBreaker = true; return s }
	const prefix = "millrace.destination_"
	var want []string
	for _, step := range []struct {
		to   state.State
		told string
	}{
		{active, ""},
		{quiet(paused), ""},
		{paused, ""}, // it is already
		{state.State{}, ""},
		{paused, prefix + `paused {"destination":"crm","reason":"refused","detail":"HTTP 401","by":"sink"}`},
		{byHand, ""}, // still
		{gone, prefix + `disabled {"destination":"crm","reason":"gone","by":"sink"}`},
		{active, ""},
		{byHand, prefix + `paused {"destination":"crm","reason":"operator","by":"ada"}`},
		{active, ""},
		{tripped(0), prefix + `breaker_opened {"destination":"crm","open_until":"2026-01-02T03:04:05.006Z"}`},
		{tripped(1), ""}, // its probe failed
		{active, ""},
		{quietly(tripped(2)), ""},
		{tripped(3), ""}, // told or not, it is the same outage
		{active, ""},
		{quiet(tripped(4)), prefix + `breaker_opened {"destination":"crm","open_until":"2026-01-02T03:08:05.006Z"}`},
		{quietly(goneAgain), prefix + `disabled {"destination":"crm","reason":"gone","by":"sink"}`},
	} {
		if _, err := w.Change(t.Context(), map[string]state.Change{"crm": to(step.to)}); err != nil {
			t.Fatal(err)
		}
		if step.told != "" {
			want = append(want, step.told)
		}
	}
	if got := told(t, cfg, len(want)); !slices.Equal(got, want) {
		t.Errorf("told is\n%q, not\n%q", got, want)
	}
}

// A breaker that closed and opened again before either was written is told of,
// unless it is to be kept quiet.
func TestABreakerThatClosedInBetween(t *testing.T) {
	t.Parallel()
	cfg := broker(t)
	w := open(t, cfg)
	until := time.Date(2026, 1, 2, 3, 4, 5, 6e6, time.UTC)
	tripped := state.State{Destination: "crm", Status: state.Active, OpenUntil: until, QuietBreaker: true}
	quietly, again := tripped, tripped
	quietly.Closed, quietly.OpenUntil = true, until.Add(time.Minute)
	again.Closed, again.OpenUntil, again.QuietBreaker = true, until.Add(2*time.Minute), false
	last := state.State{Destination: "crm", Status: state.Paused, Closed: true, Since: time.Now()}
	for _, s := range []state.State{tripped, quietly, again, last} {
		if _, err := w.Change(t.Context(), map[string]state.Change{"crm": to(s)}); err != nil {
			t.Fatal(err)
		}
	}
	want := []string{
		`millrace.destination_breaker_opened {"destination":"crm","open_until":"2026-01-02T03:06:05.006Z"}`,
		`millrace.destination_paused {"destination":"crm"}`,
	}
	if got := told(t, cfg, len(want)); !slices.Equal(got, want) {
		t.Errorf("told is\n%q, not\n%q", got, want)
	}
}

// However many sinks find out at once, each transition is told once.
func TestTransitionsAreToldOnce(t *testing.T) {
	t.Parallel()
	cfg := broker(t)
	pause := func(w *state.Writer, names ...string) {
		changes := map[string]state.Change{}
		for _, name := range names {
			changes[name] = to(state.State{Destination: name, Status: state.Paused, Since: time.Now()})
		}
		err := stream.ErrFenced
		for errors.Is(err, stream.ErrFenced) && t.Context().Err() == nil {
			_, err = w.Change(t.Context(), changes)
		}
		if err != nil {
			t.Error(err)
		}
	}
	var running sync.WaitGroup
	for range 3 {
		w := open(t, cfg)
		running.Go(func() { pause(w, "crm", "mail") })
	}
	running.Wait()
	pause(open(t, cfg), "last")
	var want []string
	for _, name := range []string{"crm", "mail", "last"} {
		want = append(want, fmt.Sprintf(`millrace.destination_paused {"destination":%q}`, name))
	}
	if got := told(t, cfg, 3); !slices.Equal(got, want) {
		t.Errorf("told is %q, not %q", got, want)
	}
}
