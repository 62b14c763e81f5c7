package main

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/millrace-io/millrace/pipeline"
	"github.com/millrace-io/millrace/pipeline/pipelinetest"
	"github.com/millrace-io/millrace/pipeline/state"
)

// threeDestinations are one of each lane, and one that its definition pauses.
const threeDestinations = `kind: Destination
name: crm
description: where customers are
platform: CRM
request: {url: "https://crm.example.com/${env:MILLRACE_SECRET_CRM}"}
---
kind: Destination
name: mail
request: {url: https://mail.example.com/, method: PUT}
lane: own
---
kind: Destination
name: sleeping
request: {url: https://sleeping.example.com/}
status: paused
---
kind: Webhook
name: click-to-crm
event: launcher.clicked
destination: crm
`

// setStates writes states as sinks do.
func (h *house) setStates(states ...state.State) {
	h.t.Helper()
	w, err := state.OpenWriter(h.t.Context(), h.cfg)
	if err != nil {
		h.t.Fatal(err)
	}
	defer w.Close()
	changes := map[string]state.Change{}
	for _, s := range states {
		s.Revision = 1 << 30 // whatever is in force is not newer
		changes[s.Destination] = func(state.State) (state.State, bool) { return s, true }
	}
	if _, err := w.Change(h.t.Context(), changes); err != nil {
		h.t.Fatal(err)
	}
}

// states reads `millrace destinations list --json`.
func (h *house) states() map[string]standing {
	h.t.Helper()
	var rows []standing
	if err := json.Unmarshal([]byte(h.run("destinations", "list", "--json").must(h.t).out), &rows); err != nil {
		h.t.Fatal(err)
	}
	all := map[string]standing{}
	for _, r := range rows {
		all[r.Name] = r
	}
	return all
}

func TestDestinationsList(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.runWith(threeDestinations, "apply", "-").must(t)
	golden(t, "destinations-list-active", h.run("destinations", "list").must(t).out)
	at := time.Date(2026, 5, 4, 10, 0, 0, 0, time.UTC)
	later := time.Now().Add(time.Hour).UTC().Truncate(time.Second)
	h.setStates(
		state.State{Destination: "crm", Status: state.Paused, By: state.BySink, Reason: state.Refused, Detail: "HTTP 401\x1b[2J", Since: at, Rate: 12.5},
		state.State{Destination: "mail", Status: state.Active, OpenUntil: later, Instance: "sink-1"},
		state.State{Destination: "gone", Status: state.Disabled, By: state.BySink, Reason: state.Gone, Since: at},
	)
	out := h.run("destinations", "list").must(t).out
	golden(t, "destinations-list", strings.ReplaceAll(out, clockDate(later), "2099-01-01 00:00:00"))
	golden(t, "destinations-show", h.run("destinations", "show", "crm").must(t).out)
	all := h.states()
	if crm := all["crm"]; len(all) != 3 || crm.Status != "paused" || crm.Reason != "refused" || !crm.Since.Equal(at) || crm.RateBefore != 12.5 || crm.Webhooks[0] != "click-to-crm" || crm.ToDo == "" {
		t.Errorf("as JSON it is %+v", all)
	}
	if mail := all["mail"]; mail.Status != "breaker open" || !mail.OpenUntil.Equal(later) || mail.Instance != "sink-1" || mail.Lane != "own" || mail.Call != "PUT https://mail.example.com/" {
		t.Errorf("as JSON it is %+v", mail)
	}
	for name, says := range map[string]string{"mail": "it is tried again by itself", "sleeping": "take status: paused out of its definition"} {
		if out := h.run("destinations", "show", name).must(t).out; !strings.Contains(out, says) {
			t.Errorf("of %s it shows\n%s", name, out)
		}
	}
	h.produce(pipeline.Record{Topic: h.cfg.Names.Definitions(), Key: []byte("Destination/odd"), Value: []byte(`{"kind":"Destination","name":"odd","spec":{"url":1}}`)})
	if odd := h.states()["odd"]; odd.Status != "broken" || odd.Why == "" || !strings.Contains(odd.ToDo, "apply its definition again") {
		t.Errorf("one that can't be used is %+v", odd)
	}
}

// Every reason for which a destination is not called has something to do.
func TestDestinationsToDo(t *testing.T) {
	t.Parallel()
	seen := map[string]state.Reason{}
	for _, reason := range []state.Reason{state.Refused, state.FinalResponses, state.Response, state.Blocked, state.Proxy, state.Gone, state.Operator, "of a later version"} {
		r := standing{Name: "crm", Status: string(state.Paused), By: state.BySink, Reason: string(reason)}
		text := r.toDo()
		if other, twice := seen[text]; twice || !strings.Contains(text, "`millrace destinations resume crm`") || strings.Contains(text, "ATTEMPTS") {
			t.Errorf("%s: %q, as for %q", reason, text, other)
		}
		seen[text] = reason
	}
}

func TestDestinationsPauseAndResume(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.runWith(threeDestinations, "apply", "-").must(t)
	says := func(text string, args ...string) {
		t.Helper()
		if r := h.run(append([]string{"destinations"}, args...)...).must(t); !strings.Contains(r.out+r.err, text) {
			t.Errorf("%v says %s%s, expected %q", args, r.out, r.err, text)
		}
	}
	says("crm is neither paused nor disabled: there was nothing to resume\n", "resume", "crm")
	says("crm is paused: its deliveries wait until `millrace destinations resume crm`", "pause", "crm", "--why", "new\naddress")
	paused := h.states()["crm"]
	if paused.Status != "paused" || paused.Reason != "operator" || paused.Why != "new address" || paused.By != author() || time.Since(paused.Since) > time.Minute {
		t.Errorf("it is %+v", paused)
	}
	says("crm is paused already by "+author()+" since "+clockDate(paused.Since)+" (new address); nothing is changed", "pause", "crm", "--why", "again")
	h.runWith(strings.Replace(threeDestinations, "platform: CRM", "platform: Other", 1), "apply", "-").must(t)
	if got := h.states()["crm"]; got.Status != "paused" || got.Platform != "Other" {
		t.Errorf("after an apply it is %+v", got)
	}
	says("crm is resumed, it was paused by "+author(), "resume", "crm")
	if got := h.states()["crm"]; got.Status != "active" || got.Reason != "" || got.Why != "" || got.By != author() || got.ToDo != "" {
		t.Errorf("when resumed it is %+v", got)
	}
	at := time.Now().UTC().Truncate(time.Second)
	h.setStates(
		state.State{Destination: "mail", Status: state.Disabled, By: state.BySink, Reason: state.Gone, Detail: "HTTP 410", Since: at, Rate: 7, OpenUntil: at.Add(time.Hour)},
		state.State{Destination: "crm", Status: state.Active, OpenUntil: at.Add(time.Hour)},
	)
	says("nothing to resume; its breaker is open until "+clockDate(at.Add(time.Hour)), "resume", "crm")
	says("mail is resumed, it was disabled by sink since "+clockDate(at)+" (HTTP 410); calls begin slowly", "resume", "mail")
	if got := h.states()["mail"]; got.Status != "active" || got.RateBefore != 7 || !got.OpenUntil.IsZero() {
		t.Errorf("what was disabled is %+v", got)
	}
	says("mail is paused", "pause", "mail", "--why", "it goes")
	docs := strings.Split(threeDestinations, "---\n")
	h.runWith(docs[0]+"---\n"+docs[2]+"---\n"+docs[3], "apply", "-", "--prune").must(t)
	h.runWith(threeDestinations, "apply", "-").must(t)
	if got := h.states()["mail"]; got.Status != "active" || got.RateBefore != 0 {
		t.Errorf("one that was removed while it was paused, and added again, is %+v", got)
	}
	says("mail is neither paused nor disabled", "resume", "mail")
	says("sleeping: there was nothing to resume; its definition says status: paused, which only `millrace apply` changes", "resume", "sleeping")
	says("note: the definition of sleeping says status: paused too", "pause", "sleeping", "--why", "x")
	says("sleeping is resumed, it was paused by "+author()+" since ", "resume", "sleeping")
	for _, command := range []string{"show", "resume", "pause --why x"} {
		args := append([]string{"destinations"}, strings.Fields(command)...)
		h.run(append(args, "crn")...).fails(t, exitFailed, `there is no destination "crn"; did you mean crm?`)
	}
	h.run("destinations", "pause", "crm").fails(t, exitUsage, "--why")
	h.run("destinations", "pause", "crm", "--why", " ").fails(t, exitUsage, "--why takes a text")
}

// Somebody pauses a destination while events come, and resumes it: nothing is
// called meanwhile, and everything after.
func TestPauseWhileEventsCome(t *testing.T) {
	t.Parallel()
	r := pipelinetest.Receiver(t)
	m := start(t, options{})
	other := pipelinetest.Receiver(t) // a lane with one destination would just hold still
	m.apply(soonAgain("crm", r.URL) + "---" + soonAgain("other", other.URL))
	m.produce(tickEvent(t, 1))
	r.Wait(t, 1)
	m.command("", "destinations", "pause", "crm", "--why", "it moves")
	m.produce(tickEvent(t, 2))
	m.waiting(1)
	if r.Count() != 1 {
		t.Fatalf("%d calls to what is paused", r.Count()-1)
	}
	m.command("", "destinations", "resume", "crm")
	r.Wait(t, 2)
	both := endings{pipeline.Matched: 2, pipeline.Delivered: 2}
	m.settled(map[string]endings{"crm": both, "other": both})
	once(t, r)
}
