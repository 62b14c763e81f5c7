package pipeline_test

import (
	"go/ast"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// TestMetricCalls finds what the compiler can't: a call with more or fewer label
// values than the metric has labels, which would panic, and a metric that
// nothing counts.
func TestMetricCalls(t *testing.T) {
	t.Parallel()
	all := sources(t)
	labels := metricLabels(t, all)
	counted := map[string]bool{}
	for _, s := range all {
		if s.isTest() {
			continue
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			metric, ok := metricOf(call)
			if want, known := labels[metric]; ok && known {
				counted[metric] = true
				if got := len(call.Args) - 1; got != want && !call.Ellipsis.IsValid() {
					t.Errorf("%s: %d label values for %s, which has %d labels", s.at(call), got, metric, want)
				}
			}
			return true
		})
	}
	for metric := range labels {
		if !counted[metric] {
			t.Errorf("nothing counts %s", metric)
		}
	}
}

// metricOf returns the M of a call x.Metrics.M.Add(…), Set or Record.
func metricOf(call *ast.CallExpr) (string, bool) {
	method, ok := call.Fun.(*ast.SelectorExpr)
	if !ok || !slices.Contains([]string{"Add", "Set", "Record"}, method.Sel.Name) {
		return "", false
	}
	metric, ok := method.X.(*ast.SelectorExpr)
	if !ok {
		return "", false
	}
	switch x := metric.X.(type) {
	case *ast.SelectorExpr:
		return metric.Sel.Name, strings.EqualFold(x.Sel.Name, "metrics")
	case *ast.Ident:
		return metric.Sel.Name, strings.EqualFold(x.Name, "metrics")
	}
	return "", false
}

// metricLabels returns how many labels each metric has, from its field's tag.
func metricLabels(t *testing.T, all []source) map[string]int {
	t.Helper()
	count := map[string]int{}
	for _, s := range all {
		if s.path != "pipeline/telemetry/metrics.go" {
			continue
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			field, ok := n.(*ast.Field)
			if !ok || field.Tag == nil {
				return true
			}
			tag, err := strconv.Unquote(field.Tag.Value)
			if err != nil {
				t.Fatal(err)
			}
			names := strings.Split(reflect.StructTag(tag).Get("labels"), ",")
			count[field.Names[0].Name] = len(slices.DeleteFunc(names, func(n string) bool { return n == "" }))
			return true
		})
	}
	if len(count) == 0 {
		t.Fatal("found no metrics")
	}
	return count
}
