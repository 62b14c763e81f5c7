package main

import (
	"io"
	"os"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// color is the SGR parameter of a colour; empty is none.
type color string

const (
	red    color = "31"
	green  color = "32"
	yellow color = "33"
	cyan   color = "36"
	dim    color = "2"
)

// cell is a piece of text on a screen.
type cell struct {
	text  string
	color color
}

// plain makes a cell without a colour.
func plain(text string) cell { return cell{text: text} }

// screen writes lines for people: cells in columns that are aligned, then the
// rest, cut to the width of the terminal. Where it is none, nothing is cut and
// nothing coloured.
type screen struct {
	w       io.Writer
	file    *os.File // the terminal; nil if it is none
	colored bool
	widths  []int // of the columns: the widest cell so far
}

func newScreen(w io.Writer) *screen {
	s := &screen{w: w}
	if f, ok := w.(*os.File); ok && terminalWidth(f) > 0 {
		s.file = f
		s.colored = os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
	}
	return s
}

// newPage is a screen that cuts nothing.
func newPage(w io.Writer) *screen {
	s := newScreen(w)
	s.file = nil
	return s
}

func (s *screen) isTerminal() bool { return s.file != nil }

// maxColumn is up to where a column grows; longer cells stand out.
const maxColumn = 44

// line writes one line. Its cells may come from anybody: they are made printable.
func (s *screen) line(columns []cell, rest ...cell) error {
	room := -1
	if s.file != nil {
		room = terminalWidth(s.file)
	}
	var b strings.Builder
	for i, c := range columns {
		c.text = printable(c.text)
		if i < len(columns)-1 || len(rest) > 0 {
			c.text += strings.Repeat(" ", s.grow(i, c.text)+2)
		}
		room = s.add(&b, c, room)
	}
	for _, c := range rest {
		c.text = printable(c.text)
		room = s.add(&b, c, room)
	}
	_, err := io.WriteString(s.w, strings.TrimRight(b.String(), " ")+"\n")
	return err
}

// grow makes column i wide enough for a cell and returns what the cell lacks.
func (s *screen) grow(i int, text string) (lacks int) {
	for len(s.widths) <= i {
		s.widths = append(s.widths, 0)
	}
	n := utf8.RuneCountInString(text)
	s.widths[i] = max(s.widths[i], min(n, maxColumn))
	return max(s.widths[i]-n, 0)
}

// add appends as much of a cell as there is room for, and returns what is left;
// a negative room is endless.
func (s *screen) add(b *strings.Builder, c cell, room int) int {
	if room == 0 {
		return 0
	}
	n := utf8.RuneCountInString(c.text)
	if room > 0 && n > room {
		c.text = cut(c.text, room)
		n = room
	}
	b.WriteString(s.paint(c))
	if room < 0 {
		return room
	}
	return room - n
}

// paint returns the text of a cell in its colour.
func (s *screen) paint(c cell) string {
	if !s.colored || c.color == "" || c.text == "" {
		return c.text
	}
	return "\x1b[" + string(c.color) + "m" + c.text + "\x1b[0m"
}

// cut shortens a text to n characters, the last of which says so.
func cut(text string, n int) string {
	if utf8.RuneCountInString(text) <= n {
		return text
	}
	runes := []rune(text)
	return string(runes[:n-1]) + "…"
}

// printable replaces what could move the cursor, colour the screen or turn the
// direction of writing: the text comes from outside.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n', r == '\r', r == '\t':
			return ' '
		case unicode.IsPrint(r):
			return r
		}
		return unicode.ReplacementChar
	}, text)
}

// clock is a point in time as people read it, in their zone.
func clock(t time.Time) string {
	t = t.Local()
	if time.Since(t).Abs() < 12*time.Hour {
		return t.Format("15:04:05.000")
	}
	return t.Format("2006-01-02 15:04:05")
}
