package main

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// A rotation through a link, by root, leaves the keyset where it is and to whom
// it belongs: the sinks go on reading it.
func TestRotatedKeysetStaysWithItsOwner(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path, link := filepath.Join(dir, "keyset.json"), filepath.Join(dir, "link")
	commandLine(t, "", "keys", "create", path).must(t)
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	owner := os.Getuid()
	if owner == 0 {
		owner = 1234
		if err := os.Chown(path, owner, owner); err != nil {
			t.Fatal(err)
		}
	}
	commandLine(t, "", "keys", "rotate", link).must(t)
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := int(info.Sys().(*syscall.Stat_t).Uid); got != owner || mode(t, path) != 0o600 {
		t.Errorf("it belongs to %d with the mode %v, before to %d", got, mode(t, path), owner)
	}
	if keys, err := readKeyset(path); err != nil || len(keys.Public().IDs()) != 2 {
		t.Errorf("the keyset itself was not rotated: %v", err)
	}
	if info, err := os.Lstat(link); err != nil || info.Mode()&os.ModeSymlink == 0 {
		t.Errorf("the link is none any more: %v", err)
	}
}
