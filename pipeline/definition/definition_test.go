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

// TestProblemsTellWithoutTheSecret has slips of which a secret comes out as
// something else: what is said of each helps, and does not quote it.
func TestProblemsTellWithoutTheSecret(t *testing.T) {
	t.Parallel()
	const needsQuotes = "found characters here that mean something else in YAML, expected the text"
	for lines, want := range map[string]string{
		"auth: {type: bearer, token:geheim}":                                            "4:22: found an unknown key; did you mean token with a blank behind its colon?",
		"auth: {type: header, name: X-Key, value: a, geheim}":                           "4:45: found an unknown key, expected type, name or value; a value with a comma in it needs quotes",
		"auth: {type: header, name: X-Key, value: a, geheim: geheim}":                   "4:45: found an unknown key, expected type, name or value",
		"auth:\n  type: bearer\n  tokn: geheim":                                         "6:3: found an unknown key; did you mean token?",
		"auth: {type: geheim}":                                                          `4:14: found text, expected "none", "bearer"`,
		"auth: {type: bearer, token: 17}":                                               "4:29: found an integer, expected text",
		"auth: {type: bearer, token: a, geheim: 1, geheim: 2}":                          "4:43: found this key again, expected it once; it stands in line 4 already",
		"auth: {type: basic, username: a, password: *geheim}":                           "4:44: found an alias and nowhere its anchor; text that starts with * needs quotes",
		"auth:\n  type: basic\n  password: !geheim":                                     "6:13: found a tag, expected none; text that starts with ! needs quotes",
		"auth: !geheim {type: none}":                                                    "4:7: found a tag, expected none",
		"tls: \"-----BEGIN geheim\"":                                                    "4:6: found text, expected a map of ca, cert, key",
		"signing: geheim":                                                               "4:10: found text, expected a map of secret or previous_secret",
		"signing: {secret:geheim}":                                                      "4:11: found an unknown key; did you mean secret with a blank behind its colon?",
		"request: geheim":                                                               "4:10: found text, expected a map of method, url or headers",
		"request: {url: https://x.example/a, geheim}":                                   "4:37: found an unknown key, expected method, url or headers; a value with a comma in it needs quotes",
		"request: {url: [geheim]}":                                                      "4:16: found a list, expected text",
		"request: {url: https://x.example, method: geheim}":                             `4:43: found text, expected "GET", "POST", "PUT" or "PATCH"`,
		"request:\n  headers: \"Authorization: Bearer geheim\"":                         "5:12: found text, expected a map",
		"request: {headers: {Authorization:Bearer geheim}}":                             "4:21: found text, expected the name of a header, then a colon and a blank",
		"request:\n  headers:\n    Authorization:geheim: a":                             "6:5: found text, expected the name of a header, then a colon and a blank",
		"request: {headers: {X-Key: 5, X-Other: [geheim]}}":                             "4:40: found a list, expected text",
		"request:\n  url: https://x.example/geheim#\" #\"":                              "",
		"auth: {type: basic, username: geheim, password: ${env:MILLRACE_SECRET_A}}":     needsQuotes + " behind password: in quotes",
		"request: {url: https://x.example/{{ event.user }}, headers: {X-Auth: geheim}}": needsQuotes + " behind url: in quotes",
		"request: {url: https://x.example/{{ event.user }}, headers: {X-Key: ${env:MILLRACE_SECRET_A}}} # geheim":   needsQuotes + " behind url: in quotes",
		"request: {url: https://x.example/{{ event.user }}?sig=geheim, headers: {X-Key: ${env:MILLRACE_SECRET_A}}}": needsQuotes + " behind url: in quotes",
		"request: {url: https://me:geheim@x.example/{{ event.user }}}":                                              needsQuotes + " behind url: in quotes",
		"request: {url: https://geheim@x.example/{{ event.user }}}":                                                 needsQuotes + " behind url: in quotes",
		"request: {url: https://x.example/geheim/{{ event.user }}}":                                                 needsQuotes + " behind url: in quotes",
		"auth: {type: bearer, token: ${env:geheim}}":                                                                needsQuotes + " behind token: in quotes",
		"geheim": "this is not YAML",
		"\"geheim\": {\"geheim\": 1, \"geheim\": 2": "this is not YAML",
	} {
		text := "kind: Destination\nname: x\nlane: a\n" + lines + "\n"
		for _, suffix := range []string{"", "---\nkind: Webhook\nname: w\n"} {
			_, problems := parse(text + suffix).Check(empty(t))
			told := problems.Error()
			if !strings.Contains(told, want) || strings.Contains(told, "geheim") {
				t.Errorf("%s\ngives %v\nexpected %s", lines, problems, want)
			}
		}
	}
	for _, text := range []string{"geheim", "- geheim", "\"geheim\""} {
		if _, problems := parse(text).Check(empty(t)); problems.Err() == nil || strings.Contains(problems.Error(), "geheim") {
			t.Errorf("a file %s gives %v", text, problems)
		}
	}
	for lines, want := range map[string]string{
		`"request": {"url": "https://x.example", "headers": "Authorization: Bearer geheim"}`: "found text, expected a map",
		`"auth": {"type": "bearer", "token": "a", "geheim": 1}`:                              "found an unknown key, expected type or token",
		`"auth": {"type": "bearer", "geheim": 1, "geheim": 1}`:                               "found this key again, expected it once",
		`"auth": "${env:geheim} geheim"`:                                                     "found text, expected a map of type",
	} {
		f := definition.File{Name: "f.json", Data: []byte(`{"kind": "Destination", "name": "x", ` + lines + `}`)}
		_, problems := definition.Parse(f).Check(empty(t))
		if !strings.Contains(problems.Error(), want) || strings.Contains(problems.Error(), "geheim") {
			t.Errorf("%s\ngives %v\nexpected %s", lines, problems, want)
		}
	}
}

// TestCorrectionsHelp follows every correction: with it, what it was offered for
// is gone.
func TestCorrectionsHelp(t *testing.T) {
	t.Parallel()
	url := `url: 'https://x.example/{{ event.user }}'`
	plain := strings.ReplaceAll(url, "'", "")
	for line, want := range map[string]string{
		"request: {" + plain + "}":                                                                      "request: {" + url + "}",
		"request: {" + plain + ", headers: {Content-Type: text/plain}}":                                 "request: {" + url + ", headers: {Content-Type: text/plain}}",
		"request: {headers: {Authorization: Bearer ${env:MILLRACE_SECRET_A}}, " + plain + "}":           "request: {headers: {Authorization: 'Bearer ${env:MILLRACE_SECRET_A}'}, " + url + "}",
		"request: {" + plain + ", method: DELETE}":                                                      "",
		"request: {" + url + ", headers: {Content-Type: text/plain}, method: DELETE}":                   "",
		"request: {" + url + ", headers: {{ event.user }}}":                                             "",
		"request: {" + url + "}\nauth: {type: bearer, token: ${env:MILLRACE_SECRET_A}, scopes: [a, b]}": "",
		"request: {" + url + "}\nauth: {type: oauth2, grant: refresh_token, client_id: '', token_url: a, refresh_token: ${env:MILLRACE_SECRET_A}, scopes: []}": "",
	} {
		head := "kind: Destination\nname: x\n"
		_, problems := parse(head + line + "\n").Check(empty(t))
		got := ""
		for _, p := range problems {
			got += p.Corrected
		}
		if got != want {
			t.Errorf("%s\nis corrected to\n%s\nexpected\n%s\n%v", line, got, want, problems)
		}
		if _, problems := parse(head + got + "\n").Check(empty(t)); want != "" && problems.Err() != nil {
			t.Errorf("followed, %s gives %v", got, problems)
		}
		if want != "" && len(problems) != 1 {
			t.Errorf("%s\ngives more than the slip: %v", line, problems)
		}
	}
}

// What is wrong with an event type is told once, and not again of each webhook
// that takes it.
func TestBrokenEventTypeIsToldOnce(t *testing.T) {
	t.Parallel()
	const webhook = "---\nkind: Webhook\nname: w\nevent: [my.type, launcher.clicked]\ndestination: d\n---\nkind: Destination\nname: d\nrequest: {url: https://x.example}\n"
	for text, want := range map[string]string{
		"kind: EventType\nname: my.type\nproperties: [{name: a, type: text}]\n":                              `f.yaml:3:30: found "text", expected "integer"`,
		"kind: EventType\nname: my.type\nproperties: [{name: a, type: integer, example: many}]\n":            `f.yaml:3:48: found "many", expected an example of type integer`,
		"kind: EventType\nname: my.type\ngroup: Mine\ngruop: x\n":                                            `f.yaml:4:1: found the unknown key "gruop"`,
		"kind: EventType\nname: my.other\n":                                                                  "f.yaml:6:9: warning: the event type my.type is not in the catalog",
		"kind: EventType\nname: my.type\nproperties: [{name: a, type: integer}, {name: a, type: integer}]\n": "",
	} {
		for _, more := range []string{"", "tests: [{event: {type: my.type}}]\nconditoin: x\n"} { // as it is, and with a problem of its own
			whole := text + strings.Replace(webhook, "destination: d\n", "destination: d\n"+more, 1)
			_, problems := parse(whole).Check(empty(t))
			said := problems.Error()
			if !strings.Contains(said, want) || strings.Count(said, "catalog") != strings.Count(want, "catalog") {
				t.Errorf("%s\ngives %s", whole, said)
			}
		}
	}
}
