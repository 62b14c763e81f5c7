package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path/filepath"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/pipeline"
	"github.com/millrace-io/millrace/pipeline/event"
)

func TestPropValue(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"12345":                `12345`,
		"-1.5e3":               `-1.5e3`,
		"12345678901234567890": `12345678901234567890`,
		"true":                 `true`,
		"false":                `false`,
		"null":                 `null`,
		`"12345"`:              `"12345"`,
		"":                     `""`,
		"007":                  `"007"`,
		"1.":                   `"1."`,
		"NaN":                  `"NaN"`,
		"True":                 `"True"`,
		" 1":                   `" 1"`,
		"Too slow":             `"Too slow"`,
		"a=b":                  `"a=b"`,
		"<b>":                  `"<b>"`,
		`{"a":1}`:              `"{\"a\":1}"`,
		"[1]":                  `"[1]"`,
		"é\n":                  `"é\n"`,
	} {
		got, err := propValue(text)
		if err != nil || string(got) != want {
			t.Errorf("propValue(%q) = %s, %v; expected %s", text, got, err, want)
		}
	}
}

func TestParseProps(t *testing.T) {
	t.Parallel()
	props, err := parseProps([]string{"a=1", "b.c=x=y", "d="})
	got, _ := json.Marshal(props)
	if want := `{"a":1,"b.c":"x=y","d":""}`; err != nil || string(got) != want {
		t.Errorf("got %s, %v; expected %s", got, err, want)
	}
	for _, flags := range [][]string{{"a"}, {"=1"}, {"a=1", "a=2"}, {""}} {
		if _, err := parseProps(flags); err == nil {
			t.Errorf("%q is accepted", flags)
		}
	}
}

// sentEvent is what a record holds, told by the decoder.
func (h *house) sentEvent(r *pipeline.Record) *pipeline.Event {
	h.t.Helper()
	catalog, err := event.BuiltinCatalog()
	if err != nil {
		h.t.Fatal(err)
	}
	e, err := event.NewDecoder(nil, "c").Decode(h.t.Context(), r, catalog)
	if err != nil {
		h.t.Fatalf("decoding what was sent: %v", err)
	}
	return e
}

func TestSendFlagsInEveryFormat(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	for _, format := range []string{formatJSON, formatBinary, formatStructured} {
		topic := h.cfg.Names.Events()
		r := h.run("send", "--type", "survey.submitted", "--user", "u-1", "--id", format, "--source", "test", "--time", "2026-01-31T08:00:00.25Z",
			"--system", "crm", "--environment", "qa", "--session", "s-1", "--prop", "nps_score=3", "--prop", "comment=Too, slow", "--prop", "wants_help=true",
			"--format", format).must(t)
		if want := "1 event acknowledged by " + topic + "\n"; r.out != want || r.err != "" {
			t.Errorf("%s: it says %q, %q; expected %q", format, r.out, r.err, want)
		}
	}
	for _, r := range h.read(h.cfg.Names.Events(), 3) {
		e := h.sentEvent(&r)
		props := maps.Collect(e.Properties.All())
		e.Properties = nil
		got := fmt.Sprintf("%s %s %s %s %s %s %s %s %v %v %v", r.Key, e.Source, e.Type, e.Time.Format("15:04:05.000"), e.System, e.Environment,
			e.User, e.Session, props["nps_score"], props["comment"], props["wants_help"])
		if want := "u-1 test survey.submitted 08:00:00.250 crm qa u-1 s-1 3 Too, slow true"; got != want {
			t.Errorf("%s: sent %q, expected %q", e.ID, got, want)
		}
		_, binary := r.Header("ce_id")
		kind, _ := r.Header("content-type")
		if structured := strings.HasPrefix(string(kind), "application/cloudevents+json"); binary != (e.ID == formatBinary) || structured != (e.ID == formatStructured) {
			t.Errorf("%s: headers are %s", e.ID, r.Headers)
		}
	}
}

// TestSendCloudEventsNeedsNoID: CloudEvents asks for an id and a source.
func TestSendCloudEventsNeedsNoID(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.run("send", "--type", "menu.opened", "--count", "2", "--format", "cloudevents").must(t)
	ids := map[string]bool{}
	for _, r := range h.read(h.cfg.Names.Events(), 2) {
		id, _ := r.Header("ce_id")
		source, _ := r.Header("ce_source")
		ids[string(id)] = true
		if string(source) == "" || string(r.Value) != "{}" || r.Key != nil {
			t.Errorf("sent source %q, value %q, key %q", source, r.Value, r.Key)
		}
	}
	if len(ids) != 2 || ids[""] {
		t.Errorf("two events have the ids %v", ids)
	}
}

func TestSendLines(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	lines := `{"id":"1","type":"menu.opened","user":"u-1", "more": {"kept": [1]}}

	{"id":"2","type":"menu.opened","properties":{"wm.euid":"u-2","n":12345678901234567890}}
`
	file := tempFile(t, "events.jsonl", lines)
	r := h.run("send", file, "--json").must(t)
	if got := objects(t, r.out)[0]; got["acknowledged"] != 2.0 || got["topic"] != h.cfg.Names.Events() {
		t.Errorf("it says %v", got)
	}
	h.runWith(lines, "send", "-").must(t)
	values := map[string]int{}
	for _, r := range h.read(h.cfg.Names.Events(), 4) {
		values[string(r.Key)+" "+string(r.Value)]++
	}
	want := map[string]int{
		`u-1 {"id":"1","type":"menu.opened","user":"u-1", "more": {"kept": [1]}}`:                     2,
		`u-2 {"id":"2","type":"menu.opened","properties":{"wm.euid":"u-2","n":12345678901234567890}}`: 2,
	}
	if !maps.Equal(values, want) {
		t.Errorf("sent %v, expected %v", values, want)
	}
}

func TestSendNothingWhereALineIsBroken(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	file := tempFile(t, "events.jsonl", `{"type":"menu.opened"}
{"type":
{"user":"u-1"}
{"type":"menu.opened","time":"yesterday"}
`)
	r := h.run("send", file)
	r.fails(t, exitFailed, "3 of 4 events can't be decoded, so none was sent")
	for n, says := range map[int]string{2: "", 3: "the event has no type", 4: "time: expected RFC 3339 or epoch milliseconds"} {
		if !strings.Contains(r.err, fmt.Sprintf("%s:%d: %s", file, n, says)) {
			t.Errorf("nothing is said of line %d:\n%s", n, r.err)
		}
	}
	h.run("send", "--type", "menu.opened", "--id", "first").must(t)
	if e := h.sentEvent(&h.read(h.cfg.Names.Events(), 1)[0]); e.ID != "first" {
		t.Errorf("%s was sent", e.ID)
	}
}

func TestSendManyProblems(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	r := h.runWith(strings.Repeat("x\n", maxProblems+5), "send", "-")
	r.fails(t, exitFailed, "and 5 more\n")
	if n := strings.Count(r.err, "<stdin>:"); n != maxProblems {
		t.Errorf("%d problems are told one by one", n)
	}
}

func TestSendWarnsOfUnknownTypes(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	r := h.runWith(`{"type":"survey.submited"}
{"type":"survey.submited"}
{"type":"survey.submitted"}
{"type":"billing.plan_upgraded"}`, "send", "-").must(t)
	want := "warning: <stdin>:1: event type survey.submited is not in the catalog, so its properties have no types; did you mean survey.submitted?\n" +
		"warning: <stdin>:4: event type billing.plan_upgraded is not in the catalog, so its properties have no types\n"
	if r.err != want || !strings.HasPrefix(r.out, "4 events acknowledged") {
		t.Errorf("it says %q and %q", r.out, r.err)
	}
	h.runWith("kind: EventType\nname: billing.plan_upgraded\n", "apply", "-").must(t)
	if r := h.run("send", "--type", "billing.plan_upgraded").must(t); r.err != "" {
		t.Errorf("of a type that was added it says %q", r.err)
	}
}

func TestSendExamples(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	send := []string{"send", "--example", "smart_walk_thru.goal_reached", "--count", "5", "--prop", "walk_thru_id=7", "--system", "mine"}
	h.run(send...).must(t)
	h.run(send...).must(t)
	ids, users := map[string]bool{}, map[string]bool{}
	for _, r := range h.read(h.cfg.Names.Events(), 10) {
		e := h.sentEvent(&r)
		ids[e.ID], users[e.User] = true, true
		if e.Properties.Get("walk_thru_id") != int64(7) || e.Properties.Get("goal_name") == nil || e.System != "mine" || string(r.Key) != e.User {
			t.Errorf("sent %s with key %s", r.Value, r.Key)
		}
	}
	if len(ids) != 10 || len(users) != 5 {
		t.Errorf("two runs of 5 have %d ids and %d users", len(ids), len(users))
	}
	h.run("send", "--example", "survey.submited").fails(t, exitUsage, "there is no example of survey.submited, since it is not in the catalog; did you mean survey.submitted?")
}

func TestSendToAnotherTopic(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.run("send", "--type", "x", "--topic", string(h.cfg.Names)+"missing").fails(t, exitFailed, "missing")
	r := h.run("send", "--type", "x", "--topic", h.cfg.Names.Matches()).must(t)
	if want := "1 event acknowledged by " + h.cfg.Names.Matches() + "\n"; r.out != want {
		t.Errorf("it says %q", r.out)
	}
}

func TestSendBeforeInit(t *testing.T) {
	t.Parallel()
	emptyHouse(t).run("send", "--type", "menu.opened").fails(t, exitFailed, "run `millrace init`")
}

func TestSendInterrupted(t *testing.T) {
	t.Parallel()
	err := sendFailure(context.Canceled, 2000, 2500)
	if want := "sending: context canceled; 2000 of 2500 events were acknowledged, some of the next 500 may be there too"; err.Error() != want {
		t.Errorf("it says %q", err)
	}
	if code := report(io.Discard, err); code != exitSignal {
		t.Errorf("exit code %d", code)
	}
}

func TestLines(t *testing.T) {
	t.Parallel()
	for name, l := range map[string]func() (*eventLines, error){
		"stdin": func() (*eventLines, error) { return openLines("-", strings.NewReader("a\n\n b \r\nc")) },
		"file":  func() (*eventLines, error) { return openLines(tempFile(t, "x", "a\n\n b \r\nc"), nil) },
	} {
		lines, err := l()
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			var got []string
			for lines.next() {
				at := lines.at()
				got = append(got, at[strings.LastIndex(at, ":"):]+string(lines.text))
			}
			if want := ":1a :3b :4c"; strings.Join(got, " ") != want || lines.err != nil {
				t.Errorf("%s: %q, %v", name, got, lines.err)
			}
			if err := lines.rewind(); err != nil {
				t.Fatal(err)
			}
		}
		lines.close()
	}
	if _, err := openLines(filepath.Join(t.TempDir(), "none"), nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
}

func TestLinesTooLong(t *testing.T) {
	t.Parallel()
	lines, err := openLines("-", strings.NewReader("a\n"+strings.Repeat("x", maxLine+1)))
	if err != nil {
		t.Fatal(err)
	}
	if !lines.next() || lines.next() || lines.err == nil || lines.at() != "<stdin>:2" {
		t.Errorf("%s: %v", lines.at(), lines.err)
	}
}
