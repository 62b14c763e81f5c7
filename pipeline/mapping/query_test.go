package mapping

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/pipeline"
	"github.com/millrace-io/millrace/pipeline/expression"
)

func TestQuery(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		props []Property
		want  string
	}{
		{
			"every property but nulls", nil,
			"wm.euid=ada%40example.com&walk_thru_id=12345&goal_name=say+%22hi%22+%3Cb%3E&score=0.5&wants_help=true" +
				"&big=123456789012345678901234567890&goal_id=9223372036854775807",
		},
		{"in order", []Property{fixed("z", `"a&b=c"`), {From: "score"}, {Name: "a", Expr: `1 + 1`}}, "z=a%26b%3Dc&score=0.5&a=2"},
		{"missing ones leave no &", []Property{{From: "nope"}, fixed("a", "null"), {From: "score"}, {Name: "b", Expr: "null"}, fixed("c", "1.50")}, "score=0.5&c=1.50"},
		{"names are escaped", []Property{fixed("a&b", "1"), fixed("/c~1d", "true"), fixed("ü", `"\u00fc"`)}, "a%26b=1&c%2Fd=true&%C3%BC=%C3%BC"},
		{"nothing", []Property{{From: "nope"}}, ""},
		{"large numbers", []Property{{Name: "a", Expr: "1e300"}}, "a=1e%2B300"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			m := mustCompile(t, c.props...)
			if err := m.Flat(); err != nil {
				t.Fatal(err)
			}
			got, err := m.AppendQuery([]byte("kept?"), goal())
			if err != nil || string(got) != "kept?"+c.want {
				t.Errorf("got  %s, %v\nwant %s", got, err, c.want)
			}
		})
	}
}

func TestNested(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		props []Property
		says  string
	}{
		{[]Property{fixed("a", "1"), fixed("/b/c", "1")}, "properties[1]"},
		{[]Property{fixed("/0", "1")}, "properties[0]"},
		{[]Property{fixed("a", "1"), fixed("b", "[]")}, `properties[1], "b"`},
		{[]Property{fixed("a", "{}")}, `properties[0], "a"`},
	} {
		m := mustCompile(t, c.props...)
		if err := m.Flat(); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%v: got %v", c.props, err)
		}
		_, err := m.AppendQuery(nil, goal())
		checkPermanent(t, err, pipeline.MappingFailed, c.says)
	}
}

func TestQueryRunTimeErrors(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		prop   Property
		reason pipeline.Reason
		says   string
	}{
		{Property{Name: "a", Expr: "[1, 2]"}, pipeline.MappingFailed, `properties[0], "a": a list or an object`},
		{Property{Name: "a", Expr: `{"b": 1}`}, pipeline.MappingFailed, `"a"`},
		{Property{Name: "a", Expr: `1 % (props["walk_thru_id"] - 12345)`}, pipeline.MappingFailed, `"a"`},
		{Property{From: "bad"}, pipeline.MappingFailed, `"bad"`},
		{Property{From: "nope", Required: true}, pipeline.PropertyMissing, `"nope"`},
	} {
		m := mustCompile(t, c.prop)
		in := input(properties{{"walk_thru_id", int64(12345)}, {"bad", json.Number("")}})
		got, err := m.AppendQuery([]byte("kept"), in)
		checkPermanent(t, err, c.reason, c.says)
		if string(got) != "kept" {
			t.Errorf("dst came back as %q", got)
		}
	}
}

func TestEscapes(t *testing.T) {
	t.Parallel()
	in := input(properties{{"a", "\x00\x1f\b\f\n\r\t\"\\/<>&\x7fé\u2028\u2029\U0001F600"}})
	got, err := mustCompile(t).AppendJSON(nil, in)
	if want := `{"a":"\u0000\u001f\b\f\n\r\t\"\\/<>&` + "\x7fé" + `\u2028\u2029` + "\U0001F600" + `"}`; err != nil || string(got) != want {
		t.Errorf("got  %s, %v\nwant %s", got, err, want)
	}
}

func TestInvalidUTF8(t *testing.T) {
	t.Parallel()
	in := input(properties{{"a\xff", "b\xff\xfe"}, {"c", "d\xe2\x28"}})
	m := mustCompile(t)
	if got, err := m.AppendJSON(nil, in); err != nil || string(got) != `{"a\ufffd":"b\ufffd\ufffd","c":"d\ufffd("}` {
		t.Errorf("JSON: got %s, %v", got, err)
	}
	if got, err := m.AppendQuery(nil, in); err != nil || string(got) != "a%EF%BF%BD=b%EF%BF%BD&c=d%EF%BF%BD%28" {
		t.Errorf("query: got %s, %v", got, err)
	}
	m, problems := Compile([]Property{fixed("a", "\"\xff\"")}, expression.Scope{})
	if problems != nil {
		t.Fatal(problems)
	}
	if got, err := m.AppendJSON(nil, in); err != nil || string(got) != `{"a":"`+"\uFFFD"+`"}` {
		t.Errorf("fixed: got %s, %v", got, err)
	}
}
