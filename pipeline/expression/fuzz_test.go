package expression_test

import (
	"encoding/json"
	"reflect"
	"testing"
	"time"

	"github.com/millrace-io/millrace/pipeline"
	"github.com/millrace-io/millrace/pipeline/expression"
)

// FuzzCompile: no text makes it panic or run away, a program gives the same
// value twice, and that value can be written as JSON.
func FuzzCompile(f *testing.F) {
	for _, rows := range [][]row{equalityRows, orderRows, textRows, inRows, logicRows, arithmeticRows, functionRows, listRows, eventRows} {
		for _, r := range rows {
			f.Add(r.text)
		}
	}
	for _, text := range []string{"1 < (1 < (1 < 2 < 3) < 3) < 3", "let a = 1..9; map(a, {\"b\": #})", "formatDate(event.time, \"2006\")", "a;b", "#", "b'x'", "`"} {
		f.Add(text)
	}
	in := fullInput()
	f.Fuzz(func(t *testing.T, text string) {
		start := time.Now()
		for _, s := range []expression.Scope{{Delivery: true}, {Types: catalog()}} {
			p, _, err := expression.Compile(text, s)
			if err != nil {
				checkErrors(t, err)
				continue
			}
			v, err := p.Run(in)
			w, err2 := p.Run(in)
			if (err == nil) != (err2 == nil) || !reflect.DeepEqual(v, w) {
				t.Fatalf("twice: %v (%v), %v (%v)", v, err, w, err2)
			}
			if _, err := json.Marshal(v); err != nil {
				t.Fatalf("value %v as JSON: %v", v, err)
			}
			checkErrors(t, err)
			checkExplained(t, text, s, in, v, err)
			_, _ = p.Run(&expression.Input{Event: &pipeline.Event{}})
		}
		if took := time.Since(start); took > 4*time.Second { // six runs and four compiles on a busy machine
			t.Fatalf("took %v", took)
		}
	})
}

func checkErrors(t *testing.T, err error) {
	t.Helper()
	if err == nil {
		return
	}
	all := expression.All(err)
	if len(all) == 0 {
		t.Fatalf("no expression.Error in %v", err)
	}
	for _, e := range all {
		if e.Line < 1 || e.Column < 1 || e.Message == "" {
			t.Fatalf("error without place or message: %#v", e)
		}
	}
}

// checkExplained: an explanation says what Run says.
func checkExplained(t *testing.T, text string, s expression.Scope, in *expression.Input, v any, failure error) {
	t.Helper()
	c, err := expression.Explain(text, s, in)
	if err != nil {
		t.Fatalf("explaining %q, which can be compiled: %v", text, err)
	}
	if got := follow(t, c); got != c.Answer || (got == expression.Holds) != (failure == nil && v == true) || (got == expression.Failed) != (failure != nil) {
		t.Fatalf("explaining %q: its clauses say %s, the whole %s, Run gives %v (%v)", text, got, c.Answer, v, failure)
	}
}
