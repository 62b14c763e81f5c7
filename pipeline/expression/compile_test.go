package expression_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/millrace-io/millrace/pipeline"
	"github.com/millrace-io/millrace/pipeline/expression"
)

// messages are the errors of a text, positions first, a line for each.
func messages(err error) string {
	var out []string
	for _, e := range expression.All(err) {
		out = append(out, e.Error())
	}
	return strings.Join(out, "\n")
}

func TestErrors(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		`props["walk_thru_idd"] == 1`:                   `1:7: unknown property walk_thru_idd; did you mean walk_thru_id?`,
		`props.goal_anme == "g"`:                        `1:7: unknown property goal_anme; did you mean goal_name?`,
		`props.zzz == 1`:                                `1:7: unknown property zzz`,
		`props["wm.euID2"] == "x"`:                      `1:7: unknown property wm.euID2; did you mean wm.euid?`,
		`props["answer."] == "x"`:                       `1:7: unknown property answer.; did you mean answer?`,
		`props.ctx.location == 1`:                       `1:7: unknown property ctx`,
		`event.typ == "a"`:                              `1:7: unknown field event.typ; did you mean type?`,
		`event["x"] == 1`:                               `1:7: unknown field event.x`,
		`event[props.vip] == 1`:                         `1:13: the name of a field of event must be written out`,
		`event == 1`:                                    `1:1: event can't stand alone; name one of its fields, such as event.environment`,
		`props == 1`:                                    `1:1: props can't stand alone; name a property: props["name"]`,
		`len(props) > 1`:                                `1:5: props can't stand alone; name a property: props["name"]`,
		`props[event.id] == 1`:                          `1:1: the name of a property must be written out: props["name"]`,
		`event.id in props`:                             `1:13: the name of a property must be written out: props["name"]`,
		`props[1:2] == 1`:                               `1:1: props can't stand alone; name a property: props["name"]`,
		`walk_thru_id == 1`:                             `1:1: unknown name walk_thru_id; did you mean props["walk_thru_id"]?`,
		`evnt.id == "x"`:                                `1:1: unknown name evnt; did you mean event?`,
		`$env == 1`:                                     `1:1: unknown name $env`,
		`attrs.plan == "x"`:                             `1:1: unknown name attrs`,
		`let total = 1; totl == 1`:                      `1:16: unknown name totl; did you mean total?`,
		`let props = 1; props == 1`:                     `1:5: cannot redeclare props`,
		`lowr(props.answer) == "x"`:                     `1:1: unknown function lowr; did you mean lower?`,
		`md5(props.answer) == "x"`:                      `1:1: md5 is known in property mappings only`,
		`delivery.id == "x"`:                            `1:1: delivery is known in property mappings only`,
		`props.answer.upper() == "x"`:                   `1:14: values have no methods; functions are called as name(value)`,
		`now() == 1`:                                    `1:1: now is not available: the answer must depend on the event alone`,
		`keys({a: 1}) == ["a"]`:                         `1:1: keys is not available: a map has no fixed order`,
		`groupBy([1], #) == 1`:                          `1:1: groupBy is not available: a map has no fixed order`,
		`b"x" == props.answer`:                          `1:1: bytes are not available; use text without the b in front`,
		`props.answer matches "("`:                      "1:14: error parsing regexp: missing closing ): `(`",
		`props.answer matches props.goal_name`:          `1:28: the pattern of matches must be written out: matches "^a.*z$"`,
		`props.answer matches "a{1000}"`:                `1:22: the pattern is too large: with repetitions written out it has 2000 parts; at most 1000 are allowed`,
		`props["walk_thru_id"] == "1"`:                  `1:23: mismatched types integer and string for ==`,
		`props["nps_score"] > "x"`:                      `1:20: mismatched types integer and string for >`,
		`props.vip > true`:                              `1:11: mismatched types boolean and boolean for >`,
		`props.price % 2 == 1`:                          `1:13: mismatched types number and integer for %`,
		`props.day == 5`:                                `1:11: mismatched types string and integer for ==`,
		`props.nps_score contains "9"`:                  `1:17: mismatched types integer and string for contains`,
		`props.nps_score in ["a"]`:                      `1:17: cannot use integer as type string in array`,
		`props.goal_name in "goal"`:                     `1:17: in needs a list on its right, not string`,
		`not props.nps_score`:                           `1:1: mismatched type integer for not`,
		`props.answer[0] == "p"`:                        `1:13: string has no elements; a part of text is taken with [from:to]`,
		`lower(1) == "a"`:                               `1:7: cannot use integer as argument (type string) to call lower`,
		`lower() == "a"`:                                `1:1: not enough arguments to call lower`,
		`props.walk_thru_id == 9223372036854775808`:     `1:41: 9223372036854775808 is an integer beyond 64 bits`,
		`props.vip and`:                                 `1:13: unexpected end of the expression`,
		`props.vip and )`:                               `1:15: unexpected token ")"`,
		`props.vip = true`:                              `1:11: unexpected token "="`,
		`"abc`:                                          `1:5: literal not terminated`,
		" \n ":                                          `1:1: the expression is empty`,
		"\xff":                                          `1:1: the expression is not valid UTF-8`,
		"props.vip and\n  props.zzz == 1":               `2:9: unknown property zzz`,
		`"äöü" == props.answr`:                          `1:16: unknown property answr; did you mean answer?`,
		"event.usr == 1 or\nprops.gaol_name == props.x": "1:7: unknown field event.usr; did you mean user?\n2:7: unknown property gaol_name; did you mean goal_name?\n2:26: unknown property x",
		`props.zzz == 1 and props.vip == 1`:             "1:7: unknown property zzz\n1:30: mismatched types boolean and integer for ==",
	} {
		_, _, err := expression.Compile(text, expression.Scope{Types: catalog()})
		if got := messages(err); got != want {
			t.Errorf("%s:\n got %s\nwant %s", text, got, want)
		}
	}
}

// TestLimits holds what must be refused or fail quickly, whatever it asks for.
func TestLimits(t *testing.T) {
	t.Parallel()
	const work, memory = "takes too much time or memory", "memory budget exceeded"
	twice := "2"
	for range 90 {
		twice = "1 < (" + twice + ") < 3"
	}
	for text, want := range map[string]string{
		strings.Repeat("1 + ", 3000) + "1":   "at most 10000",
		strings.Repeat("1+", 400) + "1":      "too long",
		twice:                                "too long",
		`any([1], any([1], any([1], true)))`: "2 deep at most",

		`props.a matches "` + strings.Repeat("a", 1001) + `"`:                              "at most 1000",
		`repeat("x", 1000000000) == ""`:                                                    work,
		`repeat(repeat("x", 100000), 100000) == ""`:                                        work,
		`repeat("", 9223372036854775807) == ""`:                                            work,
		`1..1000000000 == []`:                                                              "more than 100000 elements",
		`-9223372036854775807..9223372036854775807 == []`:                                  "more than 100000 elements",
		`map(1..50000, map(1..50000, #)) == []`:                                            memory,
		`let a = 1..50000; count(a, count(a, # > 0) > 0) > 0`:                              work,
		`let a = 1..50000; all(a, none(a, # == 0))`:                                        work,
		`let a = 1..50000; any(a, max(a) == 0)`:                                            work,
		`let a = 1..50000; any(a, # in a and false)`:                                       work,
		`let a = 1..90000; any(1..90000, a == [#])`:                                        "",
		`let a = 1..90000; let b = 1..90000; any(a, not (a == b))`:                         work,
		`uniq(1..90000) == []`:                                                             work,
		`reduce(1..100, #acc + #acc, "x") == ""`:                                           work,
		`len(reduce(1..60, [#acc, #acc], 1)) == 2`:                                         "",
		`flatten(reduce(1..60, [#acc, #acc], 1)) == []`:                                    work,
		`reduce(1..60, [#acc, #acc], 1) == reduce(1..60, [#acc, #acc], 1)`:                 work,
		`reduce(1..60, ({a: #acc, b: #acc}), 1) == reduce(1..60, ({a: #acc, b: #acc}), 1)`: work,
		`reduce(1..100, [#acc], 1) == reduce(1..100, [#acc], 1)`:                           "nested more than 64",
		`flatten(reduce(1..100, [#acc], 1)) == []`:                                         "nested more than 64",
		`map(1..1000, repeat("x", 100000)) == []`:                                          work,
		`join(map(1..50000, "x"), repeat("y", 100000)) == ""`:                              work,
		`replace(repeat("x", 100000), "x", repeat("y", 100000)) == ""`:                     work,
		`any(1..50000, lower(props.long) == "")`:                                           work,
		`any(1..50000, props.long contains "z")`:                                           work,
		`any(1..50000, props.long matches "z$")`:                                           work,
		`props.long matches "^(.?){240}$"`:                                                 work,
		`any(1..50000, sort([3, 2, 1]) == [])`:                                             work,
	} {
		start := time.Now()
		p, _, err := expression.Compile(text, expression.Scope{})
		if err == nil {
			long := properties{"long": strings.Repeat("long ", 50_000)}
			_, err = p.Run(&expression.Input{Event: &pipeline.Event{Properties: long}})
		}
		switch {
		case want == "" && err != nil, want != "" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("%.80s: got %v, want %q", text, err, want)
		}
		if took := time.Since(start); took > 5*time.Second { // without limits: minutes, or never
			t.Errorf("%.80s: took %v", text, took)
		}
	}
}

func TestRunErrors(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		`props.a == 1`:                      `1:9: a is 123456789012345678901, an integer beyond 64 bits`,
		"true and\n props.a > 1":            `2:10: a is 123456789012345678901, an integer beyond 64 bits`,
		`string(props.a)`:                   `1:14: a is 123456789012345678901, an integer beyond 64 bits`,
		`props.b + 1`:                       `1:9: cannot add text and an integer`,
		`-props.b`:                          `1:1: cannot subtract an integer and text`,
		`1 / 0`:                             `1:3: division by zero`,
		`9223372036854775807 + 1`:           `1:21: the result is an integer beyond 64 bits`,
		`-9223372036854775807 * 2`:          `1:22: the result is an integer beyond 64 bits`,
		`sum([9223372036854775807, 1])`:     `1:1: the result is an integer beyond 64 bits`,
		`abs(-9223372036854775807 - 1)`:     `1:1: the result is an integer beyond 64 bits`,
		`int(1e19)`:                         `1:1: the result is an integer beyond 64 bits`,
		`int("99999999999999999999")`:       `1:1: the result is an integer beyond 64 bits`,
		`int("x")`:                          `1:1: int cannot make an integer of "x"`,
		`float("NaN")`:                      `1:1: float cannot make a number of "NaN"`,
		`10 ** 1000`:                        `1:4: the result is beyond the range of numbers`,
		`lower(props.c)`:                    `1:1: lower needs text, not an integer`,
		`any(props.b, true)`:                `1:1: any needs a list, not text`,
		`props.b[0]`:                        `1:8: text has no element that is named by an integer`,
		`string([1])`:                       `1:1: string cannot make text of a list`,
		`fromJSON("123456789012345678901")`: `1:1: the result is an integer beyond 64 bits`,
		`fromJSON("{} {}")`:                 `1:1: fromJSON: there is more than one value`,
		`{(props.c): 1}`:                    `1:9: the keys of a map are text, not an integer`,
		`reduce(1..99, [#acc], 1) == reduce(1..99, [#acc], 1)`: `1:26: lists are nested more than 64 deep`,
		`props.c[1:]`:   `1:8: cannot take a part of an integer`,
		`props.b["x":]`: `1:8: the bounds of a part are integers, not text`,
	} {
		p, _, err := expression.Compile(text, expression.Scope{})
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		big := properties{"a": bigNumber, "b": "text", "c": int64(5)}
		if _, err := p.Run(&expression.Input{Event: &pipeline.Event{Properties: big}}); messages(err) != want {
			t.Errorf("%s:\n got %v\nwant %s", text, err, want)
		}
	}
}

func TestProperties(t *testing.T) {
	t.Parallel()
	scope := expression.Scope{Types: catalog(), Aliases: map[string]string{"wm.euId": "wm.euid"}}
	p, _, err := expression.Compile(`props["wm.euId"] == "u1" and props.vip and "goal_name" in props and props.vip`, scope)
	if err != nil {
		t.Fatal(err)
	}
	if got := p.Properties(); !slices.Equal(got, []string{"goal_name", "vip", "wm.euid"}) {
		t.Errorf("properties: %v", got)
	}
	if v, err := p.Run(&expression.Input{Event: events()[0]}); v != true || err != nil {
		t.Errorf("alias: %v %v", v, err)
	}
}

func TestType(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]pipeline.Type{
		`props.vip`: pipeline.Boolean, `props.nps_score`: pipeline.Integer, `props.price`: pipeline.Number, `1 / 2`: pipeline.Number,
		`props.day`: pipeline.String, `event.id`: pipeline.String, `1 == 2`: pipeline.Boolean, `len("a")`: pipeline.Integer,
		`null`: "", `[1]`: "", `props.vip ? 1 : "a"`: "",
	} {
		p, _, err := expression.Compile(text, expression.Scope{Types: catalog()})
		if err != nil {
			t.Errorf("%s: %v", text, err)
		} else if p.Type() != want {
			t.Errorf("%s: got %q, want %q", text, p.Type(), want)
		}
	}
}
