package mapping

import (
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/millrace-io/millrace/pipeline"
	"github.com/millrace-io/millrace/pipeline/expression"
)

// properties are an event's properties in their order.
type properties []struct {
	name  string
	value any
}

func (p properties) Get(name string) any {
	for i := range p {
		if p[i].name == name {
			return p[i].value
		}
	}
	return nil
}

func (p properties) All() iter.Seq2[string, any] {
	return func(yield func(string, any) bool) {
		for i := range p {
			if !yield(p[i].name, p[i].value) {
				return
			}
		}
	}
}

func input(p properties) *expression.Input {
	return &expression.Input{
		Event: &pipeline.Event{
			ID: "e-1", Type: "smart_walk_thru.goal_reached", User: "ada", Properties: p,
			Time: time.Date(2025, 3, 4, 5, 6, 7, 0, time.UTC),
		},
		DeliveryID: "d-1",
		Webhook:    "walk-thru-goal-to-heap",
	}
}

// goal has a property of every type, and a null.
func goal() *expression.Input {
	return input(properties{
		{"wm.euid", "ada@example.com"},
		{"walk_thru_id", int64(12345)},
		{"goal_name", `say "hi" <b>`},
		{"score", 0.5},
		{"wants_help", true},
		{"big", json.Number("123456789012345678901234567890")},
		{"goal_id", int64(math.MaxInt64)},
		{"comment", nil},
	})
}

func mustCompile(t testing.TB, props ...Property) *Mapping {
	t.Helper()
	m, problems := Compile(props, expression.Scope{})
	if len(problems) > 0 {
		t.Fatalf("problems: %v", problems)
	}
	return m
}

func fixed(name, value string) Property { return Property{Name: name, Value: json.RawMessage(value)} }

func TestJSON(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		props []Property
		want  string
	}{
		{
			"every property, in the event's order, null too", nil,
			`{"wm.euid":"ada@example.com","walk_thru_id":12345,"goal_name":"say \"hi\" <b>","score":0.5,"wants_help":true,` +
				`"big":123456789012345678901234567890,"goal_id":9223372036854775807,"comment":null}`,
		},
		{
			"the example of Heap",
			[]Property{
				{From: "wm.euid", As: "identity"},
				fixed("app_id", `"11"`),
				fixed("event", `"Walk-Thru Goal Reached"`),
				{Name: "/properties/subject", Expr: "props[\"goal_name\"] ?? \"goal\"\n"},
			},
			`{"identity":"ada@example.com","app_id":"11","event":"Walk-Thru Goal Reached","properties":{"subject":"say \"hi\" <b>"}}`,
		},
		{"types and digits", []Property{{From: "goal_id"}, {From: "big"}, {From: "wants_help"}, {From: "score"}}, `{"goal_id":9223372036854775807,"big":123456789012345678901234567890,"wants_help":true,"score":0.5}`},
		{"dots are literal", []Property{{From: "goal_id", As: "a.b"}, fixed("a.c", "1")}, `{"a.b":9223372036854775807,"a.c":1}`},
		{"missing and null are left out", []Property{{From: "nope"}, {From: "score"}, {From: "comment"}}, `{"score":0.5}`},
		{"so is an expression that gives null", []Property{{Name: "a", Expr: `props["nope"]`}, {Name: "b", Expr: `upper(props["nope"])`}}, `{}`},
		{"a fixed null is sent", []Property{fixed("a", "null")}, `{"a":null}`},
		{"fixed values keep order and digits", []Property{fixed("a", ` { "z" : 1.10, "b" : [ 1e400, 12345678901234567890 ], "<" : "\u00e9&" } `)}, `{"a":{"z":1.10,"b":[1e400,12345678901234567890],"<":"\u00e9&"}}`},
		{"objects stand where they are mentioned first", []Property{fixed("/b/x", "1"), fixed("a", "2"), fixed("/b/y", "3")}, `{"b":{"x":1,"y":3},"a":2}`},
		{"objects are sent even when empty", []Property{{From: "nope", As: "/a/b/c"}, {From: "nope", As: "/a/d"}}, `{"a":{"b":{}}}`},
		{"elements keep their places", []Property{{From: "score", As: "/values/0/1"}, {From: "nope", As: "/values/0/0"}, fixed("/values/0/2", "true")}, `{"values":[[null,0.5,true]]}`},
		{"appended elements", []Property{fixed("/to/-/email", `"a"`), fixed("/to/0/name", `"A"`), fixed("/to/-/email", `"b"`)}, `{"to":[{"email":"a","name":"A"},{"email":"b"}]}`},
		{"an array at the root", []Property{fixed("/0/a", "1"), {From: "nope", As: "/-"}, fixed("/-", "2")}, `[{"a":1},null,2]`},
		{"escapes of pointers", []Property{fixed("/a~1b/m~0n", "1"), fixed("/~01", "2"), fixed("/01", "3"), fixed(`/"`, "4")}, `{"a/b":{"m~n":1},"~1":2,"01":3,"\"":4}`},
		{"a property's own name is never a pointer", []Property{{From: "/a/b"}, {From: "wm.euid", As: "x"}}, `{"x":"ada@example.com"}`},
		{"delivery and webhook", []Property{{Name: "id", Expr: "delivery.id"}, {Name: "by", Expr: "webhook.name"}}, `{"id":"d-1","by":"walk-thru-goal-to-heap"}`},
		{"helpers", []Property{{Name: "h", Expr: `md5(lower(trim(" ADA ")))`}, {Name: "t", Expr: "unix(event.time)"}}, `{"h":"8c8d357b5e872bbacd45197626bd5759","t":1741064767}`},
		{"lists and objects of expressions, keys sorted", []Property{{Name: "a", Expr: `{"z": [1, 2.5, null, "x"], "b": {"d": true, "c": props["walk_thru_id"]}}`}}, `{"a":{"b":{"c":12345,"d":true},"z":[1,2.5,null,"x"]}}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			m := mustCompile(t, c.props...)
			for range 2 { // the same event and definition give the same bytes
				got, err := m.AppendJSON([]byte("kept"), goal())
				if err != nil {
					t.Fatal(err)
				}
				if string(got) != "kept"+c.want {
					t.Errorf("got  %s\nwant kept%s", got, c.want)
				}
			}
		})
	}
}

func TestAliasesAreSentAsWritten(t *testing.T) {
	t.Parallel()
	scope := expression.Scope{
		Types:   map[string]pipeline.Type{"wm.euid": pipeline.String, "answer.<question_id>": pipeline.String},
		Aliases: map[string]string{"wm.euId": "wm.euid"},
	}
	m, problems := Compile([]Property{{From: "wm.euId"}, {From: "wm.euId", As: "id"}, {From: "answer.7"}}, scope)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	got, err := m.AppendJSON(nil, input(properties{{"wm.euid", "ada"}, {"answer.7", "yes"}}))
	if want := `{"wm.euId":"ada","id":"ada","answer.7":"yes"}`; err != nil || string(got) != want {
		t.Errorf("got %s, %v; want %s", got, err, want)
	}
}

func TestRunTimeErrors(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 100_000)
	for _, c := range []struct {
		name   string
		props  []Property
		reason pipeline.Reason
		says   string
	}{
		{"missing", []Property{{From: "nope", As: "x", Required: true}}, pipeline.PropertyMissing, `"nope"`},
		{"null", []Property{{From: "comment", Required: true}}, pipeline.PropertyMissing, `"comment"`},
		{"missing deep inside", []Property{{From: "score"}, {From: "nope", As: "/a/0/b", Required: true}}, pipeline.PropertyMissing, `"nope"`},
		{"an expression gives null", []Property{{Name: "x", Expr: `props["nope"]`, Required: true}}, pipeline.PropertyMissing, `"x"`},
		{"an expression fails", []Property{{From: "score"}, {Name: "/a/x", Expr: `1 % (props["walk_thru_id"] - 12345)`}}, pipeline.MappingFailed, `properties[1], "/a/x"`},
		{"endless output", []Property{{Name: "x", Expr: `map(1..1000, props["long"])`}}, pipeline.MappingFailed, `"x": 1:1: the expression takes too much`},
		{"not a number in a list", []Property{{Name: "x", Expr: `[1, {"a": 0.0 - 1e308 * 10}]`}}, pipeline.MappingFailed, `"x"`},
		{"not a number", []Property{{From: "nan"}}, pipeline.MappingFailed, "finite"},
		{"infinite", []Property{{From: "inf", As: "x"}}, pipeline.MappingFailed, "finite"},
		{"no digits", []Property{{From: "bad"}}, pipeline.MappingFailed, "no number"},
		{"a value no event has", []Property{{From: "chan"}}, pipeline.MappingFailed, "chan int"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			in := input(properties{
				{"walk_thru_id", int64(12345)},
				{"score", 0.5},
				{"comment", nil},
				{"long", long},
				{"nan", math.NaN()},
				{"inf", math.Inf(-1)},
				{"bad", json.Number(`"1"`)},
				{"chan", make(chan int)},
			})
			m := mustCompile(t, c.props...)
			got, err := m.AppendJSON([]byte("kept"), in)
			checkPermanent(t, err, c.reason, c.says)
			if string(got) != "kept" {
				t.Errorf("dst came back as %q", got)
			}
		})
	}
}

func checkPermanent(t *testing.T, err error, reason pipeline.Reason, says string) {
	t.Helper()
	p, ok := pipeline.IsPermanent(err)
	if !ok || p.Reason != reason {
		t.Fatalf("got %v; want a permanent %s", err, reason)
	}
	if !strings.Contains(err.Error(), says) {
		t.Errorf("got %q; want it to say %q", err, says)
	}
}

func TestEveryPropertyFails(t *testing.T) {
	t.Parallel()
	in := input(properties{{"a", int64(1)}, {"nan", math.NaN()}})
	m := mustCompile(t)
	_, err := m.AppendJSON(nil, in)
	checkPermanent(t, err, pipeline.MappingFailed, `"nan"`)
	_, err = m.AppendQuery(nil, in)
	checkPermanent(t, err, pipeline.MappingFailed, `"nan"`)
}

func TestEventWithoutProperties(t *testing.T) {
	t.Parallel()
	in := &expression.Input{Event: &pipeline.Event{}}
	for _, m := range []*Mapping{mustCompile(t), mustCompile(t, Property{From: "a"})} {
		if got, err := m.AppendJSON(nil, in); err != nil || string(got) != "{}" {
			t.Errorf("JSON: got %s, %v", got, err)
		}
		if got, err := m.AppendQuery(nil, in); err != nil || len(got) > 0 {
			t.Errorf("query: got %s, %v", got, err)
		}
	}
}

func TestProblems(t *testing.T) {
	t.Parallel()
	scope := expression.Scope{Types: map[string]pipeline.Type{"walk_thru_id": pipeline.Integer, "goal name": pipeline.String}}
	deep := strings.Repeat("/a", MaxDepth+1)
	long := strings.Repeat("a", MaxName+1)
	for _, c := range []struct {
		name  string
		props []Property
		want  []string // index, key and what the error says
	}{
		{"empty entry", []Property{{}}, []string{"0||{}"}},
		{"two kinds", []Property{{From: "walk_thru_id", Name: "a", Expr: "1"}}, []string{"0||{from, name, expr}; expected one of {from}, {from, as}"}},
		{"value and expr", []Property{{Name: "a", Value: json.RawMessage("1"), Expr: "1"}}, []string{"0||{name, value, expr}"}},
		{"no name", []Property{{Expr: "1"}}, []string{"0||{expr}"}},
		{"as without from", []Property{{As: "a", Expr: "1"}}, []string{"0||{as, expr}"}},
		{"required value", []Property{{Name: "a", Value: json.RawMessage("1"), Required: true}}, []string{"0|required|never missing"}},
		{"unknown property", []Property{{From: "walk_thru_idd", As: "a"}}, []string{"0|from|unknown property walk_thru_idd; did you mean walk_thru_id?"}},
		{"bad expression", []Property{{Name: "a", Expr: `1 +`}}, []string{"0|expr|1:"}},
		{"unknown property in an expression", []Property{{Name: "a", Expr: `props["walk_thru_idd"]`}}, []string{"0|expr|did you mean walk_thru_id?"}},
		{"bad JSON", []Property{fixed("a", "{"), fixed("b", "1 2"), fixed("c", "")}, []string{"0|value|JSON", "1|value|JSON", "2|value|JSON"}},
		{"white space", []Property{fixed("First Name", "1"), fixed("/a/b\u00a0c", "1")}, []string{`0|name|white space: use _ or camelCase, such as "First_Name"`, "1|name|use _ or camelCase"}},
		{"white space in a property's name", []Property{{From: "goal name"}, {From: "goal name", As: "goal_name"}, {From: "walk_thru_id", As: "a b"}}, []string{"0|from|give it with as", "2|as|white space"}},
		{"control and invalid characters", []Property{fixed("a\x00", "1"), fixed("a\xff", "1")}, []string{"0|name|control", "1|name|UTF-8"}},
		{"invalid property", []Property{{From: "a\xff", As: "b"}}, []string{"0|from|UTF-8"}},
		{"too long, too deep", []Property{fixed(long, "1"), fixed(deep, "1")}, []string{"0|name|1025 bytes", "1|name|33 deep"}},
		{"bad pointers", []Property{fixed("/", "1"), fixed("/a//b", "1"), fixed("/a/", "1"), fixed("/a~2", "1"), fixed("/a~", "1")}, []string{"0|name|empty", "1|name|empty", "2|name|empty", "3|name|~0", "4|name|~0"}},
		{"huge index", []Property{fixed("/a/360001", "1"), fixed("/a/99999999999999999999", "1")}, []string{"0|name|keys are numbers", "1|name|keys are numbers"}},
		{"same name", []Property{fixed("a", "1"), {From: "walk_thru_id", As: "a"}, fixed("/a", "1")}, []string{"1|as|properties[0]", "2|name|properties[0]"}},
		{"same pointer", []Property{fixed("/a/b", "1"), fixed("/a/b", "1")}, []string{"1|name|properties[0]"}},
		{"through a scalar", []Property{fixed("/a", "1"), fixed("/a/b", "1")}, []string{"1|name|properties[0]"}},
		{"through a scalar, the other way round", []Property{fixed("/a/b", "1"), fixed("a", "1")}, []string{"1|name|properties[0] makes an object"}},
		{"through a fixed object", []Property{fixed("a", "{}"), fixed("/a/b", "1")}, []string{"1|name|properties[0]"}},
		{"array and object", []Property{fixed("/a/0", "1"), fixed("/a/b", "1"), fixed("/b/c", "1"), fixed("/b/-", "1")}, []string{"1|name|properties[0]", "3|name|properties[2]"}},
		{"array and object at the root", []Property{fixed("/0", "1"), fixed("0", "1")}, []string{"1|name|array"}},
		{"an appended element is taken", []Property{fixed("/a/-", "1"), fixed("/a/0", "1")}, []string{"1|name|properties[0]"}},
		{"gap", []Property{fixed("/a/0", "1"), fixed("/a/3", "1"), fixed("/a/-", "1"), fixed("/b/1", "1")}, []string{"1|name|element 1 is missing before 3", "3|name|element 0 is missing before 1"}},
		{"a gap is told after the names are right", []Property{fixed("/a/0 ", "1"), fixed("/a/1", "1")}, []string{"0|name|white space"}},
		{"a gap among others, in order", []Property{fixed("/a/1", "1"), {From: "nope"}}, []string{"0|name|element 0", "1|from|unknown"}},
		{"all at once, in order", []Property{fixed("/a/1", "{"), {From: "nope"}, {Name: "x y", Expr: "1 +"}}, []string{"0|value|JSON", "1|from|unknown", "2|name|white", "2|expr|1:"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			m, problems := Compile(c.props, scope)
			if m != nil {
				t.Error("got a mapping all the same")
			}
			if len(problems) != len(c.want) {
				t.Fatalf("got %v\nwant %v", problems, c.want)
			}
			for i, p := range problems {
				want := strings.SplitN(c.want[i], "|", 3)
				if at := fmt.Sprintf("%d|%s", p.Index, p.Key); at != want[0]+"|"+want[1] || !strings.Contains(p.Err.Error(), want[2]) {
					t.Errorf("got %s|%v\nwant %s", at, p.Err, c.want[i])
				}
			}
		})
	}
}

func TestTooManyProperties(t *testing.T) {
	t.Parallel()
	props := make([]Property, MaxProperties+1)
	for i := range props {
		props[i] = fixed("/a/-", "1")
	}
	if _, problems := Compile(props[:MaxProperties], expression.Scope{}); len(problems) > 0 {
		t.Error(problems)
	}
	_, problems := Compile(props, expression.Scope{})
	if len(problems) != 1 || problems[0].Index != MaxProperties {
		t.Errorf("got %v", problems)
	}
}

func TestExpressionErrorsKeepTheirPlace(t *testing.T) {
	t.Parallel()
	_, problems := Compile([]Property{{Name: "a", Expr: "1 +\n nope"}}, expression.Scope{})
	if len(problems) != 1 {
		t.Fatalf("got %v", problems)
	}
	e, ok := errors.AsType[*expression.Error](problems[0].Err)
	if !ok || e.Line != 2 || e.Column != 2 {
		t.Errorf("got %v", problems[0].Err)
	}
}
