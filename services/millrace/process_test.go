package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// runMain makes the test binary be the program: TestMain calls main. So tests
// start real processes, and can kill them, without building anything.
const runMain = "MILLRACE_RUN_MAIN"

// processPatience is how long a test waits for a process to do something.
const processPatience = 60 * time.Second

// program is a running `millrace` of its own.
type program struct {
	cmd    *exec.Cmd
	out    *output // standard output
	err    *output // standard error
	http   string  // what --http says; empty if it does not
	exited chan struct{}
}

// startProcess starts `millrace` with these arguments. What it writes is logged
// where the test fails; it is killed with the test at the latest.
func startProcess(t testing.TB, args ...string) *program {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := &program{cmd: exec.Command(self, args...), out: newOutput(), err: newOutput(), exited: make(chan struct{})}
	p.cmd.Env = append(withoutSettings(os.Environ()), runMain+"=1")
	p.cmd.Stdout, p.cmd.Stderr = p.out, p.err
	dieWithParent(p.cmd)
	for i, a := range args[:len(args)-1] {
		if a == "--http" {
			p.http = args[i+1]
		}
	}
	started := make(chan error)
	go func() {
		// The process dies with the thread that started it, so that has to stay.
		runtime.LockOSThread()
		defer close(p.exited)
		err := p.cmd.Start()
		started <- err
		if err == nil {
			_ = p.cmd.Wait() // the state says how it ended
		}
		p.out.end()
		p.err.end()
	}()
	if err := <-started; err != nil {
		t.Fatalf("starting millrace %s: %v", strings.Join(args, " "), err)
	}
	t.Cleanup(func() {
		p.Kill()
		if t.Failed() {
			t.Logf("millrace %s\n--- stdout\n%s--- stderr\n%s", strings.Join(args, " "), p.out, p.err)
		}
	})
	return p
}

// withoutSettings drops the variables that the program takes settings from.
func withoutSettings(environ []string) (out []string) {
	for _, v := range environ {
		if !isSetting(v) {
			out = append(out, v)
		}
	}
	return out
}

// Kill ends the process as kill -9 does and returns when it is gone.
func (p *program) Kill() {
	_ = p.cmd.Process.Kill() // it fails only where the process has ended
	<-p.exited
}

// Stop ends the process as a user does and returns its exit code.
func (p *program) Stop(t testing.TB) int {
	t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Fatalf("stopping the process: %v", err)
	}
	return p.Wait(t)
}

// Wait waits until the process ends by itself and returns its exit code.
func (p *program) Wait(t testing.TB) int {
	t.Helper()
	select {
	case <-p.exited:
		return p.cmd.ProcessState.ExitCode()
	case <-time.After(processPatience):
		_ = p.cmd.Process.Signal(syscall.SIGQUIT) // shows where every goroutine is
		select {
		case <-p.exited:
		case <-time.After(5 * time.Second):
		}
		t.Fatalf("the process does not end in %v", processPatience)
	}
	return -1
}

// Ready waits until /readyz says that every role is ready.
func (p *program) Ready(t testing.TB) *program {
	t.Helper()
	p.ReadyWhen(t, func(status int, _ string) bool { return status == http.StatusOK })
	return p
}

// ReadyWhen waits until what /readyz answers fulfils a condition.
func (p *program) ReadyWhen(t testing.TB, fulfilled func(status int, body string) bool) {
	t.Helper()
	if p.http == "" {
		t.Fatal("the process has no --http to ask")
	}
	ctx, cancel := context.WithTimeout(t.Context(), processPatience)
	defer cancel()
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	last := "no answer"
	for {
		if status, body, err := get(ctx, "http://"+p.http+"/readyz"); err == nil {
			if fulfilled(status, body) {
				return
			}
			last = fmt.Sprintf("%d %s", status, body)
		}
		select {
		case <-again.C:
		case <-p.exited:
			t.Fatalf("the process ended with %v; /readyz had last said: %s", p.cmd.ProcessState, last)
		case <-ctx.Done():
			t.Fatalf("waiting for /readyz: %v; it last said: %s", ctx.Err(), last)
		}
	}
}

func get(ctx context.Context, url string) (status int, body string, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return 0, "", err
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 5 * time.Second}
	resp, err := client.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b), err
}

// output collects what somebody writes and lets others wait for it.
type output struct {
	mu      sync.Mutex
	text    bytes.Buffer
	ended   bool
	changed chan struct{} // closed with the next write
}

func newOutput() *output { return &output{changed: make(chan struct{})} }

// Write implements io.Writer.
func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.announce()
	return o.text.Write(b)
}

func (o *output) end() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.ended = true
	o.announce()
}

func (o *output) announce() {
	close(o.changed)
	o.changed = make(chan struct{})
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// WaitFor waits until the text was written n times.
func (o *output) WaitFor(t testing.TB, text string, n int) {
	t.Helper()
	late := time.After(processPatience)
	for {
		o.mu.Lock()
		all, ended, changed := o.text.String(), o.ended, o.changed
		o.mu.Unlock()
		found := strings.Count(all, text)
		switch {
		case found >= n:
			return
		case ended:
			t.Fatalf("waiting for %q %d times: the end came after %d", text, n, found)
		}
		select {
		case <-changed:
		case <-late:
			t.Fatalf("waiting for %q %d times: %d in %v", text, n, found, processPatience)
		}
	}
}
