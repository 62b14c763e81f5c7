package pipelinetest

import (
	"bufio"
	"context"
	"crypto/rand"
	"embed"
	"encoding/base64"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// KafkaVersion is the Apache Kafka that tests run against.
const KafkaVersion = "4.3.1"

//go:embed testdata/kafka
var kafkaFiles embed.FS

// kafkaStart is how long a node may take: it starts in 4 to 8 seconds, and
// after a kill its old registration has to expire first, which takes 15.
const kafkaStart = 90 * time.Second

// Kafka is an Apache Kafka node of one process, controller and broker.
type Kafka struct {
	dir  string // properties and data; kept over Kill and Restart
	libs string
	addr string

	mu   sync.Mutex
	cmd  *exec.Cmd
	done chan struct{} // closed when the process is gone
	said *tail
}

// StartKafka starts an Apache Kafka for this test alone, for tests that kill
// it. properties are added to the node's own, and may override them. It ends
// with the test.
func StartKafka(t testing.TB, properties ...string) *Kafka {
	t.Helper()
	k, err := startKafka(t.Context(), t.TempDir(), properties)
	if err != nil {
		t.Fatalf("starting Kafka: %v", err)
	}
	t.Cleanup(k.Kill)
	return k
}

// Addrs are the addresses it listens on, the same after a Restart.
func (k *Kafka) Addrs() []string { return []string{k.addr} }

// Kill ends the process at once, as kill -9 does, and returns when it is gone.
func (k *Kafka) Kill() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.cmd == nil {
		return
	}
	_ = k.cmd.Process.Kill() // it fails only where the process has ended
	<-k.done
	k.cmd = nil
}

// Restart starts the node again on its data and waits until it serves, which
// takes about 15 seconds after a Kill.
func (k *Kafka) Restart(t testing.TB) {
	t.Helper()
	if err := k.run(t.Context()); err != nil {
		t.Fatalf("starting Kafka again: %v", err)
	}
}

// sharedNode is the one node of this process that Broker hands out.
var sharedNode struct {
	sync.Mutex
	k   *Kafka
	dir string
	err error
}

func shared(t testing.TB) *Kafka {
	t.Helper()
	n := &sharedNode
	n.Lock()
	defer n.Unlock()
	if n.k == nil && n.err == nil {
		n.dir, n.err = os.MkdirTemp("", "millrace-kafka-") //nolint:usetesting // it outlives the test that comes first
		if n.err == nil {
			n.k, n.err = startKafka(t.Context(), n.dir, nil)
		}
	}
	if n.err != nil {
		t.Fatalf("starting the Kafka that tests share: %v", n.err)
	}
	return n.k
}

func stopShared() {
	n := &sharedNode
	n.Lock()
	defer n.Unlock()
	if n.k != nil {
		n.k.Kill()
		n.k.said.wait()
	}
	if n.dir != "" {
		_ = os.RemoveAll(n.dir) // a temporary folder; the system removes what is left
	}
}

// Main runs the tests of a package, stops the Kafka they shared, and fails if
// a goroutine is left over. It is the whole body of TestMain.
func Main(m *testing.M) {
	code := m.Run()
	stopShared()
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, "tests passed, but goroutines are left:", err)
			code = 1
		}
	}
	os.Exit(code)
}

// startKafka starts a node. The context is that of starting it: the node runs
// until it is killed.
func startKafka(ctx context.Context, dir string, properties []string) (*Kafka, error) {
	libs, err := kafkaLibs(ctx)
	if err != nil {
		return nil, err
	}
	k := &Kafka{dir: filepath.Join(dir, "node"), libs: libs}
	if err := k.format(ctx, properties); err != nil {
		return nil, err
	}
	if err := k.run(ctx); err != nil {
		return nil, err
	}
	return k, nil
}

// format writes the properties and makes the data folder.
func (k *Kafka) format(ctx context.Context, properties []string) error {
	var err error
	if k.addr, err = freeAddr(ctx); err != nil {
		return err
	}
	controller, err := freeAddr(ctx)
	if err != nil {
		return err
	}
	base, err := kafkaFiles.ReadFile("testdata/kafka/node.properties")
	if err != nil {
		return err
	}
	own := []string{
		"listeners=PLAINTEXT://" + k.addr + ",CONTROLLER://" + controller,
		"advertised.listeners=PLAINTEXT://" + k.addr,
		"controller.quorum.bootstrap.servers=" + controller,
		"log.dirs=" + filepath.Join(k.dir, "data"),
	}
	text := string(base) + strings.Join(slices.Concat(own, properties), "\n") + "\n"
	if err := os.MkdirAll(k.dir, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(k.properties(), []byte(text), 0o644); err != nil {
		return err
	}
	var id [16]byte
	_, _ = rand.Read(id[:]) // never fails
	id[0] &= 0x7f           // else it may begin with a '-', and be taken for a flag
	cmd := exec.CommandContext(ctx, "java", "-cp", filepath.Join(k.libs, "*"), "kafka.tools.StorageTool",
		"format", "--standalone", "-t", base64.RawURLEncoding.EncodeToString(id[:]), "-c", k.properties())
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("formatting the data folder: %w\n%s", err, out)
	}
	return nil
}

func (k *Kafka) properties() string { return filepath.Join(k.dir, "node.properties") }

// run starts the process and waits until it serves.
func (k *Kafka) run(ctx context.Context) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	out, in := io.Pipe()
	k.said = follow(out, "Kafka Server started")
	k.cmd = exec.CommandContext(context.WithoutCancel(ctx),
		"java", "-Xms256m", "-Xmx512m", "-cp", filepath.Join(k.libs, "*"), "kafka.Kafka", k.properties())
	k.cmd.Stdout, k.cmd.Stderr = in, in
	dieWithParent(k.cmd)
	started := make(chan error)
	k.done = make(chan struct{})
	go func(cmd *exec.Cmd, done chan struct{}) {
		// The process dies with the thread that started it, so that thread
		// has to stay.
		runtime.LockOSThread()
		defer close(done)
		defer func() { _ = in.Close() }() // a pipe's never fails
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // killed, which is an error
		}
	}(k.cmd, k.done)
	if err := <-started; err != nil {
		k.cmd = nil
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, kafkaStart)
	defer cancel()
	select {
	case <-k.said.seen:
		return nil
	case <-k.done:
		k.said.wait()
		k.cmd = nil
		return fmt.Errorf("it ended:\n%s", k.said)
	case <-ctx.Done():
		_ = k.cmd.Process.Kill()
		<-k.done
		k.cmd = nil
		return fmt.Errorf("it does not serve after %v:\n%s", kafkaStart, k.said)
	}
}

// kafkaLibs returns the folder with Kafka's jars, fetched by Maven the first
// time. Several processes may do that at once: the first to finish wins.
func kafkaLibs(ctx context.Context) (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	libs := filepath.Join(cache, "millrace-kafka-"+KafkaVersion)
	if _, err := os.Stat(libs); err == nil {
		return libs, nil
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", err
	}
	tmp, err := os.MkdirTemp(cache, "millrace-kafka-fetching-")
	if err != nil {
		return "", err
	}
	defer func() { _ = os.RemoveAll(tmp) }() // what is left of it is in nobody's way
	pom, err := kafkaFiles.ReadFile("testdata/kafka/pom.xml")
	if err != nil {
		return "", err
	}
	if err := os.WriteFile(filepath.Join(tmp, "pom.xml"), pom, 0o644); err != nil {
		return "", err
	}
	fetched := filepath.Join(tmp, "libs")
	cmd := exec.CommandContext(ctx, "mvn", "-q", "-B", "-f", filepath.Join(tmp, "pom.xml"), "dependency:copy-dependencies",
		"-DincludeScope=runtime", "-DoutputDirectory="+fetched)
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("fetching Kafka's jars: %w\n%s", err, out)
	}
	err = os.Rename(fetched, libs)
	if _, there := os.Stat(libs); there == nil {
		return libs, nil
	}
	return "", err
}

// tail keeps the last lines that a process wrote, and says when one came. Of
// errors it keeps the first too: Kafka has a lot to say after what it dies of.
type tail struct {
	seen  chan struct{} // closed when the line came
	ended chan struct{}

	mu     sync.Mutex
	errors []string
	lines  []string
}

func follow(r io.Reader, line string) *tail {
	t := &tail{seen: make(chan struct{}), ended: make(chan struct{})}
	go func() {
		defer close(t.ended)
		once := sync.OnceFunc(func() { close(t.seen) })
		for s := bufio.NewScanner(r); s.Scan(); {
			if strings.Contains(s.Text(), line) {
				once()
			}
			t.add(s.Text())
		}
		_, _ = io.Copy(io.Discard, r) // a line too long ends the scanner, not the process
	}()
	return t
}

func (t *tail) add(line string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.errors) < 10 && (strings.Contains(line, " ERROR ") || strings.HasPrefix(line, "Caused by: ")) {
		t.errors = append(t.errors, line)
	}
	t.lines = append(t.lines, line)
	t.lines = t.lines[max(0, len(t.lines)-20):]
}

func (t *tail) wait() { <-t.ended }

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return "first errors:\n" + strings.Join(t.errors, "\n") + "\nlast lines:\n" + strings.Join(t.lines, "\n")
}
