package expression_test

import (
	"testing"

	"github.com/expr-lang/expr"
	"github.com/expr-lang/expr/vm"

	"github.com/millrace-io/millrace/pipeline/expression"
)

const (
	oneClause    = `props["walk_thru_id"] == 12345`
	threeClauses = `props["walk_thru_id"] == 12345 and props["nps_score"] > 8 and props["goal_name"] startsWith "g"`
)

func BenchmarkRun(b *testing.B) {
	for name, text := range map[string]string{"one": oneClause, "three": threeClauses, "function": `lower(props["goal_name"]) == "g"`} {
		b.Run(name, func(b *testing.B) {
			p, _, err := expression.Compile(text, expression.Scope{Types: catalog()})
			if err != nil {
				b.Fatal(err)
			}
			in := &expression.Input{Event: events()[0]}
			b.ReportAllocs()
			for b.Loop() {
				if v, err := p.Run(in); err != nil || v != true {
					b.Fatal(v, err)
				}
			}
		})
	}
}

// BenchmarkPlain is what expr itself takes over a map, which fails where a
// property is missing.
func BenchmarkPlain(b *testing.B) {
	for name, text := range map[string]string{"one": oneClause, "three": threeClauses} {
		b.Run(name, func(b *testing.B) {
			env := map[string]any{"props": map[string]any(events()[0].Properties.(properties))}
			p, err := expr.Compile(text, expr.Env(env))
			if err != nil {
				b.Fatal(err)
			}
			var m vm.VM
			b.ReportAllocs()
			for b.Loop() {
				if v, err := m.Run(p, env); err != nil || v != true {
					b.Fatal(v, err)
				}
			}
		})
	}
}

func BenchmarkCompile(b *testing.B) {
	for b.Loop() {
		if _, _, err := expression.Compile(threeClauses, expression.Scope{Types: catalog()}); err != nil {
			b.Fatal(err)
		}
	}
}
