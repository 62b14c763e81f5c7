package condition_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/pipeline"
	"github.com/millrace-io/millrace/pipeline/condition"
	"github.com/millrace-io/millrace/pipeline/expression"
)

// random makes conditions and events that have to do with each other.
type random struct{ *rand.Rand }

func pick[T any](r random, from ...T) T { return from[r.IntN(len(from))] }

// names are properties of each type of the catalog, and one that it lacks.
func (r random) name() string {
	return pick(r, "walk_thru_id", "goal_name", "vip", "price", "day", "walkThruId")
}

func (r random) property() string {
	return pick(r, "props.%s", "props[%q]")
}

func (r random) read() string { return fmt.Sprintf(r.property(), r.name()) }

func (r random) constant() string {
	return pick(r, "5", "0", "-1", "2.5", `"g"`, `"5"`, `""`, "true", "null", "9223372036854775807")
}

func (r random) value() string {
	switch r.IntN(8) {
	case 0, 1:
		return r.constant()
	case 2:
		return fmt.Sprintf("%s %s %s", r.read(), pick(r, "+", "-", "*", "/", "%"), pick(r, r.read(), r.constant()))
	case 3:
		return fmt.Sprintf("%s(%s)", pick(r, "lower", "len", "string", "int", "abs"), r.read())
	case 4:
		return fmt.Sprintf("(%s ?? %s)", r.read(), r.constant())
	case 5:
		return pick(r, "event.user", "event.system", "event.type")
	}
	return r.read()
}

func (r random) clause() string {
	switch r.IntN(9) {
	case 0:
		return r.read()
	case 1:
		return fmt.Sprintf("%s %s [%s, %s]", r.value(), pick(r, "in", "not in"), r.constant(), r.constant())
	case 2:
		return fmt.Sprintf("%s %s %s", r.value(), pick(r, "contains", "not contains", "startsWith", "endsWith"), r.value())
	case 3:
		return fmt.Sprintf("%s matches %q", r.value(), pick(r, "^g", "[0-9]+", "a|b"))
	case 4:
		return fmt.Sprintf("%q %s props", r.name(), pick(r, "in", "not in"))
	case 5:
		return fmt.Sprintf("any(1..%d, # == %s)", r.IntN(9), r.value())
	}
	return fmt.Sprintf("%s %s %s", r.value(), pick(r, "==", "!=", "<", "<=", ">", ">="), r.value())
}

func (r random) condition(depth int) string {
	if depth == 0 || r.IntN(4) == 0 {
		return r.clause()
	}
	switch r.IntN(6) {
	case 0:
		return fmt.Sprintf("%s (%s)", pick(r, "not", "!"), r.condition(depth-1))
	case 1:
		return fmt.Sprintf("(%s) ? (%s) : (%s)", r.clause(), r.clause(), r.clause())
	}
	return fmt.Sprintf("(%s) %s (%s)", r.condition(depth-1), pick(r, "and", "or", "&&", "||"), r.condition(depth-1))
}

// event has properties of the right type and others, null ones, and none.
func (r random) event() *pipeline.Event {
	p := properties{}
	for _, name := range []string{"walk_thru_id", "goal_name", "vip", "price", "day"} {
		if r.IntN(4) > 0 {
			p[name] = pick[any](r, int64(5), int64(0), int64(-1), 2.5, "g", "5", "", "good", true, false, nil, "2026-03-01", bigNumber)
		}
	}
	e := event(p)
	e.User, e.System = pick(r, "", "g", "5"), pick(r, "", "g")
	if r.IntN(50) == 0 {
		e.Properties = nil
	}
	return e
}

// rows are random rows; those that don't compile are of no use.
func (r random) rows() []condition.Row {
	var out []condition.Row
	for range 1 + r.IntN(4) {
		row := condition.Row{
			Join: pick(r, "", "and", "or"), Property: r.name(), Operator: pick(r, condition.Operators()...),
			Value: pick[any](r, int64(5), 2.5, "g", "", true, nil),
		}
		switch row.Operator {
		case "in", "not_in":
			row.Value = []any{int64(5), "g", nil}
		case "is_set", "is_not_set":
			row.Value = nil
		}
		out = append(out, row)
	}
	return out
}

// told is what an explanation says, by way of its clauses alone.
func told(c *expression.Clause) expression.Answer {
	switch c.Kind {
	case expression.Test:
		return c.Answer
	case expression.Not:
		switch told(c.Parts[0]) {
		case expression.Holds:
			return expression.HoldsNot
		case expression.HoldsNot:
			return expression.Holds
		}
		return told(c.Parts[0])
	}
	neutral := map[expression.Kind]expression.Answer{expression.And: expression.Holds, expression.Or: expression.HoldsNot}[c.Kind]
	for _, p := range c.Parts {
		if a := told(p); a != neutral {
			return a
		}
	}
	return neutral
}

func answerOf(holds bool, err error) expression.Answer {
	switch {
	case err != nil:
		return expression.Failed
	case holds:
		return expression.Holds
	}
	return expression.HoldsNot
}

// TestExplainAgrees: on 10,000 random pairs of a webhook's condition and an
// event, the explanation, the condition alone and the set with its index say the
// same: properties that are missing, null and of another type included.
func TestExplainAgrees(t *testing.T) {
	t.Parallel()
	const pairs = 10_000
	r := random{rand.New(rand.NewPCG(4, 7))}
	scopes := []expression.Scope{scope, {Aliases: scope.Aliases}}
	seen := map[expression.Answer]int{}
	for done := 0; done < pairs; {
		s := scopes[r.IntN(len(scopes))]
		var rows []condition.Row
		text, err := r.condition(3), error(nil)
		if r.IntN(4) == 0 {
			rows = r.rows()
			text, err = condition.FromRows(rows, s)
		}
		if err != nil {
			continue
		}
		c, _, err := condition.Compile(text, s)
		if err != nil {
			continue
		}
		for range 4 {
			e := r.event()
			seen[agrees(t, c, rows, s, e)]++
			done++
		}
	}
	t.Logf("%v", seen)
	for _, a := range []expression.Answer{expression.Holds, expression.HoldsNot, expression.Failed} {
		if seen[a] < pairs/50 {
			t.Errorf("only %d of %d pairs are %s", seen[a], pairs, a)
		}
	}
}

func agrees(t *testing.T, c *condition.Condition, rows []condition.Row, s expression.Scope, e *pipeline.Event) expression.Answer {
	t.Helper()
	holds, failure := c.Match(e)
	want := answerOf(holds, failure)
	x, err := condition.Explain(c.String(), s, e)
	if rows != nil {
		x, err = condition.ExplainRows(rows, s, e)
	}
	if err != nil {
		t.Fatalf("explaining %s: %v", c, err)
	}
	if x.Answer != want || told(x) != want {
		t.Fatalf("%s on %v: the engine says %s, the explanation %s, its clauses %s", c, e.Properties, want, x.Answer, told(x))
	}
	var set []string
	rule := condition.Rule{Webhook: "w", Types: []string{e.Type}, Condition: c}
	condition.NewSet([]condition.Rule{rule}).Match(e,
		func(string) { set = append(set, string(expression.Holds)) },
		func(string, error) { set = append(set, string(expression.Failed)) })
	if want == expression.HoldsNot && len(set) > 0 || want != expression.HoldsNot && !slices.Equal(set, []string{string(want)}) {
		t.Fatalf("%s on %v: the condition says %s, the set %v", c, e.Properties, want, set)
	}
	if failure != nil && !strings.Contains(failure.Error(), errorIn(x)) {
		t.Fatalf("%s on %v: the engine fails with %v, the explanation says %s", c, e.Properties, failure, errorIn(x))
	}
	return want
}

func errorIn(c *expression.Clause) string {
	for part := range c.All {
		if part.Error != "" {
			return part.Error
		}
	}
	return "nothing of an error"
}

func TestExplainRows(t *testing.T) {
	t.Parallel()
	rows := []condition.Row{
		{Property: "walkThruId", Operator: "equals", Value: int64(5)},
		{Property: "goal_name", Operator: "not_in", Value: []any{"a", nil}},
		{Join: "or", Property: "day", Operator: "is_not_set"},
	}
	c, err := condition.ExplainRows(rows, scope, event(properties{"walk_thru_id": int64(6)}))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for part := range c.All {
		got = append(got, fmt.Sprintf("%d %s: %s", part.Line, part.Text, part.Answer))
	}
	want := []string{
		`1 walkThruId equals 5 and goal_name not_in ["a", null] or day is_not_set: holds`,
		`1 walkThruId equals 5 and goal_name not_in ["a", null]: does_not_hold`,
		`1 walkThruId equals 5: does_not_hold`,
		`2 goal_name not_in ["a", null]: not_reached`,
		`3 day is_not_set: holds`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if _, err := condition.ExplainRows(rows[:0], scope, event(nil)); err == nil {
		t.Error("no rows are explained")
	}
	if _, err := condition.ExplainRows([]condition.Row{{Property: "vip", Operator: "like"}}, scope, event(nil)); err == nil {
		t.Error("a row that is wrong is explained")
	}
}
