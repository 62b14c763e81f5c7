package main

import (
	"os/exec"
	"syscall"
)

// dieWithParent lets a process end with the test, however that ends.
func dieWithParent(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
