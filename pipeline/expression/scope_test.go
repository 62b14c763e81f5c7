package expression_test

import (
	"strings"
	"testing"

	"github.com/millrace-io/millrace/pipeline"
	"github.com/millrace-io/millrace/pipeline/expression"
)

func TestProperty(t *testing.T) {
	t.Parallel()
	s := expression.Scope{
		Types:   map[string]pipeline.Type{"wm.euid": pipeline.String, "answer": pipeline.Number, "answer.<question_id>": pipeline.Integer},
		Aliases: map[string]string{"wm.euId": "wm.euid"},
	}
	for name, want := range map[string]struct {
		property string
		is       pipeline.Type
		err      string
	}{
		"wm.euid":    {"wm.euid", pipeline.String, ""},
		"wm.euId":    {"wm.euid", pipeline.String, ""},
		"answer":     {"answer", pipeline.Number, ""},
		"answer.7":   {"answer.7", pipeline.Integer, ""},
		"answer.":    {"answer.", "", "unknown property answer.; did you mean answer?"},
		"wm.euldd":   {"wm.euldd", "", "unknown property wm.euldd; did you mean wm.euId?"},
		"\x00\"\xff": {"\x00\"\xff", "", "unknown property \x00\"\xff"},
		"":           {"", "", "unknown property "},
	} {
		property, is, err := s.Property(name)
		if property != want.property || is != want.is || err == nil != (want.err == "") || err != nil && err.Error() != want.err {
			t.Errorf("%q: %q, %q, %v", name, property, is, err)
		}
	}
	if property, is, err := (expression.Scope{}).Property("any"); property != "any" || is != "" || err != nil {
		t.Errorf("without a catalog: %q, %q, %v", property, is, err)
	}
}

func TestDidYouMean(t *testing.T) {
	t.Parallel()
	known := []string{"token", "type", "attempts", "first", "Größe", "limit", "limits"}
	for found, want := range map[string]string{
		"tokne":                          "token", // two neighbours that changed places
		"TYPE":                           "type",
		"typ":                            "type",
		"t":                              "",
		"":                               "",
		"atempts":                        "attempts",
		"attmepst":                       "attempts",
		"limita":                         "limit", // as near as limits, and before it
		"Grösse":                         "Größe",
		"groe":                           "",
		"weather":                        "",
		strings.Repeat("token", 100_000): "",
	} {
		if want != "" {
			want = "; did you mean " + want + "?"
		}
		if got := expression.DidYouMean(found, known); got != want {
			t.Errorf("%.20q: %q, want %q", found, got, want)
		}
	}
	if strings.Join(known, " ") != "token type attempts first Größe limit limits" {
		t.Error("the words given were changed")
	}
}
