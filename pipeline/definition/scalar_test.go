package definition

import (
	"testing"
	"time"
)

func TestDuration(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]time.Duration{
		"500ms": 500 * time.Millisecond, "10s": 10 * time.Second, "1m30s": 90 * time.Second, "72h": 72 * time.Hour,
		"3d": 72 * time.Hour, "1.5d": 36 * time.Hour, "1d12h": 36 * time.Hour, "0.5s": 500 * time.Millisecond,
	} {
		d, err := ParseDuration(in)
		if err != nil || time.Duration(d) != want {
			t.Errorf("%q is %v, %v, expected %v", in, d, err, want)
		}
		again, err := ParseDuration(d.String())
		if err != nil || again != d {
			t.Errorf("%q written as %q is read as %v, %v", in, d, again, err)
		}
	}
	for _, in := range []string{"", "10", "-1s", "1 s", "s", "1y", "1us", "999999999d", "1,5s"} {
		if d, err := ParseDuration(in); err == nil {
			t.Errorf("%q is read as %v, expected an error", in, d)
		}
	}
	for in, want := range map[string]string{"60m": "1h", "90s": "1m30s", "3600s": "1h", "100m": "1h40m", "10m": "10m", "70s": "1m10s"} {
		if d, _ := ParseDuration(in); d.String() != want {
			t.Errorf("%q is written as %q, expected %q", in, d, want)
		}
	}
}

func TestSize(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]Size{"0": 0, "1": 1, "10B": 10, "256KiB": 256 << 10, "1MiB": 1 << 20, "500KB": 500_000, "2MB": 2_000_000} {
		v, err := ParseSize(in)
		if err != nil || v != want {
			t.Errorf("%q is %v, %v, expected %d bytes", in, v, err, want)
		}
		if again, err := ParseSize(v.String()); err != nil || again != v {
			t.Errorf("%q written as %q is read as %v, %v", in, v, again, err)
		}
	}
	for _, in := range []string{"", "-1", "1.5KiB", "1 KiB", "1kb", "1GiB", "9999999999999999999"} {
		if v, err := ParseSize(in); err == nil {
			t.Errorf("%q is read as %v, expected an error", in, v)
		}
	}
}

func TestShare(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]Share{"50%": 0.5, "100%": 1, "0.5%": 0.005, "12.5%": 0.125} {
		v, err := ParseShare(in)
		if err != nil || v != want || v.String() != in {
			t.Errorf("%q is %v (%v), %v, expected %v", in, float64(v), v, err, float64(want))
		}
	}
	for _, in := range []string{"", "50", "0.5", "101%", "-1%", "50 %"} {
		if v, err := ParseShare(in); err == nil {
			t.Errorf("%q is read as %v, expected an error", in, v)
		}
	}
}

func TestCorrectLine(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		`  - {name: x, expr: props["a"]}`:                        `  - {name: x, expr: 'props["a"]'}`,
		`  - {name: x, expr: props['a'] ?? "b, c"} # why`:        `  - {name: x, expr: 'props[''a''] ?? "b, c"'} # why`,
		`    expr: props["a"]}`:                                  `    expr: 'props["a"]'}`,
		`    expr: props["a"] + "}",`:                            `    expr: 'props["a"] + "}"',`,
		`auth: {type: bearer, token: ${env:X}}`:                  `auth: {type: bearer, token: '${env:X}'}`,
		`a: {b: {token: ${env:X}}, c: d}`:                        `a: {b: {token: '${env:X}'}, c: d}`,
		`  expr: "a" + props["b"]`:                               `  expr: '"a" + props["b"]'`,
		`condition: !props["b"]`:                                 `condition: '!props["b"]'`,
		`condition: | props["b"]`:                                `condition: 'props["b"]'`,
		`url: {{ props["b"] }}`:                                  `url: '{{ props["b"] }}'`,
		`- expr: event.user == "a" ? "b": "c"`:                   `- expr: 'event.user == "a" ? "b": "c"'`,
		`- {name: x, expr: {"a": props["b"]}}`:                   `- {name: x, expr: '{"a": props["b"]}'}`,
		`request: {url: https://x.com/{{ props["b"] }}/y, m: n}`: `request: {url: 'https://x.com/{{ props["b"] }}/y', m: n}`,
		`request: {url: https://x.com/{{ props["b"] }}, headers: {Content-Type: text/plain}}`: `request: {url: 'https://x.com/{{ props["b"] }}', headers: {Content-Type: text/plain}}`,
		`auth: {type: oauth2, client_secret: ${env:X}, scopes: [a, b]}`:                       `auth: {type: oauth2, client_secret: '${env:X}', scopes: [a, b]}`,
		`- {name: x, expr: [props["a"], 1]}`:                                                  `- {name: x, expr: '[props["a"], 1]'}`,
	} {
		if got, ok := correctLine(in); !ok || got != want {
			t.Errorf("%s\nis corrected to\n%s\nexpected\n%s", in, got, want)
		}
	}
	for _, in := range []string{
		"", "name: x", "expr: |", `expr: props["a"]`, `expr: 'a "b"'`, `condition: "a"`, `token: ${env:X}`, `- {name: x, expr: "a"}`,
		`{`, `expr: {`, `- {expr: `, `expr: "`, `{{`, `${`,
		`headers: {{ event.user }}`, `scopes: [a, "${env:X}"]`, `- {name: x, value: [1, "${a}"]}`, `limits: {{ event.user }}`,
	} {
		if got, ok := correctLine(in); ok {
			t.Errorf("%q is corrected to %q, expected that it stays", in, got)
		}
	}
}
