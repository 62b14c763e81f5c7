// Package pipelinetest gives tests a Kafka to talk to and an HTTP receiver to
// call. It is imported by tests only. It starts Kafka rather than using it,
// which makes it the one place besides stream that imports franz-go, for its
// kfake; and it must not import stream, whose own tests use it.
//
// The broker is kfake within the test's process. With MILLRACE_TEST_KAFKA=1 it
// is one real Apache Kafka node for each test process, and with
// MILLRACE_TEST_KAFKA_ADDR=host:port one that runs already. A package whose
// tests call Broker hands TestMain to Main, which stops it again.
package pipelinetest

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/millrace-io/millrace/pipeline"
)

// Cluster is where a test finds Kafka. Names is a prefix of its own for each
// test, so that tests may share a broker and run side by side.
type Cluster struct {
	Addrs []string
	Names pipeline.Names

	fake *Fake // nil where it is an Apache Kafka
}

// Broker returns a running Kafka and a prefix that nobody else uses. No topic
// exists yet under it.
func Broker(t testing.TB) Cluster {
	t.Helper()
	names := uniqueNames(t)
	if addr := os.Getenv("MILLRACE_TEST_KAFKA_ADDR"); addr != "" {
		return Cluster{Addrs: strings.Split(addr, ","), Names: names}
	}
	if RealKafka() {
		return Cluster{Addrs: shared(t).Addrs(), Names: names}
	}
	fake := StartFake(t, "")
	return Cluster{Addrs: fake.Addrs(), Names: names, fake: fake}
}

// RealKafka reports whether Broker gives an Apache Kafka rather than kfake:
// for tests of what only one of them does.
func RealKafka() bool {
	return os.Getenv("MILLRACE_TEST_KAFKA") == "1" || os.Getenv("MILLRACE_TEST_KAFKA_ADDR") != ""
}

var (
	nameCount atomic.Int64
	noName    = regexp.MustCompile(`[^A-Za-z0-9]+`)
)

// uniqueNames makes a prefix of the test's name, a count, and the process: a
// broker that runs on sees the same test again.
func uniqueNames(t testing.TB) pipeline.Names {
	name := strings.Trim(noName.ReplaceAllString(t.Name(), "-"), "-")
	if len(name) > 60 {
		name = name[:60]
	}
	return pipeline.Names(fmt.Sprintf("%s-%x-%x-%d.", name, os.Getpid(), time.Now().UnixNano(), nameCount.Add(1)))
}

// Fake is a kfake of the test's own.
type Fake struct {
	*kfake.Cluster
}

// StartFake starts a kfake that keeps its data in dir; in memory if that is
// empty. It ends with the test; Close ends it earlier.
func StartFake(t testing.TB, dir string, opts ...kfake.Opt) *Fake {
	t.Helper()
	opts = append([]kfake.Opt{kfake.NumBrokers(1)}, opts...)
	if dir != "" {
		opts = append(opts, kfake.DataDir(dir))
	}
	c, err := kfake.NewCluster(opts...)
	if err != nil {
		t.Fatalf("starting kfake: %v", err)
	}
	t.Cleanup(c.Close)
	return &Fake{c}
}

// Addrs are the addresses it listens on.
func (f *Fake) Addrs() []string { return f.ListenAddrs() }
