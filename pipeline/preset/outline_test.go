package preset_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/millrace-io/millrace/pipeline/preset"
)

// contract has a rule of every sort.
const contract = `
contract:
  type: object
  max_count: 6
  properties:
    id: {type: string, required: true, min_length: 2, max_length: 4}
    n: {type: integer}
    x: {type: number}
    old: {refused: it is old}
    a: {type: string, not: [none]}
    b: {}
    list:
      type: array
      min_count: 1
      max_count: 2
      items: {type: object, any_of: [p, q], properties: {p: {type: boolean}, q: {}}}
  any_of: [a, b]
  names: {form: '^[a-z]+$', form_means: small letters}
  values: {type: [string, "null"]}
`

func ruleOf(t testing.TB) *preset.Rule {
	t.Helper()
	text := strings.Replace(minimal, "contract: {type: object}", strings.TrimSpace(contract), 1)
	p, err := preset.Parse("p.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return p.Contract
}

func TestRules(t *testing.T) {
	t.Parallel()
	r := ruleOf(t)
	for body, want := range map[string]string{
		`{"id":"ab","a":"x"}`: "",
		` { "id" : "ab" , "b" : [ 1 , { } ] , "n" : -7 , "x" : 1.5 , "list" : [ { "p" : true } ] } `: "",
		`{"id":"ab","a":"x","b":1}`:                              "",
		`{"id":"ab"}`:                                            "a, b: found none of them, expected at least one",
		`{"id":"ab", "b" : null }`:                               "a, b: found none of them, expected at least one",
		`{"id":"ab","a":"x","b":null}`:                           "",
		`{"a":"x"}`:                                              "id: is missing, and required",
		`{"id":"a","a":"x"}`:                                     "id: found 1 characters, expected at least 2",
		`{"id":"ab","a":"x","n":1.0}`:                            "n: found a number, expected an integer",
		`{"id":"ab","a":"x","x":1}`:                              "",
		`{"id":"ab","a":"x","old":null}`:                         "old: it is old",
		`{"id":"ab","a":"none"}`:                                 `a: found one of "none", which the platform does not take`,
		`{"id":"ab","a":"x","list":[]}`:                          "list: found 0 elements, expected at least 1",
		`{"id":"ab","a":"x","list":[{"p":true},{}]}`:             "/list/1/p, q: found none of them, expected at least one",
		`{"id":"ab","a":"x","list":[{"p":1}]}`:                   "/list/0/p: found an integer, expected a boolean",
		`{"id":"ab","a":"x","list":[{"q":0},{"q":0},{"q":0}]}`:   "list: found 3 elements, expected at most 2",
		`{"id":"ab","a":"x","A":"x"}`:                            "A: the name: expected small letters",
		`{"id":"ab","a":"x","c":null,"d":"\"}"}`:                 "",
		`{"id":"ab","a":"x","c":true}`:                           "c: found a boolean, expected a string or null",
		`{"id":"ab","a":"x","c":"","d":"","e":"","f":"","g":""}`: "the body: found 7 properties, expected at most 6",
		`[]`:            "the body: found an array, expected an object",
		`{`:             "the body: found no JSON",
		`{"id":"ab",1}`: "the body: found no JSON",
		`{"list":[}`:    "/list/0: found no JSON",
		``:              "the body: found no JSON",
	} {
		got := ""
		if err := r.Check([]byte(body)); err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%s: %q, expected %q", body, got, want)
		}
	}
}

// TestOutline has what is known before there is an event.
func TestOutline(t *testing.T) {
	t.Parallel()
	type outline = preset.Outline
	fixed := func(entry int, name, value string) *outline {
		return &outline{Entry: entry, Name: name, Fixed: []byte(value)}
	}
	of := func(entry int, name, kind string) *outline { return &outline{Entry: entry, Name: name, Type: kind} }
	list := func(members ...*outline) *outline {
		return &outline{Entry: 9, Name: "list", Array: true, Members: members}
	}
	for name, c := range map[string]struct {
		members []*outline
		open    bool
		want    string
	}{
		"fine":          {members: []*outline{of(0, "id", "string"), fixed(1, "a", `"x"`), of(2, "n", "")}},
		"missing":       {members: []*outline{of(0, "n", "integer")}, want: "-1 id: is missing, and required; -1 a, b: found none of them, expected at least one"},
		"null":          {members: []*outline{of(0, "id", ""), fixed(1, "b", "null")}, want: "-1 a, b: found none of them, expected at least one"},
		"open":          {members: []*outline{of(0, "n", "integer")}, open: true},
		"too long":      {members: []*outline{fixed(0, "id", `"abcde"`), of(1, "b", "")}, want: "0 id: found 5 characters, expected at most 4"},
		"wrong type":    {members: []*outline{of(0, "id", "integer"), of(1, "b", "")}, want: "0 id: found an integer, expected a string"},
		"refused":       {members: []*outline{of(0, "id", ""), of(1, "b", ""), of(2, "old", "")}, want: "2 old: it is old"},
		"name":          {members: []*outline{of(0, "id", ""), of(1, "b", ""), of(2, "a.b", "")}, want: "2 a.b: the name: expected small letters"},
		"value of none": {members: []*outline{of(0, "id", ""), of(1, "b", ""), of(2, "c", "integer")}, want: "2 c: found an integer, expected a string or null"},
		"list": {
			members: []*outline{of(0, "id", ""), of(1, "b", ""), list(&outline{Entry: 2, Object: true, Members: []*outline{of(2, "p", "string")}}, &outline{Entry: 3, Object: true})},
			want:    "2 /list/0/p: found a string, expected a boolean; 3 /list/1/p, q: found none of them, expected at least one",
		},
		"no list": {members: []*outline{of(0, "id", ""), of(1, "b", ""), {Entry: 9, Name: "list", Object: true}}, want: "9 list: found an object, expected an array"},
		"short":   {members: []*outline{of(0, "id", ""), of(1, "b", ""), list()}, want: "9 list: found 0 elements, expected at least 1"},
	} {
		var got []string
		for _, v := range ruleOf(t).CheckOutline(&outline{Entry: -1, Object: true, Open: c.open, Members: c.members}) {
			got = append(got, fmt.Sprint(v.Entry, " ", v))
		}
		if s := strings.Join(got, "; "); s != c.want {
			t.Errorf("%s: %s, expected %s", name, s, c.want)
		}
	}
}

// TestOutlineAgreesWithBody: a body whose every value is known breaks the same
// rules either way.
func TestOutlineAgreesWithBody(t *testing.T) {
	t.Parallel()
	r := ruleOf(t)
	values := []string{`"ab"`, `"abcdef"`, `"none"`, `1`, `1.5`, `true`, `null`, `[]`, `[{"p":true}]`, `[{}]`, `{}`}
	rapid.Check(t, func(t *rapid.T) {
		names := rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"id", "n", "x", "old", "a", "b", "list", "c", "C"}), 0, 6, rapid.ID).Draw(t, "names")
		root := &preset.Outline{Entry: -1, Object: true}
		var body []string
		for i, name := range names {
			value := rapid.SampledFrom(values).Draw(t, name)
			root.Members = append(root.Members, &preset.Outline{Entry: i, Name: name, Fixed: []byte(value)})
			body = append(body, fmt.Sprintf("%q:%s", name, value))
		}
		found := r.CheckOutline(root)
		err := r.Check([]byte("{" + strings.Join(body, ",") + "}"))
		if (err == nil) != (len(found) == 0) {
			t.Fatalf("{%s}: %v, but the outline says %v", strings.Join(body, ","), err, found)
		}
		if err != nil && !slices.ContainsFunc(found, func(v *preset.Violation) bool { return v.Error() == err.Error() }) {
			t.Fatalf("%v is not among %v", err, found)
		}
	})
}

// FuzzCheck wants an answer to every body, be it JSON or not, and the same one
// in other white space.
func FuzzCheck(f *testing.F) {
	for _, p := range preset.Builtin() {
		for _, test := range p.Tests {
			f.Add([]byte(test.Body))
		}
	}
	f.Add([]byte(`{"a":"\u00`))
	f.Add([]byte(`[}`))
	set := preset.Builtin()
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, name := range set.Names() {
			err := set[name].Contract.Check(body)
			var spaced bytes.Buffer
			if json.Indent(&spaced, body, " ", "\t") != nil {
				continue
			}
			if again := set[name].Contract.Check(spaced.Bytes()); fmt.Sprint(err) != fmt.Sprint(again) {
				t.Errorf("%s: %v, but with white space %v", name, err, again)
			}
		}
	})
}
