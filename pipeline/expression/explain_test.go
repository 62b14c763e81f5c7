package expression_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/pipeline"
	"github.com/millrace-io/millrace/pipeline/expression"
)

// follow comes to the answer of a clause by way of its parts, in their order.
func follow(t testing.TB, c *expression.Clause) expression.Answer {
	t.Helper()
	if c.Kind == expression.Test {
		if c.Text == "" || c.Line < 1 || c.Column < 1 || (c.Answer == expression.Failed) != (c.Error != "") {
			t.Fatalf("clause %+v", c)
		}
		return c.Answer
	}
	flipped := map[expression.Answer]expression.Answer{expression.Holds: expression.HoldsNot, expression.HoldsNot: expression.Holds, expression.Failed: expression.Failed}
	neutral := map[expression.Kind]expression.Answer{expression.And: expression.Holds, expression.Or: expression.HoldsNot}[c.Kind]
	answer, ended := neutral, c.Answer == expression.NotReached
	for _, p := range c.Parts {
		got := follow(t, p)
		if (got == expression.NotReached) != ended {
			t.Fatalf("clause %q of %q: %s", p.Text, c.Text, got)
		}
		if !ended && got != neutral {
			answer, ended = got, true
		}
	}
	switch {
	case c.Answer == expression.NotReached:
		return c.Answer
	case c.Kind == expression.Not:
		return flipped[answer]
	}
	return answer
}

// outline writes an explanation on one line.
func outline(c *expression.Clause) string {
	sign := map[expression.Answer]string{
		expression.Holds: "+", expression.HoldsNot: "-", expression.Failed: "!", expression.NotReached: "?",
	}[c.Answer]
	if c.Kind != expression.Test {
		var parts []string
		for _, p := range c.Parts {
			parts = append(parts, outline(p))
		}
		return fmt.Sprintf("%s%s(%s)", sign, c.Kind, strings.Join(parts, ", "))
	}
	out := sign + c.Text
	for _, v := range c.Values {
		text, _ := json.Marshal(v.Value)
		if v.Missing {
			text = []byte("missing")
		}
		out += fmt.Sprintf(" {%s=%s}", v.Name, text)
	}
	if c.Error != "" {
		out += " " + c.Error
	}
	return out
}

func TestExplain(t *testing.T) {
	t.Parallel()
	in := fullInput()
	in.Event.Properties = properties{
		"walk_thru_id": int64(12345), "goal_name": "Käse (fein)", "nps_score": nil, "vip": true, "answer": int64(5),
		"price": 2.5, "other_id": bigNumber,
	}
	for text, want := range map[string]string{
		`props["walk_thru_id"] == 12345`:                   `+props["walk_thru_id"] == 12345 {walk_thru_id=12345}`,
		`props.walk_thru_id > 1 and props.nps_score > 3`:   `-and(+props.walk_thru_id > 1 {walk_thru_id=12345}, -props.nps_score > 3 {nps_score=null})`,
		`props.day == "x" && props.vip && props.price > 1`: `-and(-props.day == "x" {day=missing}, ?props.vip {vip=true}, ?props.price > 1 {price=2.5})`,
		`props.price < 1 or (props.vip and not (props.price == 2))`: `+or(-props.price < 1 {price=2.5}, ` +
			`+and(+props.vip {vip=true}, +not(-props.price == 2 {price=2.5})))`,
		`"ö" in ["ö"] and lower(props["goal_name"]) contains ("käse" + " (")`: `+and(+"ö" in ["ö"], ` +
			`+lower(props["goal_name"]) contains ("käse" + " (") {goal_name="Käse (fein)"} {lower(props["goal_name"])="käse (fein)"})`,
		`(props.walk_thru_id + 1) * 2 == (24692)`:                     `+(props.walk_thru_id + 1) * 2 == (24692) {walk_thru_id=12345} {(props.walk_thru_id + 1) * 2=24692}`,
		`props.answer contains "x" or props.other_id == 1`:            `!or(-props.answer contains "x" {answer=5}, !props.other_id == 1 {other_id=` + string(bigNumber) + `} other_id is ` + string(bigNumber) + `, an integer beyond 64 bits)`,
		`not (props.vip and props.walk_thru_id / 0 == 1)`:             `!not(!and(+props.vip {vip=true}, !props.walk_thru_id / 0 == 1 {walk_thru_id=12345} division by zero))`,
		`props.walk_thru_id not in [1, 2] and !props.vip`:             `-and(+props.walk_thru_id not in [1, 2] {walk_thru_id=12345}, -not(+props.vip {vip=true}))`,
		`"day" in props or "nps_score" not in props`:                  `+or(-"day" in props {day=missing}, +"nps_score" not in props {nps_score=null})`,
		`any(["a", "b"], # == props.goal_name) or event.user == "u1"`: `+or(-any(["a", "b"], # == props.goal_name) {goal_name="Käse (fein)"}, +event.user == "u1" {event.user="u1"})`,
		`1 < props.price < 3`:                                         `+and(+1 < props.price {price=2.5}, +props.price < 3 {price=2.5})`,
		`props.vip ? props.price > 2 : false`:                         `+props.vip ? props.price > 2 : false {vip=true} {price=2.5}`,
		"props.walk_thru_id\n  == 12345":                              "+props.walk_thru_id\n  == 12345 {walk_thru_id=12345}",
		`let x = props.price; x > 1 and x < 2`:                        `-let x = props.price; x > 1 and x < 2 {price=2.5}`,
	} {
		c, err := expression.Explain(text, expression.Scope{Types: catalog()}, in)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if got := outline(c); got != want {
			t.Errorf("%s:\n got %s\nwant %s", text, got, want)
		}
		if got := follow(t, c); got != c.Answer {
			t.Errorf("%s: its clauses say %s, the whole %s", text, got, c.Answer)
		}
	}
}

// TestExplainPlaces: lines, which tell rows apart, and the catalog's types.
func TestExplainPlaces(t *testing.T) {
	t.Parallel()
	s := expression.Scope{Types: catalog(), Aliases: map[string]string{"walkThruId": "walk_thru_id"}}
	c, err := expression.Explain("props.vip\nand lower(props.walkThruId) == \"x\"", s, &expression.Input{Event: &pipeline.Event{}})
	if err == nil {
		t.Fatalf("an integer was made small: %+v", c)
	}
	c, err = expression.Explain("not props.vip\nand string(props.walkThruId) == \"x\"", s, &expression.Input{Event: &pipeline.Event{}})
	if err != nil {
		t.Fatal(err)
	}
	second := c.Parts[1]
	if second.Line != 2 || second.Column != 5 || second.Text != `string(props.walkThruId) == "x"` {
		t.Errorf("the second clause is %+v", second)
	}
	if v := second.Values[0]; v.Name != "walk_thru_id" || v.Type != pipeline.Integer || !v.Property || !v.Missing {
		t.Errorf("its value is %+v", v)
	}
	if v := second.Values[1]; len(v.Of) != 1 || v.Of[0] != "walk_thru_id" {
		t.Errorf("what is computed is %+v", v)
	}
	n := 0
	for range c.All {
		n++
	}
	if n != 4 {
		t.Errorf("All yields %d clauses", n)
	}
}
