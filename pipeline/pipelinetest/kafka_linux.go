package pipelinetest

import (
	"os/exec"
	"syscall"
)

// dieWithParent lets a process end with the one that started it, however that
// ends.
func dieWithParent(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
