package preset_test

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/pipeline/preset"
)

// bodyOf is the JSON of a preset's test case whose body is written so.
func bodyOf(yaml string) (string, error) {
	p, err := preset.Parse("p.yaml", []byte(strings.Replace(minimal, "tests: [{body: {}}]", "tests:\n  - body: "+yaml, 1)))
	if err != nil {
		return "", err
	}
	return string(p.Tests[0].Body), nil
}

// TestValues has values of a preset: they mean what they mean in definitions.
func TestValues(t *testing.T) {
	t.Parallel()
	for yaml, want := range map[string]string{
		"12345678901234567890123": "12345678901234567890123",
		"0123":                    `"0123"`,
		"0o17":                    `"0o17"`,
		"1_000":                   `"1_000"`,
		"2026-05-04":              `"2026-05-04"`,
		"2026-05-04T10:00:00Z":    `"2026-05-04T10:00:00Z"`,
		"1.50":                    "1.50",
		"+.5":                     "0.5",
		"0x1F":                    "31",
		"True":                    "true",
		"yes":                     `"yes"`,
		`"7"`:                     `"7"`,
		"!!str 7":                 `"7"`,
		"<a&b>":                   `"<a&b>"`,
		"|\n      0123":           `"0123\n"`,
		"[~, null, [], {}]":       "[null,null,[],{}]",
		"{b: 1, a: {200: x}}":     `{"b":1,"a":{"200":"x"}}`,
		"{a: &x [1, 2], b: *x}":   `{"a":[1,2],"b":[1,2]}`,
	} {
		if got, err := bodyOf(yaml); got != want || err != nil {
			t.Errorf("%s is %s, error %v, expected %s", yaml, got, err, want)
		}
	}
	for yaml, want := range map[string]string{
		".inf":               "line 9: found .inf, expected a number that JSON has",
		"{a: 1, b: 2, a: 3}": `line 9: found "a" as a name, expected text that is no name yet`,
		"{[a]: 1}":           `line 9: found "" as a name`,
		"!!binary YQ==":      "line 9: found the tag !!binary, expected none",
		"!thing {a: 1}":      "line 9: found the tag !thing, expected none",
		"&x [*x]":            "line 9: found more than 10000 values inside one",
	} {
		if got, err := bodyOf(yaml); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s is %s, error %v, expected %s", yaml, got, err, want)
		}
	}
}

// TestCounts has the numbers of a rule.
func TestCounts(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"2": "", "0x2": "", "010": `line 7: found "010", expected how many`, "-1": "expected how many", "1.0": "expected how many",
		`"2"`: "expected how many", "99999999999999999999": "expected how many", "[2]": "expected how many",
	} {
		_, err := preset.Parse("p.yaml", []byte(strings.Replace(minimal, "{type: object}", "{max_length: "+text+"}", 1)))
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("max_length %s: error %v, expected %q", text, err, want)
		}
	}
}

// FuzzParse wants JSON of every value, whatever stands in a preset's file.
func FuzzParse(f *testing.F) {
	for _, name := range preset.Builtin().Names() {
		data, err := os.ReadFile(name + ".yaml")
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte(strings.Replace(minimal, "{body: {}}", "{body: &x {a: [0x1F, +.5, 5., 0123, *x]}}", 1)))
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := preset.Parse("p.yaml", data)
		if err != nil {
			return
		}
		values := []json.RawMessage{p.Destination, p.Example.Event, p.Example.Properties, p.Example.Tests}
		for _, test := range p.Tests {
			values = append(values, test.Body)
		}
		for _, v := range values {
			if v != nil && !json.Valid(v) {
				t.Errorf("found %q, expected JSON", v)
			}
		}
	})
}
