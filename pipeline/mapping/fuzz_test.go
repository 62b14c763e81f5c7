package mapping

import (
	"cmp"
	"encoding/json"
	"math"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/pipeline/expression"
)

// FuzzPointer: what is taken for a pointer leads, read as RFC 6901 says, to the
// value that was put there.
func FuzzPointer(f *testing.F) {
	for _, s := range []string{"a", "a.b", "/a", "/a/0", "/a/-/b", "/-", "/0/~0~1", "/~01", "/00", "/a/1", "/ ", "//", "/~", "/\xff", "/9999"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		m, problems := Compile([]Property{fixed(name, `"here"`)}, expression.Scope{})
		if problems != nil {
			return
		}
		out, err := m.AppendJSON(nil, input(nil))
		if err != nil {
			t.Fatal(err)
		}
		var tree any
		if err := json.Unmarshal(out, &tree); err != nil {
			t.Fatalf("%q gives %s: %v", name, out, err)
		}
		if got := lookUp(tree, name); got != "here" {
			t.Errorf("%q gives %s", name, out)
		}
	})
}

// lookUp follows a name in a tree that has one value.
func lookUp(tree any, name string) any {
	pointer, ok := strings.CutPrefix(name, "/")
	if !ok {
		return tree.(map[string]any)[name]
	}
	for part := range strings.SplitSeq(pointer, "/") {
		switch node := tree.(type) {
		case map[string]any:
			tree = node[strings.ReplaceAll(strings.ReplaceAll(part, "~1", "/"), "~0", "~")]
		case []any:
			if part != "0" && part != "-" || len(node) != 1 {
				return nil
			}
			tree = node[0]
		default:
			return nil
		}
	}
	return tree
}

// FuzzMapping: the output is the same tree, number for number, as a slow
// reference makes with encoding/json.
func FuzzMapping(f *testing.F) {
	f.Add("identity", "/properties/subject", "/list/0", "ada", 0.5, int64(12345))
	f.Add("/a/-", "/a/-/x", "/a/0", "\xff\u2028<\"\\\x01", 1e-7, int64(math.MinInt64))
	f.Add("/0", "/1/b~1", "/-", "", 1e21, int64(0))
	f.Add("", "/a/1", "/a/-", "", 0.0, int64(1))
	f.Add("/a/1", "/a/-", "/a/0", "x", 2.0, int64(1))
	f.Add("a", "b", "/c/d/e", "😀", math.Copysign(0, -1), int64(-1))
	f.Fuzz(func(t *testing.T, a, b, c, text string, number float64, integer int64) {
		props := []Property{
			{From: "text", As: a},
			{Name: b, Expr: `{"n": props.number, "l": [props.integer, null, props.text]}`},
			{From: "missing", As: c},
			{From: "integer", As: "/" + strings.TrimPrefix(a, "/") + "/x"},
		}
		for n := len(props); n > 0; n-- { // as many as go together
			m, problems := Compile(props[:n], expression.Scope{})
			if problems != nil {
				continue
			}
			got, err := m.AppendJSON(nil, input(properties{{"text", text}, {"number", number}, {"integer", integer}}))
			if math.IsInf(number, 0) || math.IsNaN(number) {
				if n > 1 && err == nil {
					t.Fatalf("%v gives %s", number, got)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			values := []any{text, map[string]any{"n": number, "l": []any{integer, nil, text}}, missing, integer}
			compare(t, got, reference(props[:n], values[:n]))
			return
		}
	})
}

func compare(t *testing.T, got []byte, want any) {
	t.Helper()
	if g, w := again(t, string(got)), again(t, encode(t, want)); g != w {
		t.Fatalf("got  %s\nwant %s", g, w)
	}
}

// again decodes JSON and encodes it in encoding/json's way.
func again(t *testing.T, text string) string {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	var tree any
	if err := d.Decode(&tree); err != nil || d.More() {
		t.Fatalf("%s is no JSON: %v", text, err)
	}
	return encode(t, tree)
}

func encode(t *testing.T, v any) string {
	t.Helper()
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

var missing = new(int)

// reference builds the tree with maps, the keys of arrays in decimal.
func reference(props []Property, values []any) any {
	root := map[string]any{}
	arrays := map[string]bool{} // by path
	for i, p := range props {
		name := cmp.Or(p.As, p.Name, p.From)
		parts, pointer := []string{name}, name[0] == '/'
		if pointer {
			parts = strings.Split(name[1:], "/")
		}
		node, path := root, ""
		for j, part := range parts {
			if pointer && regexp.MustCompile(`^(0|-|[1-9][0-9]*)$`).MatchString(part) {
				arrays[path] = true
				if part == "-" {
					part = strconv.Itoa(next(node))
				}
			} else if pointer {
				part = strings.ReplaceAll(strings.ReplaceAll(part, "~1", "/"), "~0", "~")
			}
			path += "\x00" + part
			if j == len(parts)-1 {
				node[part] = values[i]
				break
			}
			if node[part] == nil {
				node[part] = map[string]any{}
			}
			node = node[part].(map[string]any)
		}
	}
	return finished(root, "", arrays)
}

// next is one past the last element of an array.
func next(node map[string]any) int {
	n := 0
	for key := range node {
		i, _ := strconv.Atoi(key)
		n = max(n, i+1)
	}
	return n
}

// finished turns maps into arrays where they are some, and drops what is missing.
func finished(v any, path string, arrays map[string]bool) any {
	node, ok := v.(map[string]any)
	if !ok {
		return v
	}
	list := make([]any, len(node))
	for key, child := range node {
		child = finished(child, path+"\x00"+key, arrays)
		switch {
		case arrays[path]:
			if i, _ := strconv.Atoi(key); child != missing {
				list[i] = child
			}
		case child == missing:
			delete(node, key)
		default:
			node[key] = child
		}
	}
	if arrays[path] {
		return list
	}
	return node
}

// FuzzURL: whatever the text and the value, nothing panics, and the value stays
// in its place.
func FuzzURL(f *testing.F) {
	for _, s := range []string{
		"https://example.com/{{ props.a }}/x?{{ props.a }}={{ props.a }}",
		"http://h:80/a{{props.a}}b{{props.a}}", "${env:X}/{{ props.a ?? '}}' }}", "https://h?{{ `}}` }}", "https://h/{{ {'a': 1} }}",
		"https://h/%2e{{ props.a }}", "https://h/%{{ props.a }}", "https://{{ props.a }}/", "https://h/${file:a/b?c}{{ props.a }}", "https://h/{{\n1 + }}",
	} {
		f.Add(s, "../x")
		f.Add(s, "?a&b=c#d%2e\xff{{}}${env:X}\\")
	}
	f.Fuzz(func(t *testing.T, text, value string) {
		u, err := CompileURL(text, expression.Scope{})
		if err != nil {
			checkPlaceOfErrors(t, text, err)
			return
		}
		got, err := u.Append(nil, input(properties{{"a", value}}))
		if err != nil {
			return
		}
		plain, err := u.Append(nil, input(properties{{"a", "x"}}))
		if err != nil || strings.Contains(text, "?:") || strings.Contains(text, "(") {
			return // an expression may compare or compute, and give another shape
		}
		sameShape(t, string(plain), string(got))
	})
}

func checkPlaceOfErrors(t *testing.T, text string, err error) {
	t.Helper()
	all := expression.All(err)
	if len(all) == 0 {
		t.Fatalf("%q: no errors in %v", text, err)
	}
	for _, e := range all {
		if e.Line < 1 || e.Column < 1 || e.Line > strings.Count(text, "\n")+1 {
			t.Errorf("%q: %v is outside the text", text, e)
		}
	}
}

var placeholder = regexp.MustCompile(`\$\{[^}]*\}`)

func sameShape(t *testing.T, plain, got string) {
	t.Helper()
	if a, b := placeholder.FindAllString(plain, -1), placeholder.FindAllString(got, -1); len(a) != len(b) {
		t.Fatalf("%s has other placeholders than %s", got, plain)
	}
	a, b := parseFilled(t, plain), parseFilled(t, got)
	same := a.Scheme == b.Scheme && a.Host == b.Host && b.User == nil && b.Fragment == "" &&
		strings.Count(a.EscapedPath(), "/") == strings.Count(b.EscapedPath(), "/") &&
		strings.Count(a.RawQuery, "&") == strings.Count(b.RawQuery, "&") &&
		strings.Count(a.RawQuery, "=") == strings.Count(b.RawQuery, "=")
	if !same {
		t.Errorf("%s leads elsewhere than %s", got, plain)
	}
	for segment := range strings.SplitSeq(b.Path, "/") { // unescaped
		if segment == ".." {
			t.Errorf("%s has the segment ..", got)
		}
	}
}

// parseFilled parses a URL as the sink does, with its secrets filled in.
func parseFilled(t *testing.T, text string) *url.URL {
	t.Helper()
	if strings.HasPrefix(text, "${") {
		text = "https://" + text
	}
	u, err := url.Parse(placeholder.ReplaceAllString(text, "secret"))
	if err != nil {
		t.Fatal(err)
	}
	return u
}
