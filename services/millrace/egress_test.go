package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/millrace-io/millrace/pipeline"
	"github.com/millrace-io/millrace/pipeline/pipelinetest"
	"github.com/millrace-io/millrace/services/filter"
	"github.com/millrace-io/millrace/services/sink"
	"github.com/millrace-io/millrace/services/transform"
)

// tunnels is a proxy that makes tunnels for who has the password.
type tunnels struct {
	*httptest.Server
	mu   sync.Mutex
	made []string
}

func serveTunnels(t *testing.T, username, password string) *tunnels {
	t.Helper()
	p := &tunnels{}
	var open sync.WaitGroup
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Header.Set("Authorization", r.Header.Get("Proxy-Authorization"))
		if u, pw, _ := r.BasicAuth(); r.Method != http.MethodConnect || u != username || pw != password {
			w.WriteHeader(http.StatusProxyAuthRequired)
			return
		}
		var dialer net.Dialer
		there, err := dialer.DialContext(r.Context(), "tcp", r.Host)
		if err != nil {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		here, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		_, _ = io.WriteString(here, "HTTP/1.1 200 Connection established\r\n\r\n")
		p.mu.Lock() // before open.Wait: the server does not wait for who takes a connection over
		defer p.mu.Unlock()
		p.made = append(p.made, r.Host)
		open.Go(func() { defer here.Close(); _, _ = io.Copy(here, there) })
		open.Go(func() { defer there.Close(); _, _ = io.Copy(there, here) })
	}))
	t.Cleanup(func() {
		p.Close()
		p.mu.Lock()
		defer p.mu.Unlock()
		open.Wait()
	})
	return p
}

// Calls go through the proxy that the settings name, under the password that
// they point to, which shows nowhere.
func TestEgressProxy(t *testing.T) {
	t.Parallel()
	const password = "pr0xy-p4ss"
	r := pipelinetest.Receiver(t)
	p := serveTunnels(t, "millrace", password)
	m := start(t, options{idle: true, proxy: egressProxySettings{
		EgressProxy: p.URL, EgressProxyUsername: "millrace", EgressProxyPasswordFile: tempFile(t, "password", password+"\n"),
	}})
	m.run(filter.Role, transform.Role, sink.Role) // `up` calls this machine without a proxy
	m.apply(soonAgain("outside", r.URL))
	m.produce(tickEvent(t, 1))
	m.ledger(map[string]endings{"outside": {pipeline.Matched: 1, pipeline.Delivered: 1}})
	p.mu.Lock()
	defer p.mu.Unlock()
	if want := strings.TrimPrefix(r.URL, "http://"); len(p.made) != 1 || p.made[0] != want {
		t.Errorf("tunnels to %v, expected %s", p.made, want)
	}
	if shown := m.log.String() + fmt.Sprint(m.attempts(1)); strings.Contains(shown, password) {
		t.Errorf("the password shows: %s", shown)
	}
}

func TestEgressProxySettings(t *testing.T) {
	file := tempFile(t, "password", "one\n")
	e := egressProxySettings{EgressProxy: "http://proxy:3128", EgressProxyUsername: "me", EgressNoProxy: []string{"10.0.0.0/8"}}
	password := func(want string) {
		t.Helper()
		if got, err := e.proxy().Password(); err != nil || got != want {
			t.Errorf("the password is %q, %v, expected %q", got, err, want)
		}
	}
	t.Setenv("MILLRACE_EGRESS_PROXY_PASSWORD", "of the environment")
	password("of the environment")
	e.EgressProxyPasswordFile = file
	password("one")
	if err := os.WriteFile(file, []byte("two"), 0o600); err != nil {
		t.Fatal(err)
	}
	password("two")
	if p := e.proxy(); p.URL != e.EgressProxy || p.Username != "me" || len(p.Direct) != 1 {
		t.Errorf("the proxy is %+v", p)
	}
	config := tempFile(t, "millrace.yaml", "egress: {proxy: 'http://proxy:3128', proxy-username: me, proxy-password-file: x, no-proxy: [a, b]}\n")
	commandLine(t, "", "sink", "--help", "--config", config).must(t)
}
