package condition_test

import (
	"encoding/json"
	"iter"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/pipeline"
	"github.com/millrace-io/millrace/pipeline/condition"
	"github.com/millrace-io/millrace/pipeline/expression"
)

type properties map[string]any

func (p properties) Get(name string) any { return p[name] }

func (p properties) All() iter.Seq2[string, any] {
	return func(yield func(string, any) bool) {
		for k, v := range p {
			if !yield(k, v) {
				return
			}
		}
	}
}

var scope = expression.Scope{
	Types: map[string]pipeline.Type{
		"walk_thru_id": pipeline.Integer, "goal_name": pipeline.String, "vip": pipeline.Boolean,
		"price": pipeline.Number, "day": pipeline.Date,
	},
	Aliases: map[string]string{"walkThruId": "walk_thru_id"},
}

const bigNumber = json.Number("123456789012345678901")

func event(p properties) *pipeline.Event {
	return &pipeline.Event{Type: "t", Environment: pipeline.Production, Properties: p}
}

func compile(t testing.TB, text string, s expression.Scope) *condition.Condition {
	t.Helper()
	c, _, err := condition.Compile(text, s)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return c
}

func TestMatch(t *testing.T) {
	t.Parallel()
	given := properties{"walk_thru_id": int64(5), "goal_name": "g", "vip": true}
	for text, want := range map[string]bool{
		`props.walk_thru_id == 5`:              true,
		`props.walk_thru_id == 5 and not true`: false,
		`props.vip`:                            true,
		`props.price > 1`:                      false,
		`props.vip ? null : true`:              false,
		`event.type == "t"`:                    true,
	} {
		c := compile(t, text, scope)
		if got, err := c.Match(event(given)); got != want || err != nil {
			t.Errorf("%s: %v %v", text, got, err)
		}
		if c.String() != text {
			t.Errorf("text is %q", c)
		}
	}
	if got, err := compile(t, `props.any_name`, expression.Scope{}).Match(event(properties{"any_name": "yes"})); got || err != nil {
		t.Errorf("text used as a boolean: %v %v", got, err)
	}
	if got, err := compile(t, `props.walk_thru_id / 0 == 1`, scope).Match(event(given)); got || err == nil {
		t.Errorf("division by zero: %v %v", got, err)
	}
}

func TestCompile(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		`props.walk_thru_id`:          "1:1: a condition is true or false; this one is of type integer",
		`"x"`:                         "1:1: a condition is true or false; this one is of type string",
		`props.walkthru_id == 1`:      "1:7: unknown property walkthru_id; did you mean walkThruId?",
		`md5(props.goal_name) == "x"`: "1:1: md5 is known in property mappings only",
	} {
		if _, _, err := condition.Compile(text, scope); err == nil || err.Error() != want {
			t.Errorf("%s: got %v, want %s", text, err, want)
		}
	}
}

func TestConstant(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		`true`:              "always fires",
		`1 + 1 == 3`:        "never fires",
		`null`:              "never fires",
		`1 % 0 == 1`:        "always fails: 1:3: division by zero",
		`props.vip == true`: "",
	} {
		_, warnings, err := condition.Compile(text, scope)
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		got := ""
		for _, w := range warnings {
			got += w.Message
		}
		if !strings.Contains(got, want) || want == "" && got != "" {
			t.Errorf("%s: got %q, want %q", text, got, want)
		}
	}
}
