package mapping

import (
	"fmt"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/pipeline"
	"github.com/millrace-io/millrace/pipeline/expression"
)

func mustCompileURL(t testing.TB, text string) *URL {
	t.Helper()
	u, err := CompileURL(text, expression.Scope{})
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return u
}

// values are what an end user could put into an event.
func values() *expression.Input {
	return input(properties{
		{"id", int64(42)},
		{"path", "a/b?c=d#e&f"},
		{"up", "../a"},
		{"back", `a\..\b`},
		{"dot", "."},
		{"dots", ".."},
		{"encoded", "%2e%2E"},
		{"empty", ""},
		{"null", nil},
		{"secret", "${env:MILLRACE_SECRET_X}"},
		{"umlaut", "ü ö"},
		{"mail", " ADA@example.com"},
		{"long", strings.Repeat("x", MaxURL)},
	})
}

func TestURL(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ text, want string }{
		{"https://heapanalytics.com/api/track", ""},
		{"https://example.com", ""},
		{"HTTP://example.com:8080/a//b/?c=d&e", ""},
		{"https://[::1]:8443/a;b/c:d", ""},
		{"https://hooks.slack.com/services/${env:MILLRACE_SECRET_SLACK}", ""},
		{"https://example.com/${file:/run/a?b#c}/d?e=${env:X}&f=%20", ""},
		{"${env:SLACK}", ""},
		{"https://${env:SUBDOMAIN}.zendesk.com/api", ""},
		{"${env:BASE}/{{ props.path }}?x={{ props.path }}", "${env:BASE}/a%2Fb%3Fc=d%23e&f?x=a%2Fb%3Fc%3Dd%23e%26f"},
		{"https://example.com/{{ props.id }}", "https://example.com/42"},
		{"https://example.com/a/{{props.id}}/b/{{ props.id }}-{{ props.umlaut }}/?x={{ props.id }}", "https://example.com/a/42/b/42-%C3%BC%20%C3%B6/?x=42"},
		{"https://example.com/{{ props.path }}/x", "https://example.com/a%2Fb%3Fc=d%23e&f/x"},
		{"https://example.com?{{ props.path }}={{ props.path }}", "https://example.com?a%2Fb%3Fc%3Dd%23e%26f=a%2Fb%3Fc%3Dd%23e%26f"},
		{"https://example.com/?a=b/../{{ props.umlaut }}", "https://example.com/?a=b/../%C3%BC+%C3%B6"},
		{"https://example.com/x{{ props.dots }}/{{ props.dot }}{{ props.id }}", "https://example.com/x../.42"},
		{"https://example.com/{{ props.encoded }}", "https://example.com/%252e%252E"},
		{"https://example.com/x{{ props.empty }}?a={{ props.null }}&b={{ props.empty }}", "https://example.com/x?a=&b="},
		{"https://example.com/{{ props.secret }}/${env:Y}{{ props.id }}?a={{ props.secret }}", "https://example.com/$%7Benv:MILLRACE_SECRET_X%7D/${env:Y}42?a=%24%7Benv%3AMILLRACE_SECRET_X%7D"},
		{`https://example.com/{{ "}}" }}/{{ '}}\'}}' }}/{{ "a\"}}" }}`, `https://example.com/%7D%7D/%7D%7D%27%7D%7D/a%22%7D%7D`},
		{"https://example.com/{{ `}}` }}/{{ {\"a\": {\"b\": 1}}[\"a\"][\"b\"] }}", "https://example.com/%7D%7D/1"},
		{`https://example.com/{{ true ? "a/b" : "c" }}`, "https://example.com/a%2Fb"},
		{"https://us1.api.mailchimp.com/3.0/lists/1/members/{{ md5(lower(trim(props.mail))) }}", "https://us1.api.mailchimp.com/3.0/lists/1/members/3e3417d7ef77d5932a6734b916515ed5"},
		{"https://example.com/{{ delivery.id }}/{{\nwebhook.name\n}}", "https://example.com/d-1/walk-thru-goal-to-heap"},
		{"https://example.com/?n={{ 1.5 }}&b={{ 1 == 1 }}&e={{ 1e300 }}", "https://example.com/?n=1.5&b=true&e=1e%2B300"},
	} {
		u := mustCompileURL(t, c.text)
		if u.Dynamic() != (c.want != "") {
			t.Errorf("%s: Dynamic is %v", c.text, u.Dynamic())
		}
		if c.want == "" {
			c.want = c.text
		}
		got, err := u.Append([]byte("kept "), values())
		if err != nil || string(got) != "kept "+c.want {
			t.Errorf("%s\ngot  %s, %v\nwant %s", c.text, got, err, c.want)
		}
	}
}

func TestMaskURL(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"https://a.example/b?c=d":        "https://a.example/b?c=d",
		"/${env:A}${file:b}c{{ d }}?":    "/_________________c_______?",
		`/{{ {"}}": "}}"}["a"] }}?a=${b`: "/_______________________?a=___",
		"/{{ a":                          "/____",
		"/{a}$b{":                        "/{a}$b{",
		"":                               "",
	} {
		if got := MaskURL(text, '_'); got != want {
			t.Errorf("%s is masked as\n%s, expected\n%s", text, got, want)
		}
	}
}

func TestURLRunTimeErrors(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ text, says string }{
		{"https://example.com/{{ props.null }}", "{{ props.null }}: the value is null"},
		{"https://example.com/x{{ props.nope }}", "{{ props.nope }}: the value is null"},
		{"https://example.com/{{ props.empty }}/x", `{{ props.empty }} makes the path segment ""`},
		{"https://example.com/{{ props.empty }}{{ props.empty }}?x", "{{ props.empty }} with {{ props.empty }}"},
		{"https://example.com/{{ props.dot }}/x", `the path segment "."`},
		{"https://example.com/x/{{ props.dots }}", `the path segment ".."`},
		{"https://example.com/{{ props.dot }}{{ props.dot }}?x", `the path segment ".."`},
		{"https://example.com/%2e{{ props.dot }}", `the path segment "%2e."`},
		{"https://example.com/{{ props.up }}", `the path segment "..%2Fa"`},
		{"https://example.com/a%2F{{ props.up }}", "leads elsewhere"},
		{"https://example.com/{{ props.back }}", "leads elsewhere"},
		{"https://example.com/?a={{ 1 % (props.id - 42) }}", "{{ 1 % (props.id - 42) }}: "},
		{"https://example.com/{{ [1] }}", "{{ [1] }}: a list"},
		{"https://example.com/?a={{ {\"b\": 1} }}", "a list or an object"},
		{"https://example.com/{{ props.long }}", "at most 8192"},
	} {
		u := mustCompileURL(t, c.text)
		got, err := u.Append([]byte("kept"), values())
		checkPermanent(t, err, pipeline.InvalidRequest, c.says)
		if string(got) != "kept" {
			t.Errorf("dst came back as %q", got)
		}
	}
}

func TestURLProblems(t *testing.T) {
	t.Parallel()
	scope := expression.Scope{}
	for _, c := range []struct {
		text string
		want []string // line:column: and what the error says
	}{
		{"", []string{"1:1: a URL must start with https://"}},
		{"http", []string{"1:1: a URL must start"}},
		{"https:/example.com", []string{"1:1: a URL must start"}},
		{"ftp://example.com", []string{"1:1: a URL must start"}},
		{"//example.com", []string{"1:1: a URL must start"}},
		{"${env:URL}{{ props.a }}/", []string{"1:11: an expression can't stand in the scheme, host or port"}},
		{"${env:SCHEME}://example.com/", []string{"1:1: a port"}},
		{"a${env:URL}", []string{"1:1: a URL must start"}},
		{"{{ props.scheme }}://example.com", []string{"1:1: a URL must start"}},
		{"https://", []string{"1:9: the host is missing"}},
		{"https:///a", []string{"1:9: the host is missing"}},
		{"https://:80/a", []string{"1:9: the host is missing"}},
		{"https://{{ props.host }}/", []string{"1:9: an expression can't stand in the scheme, host or port"}},
		{"https://a.{{ props.host }}.com:{{ props.port }}?a={{ props.b }}", []string{"1:11: an expression", "1:32: an expression"}},
		{"https://example.com{{ props.path }}", []string{"1:20: an expression can't stand"}},
		{"https://example.com:${env:PORT}/", []string{"1:1: invalid port"}},
		{"https://a:b@example.com/", []string{"1:9: user and password"}},
		{"https://a:${env:P}@example.com/", []string{"1:9: user and password"}},
		{"https://{{ props.user }}@example.com/", []string{"1:9: an expression", "1:9: user and password"}},
		{"https://example.com:0/", []string{"1:9: a port is a number"}},
		{"https://example.com:65536/", []string{"1:9: a port is a number"}},
		{"https://example.com:/", []string{"1:9: a port is a number"}},
		{"https://example.com:a/", []string{"1:1: invalid port"}},
		{"https://exa%41mple.com/", []string{"1:9: % can't stand in a host"}},
		{"https://example.com/a#b", []string{"1:22: a fragment is never sent"}},
		{"https://example.com/#{{ props.a }}", []string{"1:21: a fragment is never sent"}},
		{"https://example.com/a b", []string{"1:22: ' ' can't stand in a URL: write %20"}},
		{"https://example.com/ä\\", []string{"1:21: 'ä' can't stand in a URL: write %C3%A4", `1:22: '\\' can't stand in a URL: write %5C`}},
		{"https://example.com/a\n", []string{"1:22: '\\n' can't stand"}},
		{"https://example.com/{id}", []string{"1:21: { can't stand in a URL: an expression is written {{ }}, the character itself %7B", "1:24: } can't"}},
		{"https://example.com/}}", []string{"1:21: } can't", "1:22: } can't"}},
		{"https://example.com/%2", []string{"1:21: after % two"}},
		{"https://example.com/?a=%2{{ props.a }}", []string{"1:24: after % two"}},
		{"https://example.com/%{{ props.a }}", []string{"1:21: after % two"}},
		{"https://example.com/a/../b/%2e/c%2f..", []string{"1:23: the path segment .. leads", "1:28: the path segment %2e leads", "1:32: the path segment c%2f.. leads"}},
		{"https://example.com/{{ props.a }", []string{"1:21: {{ is not closed"}},
		{`https://example.com/{{ "}}`, []string{"1:21: {{ is not closed"}},
		{"https://example.com/{{ { }}", []string{"1:21: {{ is not closed"}},
		{"https://example.com/${env:X", []string{"1:21: ${ is not closed"}},
		{"https://example.com/${X}${env:}${env:${env:X}", []string{"1:21: a secret is written", "1:25: a secret is written", "1:32: a secret is written"}},
		{"https://example.com/{{ }}", []string{"1:23: the expression is empty"}},
		{"https://example.com/ä{{ nope }}/{{\n  nope }}", []string{"1:21: 'ä'", "1:25: unknown name nope", "2:3: unknown name nope"}},
		{"https://example.com/\xff", []string{"1:1: the URL is not valid UTF-8"}},
		{"https://example.com/" + strings.Repeat("a", MaxURL), []string{"1:1: the URL has 8212 bytes"}},
	} {
		u, err := CompileURL(c.text, scope)
		if u != nil || err == nil {
			t.Errorf("%s: compiled", c.text)
			continue
		}
		var got []string
		for _, e := range expression.All(err) {
			got = append(got, e.Error())
		}
		if len(got) != len(c.want) {
			t.Errorf("%q\ngot  %q\nwant %q", c.text, got, c.want)
			continue
		}
		for i := range got {
			if !strings.HasPrefix(got[i], c.want[i]) {
				t.Errorf("%q\ngot  %s\nwant %s", c.text, got[i], c.want[i])
			}
		}
	}
}

func TestURLChecksTheCatalog(t *testing.T) {
	t.Parallel()
	_, err := CompileURL("https://example.com/{{ props.walk_thru_idd }}", expression.Scope{Types: map[string]pipeline.Type{"walk_thru_id": pipeline.Integer}})
	if got := fmt.Sprint(err); !strings.HasPrefix(got, "1:30: ") || !strings.HasSuffix(got, "did you mean walk_thru_id?") {
		t.Errorf("got %s", got)
	}
}
