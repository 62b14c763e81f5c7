package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/millrace-io/millrace/pipeline"
	"github.com/millrace-io/millrace/pipeline/pipelinetest"
	"github.com/millrace-io/millrace/pipeline/stream"
)

var update = flag.Bool("update", false, "write the golden files anew")

func TestMain(m *testing.M) {
	if os.Getenv(runMain) == "1" {
		main()
	}
	for _, v := range os.Environ() { // a developer's own settings
		name, _, _ := strings.Cut(v, "=")
		if isSetting(name) && !strings.HasPrefix(name, "MILLRACE_TEST_") {
			os.Unsetenv(name)
		}
	}
	time.Local = time.UTC
	pipelinetest.Main(m)
}

// isSetting says whether a variable of the environment changes what Millrace does.
func isSetting(name string) bool {
	return strings.HasPrefix(name, "MILLRACE_") || strings.HasPrefix(name, "OTEL_")
}

// result is what a command line did.
type result struct {
	code     int
	out, err string
}

// commandLine runs a command line in this process.
func commandLine(t testing.TB, stdin string, args ...string) result {
	t.Helper()
	return commandUntil(t.Context(), stdin, args...)
}

func commandUntil(ctx context.Context, stdin string, args ...string) result {
	var out, err bytes.Buffer
	code := run(ctx, args, streams{strings.NewReader(stdin), &out, &err})
	return result{code, out.String(), err.String()}
}

// must fails the test unless the command succeeded.
func (r result) must(t testing.TB) result {
	t.Helper()
	if r.code != exitOK {
		t.Fatalf("exit code %d\n--- stdout\n%s--- stderr\n%s", r.code, r.out, r.err)
	}
	return r
}

// fails fails the test unless the command ended with that code and said that.
func (r result) fails(t testing.TB, code int, says string) {
	t.Helper()
	if r.code != code || !strings.Contains(r.err, says) {
		t.Errorf("exit code %d, expected %d and %q\n--- stdout\n%s--- stderr\n%s", r.code, code, says, r.out, r.err)
	}
}

// house is a Kafka on which init has run.
type house struct {
	cfg stream.Config
	t   testing.TB
}

func newHouse(t testing.TB) *house {
	t.Helper()
	h := emptyHouse(t)
	h.run("init", "--partitions", "2", "--replication", "1").must(t)
	return h
}

// emptyHouse is a Kafka on which nothing has run.
func emptyHouse(t testing.TB) *house {
	t.Helper()
	b := pipelinetest.Broker(t)
	return &house{stream.Config{Brokers: b.Addrs, Names: b.Names, Instance: "test"}, t}
}

// run runs a command against this Kafka.
func (h *house) run(args ...string) result {
	h.t.Helper()
	return h.runWith("", args...)
}

func (h *house) runWith(stdin string, args ...string) result {
	h.t.Helper()
	return commandLine(h.t, stdin, h.args(args...)...)
}

// args adds where this Kafka is.
func (h *house) args(args ...string) []string {
	return append(args, "--brokers", strings.Join(h.cfg.Brokers, ","), "--prefix", string(h.cfg.Names))
}

// produce writes records as they are.
func (h *house) produce(rs ...pipeline.Record) {
	h.t.Helper()
	p, err := stream.NewProducer(h.cfg)
	if err != nil {
		h.t.Fatal(err)
	}
	defer p.Close()
	if err := p.Produce(h.t.Context(), rs); err != nil {
		h.t.Fatal(err)
	}
}

// read returns the first n records of a topic.
func (h *house) read(topic string, n int) (rs []pipeline.Record) {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(h.t.Context(), processPatience)
	defer cancel()
	done := errors.New("done")
	err := stream.Read(ctx, h.cfg, []string{topic}, stream.FromStart(), func(r pipeline.Record) error {
		if rs = append(rs, r); len(rs) == n {
			return done
		}
		return nil
	})
	if !errors.Is(err, done) {
		h.t.Fatalf("reading %d records of %s: %d, then %v", n, topic, len(rs), err)
	}
	return rs
}

// golden compares text with a file in testdata.
func golden(t testing.TB, name, text string) {
	t.Helper()
	path := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if text != string(want) {
		t.Errorf("not what %s says (-update writes it):\n%s", path, text)
	}
}

// tempFile writes a file into a folder of the test's own.
func tempFile(t testing.TB, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// objects reads lines of JSON.
func objects(t testing.TB, text string) (out []map[string]any) {
	t.Helper()
	for line := range strings.Lines(text) {
		var o map[string]any
		if err := json.Unmarshal([]byte(line), &o); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		out = append(out, o)
	}
	return out
}

func TestHelp(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{}, {"--help"}} {
		r := commandLine(t, "", args...).must(t)
		for _, want := range []string{"up ", "broker ", "init ", "filter ", "transform ", "sink ", "check ", "apply ", "export ", "list ", "destinations ", "test ", "explain ", "send ", "tail ", "receive "} {
			if !strings.Contains(r.out, "\n  "+want) {
				t.Errorf("%v: the help does not list %s", args, want)
			}
		}
	}
}

// TestExamplesInHelp takes the examples of each command's help for command lines.
func TestExamplesInHelp(t *testing.T) {
	t.Parallel()
	word := regexp.MustCompile(`'[^']*'|[^\s'=]+='[^']*'|\S+`)
	for _, command := range []string{
		"up", "broker", "init", "filter", "transform", "sink", "check", "apply", "export", "list", "seal",
		"keys create", "keys rotate", "keys public", "keys publish", "test", "explain", "send", "tail", "receive",
		"destinations list", "destinations show", "destinations pause", "destinations resume",
	} {
		r := commandLine(t, "", append(strings.Fields(command), "--help")...).must(t)
		examples := 0
		for line := range strings.Lines(r.out) {
			_, line, ok := strings.Cut(line, "    millrace ")
			if !ok {
				continue
			}
			examples++
			line, _, _ = strings.Cut(line, " | ")
			line, _, _ = strings.Cut(line, " > ")
			line, _, _ = strings.Cut(line, " < ")
			var args []string
			for _, w := range word.FindAllString(line, -1) {
				args = append(args, strings.ReplaceAll(w, "'", ""))
			}
			if got := commandLine(t, "", append(args, "--help")...); got.code != exitOK {
				t.Errorf("%q: exit code %d: %s", line, got.code, got.err)
			}
		}
		if examples == 0 {
			t.Errorf("the help of %s has no example", command)
		}
	}
}

func TestUsageErrors(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		args string
		says string
	}{
		{"fly", "fly"},
		{"send --colour red", "--colour"},
		{"send", "nothing to send"},
		{"send events.jsonl --type x", "either from a file or from flags"},
		{"send --type x --example y", "leave out --type"},
		{"send --type x --count 0", "at least 1"},
		{"send --type x --id 1 --count 2", "leave out --count or --id"},
		{"send --type x --format xml", "--format"},
		{"tail", "<what>"},
		{"tail everything", "everything"},
		{"tail events --webhook x", "--webhook does not work with events, only with attempts, dead-letters, deliveries, matches"},
		{"tail deliveries --status 500", "--status does not work with deliveries, only with attempts"},
		{"tail attempts --status bad", `--status "bad": expected a status (503), a class (5xx)`},
		{"tail events --type [x", "a [ has no end"},
		{"tail events --since yesterday", `--since "yesterday": expected how long ago`},
		{"tail events --since 1h --from-start", "exclude each other"},
		{"receive --status 99", `"99" is no status from 200 to 599`},
		{"receive --status 500:10%,200", "mixes a list and shares"},
		{"list widgets", "widgets"},
		{"sink --lanes [x", "[x"},
		{"list --brokers nowhere", `"nowhere" is not host:port`},
		{"filter --log-level loud", "loud"},
		{"up --brokers localhost:9092 --data other", "--data is of the embedded broker, but --brokers (or MILLRACE_BROKERS) says to use the Kafka at localhost:9092"},
	} {
		commandLine(t, "", strings.Fields(test.args)...).fails(t, exitUsage, test.says)
	}
}

func TestNoKafka(t *testing.T) {
	t.Parallel()
	addr := pipelinetest.FreeAddr(t)
	for _, command := range []string{"init", "list", "export", "seal crm auth.token", "send --type x", "tail events", "up"} {
		args := append(strings.Fields(command), "--brokers", addr)
		commandLine(t, "", args...).fails(t, exitFailed, "no Kafka at "+addr)
	}
}

func TestReport(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		err  error
		code int
		says string
	}{
		{nil, exitOK, ""},
		{errors.New("oh"), exitFailed, "millrace: oh\n"},
		{errSaid, exitFailed, ""},
		{fmt.Errorf("more: %w", errSaid), exitFailed, ""},
		{&codeError{exitChanged, errors.New("oh")}, exitChanged, "millrace: oh\n"},
		{fmt.Errorf("on: %w", &codeError{exitUsage, errors.New("oh")}), exitUsage, "millrace: on: oh\n"},
	} {
		var b bytes.Buffer
		if code := report(&b, test.err); code != test.code || b.String() != test.says {
			t.Errorf("report(%v) = %d, %q", test.err, code, b.String())
		}
	}
}

// A signal ends a service that is about to start too, and that is no failure.
func TestQuietly(t *testing.T) {
	t.Parallel()
	ended, end := context.WithCancel(t.Context())
	end()
	other := errors.New("other")
	for _, c := range []struct {
		ctx       context.Context
		err, want error
	}{
		{t.Context(), context.Canceled, context.Canceled},
		{t.Context(), nil, nil},
		{ended, fmt.Errorf("initializing: %w", context.Canceled), nil},
		{ended, other, other},
	} {
		if got := quietly(c.ctx, c.err); !errors.Is(got, c.want) || (got == nil) != (c.want == nil) {
			t.Errorf("of %v it leaves %v", c.err, got)
		}
	}
}

func TestVersion(t *testing.T) {
	t.Parallel()
	if r := commandLine(t, "", "--version").must(t); r.out != version+"\n" {
		t.Errorf("--version prints %q", r.out)
	}
}
