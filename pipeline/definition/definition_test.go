package definition_test

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/pipeline/definition"
	"github.com/millrace-io/millrace/pipeline/event"
)

var update = flag.Bool("update", false, "write the golden files anew")

// empty is the snapshot in which nothing is defined.
func empty(t testing.TB) *definition.Snapshot {
	t.Helper()
	c, err := event.BuiltinCatalog()
	if err != nil {
		t.Fatal(err)
	}
	return definition.NewSnapshot(c)
}

// parse reads a text as one YAML file.
func parse(text string) *definition.Set {
	return definition.Parse(definition.File{Name: "f.yaml", Data: []byte(text)})
}

// TestProblems compares what is said about each file of testdata/errors with the
// golden file beside it.
func TestProblems(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/errors/*.*")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		if strings.HasSuffix(name, ".golden") {
			continue
		}
		t.Run(filepath.Base(name), func(t *testing.T) {
			t.Parallel()
			data, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			_, problems := definition.Parse(definition.File{Name: filepath.Base(name), Data: data}).Check(empty(t))
			if problems.Err() == nil {
				t.Error("no problems found")
			}
			golden(t, name+".golden", fmt.Sprintln(problems.Error()))
		})
	}
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(name, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(want, []byte(got)) {
		t.Errorf("%s differs (-update writes it anew); got:\n%s", name, got)
	}
}

func read(t testing.TB, name string) string {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestWebhooksOwnTests(t *testing.T) {
	t.Parallel()
	heap := read(t, "testdata/heap.yaml")
	for name, c := range map[string]struct {
		text  string
		count int
		want  string
	}{
		"all pass": {heap, 2, ""},
		"another body": {
			strings.Replace(heap, `app_id: "11"`+"\n      event", "app_id: 11\n      event", 1), 2,
			`f.yaml:36:7: the test failed: expected the body {"identity":"u-1","app_id":11,"event":"Walk-Thru Goal Reached","properties":{"subject":"Signed up"}}, ` +
				`got {"identity":"u-1","app_id":"11","event":"Walk-Thru Goal Reached","properties":{"subject":"Signed up"}}`,
		},
		"fires wrongly": {
			strings.Replace(heap, "walk_thru_id: 1\n", "walk_thru_id: 12345\n", 1), 2,
			"f.yaml:40:5: the test failed: expected that the webhook does not fire, but it fires, since its condition holds",
		},
		"does not fire": {
			strings.Replace(heap, "        walk_thru_id: 12345", "        walk_thru_id: 1234", 1), 2,
			"f.yaml:29:5: the test failed: expected that the webhook fires, but it does not fire, since its condition does not hold",
		},
		"another environment": {
			strings.Replace(heap, "      user: u-1\n      properties:\n        walk_thru_id: 12345", "      environment: qa\n      properties:\n        walk_thru_id: 12345", 1), 2,
			"f.yaml:29:5: the test failed: expected that the webhook fires, but it does not fire, since the event's environment is qa, not production",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			set := parse(c.text)
			after, problems := set.Check(empty(t))
			if err := problems.Err(); err != nil {
				t.Fatal(err)
			}
			count, failures := set.RunTests(t.Context(), after)
			if count != c.count || failures.Error() != c.want {
				t.Errorf("%d tests, failures:\n%s\nexpected:\n%s", count, failures.Error(), c.want)
			}
		})
	}
}

// TestProblemsShowNoSecrets makes every slip around a secret that is written
// down as it is.
func TestProblemsShowNoSecrets(t *testing.T) {
	t.Parallel()
	for _, auth := range []string{
		"auth: {type: bearer, token: geheim}", "auth: {type: bearer, token: [geheim]}", "auth: {type: bearer, token: {geheim: 1}}",
		"auth: {type: basic, username: ${env:MILLRACE_SECRET_X}, password: geheim}", "auth:\n  type: bearer\n  token: | geheim",
		"auth:\n  type: bearer\n  token: \"geheim\" ${env:X}", "auth:\n  type: bearer\n  token: geheim ${", "auth:\n  type: bearer\n  token: geheim${env:HOME}",
		"auth:\n  type: bearer\n  token: !x geheim", "auth:\n  type: bearer\n  token: geheim: ${env:MILLRACE_SECRET_X}",
		"auth:\n  type: bearer\n  token: [geheim", "auth:\n  type: bearer\n  token: \"geheim", "auth:\n  type: bearer\n  token: @geheim",
		"auth: {type: header, name: X-Key, value: geheim}", "auth: {type: header, name: X-Key, value: 17, token: geheim}",
		"auth: {type: header, name: X-Key, value: geheim, bogus: ${env:X}}", "auth: {type: header, name: X-Key, value: geheim, ${env:X}: 1}",
		"auth: {type: header, name: X-Key, value: geheim: ${env:MILLRACE_SECRET_X}}", "auth:\n  type: header\n  name: X-Key\n  value: geheim: ${env:MILLRACE_SECRET_X}",
		"auth:\n  type: header\n  name: X-Key\n  value: [geheim ${env:X}", "auth: {type: property, name: a, value: geheim ${env:X], props[\"a\"]}",
		"auth: {type: header, name: X-Key, value: MILLRACE_SECRET_geheim}", "auth: {type: bearer, token: \"${env:MILLRACE_SECRET_X}geheim\"}",
		"auth: {type: bearer, token: \"${sealed:geheim}\"}", "tls: {key: geheim}", "tls: {key: \"geheim${file:a}\"}",
		"signing: {secret: geheim}", "signing: {secret: whsec_geheim}", "signing:\n  secret: geheim${file:a}", "signing: geheim", "auth: geheim", "auth: [geheim]",
	} {
		_, problems := definition.NewPlan(empty(t), parse("kind: Destination\nname: x\nrequest: {url: https://x.example}\n"+auth+"\n"), definition.Options{})
		if err := problems.Err(); err == nil || strings.Contains(err.Error(), "geheim") {
			t.Errorf("%s\ngives %v", auth, err)
		}
	}
}
