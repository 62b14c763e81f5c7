package preset_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/pipeline/preset"
)

// TestGiven has a contract from which a property is left out that is added
// later.
func TestGiven(t *testing.T) {
	t.Parallel()
	const contract = `{type: object, properties: {
  key: {type: string, required: true}, c: {}, d: {},
  deep: {type: object, required: true, properties: {key: {required: true}, other: {required: true}}},
  list: {type: array, items: {properties: {key: {required: true}}}}},
  any_of: [c, d]}`
	const whole = `{"key":"k","deep":{"key":1,"other":1},"list":[{"key":1}],"c":1}`
	p, err := preset.Parse("p.yaml", []byte(strings.Replace(minimal, "{type: object}", contract, 1)))
	if err != nil {
		t.Fatal(err)
	}
	r := p.Contract
	for _, c := range []struct{ path, body, want string }{
		{"none", whole, "<nil>"},
		{"none", `{"deep":{"key":1,"other":1},"c":1}`, "key: is missing, and required"},
		{"key", `{"deep":{"key":1,"other":1},"c":1}`, "<nil>"},
		{"key", `{"key":7,"deep":{"key":1,"other":1},"c":1}`, "key: found an integer, expected a string"},
		{"deep/key", `{"key":"k","deep":{"other":1},"c":1}`, "<nil>"},
		{"deep/key", `{"key":"k","deep":{},"c":1}`, "/deep/other: is missing, and required"},
		{"deep/key", `{"key":"k","c":1}`, "<nil>"},
		{"list/0/key", `{"key":"k","deep":{"key":1,"other":1},"list":[{}],"c":1}`, "<nil>"},
		{"d", `{"key":"k","deep":{"key":1,"other":1}}`, "<nil>"},
		{"key", `{"key":"k","deep":{"key":1,"other":1}}`, "c, d: found none of them, expected at least one"},
	} {
		if got := fmt.Sprint(r.Given(strings.Split(c.path, "/")).Check([]byte(c.body))); got != c.want {
			t.Errorf("with %s given, %s: %s, expected %s", c.path, c.body, got, c.want)
		}
		if err := r.Check([]byte(whole)); err != nil {
			t.Errorf("the rule itself has changed: %v", err)
		}
	}
	if (*preset.Rule)(nil).Given([]string{"x"}) != nil {
		t.Error("no rule became one")
	}
}
