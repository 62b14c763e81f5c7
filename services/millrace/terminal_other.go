//go:build !(linux || darwin || freebsd || netbsd || openbsd || dragonfly)

package main

import "os"

// terminalWidth takes nothing for a terminal where the system can't be asked.
func terminalWidth(*os.File) int { return 0 }
