//go:build !(linux || darwin || freebsd || netbsd || openbsd || dragonfly)

package main

import "os"

// giveTo leaves a file to who made it where files have no owner that is told.
func giveTo(*os.File, os.FileInfo) error { return nil }
