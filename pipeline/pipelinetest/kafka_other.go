//go:build !linux

package pipelinetest

import "os/exec"

// dieWithParent does nothing where the system has no such thing: a test
// process that is killed leaves its Kafka behind.
func dieWithParent(*exec.Cmd) {}
