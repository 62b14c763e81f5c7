package httpsend_test

import (
	"bufio"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/millrace-io/millrace/pipeline/httpsend"
	"github.com/millrace-io/millrace/pipeline/pipelinetest"
)

// egress is a proxy that makes tunnels, and remembers what it was asked for.
type egress struct {
	addr string
	auth string // wanted, as user:password; empty: none

	mu     sync.Mutex
	asked  []string
	routes map[string]string // where it connects instead
	status map[string]string // what it answers instead
}

func serveProxy(t *testing.T) *egress {
	t.Helper()
	p := &egress{routes: map[string]string{}, status: map[string]string{}}
	p.addr = server(t, func(_ int, c net.Conn, r *bufio.Reader) { p.serve(c, r) })
	return p
}

func (p *egress) serve(c net.Conn, r *bufio.Reader) {
	req, err := http.ReadRequest(r)
	if err != nil || req.Method != http.MethodConnect {
		return
	}
	p.mu.Lock()
	p.asked = append(p.asked, req.RequestURI)
	to, status := p.routes[req.RequestURI], p.status[req.RequestURI]
	if want := "Basic " + base64.StdEncoding.EncodeToString([]byte(p.auth)); p.auth != "" && req.Header.Get("Proxy-Authorization") != want {
		status = "407 " + req.Header.Get("Proxy-Authorization")
	}
	p.mu.Unlock()
	if to == "" {
		to = req.RequestURI
	}
	var dialer net.Dialer
	there, err := dialer.DialContext(req.Context(), "tcp", to)
	switch {
	case status != "":
		_, _ = fmt.Fprintf(c, "HTTP/1.1 %s\r\nContent-Length: 0\r\n\r\n", status)
		if err == nil {
			_ = there.Close()
		}
		return
	case err != nil:
		_, _ = io.WriteString(c, "HTTP/1.1 502 Bad Gateway\r\n\r\n")
		return
	}
	defer there.Close()
	_, _ = io.WriteString(c, "HTTP/1.1 200 Connection established\r\n\r\n")
	var back sync.WaitGroup
	back.Go(func() {
		_, _ = io.Copy(c, there)
		_ = c.Close()
	})
	_, _ = io.Copy(there, r)
	_ = there.Close()
	back.Wait()
}

func (p *egress) questions() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.asked)
}

func portOf(t *testing.T, url string) string {
	t.Helper()
	return url[strings.LastIndexByte(url, ':')+1:]
}

// Calls go through the proxy, with http and with https, and the proxy is asked
// for addresses that were checked, unless egress.allow says otherwise.
func TestProxy(t *testing.T) {
	t.Parallel()
	root := pipelinetest.Authority(t, "root")
	plain := pipelinetest.Receiver(t)
	secure := serveTLS(t, &tls.Config{Certificates: []tls.Certificate{root.Leaf(t, "crm").TLS(t)}})
	dns := answering(t, func(name string) string {
		return map[string]string{"crm.test": "127.0.0.1", "public.test": "93.184.215.14", "meta.test": "169.254.169.254"}[name]
	})
	h, s := ":"+portOf(t, plain.URL), ":"+portOf(t, secure.URL)
	for name, x := range map[string]struct {
		allow   []string
		direct  []string
		url     string
		asked   string // "" is nothing
		outcome httpsend.Outcome
		class   httpsend.Class
	}{
		"http":                     {local, nil, "http://crm.test" + h, "127.0.0.1" + h, httpsend.Success, ""},
		"https":                    {local, nil, "https://crm.test" + s, "127.0.0.1" + s, httpsend.Success, ""},
		"public":                   {nil, nil, "http://public.test" + h, "93.184.215.14" + h, httpsend.Success, ""},
		"private":                  {nil, nil, "http://crm.test" + h, "", httpsend.Pause, httpsend.ClassBlocked},
		"a private address":        {nil, nil, "http://10.0.0.1" + h, "", httpsend.Pause, httpsend.ClassBlocked},
		"in disguise":              {nil, nil, "http://[::ffff:127.0.0.1]" + h, "", httpsend.Pause, httpsend.ClassBlocked},
		"metadata":                 {local, nil, "http://meta.test" + h, "", httpsend.Pause, httpsend.ClassBlocked},
		"unknown":                  {local, nil, "http://gone.test" + h, "", httpsend.Retry, httpsend.ClassDNS},
		"a name that is opened":    {[]string{"inside.test"}, nil, "http://inside.test" + h, "inside.test" + h, httpsend.Success, ""},
		"everything opened":        {[]string{"0.0.0.0/0", "::/0"}, nil, "http://inside.test" + h, "inside.test" + h, httpsend.Success, ""},
		"half of all opened":       {[]string{"0.0.0.0/0"}, nil, "http://inside.test" + h, "", httpsend.Retry, httpsend.ClassDNS},
		"direct by name":           {local, []string{"crm.test"}, "http://crm.test" + h, "", httpsend.Success, ""},
		"direct by CIDR":           {local, []string{"127.0.0.0/8"}, "http://127.0.0.1" + h, "", httpsend.Success, ""},
		"direct, guarded all same": {nil, []string{"crm.test"}, "http://crm.test" + h, "", httpsend.Pause, httpsend.ClassBlocked},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := serveProxy(t)
			for _, from := range []string{"93.184.215.14" + h, "inside.test" + h} {
				p.routes[from] = "127.0.0.1" + h
			}
			c := client(t, httpsend.Options{Allow: x.allow, DNS: dns, Proxy: &httpsend.Proxy{URL: "http://" + p.addr, Direct: x.direct}})
			c.Trust(root.Pool())
			r := sender(t, c, httpsend.Target{URL: x.url}).Send(t.Context(), httpsend.Call{})
			if r.Outcome != x.outcome || r.Class != x.class {
				t.Errorf("%+v", r)
			}
			if got := strings.Join(p.questions(), " "); got != x.asked {
				t.Errorf("the proxy was asked for %q, expected %q", got, x.asked)
			}
		})
	}
}

// The proxy speaks TLS itself, and so does the destination behind it, which wants
// a client certificate.
func TestProxyOverTLS(t *testing.T) {
	t.Parallel()
	root := pipelinetest.Authority(t, "root")
	leaf := root.Leaf(t, "client")
	e := serveTLS(t, &tls.Config{
		Certificates: []tls.Certificate{root.Leaf(t, "crm").TLS(t)}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: root.Pool(),
	})
	p := &egress{}
	config := &tls.Config{Certificates: []tls.Certificate{root.Leaf(t, "proxy").TLS(t)}}
	p.addr = server(t, func(_ int, c net.Conn, _ *bufio.Reader) {
		secured := tls.Server(c, config)
		p.serve(secured, bufio.NewReader(secured))
	})
	var v vault
	v.set("CERT", leaf.PEM)
	v.set("KEY", leaf.KeyPEM)
	v.set("CA", root.PEM)
	c := client(t, httpsend.Options{Allow: local, Secrets: v.resolver(), Proxy: &httpsend.Proxy{URL: "https://" + p.addr}})
	target := httpsend.Target{URL: e.URL, TLS: fromEnv(t, true)}
	r := sender(t, c, target).Send(t.Context(), httpsend.Call{})
	if r.Class != httpsend.ClassProxy || r.Outcome != httpsend.Retry || !strings.Contains(r.Err.Error(), "unknown authority") {
		t.Errorf("a proxy that nobody trusts: %+v", r)
	}
	c.Trust(root.Pool())
	target.Timeout, target.ConnectTimeout = time.Minute, 30*time.Second // another wire
	s := sender(t, c, target)
	for range 2 {
		if r := s.Send(t.Context(), httpsend.Call{Body: []byte("{}")}); r.Outcome != httpsend.Success || e.caller() != "client" {
			t.Errorf("%+v, the server saw %q", r, e.caller())
		}
	}
	if n := len(p.questions()); n != 1 {
		t.Errorf("%d tunnels for two calls", n)
	}
}

func TestProxyPassword(t *testing.T) {
	t.Parallel()
	const password = "pr0xy:p4ss"
	e := pipelinetest.Receiver(t)
	p := serveProxy(t)
	p.auth = "millrace:" + password
	for name, x := range map[string]struct {
		username string
		password func() (string, error)
		outcome  httpsend.Outcome
		want     string
	}{
		"right":   {"millrace", func() (string, error) { return password, nil }, httpsend.Success, ""},
		"wrong":   {"millrace", func() (string, error) { return "w0rse-" + password, nil }, httpsend.NotSent, "407 Proxy Authentication Required: it does not take this user name and password (egress.proxy-username, egress.proxy-password-file)"},
		"none":    {"", nil, httpsend.NotSent, "egress.proxy-password-file"},
		"missing": {"millrace", func() (string, error) { return "", errors.New("no such file") }, httpsend.NotSent, "egress.proxy-password-file: no such file"},
	} {
		c := client(t, httpsend.Options{Allow: local, Proxy: &httpsend.Proxy{URL: "http://" + p.addr, Username: x.username, Password: x.password}})
		s := sender(t, c, httpsend.Target{URL: e.URL})
		r := s.Send(t.Context(), httpsend.Call{})
		if r.Outcome != x.outcome || r.Err != nil && (r.Class != httpsend.ClassProxy || !strings.Contains(r.Err.Error(), x.want)) {
			t.Errorf("%s: %+v", name, r)
		}
		err := s.Ready()
		if (err == nil) != (x.want == "") || err != nil && (!strings.Contains(err.Error(), x.want) || r.RetryAfter != 10*time.Second) {
			t.Errorf("%s: ready: %v, again after %v", name, err, r.RetryAfter)
		}
		for _, secret := range []string{password, "p4ss", base64.StdEncoding.EncodeToString([]byte(p.auth))} {
			if strings.Contains(shown(r)+fmt.Sprintf("%v %+v", err, c), secret) {
				t.Errorf("%s: %q is seen in %s", name, secret, shown(r))
			}
		}
	}
}

// A password that is rotated badly has deliveries wait until it is right, and the
// proxy is not asked time and again with one that it does not take.
func TestProxyPasswordRotation(t *testing.T) {
	t.Parallel()
	e := pipelinetest.Receiver(t)
	p := serveProxy(t)
	p.auth = "millrace:right"
	var password atomic.Value
	c := client(t, httpsend.Options{Allow: local, Proxy: &httpsend.Proxy{
		URL: "http://" + p.addr, Username: "millrace", Direct: []string{"localhost"},
		Password: func() (string, error) {
			if text := password.Load().(string); text != "" {
				return text, nil
			}
			return "", errors.New("it is empty")
		},
	}})
	s := sender(t, c, httpsend.Target{URL: e.URL})
	direct := sender(t, c, httpsend.Target{URL: "http://localhost:1"})
	for _, x := range []struct {
		password string
		outcome  httpsend.Outcome
		asked    int // the proxy, so far
	}{{"right", httpsend.Success, 1}, {"", httpsend.NotSent, 1}, {"wrong", httpsend.NotSent, 2}, {"worse", httpsend.NotSent, 3}, {"right", httpsend.Success, 4}} {
		password.Store(x.password)
		c.Close() // each call wants a connection
		for range 3 {
			if r := s.Send(t.Context(), httpsend.Call{}); r.Outcome != x.outcome {
				t.Errorf("with %q: %+v", x.password, r)
			}
		}
		if asked := len(p.questions()); asked != x.asked {
			t.Errorf("with %q the proxy was asked %d times, expected %d", x.password, asked, x.asked)
		}
		if err := s.Ready(); (err == nil) != (x.outcome == httpsend.Success) {
			t.Errorf("with %q: ready: %v", x.password, err)
		}
		if err := direct.Ready(); err != nil {
			t.Errorf("a destination that needs no proxy: %v", err)
		}
	}
}

// Proxies that say no, and things that are no proxies.
func TestProxyFaults(t *testing.T) {
	t.Parallel()
	for name, x := range map[string]struct {
		serve   func(int, net.Conn, *bufio.Reader)
		outcome httpsend.Outcome
		want    string
	}{
		"forbids":               {saying("HTTP/1.1 403 Forbidden\r\n\r\n"), httpsend.Pause, "403 Forbidden: it does not let this destination be called"},
		"can't":                 {saying("HTTP/1.1 502 Bad Gateway\r\nContent-Length: 1000000\r\n\r\n"), httpsend.Retry, "502 Bad Gateway"},
		"hangs up":              {func(_ int, _ net.Conn, r *bufio.Reader) { hear(r) }, httpsend.Retry, "it hung up"},
		"hangs up in its yes":   {func(_ int, c net.Conn, r *bufio.Reader) { hear(r); _, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nA: ") }, httpsend.Retry, "it hung up"},
		"says nothing":          {saying(""), httpsend.Retry, "no answer in time"},
		"never ends its answer": {saying("HTTP/1.1 200 OK\r\nA: b\r\n"), httpsend.Retry, "no answer in time"},
		"garbage":               {saying("pr0xy garbage\r\n\r\n"), httpsend.Retry, "its answer is no HTTP"},
		"header bomb": {func(_ int, c net.Conn, r *bufio.Reader) {
			hear(r)
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nX-Bomb: ")
			flood(c, strings.Repeat("x", 32<<10), 1<<30)
		}, httpsend.Retry, "its answer is longer than 16384 bytes"},
		"speaks out of turn": {saying("HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"), httpsend.Retry, "it speaks before it is spoken to"},
		"a web server":       {saying("HTTP/1.1 405 Method Not Allowed\r\n\r\n"), httpsend.Retry, "405 Method Not Allowed"},
		"redirects":          {saying("HTTP/1.1 302 Found\r\nLocation: http://10.0.0.1\r\n\r\n"), httpsend.Retry, "302 Found"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := client(t, httpsend.Options{Allow: local, Proxy: &httpsend.Proxy{URL: "http://" + server(t, x.serve)}})
			target := httpsend.Target{URL: "http://127.0.0.1:1"}
			if x.want == "no answer in time" {
				target.ConnectTimeout = 150 * time.Millisecond
			}
			s := sender(t, c, target)
			r := s.Send(t.Context(), httpsend.Call{})
			if r.Outcome != x.outcome || r.Class != httpsend.ClassProxy || !strings.Contains(r.Err.Error(), x.want) || strings.Contains(r.Err.Error(), "pr0xy") {
				t.Errorf("%+v", r)
			}
		})
	}
	c := client(t, httpsend.Options{Allow: local, Proxy: &httpsend.Proxy{URL: "http://127.0.0.1:1"}})
	if r := sender(t, c, httpsend.Target{URL: "http://127.0.0.1:2"}).Send(t.Context(), httpsend.Call{}); r.Outcome != httpsend.Retry || r.Class != httpsend.ClassProxy {
		t.Errorf("no proxy there: %+v", r)
	}
}

// A name whose address changes between the check and the tunnel gets nowhere:
// the proxy is never asked for a name.
func TestNamesThatFlipBehindAProxy(t *testing.T) {
	t.Parallel()
	e := pipelinetest.Receiver(t)
	p := serveProxy(t)
	port := ":" + portOf(t, e.URL)
	p.routes["93.184.215.14"+port] = "127.0.0.1" + port
	var mu sync.Mutex
	answers := []string{"93.184.215.14", "127.0.0.1", "10.0.0.1"}
	dns := answering(t, func(string) string {
		mu.Lock()
		defer mu.Unlock()
		return answers[0]
	})
	c := client(t, httpsend.Options{DNS: dns, Proxy: &httpsend.Proxy{URL: "http://" + p.addr}})
	s := sender(t, c, httpsend.Target{URL: "http://flip.test" + port})
	for i, want := range []httpsend.Outcome{httpsend.Success, httpsend.Pause, httpsend.Pause} {
		if r := s.Send(t.Context(), httpsend.Call{}); r.Outcome != want {
			t.Errorf("call %d: %+v", i+1, r)
		}
		c.Close() // the next call dials
		mu.Lock()
		answers = append(answers[1:], "127.0.0.1")
		mu.Unlock()
	}
	if got := fmt.Sprint(p.questions()); got != "[93.184.215.14"+port+"]" || e.Count() != 1 {
		t.Errorf("the proxy was asked for %s, %d calls came", got, e.Count())
	}
}

func TestProxySettings(t *testing.T) {
	t.Parallel()
	for url, want := range map[string]string{
		"http://proxy:3128": "", "https://proxy.test/": "", "http://[::1]:3128": "", "": "",
		"proxy:3128":                  "expected http://host:port",
		"socks5://proxy:1080":         "expected http://host:port",
		"http://":                     "expected http://host:port",
		"http://\x7f":                 "expected http://host:port",
		"http://me:geheim@proxy:3128": "found a user name or password in the URL",
		"http://proxy:3128/geheim":    "found something behind host and port",
		"http://proxy:3128?geheim":    "found something behind host and port",
	} {
		_, err := httpsend.New(httpsend.Options{Proxy: &httpsend.Proxy{URL: url}})
		if (err == nil) != (want == "") || err != nil && (!strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "geheim")) {
			t.Errorf("%q: %v, expected %q", url, err, want)
		}
	}
	_, err := httpsend.New(httpsend.Options{Allow: []string{"a/b"}, Proxy: &httpsend.Proxy{URL: "http://proxy", Direct: []string{"c/d"}}})
	if err == nil || !strings.Contains(err.Error(), "a/b") || !strings.Contains(err.Error(), "no-proxy") {
		t.Errorf("two settings are wrong: %v", err)
	}
}
