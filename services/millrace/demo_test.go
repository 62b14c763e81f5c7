package main

import (
	"context"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/pipeline"
	"github.com/millrace-io/millrace/pipeline/event"
	"github.com/millrace-io/millrace/pipeline/pipelinetest"
	"github.com/millrace-io/millrace/pipeline/stream"
)

func TestDemoDefinitions(t *testing.T) {
	t.Parallel()
	r := commandLine(t, strings.ReplaceAll(demoDefinitions, "RECEIVER", "127.0.0.1:9099"), "check", "-").must(t)
	if want := "4 definitions are fine, 0 tests passed\n"; r.out != want || r.err != "" {
		t.Errorf("check says %q, %q", r.out, r.err)
	}
}

func TestDemoEvents(t *testing.T) {
	t.Parallel()
	catalog, err := event.BuiltinCatalog()
	if err != nil {
		t.Fatal(err)
	}
	types, users, ids := map[string]int{}, map[string]bool{}, map[string]bool{}
	for n := range 300 {
		r, err := demoEvent(catalog, "topic", "run", n)
		if err != nil {
			t.Fatal(err)
		}
		r.Time = then // as Kafka would
		e, err := event.NewDecoder(nil, "").Decode(t.Context(), &r, catalog)
		if err != nil {
			t.Fatalf("%v: %s", err, r.Value)
		}
		types[e.Type]++
		users[e.User], ids[e.ID] = true, true
		if string(r.Key) != e.User || r.Topic != "topic" {
			t.Errorf("sent with key %s to %s: %s", r.Key, r.Topic, r.Value)
		}
	}
	if len(ids) != 300 || len(users) < 30 || len(types) < 20 || types["survey.submitted"] < 100 || types["smart_walk_thru.goal_reached"] < 100 {
		t.Errorf("%d ids, %d users, types %v", len(ids), len(users), types)
	}
}

// TestDemoDefinesAgain: a broker that keeps its data has the definitions of an
// earlier run, with another address.
func TestDemoDefinesAgain(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	d := &demo{cfg: h.cfg, out: io.Discard, log: slog.New(slog.DiscardHandler)}
	for _, receiver := range []string{"127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:2"} {
		if err := d.define(t.Context(), receiver); err != nil {
			t.Fatal(err)
		}
	}
	out := h.run("list").must(t).out
	if strings.Count(out, "http://127.0.0.1:2/") != 2 || strings.Contains(out, "127.0.0.1:1/") || strings.Count(out, "  demo  ") != 4 {
		t.Errorf("in force are\n%s", out)
	}
	mine := strings.ReplaceAll(demoDefinitions, "RECEIVER", "127.0.0.1:3")
	h.runWith(mine, "apply", "-", "--force", "--owner", "me").must(t)
	if err := d.define(t.Context(), "127.0.0.1:4"); err == nil || !strings.Contains(err.Error(), `belongs to "me"`) {
		t.Errorf("over definitions of somebody else: %v", err)
	}
}

func TestDemoAddressInUse(t *testing.T) {
	t.Parallel()
	addr, _ := receiving(t)
	d := &demo{listen: addr, out: io.Discard, log: slog.New(slog.DiscardHandler)}
	if err := d.run(t.Context()); err == nil || !strings.Contains(err.Error(), addr) {
		t.Errorf("it says %v", err)
	}
}

func TestDemoWelcomesWithCommandsThatWork(t *testing.T) {
	t.Parallel()
	for want, cfg := range map[string]stream.Config{
		"tail events\n": {Brokers: []string{stream.DefaultListen}, Names: pipeline.DefaultPrefix},
		"tail events --brokers 127.0.0.1:1 --prefix my.\n": {Brokers: []string{"127.0.0.1:1"}, Names: "my."},
	} {
		var b strings.Builder
		(&demo{cfg: cfg, out: &b, log: slog.New(slog.DiscardHandler)}).welcome("127.0.0.1:2")
		if !strings.Contains(b.String(), "  "+commandName()+" "+want) {
			t.Errorf("%q is not in %q", want, b.String())
		}
	}
}

// TestUpDemo is what `make run` does: on the embedded broker, ended by a signal,
// started again on the same data, killed, and started again.
func TestUpDemo(t *testing.T) {
	t.Parallel()
	data := filepath.Join(t.TempDir(), "data")
	up := func() *program {
		return startProcess(t, "up", "--demo", "--data", data, "--kafka", pipelinetest.FreeAddr(t), "--http", pipelinetest.FreeAddr(t)).Ready(t)
	}
	p := up()
	p.out.WaitFor(t, "POST  /heap/api/track ", 2)
	p.out.WaitFor(t, "POST  /slack/services/demo ", 1)
	if code := p.Stop(t); code != exitOK {
		t.Errorf("a signal gives exit code %d", code)
	}
	p = up()
	p.out.WaitFor(t, "POST  /heap/api/track ", 1)
	p.Kill()
	p = up()
	p.out.WaitFor(t, "POST  /heap/api/track ", 1)
	if code := p.Stop(t); code != exitOK {
		t.Errorf("a signal gives exit code %d", code)
	}
	if _, err := os.Stat(data); err != nil {
		t.Error(err)
	}
}

// TestUpDemoOnKafka is the same on the tests' Kafka.
func TestUpDemoOnKafka(t *testing.T) {
	t.Parallel()
	h := emptyHouse(t)
	p := startProcess(t, h.args("up", "--demo", "--replication", "1", "--http", pipelinetest.FreeAddr(t))...).Ready(t)
	p.out.WaitFor(t, "POST  /heap/api/track ", 1)
	ctx, cancel := context.WithTimeout(t.Context(), processPatience)
	defer cancel()
	r := commandUntil(ctx, "", h.args("tail", "attempts", "--from-start", "--status", "success", "--count", "2")...).must(t)
	if n := strings.Count(r.out, "demo-"); n < 2 {
		t.Errorf("tail shows %s", r.out)
	}
	if code := p.Stop(t); code != exitOK {
		t.Errorf("a signal gives exit code %d", code)
	}
}

// TestUpTwice: two processes can't share a folder.
func TestUpTwice(t *testing.T) {
	t.Parallel()
	data := filepath.Join(t.TempDir(), "data")
	startProcess(t, "broker", "--data", data, "--kafka", pipelinetest.FreeAddr(t)).out.WaitFor(t, "Kafka on", 1)
	second := startProcess(t, "broker", "--data", data, "--kafka", pipelinetest.FreeAddr(t))
	if code := second.Wait(t); code != exitFailed || !strings.Contains(second.err.String(), data) {
		t.Errorf("the second ends with %d, %s", code, second.err)
	}
}
