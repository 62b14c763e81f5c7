package preset_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/pipeline/preset"
)

// withResponses is a preset whose file has these responses.
func withResponses(text string) (*preset.Preset, error) {
	return preset.Parse("my.yaml", []byte(`kind: Preset
platform: Mine
description: does it
docs: [https://mine.example]
destination: {request: {url: "https://mine.example"}}
contract: {type: object}
tests: [{body: {}}]
example: {properties: []}
responses:
`+text))
}

func TestResponseIs(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		rule, is, not string // bodies, each in a line
	}{
		{`{contains: no_service}`, "no_service\n{\"error\":\"no_service\"}", "\nno service\nNO_SERVICE"},
		{`{at: /status, equals: 0}`, "{\"status\":0}\n {\"status\": 0.0, \"error\":\"x\"}", "{\"status\":\"0\"}\n{\"status\":1}\n{\"error\":0}\n[0]\n0\n\n{\"status\":0"},
		{`{at: /errors/0/code, equals: BAD}`, "{\"errors\":[{\"code\":\"BAD\"}]}", "{\"errors\":[]}\n{\"errors\":[\"BAD\"]}\n{\"errors\":{\"1\":{\"code\":\"BAD\"}}}"},
		{`{at: /a~1b/~0, equals: x}`, "{\"a/b\":{\"~\":\"x\"}}", "{\"a/b\":{}}"},
		{`{at: /ok, equals: {a: [1, x]}}`, "{\"ok\":{\"a\":[1,\"x\"]}}", "{\"ok\":{\"a\":[1]}}"},
		{`{at: /ok, equals: {a: [1, x]}}`, "{\"ok\":{\"a\":[1.0,\"x\"]}}", "{\"ok\":{\"a\":[1,\"y\"]}}\n{\"ok\":{\"b\":[1,\"x\"]}}\n{\"ok\":[1,\"x\"]}"},
		{`{at: /id, equals: 12345678901234567890123}`, "{\"id\":12345678901234567890123}", "{\"id\":12345678901234567890999}\n{\"id\":\"12345678901234567890123\"}\n{\"id\":1} x"},
		{`{at: /zip, equals: 0123}`, "{\"zip\":\"0123\"}", "{\"zip\":83}\n{\"zip\":123}"},
		{`{at: /day, equals: 2026-05-04}`, "{\"day\":\"2026-05-04\"}", "{\"day\":\"2026-05-04T00:00:00Z\"}"},
		{`{contains: late, at: /ok, equals: false}`, "{\"ok\":false,\"why\":\"late\"}", "{\"ok\":false}\nlate"},
		{`{status: 404}`, "\nanything", ""},
	} {
		rule := strings.Replace(c.rule, "{", "- {means: pause, about: x, ", 1)
		if strings.Contains(c.rule, "at:") || strings.Contains(c.rule, "contains:") {
			rule = strings.TrimSuffix(rule, "}") + fmt.Sprintf(", example: %q}", strings.Split(c.is, "\n")[0])
		}
		p, err := withResponses(rule)
		if err != nil {
			t.Errorf("%s: %v", c.rule, err)
			continue
		}
		for body := range strings.SplitSeq(c.is, "\n") {
			if !p.Responses[0].Is([]byte(body)) {
				t.Errorf("%s is not about %q", c.rule, body)
			}
		}
		for body := range strings.SplitSeq(c.not, "\n") {
			if c.not != "" && p.Responses[0].Is([]byte(body)) {
				t.Errorf("%s is about %q", c.rule, body)
			}
		}
		if err := p.RunTests(); err != nil {
			t.Errorf("%s: %v", c.rule, err)
		}
	}
}

func TestResponsesAreChecked(t *testing.T) {
	t.Parallel()
	for rule, want := range map[string]string{
		`{means: pause, about: x}`:                                                           "expected status, contains or at",
		`{status: 4, means: pause, about: x}`:                                                `found the status "4"`,
		`{status: 600, means: pause, about: x}`:                                              `found the status "600"`,
		`{status: 404, means: not_sent, about: x}`:                                           `found "not_sent" under means`,
		`{status: 404, means: pause}`:                                                        "expected about",
		`{contains: x, means: pause, about: x}`:                                              "expected an example",
		`{status: 404, means: pause, about: x, example: x}`:                                  "expected an example where",
		`{at: ok, equals: 1, means: pause, about: x, example: x}`:                            "expected at, a JSON Pointer",
		`{at: /ok, means: pause, about: x, example: x}`:                                      "together with equals",
		`{equals: 1, contains: x, means: pause, about: x, example: x}`:                       "together with equals",
		`{status: 404, means: pause, about: x, also: x}`:                                     "also",
		`{contains: a, means: pause, about: x, example: b}`:                                  `responses.0: it is not about its example "b"`,
		`{contains: a, means: pause, about: x, example: a, unlike: ab}`:                      `it is also about "ab"`,
		`{at: /a, equals: 1, means: pause, about: x, example: '{"a":1}', unlike: '{"a":1}'}`: "it is also about",
	} {
		p, err := withResponses("- " + rule)
		if err == nil {
			err = p.RunTests()
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, expected %q", rule, err, want)
		}
	}
}
