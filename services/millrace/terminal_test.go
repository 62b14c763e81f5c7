package main

import (
	"bytes"
	"strings"
	"testing"
	"time"
)

func TestScreenAlignsColumns(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	s := newScreen(&b)
	s.widths = []int{3}
	for _, line := range [][]cell{
		{plain("a"), {"b", red}},
		{plain("long"), plain(strings.Repeat("x", maxColumn+10))},
		{plain("ü"), plain("b")},
	} {
		if err := s.line(line, plain("rest\x1b[31m\nof\u202eit\xff")); err != nil {
			t.Fatal(err)
		}
	}
	rest := "rest�[31m of�it�\n"
	want := "a    b  " + rest +
		"long  " + strings.Repeat("x", maxColumn+10) + "  " + rest +
		"ü     b" + strings.Repeat(" ", maxColumn+1) + rest
	if b.String() != want {
		t.Errorf("got\n%s\nexpected\n%s", b.String(), want)
	}
}

func TestCut(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		text string
		n    int
		want string
	}{
		{"äöü", 3, "äöü"}, {"äöü", 2, "ä…"}, {"äöü", 1, "…"}, {"", 5, ""},
	} {
		if got := cut(test.text, test.n); got != test.want {
			t.Errorf("cut(%q, %d) = %q, expected %q", test.text, test.n, got, test.want)
		}
	}
}

func TestClock(t *testing.T) {
	t.Parallel()
	now := time.Now()
	if got, want := clock(now), now.UTC().Format("15:04:05.000"); got != want {
		t.Errorf("now is %s, expected %s", got, want)
	}
	if got := clock(then); got != "2026-01-31 08:00:00" {
		t.Errorf("long ago is %s", got)
	}
}

// TestTerminalColours can't be parallel: it changes the environment.
func TestTerminalColours(t *testing.T) {
	tty := openTerminal(t, 20)
	show := func() {
		t.Helper()
		if err := newScreen(tty.file).line([]cell{{"red", red}}); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("TERM", "xterm")
	t.Setenv("NO_COLOR", "")
	show()
	t.Setenv("NO_COLOR", "1")
	show()
	if got, want := tty.text(t), "\x1b[31mred\x1b[0m\r\nred\r\n"; got != want {
		t.Errorf("got %q, expected %q", got, want)
	}
}
