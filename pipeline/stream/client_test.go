package stream

import (
	"context"
	"log/slog"
	"net"
	"os"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/pipeline/pipelinetest"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(brokerDir); dir != "" {
		serveBroker(dir) // this process is the broker of TestBrokerSurvivesAKill
		return
	}
	pipelinetest.Main(m)
}

// testConfig is a config on a broker, with a prefix of the test's own.
func testConfig(t testing.TB) Config {
	t.Helper()
	b := pipelinetest.Broker(t)
	return Config{Brokers: b.Addrs, Names: b.Names, Instance: "test", Log: slog.New(slog.DiscardHandler)}
}

func TestPing(t *testing.T) {
	t.Parallel()
	if err := testConfig(t).Ping(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestPingSaysWhatToDo(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	err = Config{Brokers: []string{addr}}.Ping(t.Context())
	if err == nil {
		t.Fatal("no error where nothing listens")
	}
	for _, want := range []string{"no Kafka at " + addr, "connection refused", "millrace broker", "--brokers"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error %q does not say %q", err, want)
		}
	}
}

func TestTransactionVersion(t *testing.T) {
	t.Parallel()
	cl, err := testConfig(t).client()
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	v, err := transactionVersion(context.Background(), cl)
	if err != nil || v != 2 {
		t.Fatalf("got version %d, %v; want 2", v, err)
	}
}
