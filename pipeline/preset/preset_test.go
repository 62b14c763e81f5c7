package preset_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/pipeline/preset"
)

// TestBuiltin runs the test cases of every preset, and wants each contract to
// be shown kept and broken, by every property that it requires at least.
func TestBuiltin(t *testing.T) {
	t.Parallel()
	for name, p := range preset.Builtin() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if err := p.RunTests(); err != nil {
				t.Error(err)
			}
			kept, breaks := 0, ""
			for _, test := range p.Tests {
				if test.Breaks == "" {
					kept++
				}
				breaks += test.Breaks + "\n"
			}
			if kept == 0 {
				t.Error("no test keeps the contract")
			}
			for name, rule := range p.Contract.Properties {
				if rule.Required && !strings.Contains(breaks, name+": is missing") {
					t.Errorf("no test leaves out %s", name)
				}
			}
		})
	}
}

// TestRunTestsFails has a test whose body does not do what it says.
func TestRunTestsFails(t *testing.T) {
	t.Parallel()
	p := *preset.Builtin()["heap"]
	p.Tests = []preset.Test{
		{Body: []byte(`{"app_id":"1","identity":"u","event":"e"}`), Breaks: "event: is missing, and required"},
		{Body: []byte(`{}`)},
	}
	err := p.RunTests()
	if err == nil || !strings.Contains(err.Error(), "tests.0 of preset heap: expected \"event: is missing") ||
		!strings.Contains(err.Error(), "tests.1 of preset heap: expected a body that keeps the contract, got \"app_id: is missing") {
		t.Errorf("the tests ended with %v", err)
	}
}

// TestHeapTable is the table of Heap's Track Event, at its limits.
func TestHeapTable(t *testing.T) {
	t.Parallel()
	heap := preset.Builtin()["heap"].Contract
	long := func(n int) string { return strings.Repeat("ü", n) } // characters, not bytes
	for _, c := range []struct{ more, want string }{
		{`"identity":"` + long(255) + `"`, ""},
		{`"identity":"` + long(256) + `"`, "identity: found 256 characters, expected at most 255"},
		{`"identity":"` + strings.Repeat(`\u00fc`, 256) + `"`, "identity: found 256 characters, expected at most 255"},
		{`"identity":"u","event":"` + long(1024) + `"`, ""},
		{`"identity":"u","event":"` + long(1025) + `"`, "event: found 1025 characters, expected at most 1024"},
		{`"identity":"u","properties":{"` + long(1023) + `":"` + long(1023) + `"}`, ""},
		{`"identity":"u","properties":{"k":"` + long(1024) + `"}`, "/properties/k: found 1024 characters, expected at most 1023"},
		{`"identity":"u","properties":{"` + long(1024) + `":1}`, "/properties/" + long(1024) + ": the name: found 1024 characters, expected at most 1023"},
		{`"identity":"u","properties":{"a":1,"b":-1.5e3,"c":"x"}`, ""},
		{`"identity":"u","properties":{"a/b":null}`, "/properties/a~1b: found null, expected a string or a number"},
		{`"identity":"u","properties":[]`, "properties: found an array, expected an object"},
		{`"identity":1e3`, "identity: found a number, expected a string"},
	} {
		body := `{"app_id":"11",` + c.more
		if !strings.Contains(body, `"event"`) {
			body += `,"event":"e"`
		}
		got := ""
		if err := heap.Check([]byte(body + "}")); err != nil {
			got = err.Error()
		}
		if got != c.want {
			t.Errorf("%s: %q, expected %q", c.more, got, c.want)
		}
	}
}

// TestHeapTimestamp has the forms of a time that Heap documents: ISO 8601 or
// milliseconds since 1970.
func TestHeapTimestamp(t *testing.T) {
	t.Parallel()
	heap := preset.Builtin()["heap"].Contract
	check := func(timestamp string) error {
		return heap.Check(fmt.Appendf(nil, `{"app_id":"11","identity":"u-1","event":"e","timestamp":%q}`, timestamp))
	}
	for _, legal := range []string{
		"0", "1", "-1000", "978307199999", "1777888800000", "10000000000000",
		"2026-05-04", "20260504", "2026-05", "2026-W18-1", "2026W181", "2026-W18", "2026-124", "2026124", "2024-366",
		"2026-05-04T10Z", "2026-05-04T10:00", "2026-05-04T10:00:00", "2026-05-04T10:00:00.123Z", "2026-05-04T10:00:00,5+02:00",
		"2026-05-04T10:00:00+02", "2026-05-04T10:00:00-0330", "2026-05-04T24:00:00Z", "2016-12-31T23:59:60Z",
		"20260504T100000Z", "20260504T100000.123+0200", "20260504T1000", "2026-W18-1T10:00:00Z",
	} {
		if err := check(legal); err != nil {
			t.Errorf("%q: %v", legal, err)
		}
	}
	for _, illegal := range []string{
		"", "-", "now", "1.5", "1e12", "2026-99-99", "2026-00-01", "2026-13-01", "2026-05-00", "2026-05-32", "2026-W54-1", "2026-W18-8", "2026-399",
		"2026-05-04T", "2026-05-04T25:00", "2026-05-04T10:60", "2026-05-04T10:00:61", "2026-05-04T10:00:00+24:00", "2026-05-04T10:00:00.",
		"2026-05-04 10:00:00", "04.05.2026", "May 4, 2026", " 2026-05-04", "2026-05-04Z",
	} {
		if check(illegal) == nil {
			t.Errorf("%q is taken", illegal)
		}
	}
}

const minimal = `
kind: Preset
platform: P
description: d
docs: [https://example.com]
destination: {request: {url: https://example.com}}
contract: {type: object}
tests: [{body: {}}]
example: {event: e, properties: [{name: a, value: 1}]}
`

func TestParse(t *testing.T) {
	t.Parallel()
	p, err := preset.Parse("some/where/p.yaml", []byte(minimal))
	if err != nil || p.Name != "p" || !preset.IsPreset([]byte(minimal)) || preset.IsPreset([]byte("kind: Webhook")) {
		t.Fatalf("%+v, error %v", p, err)
	}
	if _, err := preset.Parse("<stdin>", []byte(minimal)); err == nil || !strings.Contains(err.Error(), "named after the preset") {
		t.Errorf("without a name: %v", err)
	}
	for change, want := range map[string]string{
		"kind: Preset -> kind: Webhook":          `found kind "Webhook"`,
		"docs: -> dogs:":                         "field dogs not found",
		"platform: P -> ":                        "expected platform, description and docs",
		"tests: [{body: {}}] -> ":                "expected destination, contract, tests and example",
		"type: object -> type: map":              `found the type "map"`,
		"type: object -> form: a":                "expected form and form_means together",
		"type: object -> form: (, form_means: x": "compiling form",
		"type: object -> any_of: [a]":            `found "a" in any_of`,
		"type: object -> properties: {a: {items: {type: [string, thing]}}}": `a: found the type "thing"`,
		"platform: P -> platform: [":                                        "reading preset p.yaml",
		"docs: -> ---\ndocs:":                                               "expected",
		"docs: -> url_secret: /(\ndocs:":                                    "compiling url_secret",
		"docs: -> url_secret: /a\ndocs:":                                    "found url_secret with 0 groups, expected one",
	} {
		from, to, _ := strings.Cut(change, " -> ")
		_, err := preset.Parse("p.yaml", []byte(strings.Replace(minimal, from, to, 1)))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, expected %s", change, err, want)
		}
	}
}

func TestMissingQuery(t *testing.T) {
	t.Parallel()
	p := preset.Preset{Query: []string{"id", "secret"}}
	for url, want := range map[string]string{
		"https://x.example/?id=1&secret=${env:MILLRACE_SECRET_X}": "",
		"https://x.example/?secret=2&id=":                         "id",
		"https://x.example/id=1/secret=2":                         "id,secret",
		"https://x.example/?identity=1&secret=2":                  "id",
	} {
		if got := strings.Join(p.MissingQuery(url), ","); got != want {
			t.Errorf("%s lacks %q, expected %q", url, got, want)
		}
	}
}
