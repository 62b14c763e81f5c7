package scalar_test

import (
	"encoding/json"
	"testing"

	"github.com/millrace-io/millrace/pipeline/scalar"
)

func TestPlain(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		in   string
		kind scalar.Kind
		text string
	}{
		{"", scalar.Null, ""},
		{"~", scalar.Null, ""},
		{"null", scalar.Null, ""},
		{"NULL", scalar.Null, ""},
		{"nUll", scalar.Text, "nUll"},
		{"true", scalar.Boolean, "true"},
		{"False", scalar.Boolean, "false"},
		{"tRUE", scalar.Text, "tRUE"},
		{"yes", scalar.Text, "yes"},
		{"no", scalar.Text, "no"},
		{"on", scalar.Text, "on"},
		{"Off", scalar.Text, "Off"},
		{"y", scalar.Text, "y"},
		{"0", scalar.Integer, "0"},
		{"-1", scalar.Integer, "-1"},
		{"+17", scalar.Integer, "17"},
		{"12345678901234567890123", scalar.Integer, "12345678901234567890123"},
		{"0x1F", scalar.Integer, "31"},
		{"0xffffffffffffffffff", scalar.Integer, "4722366482869645213695"},
		{"017", scalar.Text, "017"},
		{"0o17", scalar.Text, "0o17"},
		{"0b11", scalar.Text, "0b11"},
		{"-007", scalar.Text, "-007"},
		{"00", scalar.Text, "00"},
		{"1_000", scalar.Text, "1_000"},
		{"1:30", scalar.Text, "1:30"},
		{"2024-01-01", scalar.Text, "2024-01-01"},
		{"2024-01-01T00:00:00Z", scalar.Text, "2024-01-01T00:00:00Z"},
		{"<<", scalar.Text, "<<"},
		{"=", scalar.Text, "="},
		{"1.50", scalar.Number, "1.50"},
		{".5", scalar.Number, "0.5"},
		{"-.5", scalar.Number, "-0.5"},
		{"+1.5", scalar.Number, "1.5"},
		{"5.", scalar.Number, "5.0"},
		{"5.e3", scalar.Number, "5.0e3"},
		{"1e3", scalar.Number, "1e3"},
		{"1E+3", scalar.Number, "1E+3"},
		{"01.5", scalar.Text, "01.5"},
		{"1.2.3", scalar.Text, "1.2.3"},
		{"e3", scalar.Text, "e3"},
		{".", scalar.Text, "."},
	} {
		kind, text := scalar.Plain(c.in)
		if kind != c.kind || text != c.text {
			t.Errorf("%q is %s %q, expected %s %q", c.in, kind, text, c.kind, c.text)
		}
		if (kind == scalar.Integer || kind == scalar.Number) && !json.Valid([]byte(text)) {
			t.Errorf("%q gives %q, which is not JSON", c.in, text)
		}
	}
}

func TestEndless(t *testing.T) {
	t.Parallel()
	for s, want := range map[string]bool{".inf": true, "-.Inf": true, "+.INF": true, ".nan": true, ".NaN": true, "inf": false, "nan": false, ".5": false} {
		if got := scalar.Endless(s); got != want {
			t.Errorf("%q: %t, expected %t", s, got, want)
		}
	}
}
