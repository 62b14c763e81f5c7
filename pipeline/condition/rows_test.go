package condition_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"testing"

	"pgregory.net/rapid"

	"github.com/millrace-io/millrace/pipeline/condition"
	"github.com/millrace-io/millrace/pipeline/expression"
)

func TestRows(t *testing.T) {
	t.Parallel()
	goal := func(operator string, value any) []condition.Row {
		return []condition.Row{{Property: "goal_name", Operator: operator, Value: value}}
	}
	for _, c := range []struct {
		rows  []condition.Row
		text  string
		given any // of goal_name
		want  bool
	}{
		{goal("equals", "g"), `props["goal_name"] == "g"`, "g", true},
		{goal("equals", nil), `props["goal_name"] == null`, nil, true},
		{goal("not_equals", "g"), `props["goal_name"] != "g"`, nil, true},
		{goal("contains", "a\"b"), `props["goal_name"] contains "a\"b"`, `xa"bx`, true},
		{goal("not_contains", `\`), `props["goal_name"] not contains "\\"`, `a\b`, false},
		{goal("starts_with", "g\n"), `props["goal_name"] startsWith "g\u000a"`, "g\nx", true},
		{goal("ends_with", "ä"), `props["goal_name"] endsWith "ä"`, "xä", true},
		{goal("matches", `^\d+$`), `props["goal_name"] matches "^\\d+$"`, "123", true},
		{goal("greater_than", "f"), `props["goal_name"] > "f"`, "g", true},
		{goal("greater_or_equal", "g"), `props["goal_name"] >= "g"`, "g", true},
		{goal("less_than", "g"), `props["goal_name"] < "g"`, "g", false},
		{goal("less_or_equal", "g"), `props["goal_name"] <= "g"`, "g", true},
		{goal("in", []any{"a", "g", nil}), `props["goal_name"] in ["a", "g", null]`, "g", true},
		{goal("not_in", []any{"a"}), `props["goal_name"] not in ["a"]`, nil, true},
		{goal("is_set", nil), `"goal_name" in props`, "", true},
		{goal("is_not_set", nil), `"goal_name" not in props`, nil, true},
	} {
		text, err := condition.FromRows(c.rows, scope)
		if err != nil || text != c.text {
			t.Errorf("%v: got %s (%v), want %s", c.rows, text, err, c.text)
			continue
		}
		if got, err := compile(t, text, scope).Match(event(properties{"goal_name": c.given})); got != c.want || err != nil {
			t.Errorf("%s of %v: got %v (%v)", text, c.given, got, err)
		}
	}
}

func TestRowValues(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		value any
		want  string
	}{
		{5, "5"},
		{int64(-5), "-5"},
		{uint64(7), "7"},
		{int64(math.MinInt64), "-9223372036854775808.0"},
		{2.0, "2.0"},
		{1e20, "1e+20"},
		{1e-7, "1e-07"},
		{1e300, "1e+300"},
		{json.Number("12"), "12"},
		{json.Number("1.50"), "1.5"},
		{true, "true"},
	} {
		text, err := condition.FromRows([]condition.Row{{Property: "x", Operator: "equals", Value: c.value}}, expression.Scope{})
		if want := `props["x"] == ` + c.want; err != nil || text != want {
			t.Errorf("%v: got %s (%v), want %s", c.value, text, err, want)
		}
	}
}

// TestJoin shows that and binds tighter than or.
func TestJoin(t *testing.T) {
	t.Parallel()
	text, err := condition.FromRows([]condition.Row{
		{Property: "vip", Operator: "equals", Value: true},
		{Join: "or", Property: "walkThruId", Operator: "in", Value: []any{1, 2}},
		{Property: "goal_name", Operator: "is_set"},
		{Join: "and", Property: "price", Operator: "less_than", Value: 9.5},
	}, scope)
	want := "props[\"vip\"] == true\nor props[\"walkThruId\"] in [1, 2]\nand \"goal_name\" in props\nand props[\"price\"] < 9.5"
	if err != nil || text != want {
		t.Fatalf("got %s (%v)", text, err)
	}
	c := compile(t, text, scope)
	for _, row := range []struct {
		p    properties
		want bool
	}{
		{properties{"vip": true}, true},
		{properties{"walk_thru_id": int64(2)}, false},
		{properties{"walk_thru_id": int64(2), "goal_name": "", "price": int64(1)}, true},
	} {
		if got, err := c.Match(event(row.p)); got != row.want || err != nil {
			t.Errorf("%v: got %v (%v)", row.p, got, err)
		}
	}
}

func TestRowErrors(t *testing.T) {
	t.Parallel()
	row := func(property, operator string, value any) condition.Row {
		return condition.Row{Property: property, Operator: operator, Value: value}
	}
	for _, c := range []struct {
		row  condition.Row
		want string
	}{
		{row("", "equals", 1), "property: the name of a property is missing or not valid UTF-8"},
		{row("goal_nam", "equals", "x"), "property: unknown property goal_nam; did you mean goal_name?"},
		{row("goal_name", "is", "x"), `operator: "is" is none of contains, ends_with, equals, greater_or_equal, greater_than, in, is_not_set, is_set, less_or_equal, less_than, matches, not_contains, not_equals, not_in, starts_with`},
		{row("goal_name", "equals", 5), "value: mismatched types string and integer for =="},
		{row("walk_thru_id", "equals", "5"), "value: mismatched types integer and string for =="},
		{row("walk_thru_id", "in", 5), "value: in takes a list of values"},
		{row("walk_thru_id", "in", []any{[]any{1}}), "value: in cannot take a []interface {}"},
		{row("walk_thru_id", "equals", []any{1}), "value: equals takes one value, not a list"},
		{row("walk_thru_id", "greater_than", nil), "value: greater_than needs a value"},
		{row("walk_thru_id", "greater_than", true), "value: greater_than takes a number or text"},
		{row("goal_name", "contains", 5), "value: contains takes text"},
		{row("goal_name", "matches", "("), "value: error parsing regexp: missing closing ): `(`"},
		{row("goal_name", "is_set", "x"), "value: is_set takes no value"},
		{row("goal_name", "equals", "\xff"), "value: equals takes valid UTF-8"},
		{row("price", "equals", math.NaN()), "value: equals takes numbers within the range of numbers"},
		{row("price", "equals", uint64(1<<63)), "value: equals takes integers of 64 bits, not 9223372036854775808"},
		{row("price", "equals", bigNumber), "value: equals takes integers of 64 bits, not 123456789012345678901"},
		{row("price", "equals", struct{}{}), "value: equals cannot take a struct {}"},
		{condition.Row{Join: "xor", Property: "price", Operator: "is_set"}, `join: "xor" is neither and nor or`},
	} {
		_, err := condition.FromRows([]condition.Row{row("vip", "is_set", nil), c.row}, scope)
		if err == nil || err.Error() != "conditions[1]."+c.want {
			t.Errorf("%v:\n got %v\nwant conditions[1].%s", c.row, err, c.want)
		}
		if e, ok := errors.AsType[*condition.RowError](err); !ok || e.Index != 1 {
			t.Errorf("%v: not a RowError of row 1: %v", c.row, err)
		}
	}
	if _, err := condition.FromRows(nil, scope); err == nil {
		t.Error("no rows: no error")
	}
	_, err := condition.FromRows([]condition.Row{row("a", "is_set", nil), row("b", "is_set", nil)}, scope)
	if want := "conditions[0].property: unknown property a\nconditions[1].property: unknown property b"; err == nil || err.Error() != want {
		t.Errorf("got %v", err)
	}
}

// TestRowsRoundTrip: whatever text and number a row holds, the condition holds
// for exactly that value.
func TestRowsRoundTrip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.StringN(1, 20, -1).Draw(t, "name")
		value := rapid.OneOf(
			rapid.String().AsAny(), rapid.Int64().AsAny(), rapid.Bool().AsAny(),
			rapid.Float64Range(-1e300, 1e300).AsAny(),
		).Draw(t, "value")
		for operator, v := range map[string]any{"equals": value, "in": []any{value}} {
			roundTrip(t, name, operator, v, value)
		}
	})
}

type failer interface {
	Fatalf(format string, args ...any)
}

func roundTrip(t failer, name, operator string, v, given any) {
	text, err := condition.FromRows([]condition.Row{{Property: name, Operator: operator, Value: v}}, expression.Scope{})
	if err != nil {
		t.Fatalf("%q %s %q: %v", name, operator, v, err)
	}
	c, _, err := condition.Compile(text, expression.Scope{})
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	if holds, err := c.Match(event(properties{name: given})); !holds || err != nil {
		t.Fatalf("%s of %#v: %v (%v)", text, given, holds, err)
	}
	if holds, err := c.Match(event(properties{name: fmt.Sprint(given, "!")})); holds || err != nil {
		t.Fatalf("%s of another value: %v (%v)", text, holds, err)
	}
}

// FuzzRows: a row is refused or means what it says.
func FuzzRows(f *testing.F) {
	f.Add("goal_name", "equals", `"\`)
	f.Add(`a"] == 1 or props["b`, "contains", "${env:X}\r\n\x00\u2028")
	f.Add("x", "matches", `^(a|b)*$`)
	f.Fuzz(func(t *testing.T, name, operator, value string) {
		rows := []condition.Row{{Property: name, Operator: operator, Value: value}}
		text, err := condition.FromRows(rows, expression.Scope{})
		if err != nil {
			return
		}
		c, _, err := condition.Compile(text, expression.Scope{})
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		holds, err := c.Match(event(properties{name: value}))
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		switch operator {
		case "equals", "contains", "starts_with", "ends_with", "less_or_equal", "greater_or_equal":
			if !holds {
				t.Fatalf("%s does not hold for %q", text, value)
			}
		case "not_equals", "not_contains", "less_than", "greater_than":
			if holds {
				t.Fatalf("%s holds for %q", text, value)
			}
		}
		if names := c.Properties(); len(names) != 1 || names[0] != name {
			t.Fatalf("%s reads %q", text, names)
		}
	})
}
