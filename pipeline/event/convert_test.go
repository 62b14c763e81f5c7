package event

import (
	"encoding/json"
	"fmt"
	"sync"
	"testing"

	"github.com/millrace-io/millrace/pipeline"
)

func TestConvert(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		json string
		typ  pipeline.Type
		want any
		ok   bool
	}{
		{`12`, pipeline.Integer, int64(12), true},
		{`"12345"`, pipeline.Integer, int64(12345), true},
		{`"-7"`, pipeline.Integer, int64(-7), true},
		{`"007"`, pipeline.Integer, "007", false},
		{`"+7"`, pipeline.Integer, "+7", false},
		{`" 7"`, pipeline.Integer, " 7", false},
		{`"-0"`, pipeline.Integer, "-0", false},
		{`""`, pipeline.Integer, "", false},
		{`"9223372036854775808"`, pipeline.Integer, "9223372036854775808", false},
		{`9223372036854775808`, pipeline.Integer, json.Number("9223372036854775808"), true},
		{`5.0`, pipeline.Integer, int64(5), true},
		{`1e3`, pipeline.Integer, int64(1000), true},
		{`5.5`, pipeline.Integer, 5.5, false},
		{`1e30`, pipeline.Integer, 1e30, false},
		{`9007199254740993.0`, pipeline.Integer, 9007199254740992.0, false},
		{`true`, pipeline.Integer, true, false},
		{`null`, pipeline.Integer, nil, true},

		{`5`, pipeline.Number, int64(5), true},
		{`5.5`, pipeline.Number, 5.5, true},
		{`18446744073709551616`, pipeline.Number, json.Number("18446744073709551616"), true},
		{`"5"`, pipeline.Number, int64(5), true},
		{`"5.5"`, pipeline.Number, 5.5, true},
		{`"0.1"`, pipeline.Number, 0.1, true},
		{`"5.50"`, pipeline.Number, "5.50", false},
		{`"1e3"`, pipeline.Number, "1e3", false},
		{`"NaN"`, pipeline.Number, "NaN", false},
		{`"+Inf"`, pipeline.Number, "+Inf", false},
		{`"0.1000000000000000055511151231257827"`, pipeline.Number, "0.1000000000000000055511151231257827", false},
		{`false`, pipeline.Number, false, false},

		{`"x"`, pipeline.String, "x", true},
		{`5`, pipeline.String, "5", true},
		{`-5`, pipeline.String, "-5", true},
		{`-0`, pipeline.String, int64(0), false},
		{`5.5`, pipeline.String, "5.5", true},
		{`5.0`, pipeline.String, 5.0, false},
		{`1e3`, pipeline.String, 1000.0, false},
		{`18446744073709551616`, pipeline.String, "18446744073709551616", true},
		{`true`, pipeline.String, "true", true},
		{`null`, pipeline.String, nil, true},

		{`true`, pipeline.Boolean, true, true},
		{`"false"`, pipeline.Boolean, false, true},
		{`"True"`, pipeline.Boolean, "True", false},
		{`1`, pipeline.Boolean, int64(1), false},

		{`"2026-01-01"`, pipeline.Date, "2026-01-01", true},
		{`"2026-01-01T10:00:00+02:00"`, pipeline.Date, "2026-01-01T10:00:00+02:00", true},
		{`"1.1.2026"`, pipeline.Date, "1.1.2026", false},
		{`1767225600000`, pipeline.Date, int64(1767225600000), false},
	} {
		t.Run(fmt.Sprintf("%s as %s", tt.json, tt.typ), func(t *testing.T) {
			t.Parallel()
			c, err := builtin(t).With([]EventType{{Name: "t", Properties: []Property{{Name: "p", Type: tt.typ}}}})
			if err != nil {
				t.Fatal(err)
			}
			d := NewDecoder(nil, "")
			mismatches := 0
			d.Mismatches = func(eventType, property string) {
				if eventType != "t" || property != "p" {
					t.Errorf("counted %s of %s", property, eventType)
				}
				mismatches++
			}
			e, err := d.Decode(t.Context(), rec(`{"type":"t","properties":{"p":`+tt.json+`}}`), c)
			if err != nil {
				t.Fatal(err)
			}
			if mismatches != 0 {
				t.Error("counted before it was read")
			}
			if got := e.Properties.Get("p"); got != tt.want {
				t.Errorf("got %T %v", got, got)
			}
			_ = e.Properties.Get("p") // counts no more
			if (mismatches == 0) != tt.ok || mismatches > 1 {
				t.Errorf("counted %d times", mismatches)
			}
		})
	}
}

func TestMismatchesOfMirrorsAndPlaceholders(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	counted := map[string]int{}
	d := NewDecoder(nil, "")
	d.Mismatches = func(_, property string) {
		mu.Lock()
		defer mu.Unlock()
		counted[property]++
	}
	e, err := d.Decode(t.Context(), rec(`{"type":"survey.submitted","properties":{
		"wm.euId":1.50,"created_at":"monday","survey_id":"x","answer.31":1.50,"answer.32":7,"answer":5,"wants_help":"true"}}`), builtin(t))
	if err != nil {
		t.Fatal(err)
	}
	for range e.Properties.All() {
		continue
	}
	want := map[string]int{"wm.euid": 1, "created_at": 1, "survey_id": 1, "answer.31": 1}
	if fmt.Sprint(counted) != fmt.Sprint(want) {
		t.Errorf("counted %v", counted)
	}
	for name, want := range map[string]any{"answer.32": "7", "answer.31": 1.5, "answer": int64(5), "wants_help": true} {
		if got := e.Properties.Get(name); got != want {
			t.Errorf("%s is %T %v", name, got, got)
		}
	}
}

func TestTypesOutsideTheCatalogAreUntyped(t *testing.T) {
	t.Parallel()
	e := mustDecode(t, rec(`{"type":"outside","properties":{"walk_thru_id":"12345","ctx.title":5,"sId":7}}`))
	for name, want := range map[string]any{"walk_thru_id": "12345", "ctx.title": int64(5), "sid": "7"} {
		if got := e.Properties.Get(name); got != want {
			t.Errorf("%s is %T %v", name, got, got)
		}
	}
}
