package expression_test

import (
	"encoding/json"
	"fmt"
	"iter"
	"testing"

	"github.com/millrace-io/millrace/pipeline"
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

func catalog() map[string]pipeline.Type {
	return map[string]pipeline.Type{
		"walk_thru_id": pipeline.Integer, "other_id": pipeline.Integer, "goal_name": pipeline.String,
		"nps_score": pipeline.Integer, "vip": pipeline.Boolean, "answer": pipeline.String,
		"wm.euid": pipeline.String, "ctx.location.hostname": pipeline.String,
		"price": pipeline.Number, "day": pipeline.Date, "answer.<question_id>": pipeline.String, "tags": pipeline.String,
	}
}

func events() []*pipeline.Event {
	full := properties{
		"walk_thru_id": int64(12345), "other_id": int64(7), "goal_name": "g", "nps_score": int64(9), "vip": true,
		"answer": "please help", "ctx.location.hostname": "h.example", "wm.euid": "u1",
		"price": 2.5, "day": "2026-03-01", "answer.17": "yes", "tags": "a,b,c",
	}
	nulls, wrong := properties{}, properties{}
	for k, v := range full {
		nulls[k] = nil
		switch v.(type) {
		case int64:
			wrong[k] = fmt.Sprint(v)
		case string:
			wrong[k] = int64(5)
		default:
			wrong[k] = "yes"
		}
	}
	delete(wrong, "other_id")
	wrong["goal_name"] = int64(1)
	delete(wrong, "ctx.location.hostname")
	var out []*pipeline.Event
	for _, p := range []properties{full, {}, nulls, wrong} {
		out = append(out, &pipeline.Event{Type: "t", Properties: p})
	}
	return out
}

// answers runs a text over the four events: true, false or error for each.
func answers(t *testing.T, text string, s expression.Scope) string {
	t.Helper()
	p, _, err := expression.Compile(text, s)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	out := ""
	for _, e := range events() {
		v, err := p.Run(&expression.Input{Event: e})
		switch {
		case err != nil:
			out += "e"
		case v == true:
			out += "t"
		default:
			out += "f"
		}
	}
	return out
}

// TestProof is the table of the proof of spec 2.1: a property that is given,
// missing, null, of another type.
func TestProof(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		`props["walk_thru_id"] == 12345`: "tfff", `props["walk_thru_id"] != 12345`: "fttt",
		`props["walk_thru_id"] == null`: "fttf", `props["walk_thru_id"] == nil`: "fttf", `props["walk_thru_id"] != null`: "tfft",
		`props["ctx.location.hostname"] == "h.example"`: "tfff", `props["goal_name"] == "g"`: "tfff",
		`(props["goal_name"] ?? "goal") == "goal"`: "fttf",
		`props["nps_score"] > 8`:                   "tfff", `props["nps_score"] <= 8`: "ffff", `not (props["nps_score"] > 8)`: "fttt",
		`props["nps_score"] in [9, 10]`: "tfff", `props["nps_score"] not in [1, 2]`: "tttt", `props["nps_score"] in 9..10`: "tfff",
		`props["goal_name"] in ["", "g"]`: "tfff", `props["answer"] contains "help"`: "tfff",
		`props["answer"] not contains "help"`: "fttt", `props["answer"] startsWith "pl"`: "tfff",
		`props["answer"] endsWith "help"`: "tfff", `props["answer"] matches "^pl.*p$"`: "tfff",
		`props["vip"]`: "tfff", `not props["vip"]`: "fttt", `props["vip"] and props["nps_score"] > 1`: "tfff",
		`props["vip"] ? true : false`: "tfff", `props["nps_score"] + 1 > 5`: "tffe",
		`lower(props["answer"]) startsWith "pl"`: "tffe", `len(props["answer"]) > 3`: "tffe",
		`trim(lower(props["answer"])) == "please help"`: "tffe",
		`props["nps_score"] / 0 > 1`:                    "effe", `props["nps_score"] % 0 == 1`: "effe",
		`"goal_name" in props`: "tfft", `string(props["nps_score"]) == "9"`: "tfft",
		`props["walk_thru_id"] == props["other_id"]`: "fttf",
	} {
		for _, s := range []expression.Scope{{Types: catalog()}, {}} {
			if got := answers(t, text, s); got != want {
				t.Errorf("%s: got %s, want %s", text, got, want)
			}
		}
	}
}

// bigNumber is how an integer beyond 64 bits comes.
const bigNumber = json.Number("123456789012345678901")
