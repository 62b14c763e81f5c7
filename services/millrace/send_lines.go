package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/millrace-io/millrace/pipeline/event"
)

// maxLine is the longest line that is read, in bytes. Kafka's own limit is lower
// nearly everywhere, and told by Kafka.
const maxLine = 16 << 20

// eventLines are events in JSON, one after the other, that can be read twice:
// to check all of them, then to send them.
type eventLines struct {
	text []byte // the line that next found; changes with the next one
	err  error  // why there are no more lines, other than that they ended

	name   string
	line   int
	input  io.ReadSeeker // of a file
	file   *os.File      // nil where there is nothing to close
	lines  *bufio.Scanner
	make   func(i int) ([]byte, error) // of generated events, in place of input
	events int                         // how many of those there are
}

// openLines opens a file, or standard input, which is read to its end: nothing
// is sent before everything was looked at.
func openLines(name string, stdin io.Reader) (*eventLines, error) {
	if name == "-" {
		return buffered("<stdin>", stdin)
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("reading events: %w", err)
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() { // a pipe has no way back
		defer f.Close()
		return buffered(name, f)
	}
	l := &eventLines{name: name, input: f, file: f}
	return l, errors.Join(err, l.rewind())
}

func buffered(name string, r io.Reader) (*eventLines, error) {
	all, err := io.ReadAll(r)
	if err != nil {
		return nil, fmt.Errorf("reading events from %s: %w", name, err)
	}
	l := &eventLines{name: name, input: bytes.NewReader(all)}
	err = l.rewind()
	return l, err
}

// repeatLine gives one event n times.
func repeatLine(e eventLine, n int) (*eventLines, error) {
	text, err := marshal(e)
	return &eventLines{events: n, make: func(int) ([]byte, error) { return text, nil }}, err
}

// exampleLines gives n examples, with what is given in place of what they have.
func exampleLines(c *event.Catalog, eventType string, given eventLine, n int) (*eventLines, error) {
	run := newRun()
	generate := func(i int) ([]byte, error) {
		e, err := exampleOf(c, eventType, run, i)
		if err != nil {
			return nil, err
		}
		return marshal(e.over(given))
	}
	return &eventLines{events: n, make: generate}, nil
}

// rewind goes back to the first line.
func (l *eventLines) rewind() error {
	l.line = 0
	if l.make != nil {
		return nil
	}
	if _, err := l.input.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("reading events again: %w", err)
	}
	l.lines = bufio.NewScanner(l.input)
	l.lines.Buffer(nil, maxLine)
	return nil
}

// next goes to the next line that is not blank.
func (l *eventLines) next() bool {
	if l.make != nil {
		if l.line >= l.events || l.err != nil {
			return false
		}
		l.text, l.err = l.make(l.line)
		l.line++
		return l.err == nil
	}
	for l.lines.Scan() {
		l.line++
		if l.text = bytes.TrimSpace(l.lines.Bytes()); len(l.text) > 0 {
			l.text = bytes.Clone(l.text)
			return true
		}
	}
	l.err = l.lines.Err()
	if errors.Is(l.err, bufio.ErrTooLong) {
		l.line++
		l.err = fmt.Errorf("the line is longer than %d MiB", maxLine>>20)
	}
	return false
}

// at is where the line stands.
func (l *eventLines) at() string {
	if l.make != nil {
		return fmt.Sprintf("event %d", l.line)
	}
	return fmt.Sprintf("%s:%d", l.name, l.line)
}

func (l *eventLines) close() {
	if l.file != nil {
		l.file.Close()
	}
}
