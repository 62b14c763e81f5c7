//go:build linux || darwin || freebsd || netbsd || openbsd || dragonfly

package main

import (
	"fmt"
	"os"
	"syscall"
)

// giveTo gives a file to the user and group that another one belongs to.
func giveTo(f *os.File, other os.FileInfo) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	mine, ok := info.Sys().(*syscall.Stat_t)
	theirs, okToo := other.Sys().(*syscall.Stat_t)
	if !ok || !okToo || mine.Uid == theirs.Uid && mine.Gid == theirs.Gid {
		return nil
	}
	if err := f.Chown(int(theirs.Uid), int(theirs.Gid)); err != nil {
		return fmt.Errorf("it belongs to user %d and group %d, and can't be given to them; run this as that user: %w", theirs.Uid, theirs.Gid, err)
	}
	return nil
}
