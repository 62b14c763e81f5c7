package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/pipeline/definition"
)

const (
	destinationYAML = `kind: Destination
name: crm
request:
  url: https://crm.example.com/
`
	webhookYAML = `kind: Webhook
name: to-crm
event: survey.submitted
condition: |
  props["nps_score"] <= 6
destination: crm
tests:
  - event: {type: survey.submitted, properties: {nps_score: 3}}
    fires: true
`
	bothYAML = destinationYAML + "---\n" + webhookYAML
)

func TestCheck(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for name, text := range map[string]string{"a.yaml": destinationYAML, "sub/b.yml": webhookYAML, "notes.txt": "no definition"} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, r := range []result{
		commandLine(t, "", "check", dir),
		commandLine(t, bothYAML, "check", "-"),
		commandLine(t, webhookYAML, "check", "-", filepath.Join(dir, "a.yaml")),
	} {
		if r.must(t); r.out != "2 definitions are fine, 1 tests passed\n" {
			t.Errorf("it says %s", r.out)
		}
	}
}

func TestCheckProblems(t *testing.T) {
	t.Parallel()
	broken := strings.Replace(strings.Replace(bothYAML, "nps_score", "nps_scor", 1), "destination: crm\n", "destination: crm\ncolour: red\n", 1)
	r := commandLine(t, broken, "check", "-")
	r.fails(t, exitFailed, "<stdin>:10:")
	for _, says := range []string{"did you mean nps_score?", "colour"} {
		if !strings.Contains(r.err, says) {
			t.Errorf("%q is not said in %s", says, r.err)
		}
	}
	if strings.Contains(r.err, "millrace:") || r.out != "" {
		t.Errorf("beside the problems it says %s%s", r.err, r.out)
	}
	j := commandLine(t, broken, "check", "-", "--json")
	j.fails(t, exitFailed, "")
	problems, _ := objects(t, j.out)[0]["problems"].([]any)
	if len(problems) < 2 || problems[0].(map[string]any)["line"] == nil {
		t.Errorf("as JSON it prints %s", j.out)
	}
}

// TestCheckPreset has files of presets, with definitions beside them.
func TestCheckPreset(t *testing.T) {
	t.Parallel()
	heap, err := os.ReadFile("../../pipeline/preset/heap.yaml")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	fine := write("fine.yaml", string(heap))
	if r := commandLine(t, bothYAML, "check", "-", fine).must(t); !strings.HasPrefix(r.out, "3 definitions are fine, ") {
		t.Errorf("it says %s", r.out)
	}
	commandLine(t, "", "check", write("slip.yaml", string(heap)+"colour: red\n")).fails(t, exitFailed, "slip.yaml: reading preset")
	wrong := write("wrong.yaml", strings.Replace(string(heap), "max_length: 255", "max_length: 256", 1))
	r := commandLine(t, bothYAML, "check", "-", wrong)
	r.fails(t, exitFailed, "wrong.yaml: tests.")
	if !strings.Contains(r.err, `expected "identity: found 256 characters, expected at most 255"`) {
		t.Errorf("it says %s", r.err)
	}
}

func TestCheckFailingTest(t *testing.T) {
	t.Parallel()
	broken := strings.Replace(bothYAML, "nps_score: 3", "nps_score: 7", 1)
	commandLine(t, broken, "check", "-").fails(t, exitFailed, "<stdin>:")
	fine := commandLine(t, bothYAML, "check", "-", "--json").must(t)
	if want := `{"definitions":2,"problems":[],"tests":1}` + "\n"; fine.out != want {
		t.Errorf("it prints %s, expected %s", fine.out, want)
	}
}

func TestReadFilesProblems(t *testing.T) {
	t.Parallel()
	commandLine(t, "", "check", filepath.Join(t.TempDir(), "none")).fails(t, exitFailed, "none")
	commandLine(t, "", "check", t.TempDir()).fails(t, exitFailed, "no *.yaml, *.yml or *.json in")
}

func TestApply(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	plan := "+ Destination crm\n+ Webhook to-crm\n2 to add, 0 to change, 0 to remove, 0 unchanged\n"
	if r := h.runWith(bothYAML, "apply", "-", "--dry-run").must(t); r.out != plan {
		t.Errorf("--dry-run shows %s, expected %s", r.out, plan)
	}
	if r := h.run("list").must(t); strings.Contains(r.out, "crm") {
		t.Errorf("--dry-run has written %s", r.out)
	}
	r := h.runWith(bothYAML, "apply", "-").must(t)
	if !strings.HasPrefix(r.out, plan) || !strings.Contains(r.out, "2 changes are in force at offset ") {
		t.Errorf("it says %s", r.out)
	}
	changed := strings.Replace(bothYAML, "<= 6", "<= 5", 1)
	if r := h.runWith(changed, "apply", "-").must(t); !strings.Contains(r.out, "~ Webhook to-crm\n    condition: ") {
		t.Errorf("of a change it says %s", r.out)
	}
	if r := h.runWith(changed, "apply", "-").must(t); r.out != "0 to add, 0 to change, 0 to remove, 2 unchanged\n" {
		t.Errorf("of no change it says %s", r.out)
	}
	if r := h.runWith(destinationYAML, "apply", "-", "--prune", "--json").must(t); !regexp.MustCompile(`^\{"changes":\[\{"op":"remove","kind":"Webhook","name":"to-crm","from":\{.*\}\}\],"unchanged":1,"problems":\[\],"offset":\d+\}\n$`).MatchString(r.out) {
		t.Errorf("as JSON it prints %s", r.out)
	}
	r = h.runWith(destinationYAML, "apply", "-", "--json").must(t)
	if r.out != `{"changes":[],"unchanged":1,"problems":[]}`+"\n" {
		t.Errorf("of no change it prints %s as JSON", r.out)
	}
	r = h.runWith(webhookYAML+"---\nkind: Webhook\nname: w\nevent: x\ndestination: crn\n", "apply", "-", "--json")
	if r.code != exitFailed || !strings.Contains(r.out, `"problems":[{"file":"<stdin>",`) || !strings.Contains(r.out, `"lacks":true`) {
		t.Errorf("of problems it prints %s%s", r.out, r.err)
	}
	if r := h.run("list", "--json").must(t); strings.Contains(r.out, "to-crm") || !strings.Contains(r.out, "crm") {
		t.Errorf("after --prune, in force is %s", r.out)
	}
}

func TestApplyRefuses(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.runWith(webhookYAML, "apply", "-").fails(t, exitFailed, `crm`)
	h.runWith(bothYAML, "apply", "-", "--owner", "a").must(t)
	h.runWith(bothYAML, "apply", "-", "--owner", "b").fails(t, exitFailed, `belongs to "a", not to "b"`)
	h.runWith(bothYAML, "apply", "-", "--owner", "b", "--force").must(t)
	if r := h.run("list").must(t); strings.Count(r.out, "  b  ") != 2 {
		t.Errorf("after --force, in force is\n%s", r.out)
	}
}

// TestApplyTooLate: of two who decide on the same state, the second is told.
func TestApplyTooLate(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	base, err := current(t.Context(), h.cfg)
	if err != nil {
		t.Fatal(err)
	}
	set := definition.Parse(definition.File{Name: "x.yaml", Data: []byte(bothYAML)})
	plan, problems := definition.NewPlan(base, set, definition.Options{Owner: "files"})
	if err := problems.Err(); err != nil {
		t.Fatal(err)
	}
	h.runWith(strings.Replace(bothYAML, "<= 6", "<= 5", 1), "apply", "-").must(t)
	_, err = write(t.Context(), h.cfg, plan)
	if c, ok := errors.AsType[*codeError](err); !ok || c.code != exitChanged {
		t.Errorf("the second gets %v", err)
	}
	if r := h.run("export").must(t); !strings.Contains(r.out, "<= 5") {
		t.Errorf("in force is %s", r.out)
	}
}

func TestExportCanBeApplied(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.runWith(bothYAML+"---\nkind: EventType\nname: billing.paid\nproperties:\n  - name: amount\n    type: integer\n", "apply", "-").must(t)
	exported := h.run("export").must(t).out
	if r := h.runWith(exported, "apply", "-").must(t); r.out != "0 to add, 0 to change, 0 to remove, 3 unchanged\n" {
		t.Errorf("applying\n%s\nsays %s", exported, r.out)
	}
}

func TestList(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.runWith(bothYAML+"---\nkind: EventType\nname: billing.paid\n", "apply", "-").must(t)
	numbers := regexp.MustCompile(`\d+ +files`)
	golden(t, "list", numbers.ReplaceAllString(h.run("list").must(t).out, "N  files"))
	for kind, want := range map[string]string{"webhooks": "Webhook", "destinations": "Destination", "event-types": "EventType"} {
		rows := h.run("list", kind, "--json").must(t).out
		if n := strings.Count(rows, `"kind"`); n != 1 || !strings.Contains(rows, `"kind":"`+want+`"`) {
			t.Errorf("list %s prints %s", kind, rows)
		}
	}
	if out := newHouse(t).run("list", "--json").must(t).out; out != "[]\n" {
		t.Errorf("of nothing it prints %s", out)
	}
}

func TestCurrentWithoutInit(t *testing.T) {
	t.Parallel()
	h := emptyHouse(t)
	for _, command := range []string{"list", "export"} {
		h.run(command).fails(t, exitFailed, "millrace init")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := current(ctx, h.cfg); err == nil {
		t.Error("a context that has ended gives no error")
	}
}
