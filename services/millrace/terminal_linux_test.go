package main

import (
	"fmt"
	"io"
	"os"
	"syscall"
	"testing"
	"unsafe"
)

// terminal is a terminal of the test's own.
type terminal struct {
	file   *os.File // to write to
	master *os.File
}

// openTerminal opens a terminal so many characters wide.
func openTerminal(t testing.TB, width uint16) *terminal {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skipf("this system has no terminals to open: %v", err)
	}
	t.Cleanup(func() { master.Close() })
	var number, unlock int32
	control(t, master, syscall.TIOCSPTLCK, unsafe.Pointer(&unlock))
	control(t, master, syscall.TIOCGPTN, unsafe.Pointer(&number))
	size := [4]uint16{24, width}
	control(t, master, syscall.TIOCSWINSZ, unsafe.Pointer(&size))
	file, err := os.OpenFile(fmt.Sprint("/dev/pts/", number), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	return &terminal{file, master}
}

func control(t testing.TB, f *os.File, request uintptr, arg unsafe.Pointer) {
	t.Helper()
	if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, f.Fd(), request, uintptr(arg)); errno != 0 {
		t.Fatal(errno)
	}
}

// text closes the terminal and returns what was written to it.
func (m *terminal) text(t testing.TB) string {
	t.Helper()
	if err := m.file.Close(); err != nil {
		t.Fatal(err)
	}
	b, _ := io.ReadAll(m.master) // ends with EIO, as nobody has it open any more
	return string(b)
}
