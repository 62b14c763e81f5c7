package expression_test

import (
	"testing"

	"github.com/millrace-io/millrace/pipeline/expression"
)

// row is an expression and its answers where the properties are given, missing,
// null, of another type: true, false, error.
type row struct{ text, want string }

// TestTable goes on where the proof's table ends. In the last event integers
// and text have changed places, vip and price are "yes", other_id and the host
// name are missing.
func TestTable(t *testing.T) {
	t.Parallel()
	for group, rows := range map[string][]row{
		"equality": equalityRows, "order": orderRows, "text": textRows, "in": inRows, "logic": logicRows,
		"arithmetic": arithmeticRows, "functions": functionRows, "lists": listRows, "event": eventRows,
	} {
		t.Run(group, func(t *testing.T) {
			t.Parallel()
			for _, r := range rows {
				for _, s := range []expression.Scope{{Types: catalog()}, {}} {
					if got := answers(t, r.text, s); got != r.want {
						t.Errorf("%s: got %s, want %s", r.text, got, r.want)
					}
				}
			}
		})
	}
}

var equalityRows = []row{
	{`12345 == props["walk_thru_id"]`, "tfff"},
	{`props.walk_thru_id == 12345`, "tfff"},
	{`props?.walk_thru_id == 12345`, "tfff"},
	{`props.walk_thru_id == 12345.0`, "tfff"},
	{`props.walk_thru_id == 12345.5`, "ffff"},
	{`props.walk_thru_id != 12345.0`, "fttt"},
	{`not (props.walk_thru_id != 12345)`, "tfff"},
	{`props.price == 2.5`, "tfff"},
	{`props.price != 2.5`, "fttt"},
	{`props.price == 2`, "ffff"},
	{`-2.5 == -props.price`, "tffe"},
	{`props.vip == true`, "tfff"},
	{`props.vip == false`, "ffff"},
	{`props.vip != false`, "tttt"},
	{`props.vip == null`, "fttf"},
	{`props.goal_name != "g"`, "fttt"},
	{`props.goal_name == ""`, "ffff"},
	{`null == props.goal_name`, "fttf"},
	{`nil != props.goal_name`, "tfft"},
	{`null == null`, "tttt"},
	{`null != nil`, "ffff"},
	{`props.walk_thru_id == props.walk_thru_id`, "tttt"},
	{`props.goal_name == props.answer`, "fttf"},
	{`props.walk_thru_id == props.price`, "fttf"},
	{`props["answer.17"] == "yes"`, "tfff"},
	{`props.day == "2026-03-01"`, "tfff"},
	{`[1, 2] == [1, 2.0]`, "tttt"},
	{`[1, 2] == [2, 1]`, "ffff"},
	{`{a: 1} == {a: 1}`, "tttt"},
	{`{a: 1} == {a: 2}`, "ffff"},
	{`{a: null} == {b: null}`, "ffff"},
	{`9007199254740993 == 9007199254740992.0`, "ffff"},
}

var orderRows = []row{
	{`props.nps_score >= 9`, "tfff"},
	{`props.nps_score < 10`, "tfff"},
	{`9 <= props.nps_score`, "tfff"},
	{`10 > props.nps_score`, "tfff"},
	{`not (props.nps_score < 10)`, "fttt"},
	{`props.nps_score > 8.9`, "tfff"},
	{`props.nps_score < 9.1`, "tfff"},
	{`props.price > 2`, "tfff"},
	{`props.price >= 2.5`, "tfff"},
	{`props.price < props.nps_score`, "tfff"},
	{`props.goal_name > "a"`, "tfff"},
	{`props.goal_name <= "g"`, "tfff"},
	{`"a" < props.goal_name`, "tfff"},
	{`props.goal_name < "A"`, "ffff"},
	{`props.day >= "2026-01-01"`, "tfff"},
	{`props.day > "2026-01-01" and props.day < "2027-01-01"`, "tfff"},
	{`1 < props.nps_score < 10`, "tfff"},
	{`props.walk_thru_id > props.other_id`, "tfff"},
	{`props.walk_thru_id < props.other_id`, "ffff"},
	{`not (props.walk_thru_id < props.other_id)`, "tttt"},
	{`9223372036854775807 > 9223372036854775806.0`, "ffff"},
	{`props.nps_score > -1`, "tfff"},
}

var textRows = []row{
	{`props.answer contains "HELP"`, "ffff"},
	{`lower(props.answer) contains "help"`, "tffe"},
	{`"please help me" contains props.answer`, "tfff"},
	{`props.answer contains props.goal_name`, "ffff"},
	{`props.answer contains ""`, "tfff"},
	{`not (props.answer contains "help")`, "fttt"},
	{`props.answer not startsWith "pl"`, "fttt"},
	{`props.answer not endsWith "help"`, "fttt"},
	{`props.answer not matches "help"`, "fttt"},
	{`props.answer matches "(?i)HELP"`, "tfff"},
	{`props.answer matches "^help"`, "ffff"},
	{`"please" startsWith props.goal_name`, "ffff"},
	{`props.answer + "!" == "please help!"`, "tffe"},
	{`"say: " + props.answer == "say: please help"`, "tffe"},
	{`props.tags[0:1] == "a"`, "tffe"},
	{`props.tags[-1:] == "c"`, "tffe"},
	{`props.tags[:1] + props.tags[4:] == "ac"`, "tffe"},
}

var inRows = []row{
	{`props.nps_score in [9.0]`, "tfff"},
	{`props.nps_score in [8.5, 10]`, "ffff"},
	{`props.nps_score in []`, "ffff"},
	{`props.nps_score not in []`, "tttt"},
	{`props.nps_score in 10..20`, "ffff"},
	{`props.nps_score in 20..1`, "ffff"},
	{`props.nps_score not in 9..10`, "fttt"},
	{`props.nps_score in 1..props.other_id`, "ffff"},
	{`props.price in 1..10`, "ffff"},
	{`props.goal_name in ["a", null]`, "ffff"},
	{`props.goal_name in [null, "g"]`, "tfff"},
	{`props.vip in [true]`, "tfff"},
	{`props.goal_name in split("f,g,h", ",")`, "tfff"},
	{`props.goal_name in {g: 1}`, "tfff"},
	{`props.goal_name in {h: 1}`, "ffff"},
	{`lower(props.goal_name) in ["g"]`, "tffe"},
	{`null in [null]`, "ffff"},
	{`"vip" in props`, "tfft"},
	{`"vip" not in props`, "fttf"},
	{`"vip" in props and props.vip`, "tfff"},
	{`"answer.17" in props`, "tfft"},
}

var logicRows = []row{
	{`!props.vip`, "fttt"},
	{`not not props.vip`, "tfff"},
	{`props.vip && props.nps_score == 9`, "tfff"},
	{`props.vip or props.nps_score == 9`, "tfff"},
	{`props.vip || true`, "tttt"},
	{`false and props.vip`, "ffff"},
	{`props.vip and props.nps_score / 0 > 1`, "efff"},
	{`not props.vip and props.nps_score / 0 > 1`, "fffe"},
	{`props.vip ? props.nps_score == 9 : props.nps_score == null`, "tttf"},
	{`if props.vip { true } else { false }`, "tfff"},
	{`props.vip ?: true`, "tttt"},
	{`props.vip ?? true`, "tttf"},
	{`(props.nps_score ?? 0) == 0`, "fttf"},
	{`(props.nps_score ?? 0) > 8`, "tfff"},
	{`(props.goal_name ?? props.answer ?? "x") == "x"`, "fttf"},
	{`let n = props.nps_score; n > 8 and n < 10`, "tfff"},
	{`let a = lower(props.answer); a == "please help" or a == null`, "ttte"},
	{`props.vip; true`, "tttt"},
	{`props.vip == true or props.goal_name == "g" and false`, "tfff"},
	{`(props.vip == true or props.goal_name == "g") and false`, "ffff"},
}

var arithmeticRows = []row{
	{`props.nps_score - 1 == 8`, "tffe"},
	{`props.nps_score * 2 == 18`, "tffe"},
	{`props.nps_score / 2 == 4.5`, "tffe"},
	{`props.nps_score % 2 == 1`, "tffe"},
	{`props.nps_score ** 2 == 81`, "tffe"},
	{`props.nps_score ^ 2 == 81`, "tffe"},
	{`-props.nps_score == -9`, "tffe"},
	{`+props.nps_score == 9`, "tffe"},
	{`props.nps_score + props.price == 11.5`, "tfff"},
	{`(props.nps_score + 1) == null`, "ftte"},
	{`props.nps_score - 9 == 0`, "tffe"},
	{`1 / (props.nps_score - 9) > 0`, "effe"},
	{`1 % (props.nps_score - 9) > 0`, "effe"},
	{`9223372036854775807 + props.nps_score > 0`, "effe"},
	{`-9223372036854775807 - props.nps_score < 0`, "effe"},
	{`4611686018427387904 * props.nps_score > 0`, "effe"},
	{`1e308 * props.nps_score > 0`, "effe"},
	{`props.walk_thru_id + props.other_id == 12352`, "tfff"},
}

var functionRows = []row{
	{`upper(props.goal_name) == "G"`, "tffe"},
	{`trim(props.answer) != "x"`, "ttte"},
	{`trimPrefix(props.answer, "please ") == "help"`, "tffe"},
	{`replace(props.answer, "help", "go") == "please go"`, "tffe"},
	{`repeat(props.goal_name, 3) == "ggg"`, "tffe"},
	{`indexOf(props.answer, "help") == 7`, "tffe"},
	{`lastIndexOf(props.answer, "e") == 8`, "tffe"},
	{`hasPrefix(props.answer, "pl")`, "tffe"},
	{`hasSuffix(props.answer, "pl")`, "fffe"},
	{`abs(0 - props.nps_score) == 9`, "tffe"},
	{`round(props.price) == 3`, "tffe"},
	{`floor(props.price) == 2`, "tffe"},
	{`ceil(props.price) == 3`, "tffe"},
	{`int(props.price) == 2`, "tffe"},
	{`int(props.walk_thru_id) == 12345`, "tfft"},
	{`float(props.walk_thru_id) == 12345`, "tfft"},
	{`float(props.price) == 2.5`, "tffe"},
	{`string(props.price) == "2.5"`, "tfff"},
	{`string(props.vip) == "true"`, "tfff"},
	{`type(props.goal_name) == "string"`, "tfff"},
	{`max(props.nps_score, 3) == 9`, "tffe"},
	{`min(props.nps_score, 3.5) == 3.5`, "tffe"},
	{`bitand(props.nps_score, 1) == 1`, "tffe"},
	{`toBase64(props.goal_name) == "Zw=="`, "tffe"},
	{`fromBase64("Zw==") == props.goal_name`, "tfff"},
	{`fromJSON("{\"n\": 9}").n == props.nps_score`, "tfff"},
	{`len(props.tags) == 5`, "tffe"},
}

var listRows = []row{
	{`any(split(props.tags, ","), # == "b")`, "tffe"},
	{`not any(split(props.tags, ","), # == "b")`, "ftte"},
	{`all(split(props.tags, ","), # != "z")`, "tffe"},
	{`none(split(props.tags, ","), # == "z")`, "tffe"},
	{`one(split(props.tags, ","), # == "a")`, "tffe"},
	{`count(split(props.tags, ","), # > "a") == 2`, "tffe"},
	{`count(split(props.tags, ","), # > "a") == null`, "ftte"},
	{`filter(split(props.tags, ","), # == "c")[0] == "c"`, "tffe"},
	{`find(split(props.tags, ","), # == "c") == "c"`, "tffe"},
	{`findIndex(split(props.tags, ","), # == "c") == 2`, "tffe"},
	{`split(props.tags, ",")[1] == "b"`, "tffe"},
	{`split(props.tags, ",")[-1] == "c"`, "tffe"},
	{`split(props.tags, ",")[7] == null`, "ttte"},
	{`split(props.tags, ",")[props.other_id] == null`, "ttte"},
	{`join(reverse(split(props.tags, ",")), "") == "cba"`, "tffe"},
	{`join(map(split(props.tags, ","), upper(#))) == "ABC"`, "tffe"},
	{`reduce(split(props.tags, ","), #acc + #) == "abc"`, "tffe"},
	{`sum([1, 2, props.nps_score]) == 12`, "tffe"},
	{`sum([1, 2, 3], # * props.other_id) == 42`, "tfff"},
	{`mean([props.nps_score, 1]) == 5`, "teee"},
	{`any([1, 2], props.vip)`, "tfff"},
	{`filter([1, 2], props.vip) == [1, 2]`, "tfff"},
	{`any(props.goal_name ?? [], # == 1)`, "effe"},
	{`first(split(props.tags, ",")) == "a"`, "tffe"},
	{`sort(split(props.tags, ","), "desc")[0] == "c"`, "tffe"},
	{`props.goal_name in map(1..3, "g")`, "tfff"},
}

var eventRows = []row{
	{`event.type == "t"`, "tttt"},
	{`event["type"] == "t"`, "tttt"},
	{`event.user == null`, "tttt"},
	{`event.user != "u"`, "tttt"},
	{`event.time == null`, "tttt"},
	{`event.environment == "qa"`, "ffff"},
	{`event.type == "t" and props.walk_thru_id == 12345`, "tfff"},
}
