//go:build !linux

package main

import (
	"os"
	"testing"
)

type terminal struct{ file *os.File }

// openTerminal skips the test: only for Linux it is known how.
func openTerminal(t testing.TB, _ uint16) *terminal {
	t.Helper()
	t.Skip("opening a terminal is known for Linux only")
	return nil
}

func (*terminal) text(testing.TB) string { return "" }
