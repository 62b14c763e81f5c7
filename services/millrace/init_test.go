package main

import (
	"strings"
	"testing"

	"github.com/millrace-io/millrace/pipeline/stream"
)

func TestInit(t *testing.T) {
	t.Parallel()
	h := emptyHouse(t)
	names := h.cfg.Names
	first := h.run("init", "--partitions", "2", "--replication", "1").must(t)
	for _, topic := range []string{names.Events(), names.Matches(), names.Deliveries("default"), names.Definitions(), names.DeadLetters()} {
		if !strings.Contains(first.out, "created "+topic+"\n") {
			t.Errorf("%s was not created:\n%s", topic, first.out)
		}
	}
	if again := h.run("init").must(t); again.out != "everything is there\n" {
		t.Errorf("again, it says %s", again.out)
	}
	topics, err := stream.DescribeTopics(t.Context(), h.cfg, names.Matches())
	if err != nil || topics[names.Matches()].Partitions != 2 {
		t.Errorf("topics are %v, %v", topics, err)
	}
}

func TestInitJSON(t *testing.T) {
	t.Parallel()
	h := emptyHouse(t)
	r := h.run("init", "--partitions", "1", "--replication", "1", "--json").must(t)
	o := objects(t, r.out)[0]
	created, _ := o["Created"].([]any)
	if starts, _ := o["Starts"].([]any); len(created) < 10 || len(starts) != 1 {
		t.Errorf("it prints %s", r.out)
	}
}

// TestInitProblems: a topic that was there before does not fit. Nothing is
// changed about it, and the exit code says so.
func TestInitProblems(t *testing.T) {
	t.Parallel()
	h := emptyHouse(t)
	h.run("init", "--partitions", "2", "--replication", "1").must(t)
	r := h.run("init", "--partitions", "3")
	r.fails(t, exitFailed, "settings of existing topics do not fit")
	if !strings.Contains(r.out, "problem: topic "+h.cfg.Names.Matches()+": partitions is 2, not 3") {
		t.Errorf("it says %s", r.out)
	}
}

func TestInitTopicThatIsMissing(t *testing.T) {
	t.Parallel()
	h := emptyHouse(t)
	theirs := string(h.cfg.Names) + "theirs"
	r := h.run("init", "--partitions", "1", "--replication", "1", "--events-topics", theirs).must(t)
	if !strings.Contains(r.out, "note: event topic "+theirs+" does not exist") || strings.Contains(r.out, "created "+h.cfg.Names.Events()) {
		t.Errorf("it says %s", r.out)
	}
}

func TestPrintInit(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	err := printInit(&b, stream.InitReport{
		Created: []string{"a"}, Notes: []string{"b"},
		Problems: []stream.Problem{{Topic: "c", Setting: "partitions", Found: "3", Want: "2", Fix: "create it again"}},
	})
	if want := "created a\nnote: b\nproblem: topic c: partitions is 3, not 2: create it again\n"; b.String() != want {
		t.Errorf("it prints %q, expected %q", b.String(), want)
	}
	if err == nil || !strings.Contains(err.Error(), "1 settings of existing topics do not fit") {
		t.Errorf("the error is %v", err)
	}
}
