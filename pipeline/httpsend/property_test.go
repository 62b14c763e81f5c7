package httpsend

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestPropertyInBody(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, body, want string }{
		{"token", `{}`, `{"token":"s"}`},
		{"token", ` { } `, ` { "token":"s"} `},
		{"token", `{"a":1}`, `{"a":1,"token":"s"}`},
		{"token", `{"token":{"a":[1,"}"]},"b":2}`, `{"token":"s","b":2}`},
		{"token", `{"a":1,"token":17 }`, `{"a":1,"token":"s" }`},
		{"token", `{"to\u006ben":null,"a":"\"}"}`, `{"to\u006ben":"s","a":"\"}"}`},
		{"token", `{"token":1,"token":2}`, `{"token":1,"token":"s"}`},
		{"a.b/c", `{"a":{"b":1}}`, `{"a":{"b":1},"a.b/c":"s"}`},
		{`q"<é>`, `{}`, `{"q\"<é>":"s"}`},
		{"/a/token", `{"a":{"b":1}}`, `{"a":{"b":1,"token":"s"}}`},
		{"/a/token", `{"a":{}}`, `{"a":{"token":"s"}}`},
		{"/a/b/token", `{"x":[]}`, `{"x":[],"a":{"b":{"token":"s"}}}`},
		{"/a~1b/~0c", `{"a/b":{"~c":1}}`, `{"a/b":{"~c":"s"}}`},
		{"/0/properties/token", `[{"properties":{"a":1}},2]`, `[{"properties":{"a":1,"token":"s"}},2]`},
		{"/items/1/token", `{"items":[[1,2],{"a":"]"},3]}`, `{"items":[[1,2],{"a":"]","token":"s"},3]}`},
		{"/items/1/token", `{"items":[0]}`, `{"items":[0,{"token":"s"}]}`},
		{"/items/0", `{}`, `{"items":["s"]}`},
		{"/items/0/0", `{"items":[]}`, `{"items":[["s"]]}`},
		{"/a/0", `{"a":{"0":1}}`, `{"a":{"0":"s"}}`},
		{"/a/token", `{"a":1}`, `property "/a/token", which auth sets: the body has something else where "token" would have to be in`},
		{"/a/token", `{"a":[1]}`, `the body has something else`},
		{"/a/2", `{"a":[1]}`, `the body has 1 elements there, which leaves a gap before 2`},
		{"/a/1", `{}`, `the body has no element before 1 there`},
		{"/a/00", `{"a":[1]}`, `the body has something else`},
		{"token", `[]`, `the body has something else`},
		{"token", `"text"`, `the body has something else`},
		{"token", ``, `the body is no JSON`},
		{"token", `{`, `the body is no JSON`},
		{"token", `{"a`, `the body is no JSON`},
		{"token", `{"a"}`, `the body is no JSON`},
		{"token", `{:1}`, `the body is no JSON`},
		{"token", `{"a":}`, `the body is no JSON`},
		{"token", `{"a":1,}`, `the body is no JSON`},
		{"token", `{"a":1;`, `the body is no JSON`},
		{"/0/a", `[`, `the body is no JSON`},
		{"/1/a", `[,]`, `the body is no JSON`},
	} {
		got, err := newProperty(c.name, "s").inBody([]byte(c.body))
		if err == nil && string(got) != c.want || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s in %s gives %s, %v, expected %s", c.name, c.body, got, err, c.want)
		}
	}
}

func TestPropertyInQuery(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, query, want string }{
		{"token", "", "token=s+%26%C3%A9"},
		{"token", "a=b&c", "a=b&c&token=s+%26%C3%A9"},
		{"token", "a=b&token=1&t%6Fken=2&token&c=d", "a=b&c=d&token=s+%26%C3%A9"},
		{"a b&", "x=%zz", "x=%zz&a+b%26=s+%26%C3%A9"},
	} {
		if got := string(newProperty(c.name, "s &é").inQuery([]byte(c.query))); got != c.want {
			t.Errorf("%s in %s gives %s, expected %s", c.name, c.query, got, c.want)
		}
	}
}

// FuzzPropertyInBody has what is valid JSON come out as the same with the
// property, and what is not do no harm.
func FuzzPropertyInBody(f *testing.F) {
	f.Add(`{"a":[1,{"b":"\"}"}],"token":null}`, "/a/1/token")
	f.Add(`[{"a":1e3},[[]],"\u00e9"]`, "/1/0/x")
	f.Add(` {"":0,"a":{"a":{}}}`, "/a/a/a/a")
	f.Add(`{"a`, "a")
	f.Fuzz(func(t *testing.T, body, name string) {
		if !utf8.ValidString(name + body) { // no definition has such a name, and no mapping makes such a body
			return
		}
		p := newProperty(name, "s3cret")
		got, err := p.inBody([]byte(body))
		if err != nil || !json.Valid([]byte(body)) {
			return
		}
		want, ok := set(decode(t, []byte(body)), p.path)
		if have := decode(t, got); !ok || !reflect.DeepEqual(have, want) {
			t.Errorf("%q in %s gives %s, expected %v", name, body, got, want)
		}
	})
}

func decode(t *testing.T, text []byte) (v any) {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	return v
}

// set sets the value at a path the plain way.
func set(v any, path []string) (any, bool) {
	if len(path) == 0 {
		return "s3cret", true
	}
	part, rest := path[0], path[1:]
	index, isIndex := indexOf(part)
	if v == nil && isIndex && index == 0 {
		v = []any{}
	} else if v == nil && !isIndex {
		v = map[string]any{}
	}
	switch v := v.(type) {
	case map[string]any:
		inner, ok := set(v[part], rest)
		v[part] = inner
		return v, ok
	case []any:
		if !isIndex || index > len(v) {
			return nil, false
		}
		if index == len(v) {
			v = append(v, nil)
		}
		inner, ok := set(v[index], rest)
		v[index] = inner
		return v, ok
	}
	return nil, false
}
