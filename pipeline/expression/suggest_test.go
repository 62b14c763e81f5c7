package expression_test

import (
	"testing"

	"github.com/millrace-io/millrace/pipeline"
	"github.com/millrace-io/millrace/pipeline/expression"
)

// fires tries what is suggested.
func fires(t *testing.T, text string, s expression.Scope) bool {
	t.Helper()
	p, _, err := expression.Compile(text, s)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	ways, err := expression.Suggest(text, s)
	if err != nil || len(ways) > 64 {
		t.Fatalf("%s: %d ways, %v", text, len(ways), err)
	}
	for _, w := range ways {
		props := properties{"walk_thru_id": int64(1), "answer": "no", "tags": "given"}
		for name, v := range w.Properties {
			if props[name] = v; v == nil {
				delete(props, name)
			}
		}
		e := &pipeline.Event{Type: "t", User: w.Fields["user"], System: w.Fields["system"], Properties: props}
		if v, err := p.Run(&expression.Input{Event: e}); err == nil && v == true {
			return true
		}
	}
	return false
}

func TestSuggest(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]bool{
		`props.walk_thru_id == 12345 and props.nps_score <= 6`:                             true,
		`props.nps_score > 3 and props.nps_score < 5`:                                      true,
		`props.nps_score != 0 and props.nps_score >= 0`:                                    true,
		`12 < props.nps_score or props.vip`:                                                true,
		`not (props.vip or props.walk_thru_id == 1)`:                                       true,
		`not (props.price > 2 and props.answer contains "no")`:                             true,
		`props.answer startsWith "a" and props.goal_name endsWith "z"`:                     true,
		`props.answer matches "^(yes|no)[0-9]{2}x+\\s[^b]$" and props.tags matches "g.v*"`: true,
		`props.goal_name in ["a", "b"] and props.goal_name == "b"`:                         true,
		`props.walk_thru_id in 5..9 and props.walk_thru_id not in [1, 2]`:                  true,
		`props.answer not contains "no" and "tags" not in props`:                           true,
		`"walk_thru_id" in props and event.user == "u-1" and event.system != "x"`:          true,
		`props.vip == false and props.price == 2.5 and props["answer.17"] == null`:         true,
		`"a" < props.day and props.day < "b"`:                                              true,
		`props.walk_thru_id * 2 == 10`:                                                     false, // not read off
		`false and props.vip`:                                                              false,
	} {
		if got := fires(t, text, expression.Scope{Types: catalog()}); got != want {
			t.Errorf("%s: %v", text, got)
		}
	}
	if _, err := expression.Suggest("props.x ==", expression.Scope{}); err == nil {
		t.Error("a text that is no expression gives suggestions")
	}
}
