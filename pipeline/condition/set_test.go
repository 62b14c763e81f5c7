package condition_test

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/millrace-io/millrace/pipeline"
	"github.com/millrace-io/millrace/pipeline/condition"
	"github.com/millrace-io/millrace/pipeline/expression"
)

// outcome is what a set or single rules say about an event: each webhook that
// fired, and each that failed with its error.
func outcome(match func(fires func(string), fails func(string, error))) []string {
	var out []string
	match(func(w string) { out = append(out, w+" fires") },
		func(w string, err error) { out = append(out, w+" fails: "+err.Error()) })
	slices.Sort(out)
	return out
}

// alone evaluates every rule by itself: the meaning that a Set must keep.
func alone(rules []condition.Rule, e *pipeline.Event) []string {
	return outcome(func(fires func(string), fails func(string, error)) {
		for _, r := range rules {
			if !slices.Contains(r.Types, e.Type) || r.System != "" && r.System != e.System ||
				r.Environment != "" && r.Environment != e.Environment {
				continue
			}
			if r.Condition == nil {
				fires(r.Webhook)
				continue
			}
			holds, err := r.Condition.Match(e)
			if err != nil {
				fails(r.Webhook, err)
			} else if holds {
				fires(r.Webhook)
			}
		}
	})
}

func inSet(s *condition.Set, e *pipeline.Event) []string {
	return outcome(func(fires func(string), fails func(string, error)) { s.Match(e, fires, fails) })
}

func TestSet(t *testing.T) {
	t.Parallel()
	five := compile(t, `props.walk_thru_id == 5`, scope)
	fails := compile(t, `props.walk_thru_id / 0 == 1`, scope)
	s := condition.NewSet([]condition.Rule{
		{Webhook: "always", Types: []string{"t", "u", "t"}},
		{Webhook: "five", Types: []string{"t"}, Condition: five},
		{Webhook: "five in shop", Types: []string{"t"}, System: "shop", Condition: five},
		{Webhook: "five in qa", Types: []string{"t"}, Environment: pipeline.QA, Condition: five},
		{Webhook: "fails", Types: []string{"t"}, Condition: fails},
	})
	if !s.Wants("t") || !s.Wants("u") || s.Wants("v") {
		t.Error("Wants is wrong")
	}
	e := event(properties{"walk_thru_id": int64(5)})
	want := []string{"always fires", "fails fails: 1:20: division by zero", "five fires"}
	if got := inSet(s, e); !slices.Equal(got, want) {
		t.Errorf("got %v", got)
	}
	e.Environment, e.System = pipeline.QA, "shop"
	if got := inSet(s, e); len(got) != 5 {
		t.Errorf("got %v", got)
	}
	e.Type = "v"
	if got := inSet(s, e); len(got) != 0 {
		t.Errorf("got %v", got)
	}
	if got := inSet(s, &pipeline.Event{Type: "t"}); !slices.Equal(got, []string{"always fires"}) {
		t.Errorf("an event without properties: got %v", got)
	}
}

// clauses are pieces of conditions that meet the index in every way: values
// equal across types, clauses that fail, equalities that are not required.
func clauses() *rapid.Generator[string] {
	literal := rapid.SampledFrom([]string{"1", "1.0", "1.5", "2", `"1"`, `""`, `"a"`, "true", "false", "null", "-1", "1e300", "9007199254740993", "9007199254740992.0"})
	name := rapid.SampledFrom([]string{"a", "b", "c"})
	plain := rapid.Custom(func(t *rapid.T) string {
		p, v := "props."+name.Draw(t, "name"), literal.Draw(t, "value")
		return rapid.SampledFrom([]string{
			p + " == " + v, v + " == " + p, p + " == " + v, p + " != " + v, p + " > 1", p + " <= \"a\"", p, "not " + p,
			p + " in [" + v + ", 2]", p + " contains \"a\"", "100 / (" + p + " ?? 1) > 1", p + " == " + "props.b",
			`event.user == "u"`, `"a" in props`, `not (` + p + " == " + v + ")", p + " matches \"a\"", "true",
			"let x = " + p + "; x == " + v,
		}).Draw(t, "clause")
	})
	return rapid.Custom(func(t *rapid.T) string {
		text := ""
		for i, c := range rapid.SliceOfN(plain, 1, 4).Draw(t, "clauses") {
			if i > 0 {
				text += rapid.SampledFrom([]string{" and ", " and ", " and ", " && ", " or "}).Draw(t, "join")
			}
			if len(c) > 3 && c[:3] == "let" || rapid.IntRange(0, 3).Draw(t, "brackets") == 0 {
				c = "(" + c + ")"
			}
			text += c
		}
		return text
	})
}

func anEvent() *rapid.Generator[*pipeline.Event] {
	value := rapid.SampledFrom([]any{
		nil, true, false, int64(1), int64(2), int64(-1), 1.0, 1.5, 1e300, "1", "a", "", int64(0), 0.0, bigNumber,
		int64(9007199254740993), 9007199254740992.0, int64(9007199254740992),
	})
	return rapid.Custom(func(t *rapid.T) *pipeline.Event {
		return &pipeline.Event{
			Type:        rapid.SampledFrom([]string{"t", "u"}).Draw(t, "type"),
			System:      rapid.SampledFrom([]string{"", "s"}).Draw(t, "system"),
			Environment: rapid.SampledFrom([]string{pipeline.Production, pipeline.QA}).Draw(t, "environment"),
			User:        rapid.SampledFrom([]string{"", "u"}).Draw(t, "user"),
			Properties:  properties(rapid.MapOf(rapid.SampledFrom([]string{"a", "b", "c"}), value).Draw(t, "properties")),
		}
	})
}

// TestSetIsExact: a set gives the answer that every rule gives alone, failures
// and their messages included.
func TestSetIsExact(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var rules []condition.Rule
		for i, text := range rapid.SliceOfN(clauses(), 1, 12).Draw(t, "conditions") {
			c, _, err := condition.Compile(text, expression.Scope{})
			if err != nil {
				t.Fatalf("%s: %v", text, err)
			}
			rules = append(rules, condition.Rule{
				Webhook: fmt.Sprintf("w%d: %s", i, text), Condition: c,
				Types:       rapid.SampledFrom([][]string{{"t"}, {"u"}, {"t", "u"}}).Draw(t, "types"),
				System:      rapid.SampledFrom([]string{"", "", "s"}).Draw(t, "system"),
				Environment: rapid.SampledFrom([]string{"", pipeline.Production}).Draw(t, "environment"),
			})
		}
		s := condition.NewSet(rules)
		for _, e := range rapid.SliceOfN(anEvent(), 1, 8).Draw(t, "events") {
			if got, want := inSet(s, e), alone(rules, e); !slices.Equal(got, want) {
				t.Fatalf("event %v:\n got %q\nwant %q", maps.Collect(e.Properties.All()), got, want)
			}
		}
	})
}

// manyRules are webhooks that each wait for another walk-thru.
func manyRules(t testing.TB, n int) []condition.Rule {
	rules := make([]condition.Rule, n)
	for i := range rules {
		c := compile(t, fmt.Sprintf(`props.vip and props.walk_thru_id == %d and props.goal_name startsWith "g"`, i), scope)
		rules[i] = condition.Rule{Webhook: fmt.Sprint(i), Types: []string{"t"}, Condition: c}
	}
	return rules
}

// TestSetIsIndexed: of many rules only the one that waits for the value runs.
func TestSetIsIndexed(t *testing.T) {
	t.Parallel()
	reads := 0
	e := event(properties{"vip": true, "walk_thru_id": int64(250), "goal_name": "goal"})
	e.Properties = counting{e.Properties, &reads}
	s := condition.NewSet(manyRules(t, 500))
	if got := inSet(s, e); !slices.Equal(got, []string{"250 fires"}) {
		t.Errorf("got %v", got)
	}
	if reads > 5 { // a guard and the indexed property, then three clauses
		t.Errorf("%d reads of properties", reads)
	}
}

type counting struct {
	pipeline.Properties
	reads *int
}

func (c counting) Get(name string) any {
	*c.reads++
	return c.Properties.Get(name)
}

func BenchmarkSet(b *testing.B) {
	for _, n := range []int{100, 10_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			s := condition.NewSet(manyRules(b, n))
			e := event(properties{"vip": true, "walk_thru_id": int64(50), "goal_name": "goal"})
			fired := 0
			b.ReportAllocs()
			for b.Loop() {
				s.Match(e, func(string) { fired++ }, func(_ string, err error) { b.Fatal(err) })
			}
			if fired != b.N {
				b.Fatalf("fired %d of %d", fired, b.N)
			}
		})
	}
}

func BenchmarkMatch(b *testing.B) {
	c := compile(b, `props.walk_thru_id == 50`, scope)
	e := event(properties{"walk_thru_id": int64(50)})
	b.ReportAllocs()
	for b.Loop() {
		if holds, err := c.Match(e); !holds || err != nil {
			b.Fatal(holds, err)
		}
	}
}
