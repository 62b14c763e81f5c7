package httpsend_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/millrace-io/millrace/pipeline/httpsend"
	"github.com/millrace-io/millrace/pipeline/pipelinetest"
)

// server listens on 127.0.0.1 and hands each connection to serve, with its
// number from 1. A connection is closed when serve returns; all are when the
// test ends.
func server(t *testing.T, serve func(n int, c net.Conn, r *bufio.Reader)) (addr string) {
	t.Helper()
	var config net.ListenConfig
	l, err := config.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		for n := 1; ; n++ {
			c, err := l.Accept()
			if err != nil {
				return
			}
			stop := context.AfterFunc(ctx, func() { _ = c.Close() })
			running.Go(func() {
				defer stop()
				defer c.Close()
				serve(n, c, bufio.NewReader(c))
			})
		}
	})
	t.Cleanup(func() {
		cancel()
		_ = l.Close()
		running.Wait()
	})
	return l.Addr().String()
}

// hear reads one request; false when the connection ended before.
func hear(r *bufio.Reader) bool {
	req, err := http.ReadRequest(r)
	if err != nil {
		return false
	}
	_, err = io.Copy(io.Discard, req.Body)
	return err == nil
}

// saying answers the first request of each connection with text and waits for
// the client to hang up.
func saying(text string) func(int, net.Conn, *bufio.Reader) {
	return func(_ int, c net.Conn, r *bufio.Reader) {
		if hear(r) {
			_, _ = io.WriteString(c, text)
			_, _ = io.Copy(io.Discard, r)
		}
	}
}

// flood writes text until the other side hangs up, or limit bytes.
func flood(c net.Conn, text string, limit int) {
	for n := 0; n < limit; n += len(text) {
		if _, err := io.WriteString(c, text); err != nil {
			return
		}
	}
}

func TestFaults(t *testing.T) {
	t.Parallel()
	const gigabyte = 1 << 30
	chunk := strings.Repeat("x", 32<<10)
	short := 150 * time.Millisecond
	for name, x := range map[string]struct {
		serve   func(int, net.Conn, *bufio.Reader)
		timeout time.Duration
		status  int
		outcome httpsend.Outcome
		class   httpsend.Class
	}{
		"hangs up": {
			serve:   func(_ int, _ net.Conn, r *bufio.Reader) { hear(r) },
			outcome: httpsend.Retry, class: httpsend.ClassNetwork,
		},
		"resets": {
			serve: func(_ int, c net.Conn, r *bufio.Reader) {
				hear(r)
				_ = c.(*net.TCPConn).SetLinger(0)
			},
			outcome: httpsend.Retry, class: httpsend.ClassNetwork,
		},
		"hangs up in the header": {
			serve: func(_ int, c net.Conn, r *bufio.Reader) {
				hear(r)
				_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n")
			},
			outcome: httpsend.Retry, class: httpsend.ClassNetwork,
		},
		"hangs up in the body of a refusal": {
			serve: func(_ int, c net.Conn, r *bufio.Reader) {
				hear(r)
				_, _ = io.WriteString(c, "HTTP/1.1 400 Bad Request\r\nContent-Length: 99\r\n\r\nbad")
			},
			status: 400, outcome: httpsend.DeadLetter, class: httpsend.ClassNetwork,
		},
		"resets in the body of a success": {
			serve: func(_ int, c net.Conn, r *bufio.Reader) {
				hear(r)
				_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nfine")
				_ = c.(*net.TCPConn).SetLinger(0)
			},
			status: 200, outcome: httpsend.Success, class: httpsend.ClassNetwork,
		},
		"says nothing": {
			serve: saying(""), timeout: short,
			outcome: httpsend.Retry, class: httpsend.ClassTimeout,
		},
		"never ends the header": {
			serve: saying("HTTP/1.1 200 OK\r\nA: b\r\n"), timeout: short,
			outcome: httpsend.Retry, class: httpsend.ClassTimeout,
		},
		"never ends the body of a success": {
			serve: saying("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc"), timeout: short,
			status: 200, outcome: httpsend.Success, class: httpsend.ClassTimeout,
		},
		"never ends the body of a failure": {
			serve: saying("HTTP/1.1 503 Busy\r\nContent-Length: 9\r\n\r\nabc"), timeout: short,
			status: 503, outcome: httpsend.Retry, class: httpsend.ClassTimeout,
		},
		"never ends informing": {
			serve: func(_ int, c net.Conn, r *bufio.Reader) {
				hear(r)
				flood(c, "HTTP/1.1 102 Processing\r\n\r\n", gigabyte)
			},
			outcome: httpsend.Retry, class: httpsend.ClassProtocol,
		},
		"switches protocols": {
			serve:  saying("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"),
			status: 101, outcome: httpsend.DeadLetter,
		},
		"endless body": {
			serve: func(_ int, c net.Conn, r *bufio.Reader) {
				hear(r)
				_, _ = io.WriteString(c, "HTTP/1.1 500 Oops\r\n\r\n")
				flood(c, chunk, 10*gigabyte)
			},
			status: 500, outcome: httpsend.Retry, class: httpsend.ClassMaxResponse,
		},
		"a gigabyte": {
			serve: func(_ int, c net.Conn, r *bufio.Reader) {
				hear(r)
				_, _ = fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", gigabyte)
				flood(c, chunk, gigabyte)
			},
			status: 200, outcome: httpsend.Success, class: httpsend.ClassMaxResponse,
		},
		"header bomb": {
			serve: func(_ int, c net.Conn, r *bufio.Reader) {
				hear(r)
				_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n")
				flood(c, "X-Bomb: "+chunk+"\r\n", gigabyte)
			},
			outcome: httpsend.Retry, class: httpsend.ClassProtocol,
		},
		"one endless header line": {
			serve: func(_ int, c net.Conn, r *bufio.Reader) {
				hear(r)
				_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nX-Bomb: ")
				flood(c, chunk, gigabyte)
			},
			outcome: httpsend.Retry, class: httpsend.ClassProtocol,
		},
		"garbage": {
			serve:   saying("\x00\x01\x02 what?\r\n\r\n"),
			outcome: httpsend.Retry, class: httpsend.ClassProtocol,
		},
		"another protocol": {
			serve:   saying("220 mail.example ESMTP\r\n"),
			outcome: httpsend.Retry, class: httpsend.ClassProtocol,
		},
		"a malformed chunk": {
			serve:  saying("HTTP/1.1 500 Oops\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"),
			status: 500, outcome: httpsend.Retry, class: httpsend.ClassProtocol,
		},
		"two lengths": {
			serve:   saying("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab"),
			outcome: httpsend.Retry, class: httpsend.ClassProtocol,
		},
		"binary": {
			serve:  saying("HTTP/1.1 400 No\r\nContent-Length: 4\r\n\r\na\x00b\xff"),
			status: 400, outcome: httpsend.DeadLetter,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := sender(t, client(t, httpsend.Options{Allow: local}), httpsend.Target{
				URL: "http://" + server(t, x.serve), Timeout: x.timeout,
			})
			r := s.Send(t.Context(), httpsend.Call{ID: "1", Body: []byte("{}")})
			if r.Status != x.status || r.Outcome != x.outcome || r.Class != x.class {
				t.Errorf("%+v", r)
			}
			if (r.Err == nil) != (x.outcome == httpsend.Success) || r.Err != nil && strings.ContainsAny(r.Err.Error(), "\n\x00") {
				t.Errorf("error %q", r.Err)
			}
			if len(r.Response) > httpsend.MaxKept || strings.ContainsRune(string(r.Response), 0) {
				t.Errorf("response of %d bytes: %q", len(r.Response), r.Response)
			}
		})
	}
}

// What a body would have said, nobody knows if it does not come whole. Then the
// status alone does not count, unless the body is no matter.
func TestFaultsInBodiesThatMean(t *testing.T) {
	t.Parallel()
	meanings := []httpsend.Meaning{
		{Status: "2xx", Body: func(b []byte) bool { return string(b) == `{"ok":false}` }, Means: "dead_letter"},
		{Status: "400", Body: func(b []byte) bool { return strings.HasPrefix(string(b), "known") }, Means: "success"},
		{Status: "409", Means: "success"},
	}
	const head = " X\r\nRetry-After: 7\r\nContent-Length: 12\r\n\r\n"
	for text, x := range map[string]struct {
		outcome httpsend.Outcome
		class   httpsend.Class
	}{
		"200" + head + `{"ok":false}`: {httpsend.DeadLetter, httpsend.Answered},
		"200" + head + `{"ok":true} `: {httpsend.Success, httpsend.Answered},
		"200" + head + `{"ok":fal`:    {httpsend.Retry, httpsend.ClassNetwork},
		"200" + head:                  {httpsend.Retry, httpsend.ClassNetwork},
		"400" + head + "unk":          {httpsend.Retry, httpsend.ClassNetwork},
		"400" + head + "known, b":     {httpsend.Success, httpsend.ClassNetwork},
		"409" + head + "cut":          {httpsend.Success, httpsend.ClassNetwork},
		"404" + head + "cut":          {httpsend.DeadLetter, httpsend.ClassNetwork},
	} {
		addr := server(t, func(_ int, c net.Conn, r *bufio.Reader) {
			if hear(r) {
				_, _ = io.WriteString(c, "HTTP/1.1 "+text)
			}
		})
		s := sender(t, client(t, httpsend.Options{Allow: local}), httpsend.Target{URL: "http://" + addr, Meanings: meanings})
		r := s.Send(t.Context(), httpsend.Call{Body: []byte("{}")})
		if r.Outcome != x.outcome || r.Class != x.class || (r.Err == nil) != (x.outcome == httpsend.Success) {
			t.Errorf("%q: %+v", text, r)
		}
		if x.outcome == httpsend.Retry && (r.RetryAfter != 7*time.Second || !strings.Contains(r.Err.Error(), "did not come whole")) {
			t.Errorf("%q: %+v", text, r)
		}
	}
	addr := server(t, saying("HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n{"))
	s := sender(t, client(t, httpsend.Options{Allow: local}), httpsend.Target{URL: "http://" + addr, Meanings: meanings, Timeout: 150 * time.Millisecond})
	if r := s.Send(t.Context(), httpsend.Call{Body: []byte("{}")}); r.Outcome != httpsend.Retry || r.Class != httpsend.ClassTimeout {
		t.Errorf("%+v", r)
	}
}

func TestNobodyThere(t *testing.T) {
	t.Parallel()
	e := pipelinetest.Receiver(t)
	s := sender(t, client(t, httpsend.Options{Allow: local}), httpsend.Target{URL: e.URL})
	e.Refuse()
	if r := s.Send(t.Context(), httpsend.Call{}); r.Outcome != httpsend.Retry || r.Class != httpsend.ClassConnect {
		t.Errorf("%+v", r)
	}
	e.Accept(t)
	if r := s.Send(t.Context(), httpsend.Call{}); r.Outcome != httpsend.Success {
		t.Errorf("%+v", r)
	}
}

func TestSendEndsWithItsContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	addr := server(t, func(_ int, _ net.Conn, r *bufio.Reader) {
		hear(r)
		cancel()
		_, _ = io.Copy(io.Discard, r)
	})
	s := sender(t, client(t, httpsend.Options{Allow: local}), httpsend.Target{URL: "http://" + addr})
	if r := s.Send(ctx, httpsend.Call{}); r.Outcome != httpsend.Retry || r.Class != httpsend.ClassCanceled {
		t.Errorf("%+v", r)
	}
}

// A server that takes a call and hangs up may have done what it was asked.
// net/http would repeat such a call at once, over every connection it kept: a
// repeat must be an attempt that somebody counted.
func TestCallsAreNotRepeatedInSecret(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	heard := map[int]int{} // calls by connection
	addr := server(t, func(n int, c net.Conn, r *bufio.Reader) {
		for hear(r) {
			mu.Lock()
			heard[n]++
			first := heard[n] == 1
			mu.Unlock()
			if !first {
				return
			}
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
		}
	})
	s := sender(t, client(t, httpsend.Options{Allow: local}), httpsend.Target{
		URL: "http://" + addr, Headers: []httpsend.Header{{"X-Idempotency-Key", "x"}},
	})
	for i, want := range []httpsend.Outcome{httpsend.Success, httpsend.Retry, httpsend.Success, httpsend.Retry} {
		r := s.Send(t.Context(), httpsend.Call{ID: "1", Body: []byte("{}")})
		if r.Outcome != want {
			t.Errorf("call %d: %+v", i+1, r)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if len(heard) != 2 || heard[1] != 2 || heard[2] != 2 {
		t.Errorf("calls by connection: %v", heard)
	}
}

// net/http would repeat a GET over every connection that it kept, whatever its
// headers, and whether it has a body.
func TestGETsAreNotRepeatedInSecret(t *testing.T) {
	t.Parallel()
	const kept = 8
	for name, body := range map[string][]byte{"without a body": nil, "with a body": []byte("{}")} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var came sync.WaitGroup
			came.Add(kept)
			var again atomic.Int64 // requests over a kept connection
			addr := server(t, func(n int, c net.Conn, r *bufio.Reader) {
				if !hear(r) {
					return
				}
				if n <= kept {
					came.Done()
				}
				came.Wait() // so each call has a connection of its own
				_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
				if hear(r) {
					again.Add(1)
				}
			})
			s := sender(t, client(t, httpsend.Options{Allow: local}), httpsend.Target{URL: "http://" + addr, Method: http.MethodGet})
			call := httpsend.Call{ID: "1", Query: []byte("a=b"), Body: body}
			var calls sync.WaitGroup
			for range kept {
				calls.Go(func() {
					if r := s.Send(t.Context(), call); r.Outcome != httpsend.Success {
						t.Errorf("%+v", r)
					}
				})
			}
			calls.Wait()
			for n := range kept {
				r := s.Send(t.Context(), call)
				if r.Outcome != httpsend.Retry || r.Class != httpsend.ClassNetwork || again.Load() != int64(n+1) {
					t.Fatalf("call %d made %d requests: %+v", n+1, again.Load()-int64(n), r)
				}
			}
			if r := s.Send(t.Context(), call); r.Outcome != httpsend.Success {
				t.Errorf("over a new connection: %+v", r)
			}
		})
	}
}

// Connections that the server reset while they were idle do not cost an attempt.
func TestKeptConnectionsMayBeReset(t *testing.T) {
	t.Parallel()
	for method, body := range map[string][]byte{http.MethodPost: []byte("{}"), http.MethodGet: nil} {
		t.Run(method, func(t *testing.T) {
			t.Parallel()
			gone := make(chan struct{})
			addr := server(t, func(_ int, c net.Conn, r *bufio.Reader) {
				if !hear(r) {
					return
				}
				_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
				gone <- struct{}{} // the client has its response
				_ = c.(*net.TCPConn).SetLinger(0)
				_ = c.Close()
				gone <- struct{}{}
			})
			s := sender(t, client(t, httpsend.Options{Allow: local}), httpsend.Target{URL: "http://" + addr, Method: method})
			for range 50 {
				if r := s.Send(t.Context(), httpsend.Call{Body: body}); r.Outcome != httpsend.Success {
					t.Fatalf("%+v", r)
				}
				<-gone
				<-gone
			}
		})
	}
}

func TestIdleConnectionsAreBounded(t *testing.T) {
	t.Parallel()
	const servers, kept = 6, 2
	hungUp := make(chan struct{}, servers)
	c := client(t, httpsend.Options{Allow: local, MaxIdle: kept})
	for range servers {
		addr := server(t, func(_ int, c net.Conn, r *bufio.Reader) {
			hear(r)
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
			_, _ = io.Copy(io.Discard, r) // until the client hangs up
			hungUp <- struct{}{}
		})
		s := sender(t, c, httpsend.Target{URL: "http://" + addr})
		if r := s.Send(t.Context(), httpsend.Call{}); r.Outcome != httpsend.Success {
			t.Fatalf("%+v", r)
		}
	}
	for range servers - kept {
		<-hungUp
	}
	if n := len(hungUp); n > 0 {
		t.Errorf("%d connections were closed too many", n)
	}
}

func TestTLS(t *testing.T) {
	t.Parallel()
	e := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	e.Config.ErrorLog = log.New(io.Discard, "", 0)
	e.StartTLS()
	t.Cleanup(e.Close)
	old := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	old.Config.ErrorLog = log.New(io.Discard, "", 0)
	old.TLS = &tls.Config{MaxVersion: tls.VersionTLS11} //nolint:gosec // the test is that it is refused
	old.StartTLS()
	t.Cleanup(old.Close)
	plain := pipelinetest.Receiver(t)
	roots := x509.NewCertPool()
	roots.AddCert(e.Certificate())
	_, port, _ := net.SplitHostPort(e.Listener.Addr().String())
	dns := answering(t, func(string) string { return "127.0.0.1" })
	for name, x := range map[string]struct {
		url   string
		roots *x509.CertPool
		class httpsend.Class
		text  string
	}{
		"good":         {e.URL, roots, httpsend.Answered, ""},
		"name":         {"https://example.com:" + port, roots, httpsend.Answered, ""},
		"unknown CA":   {e.URL, x509.NewCertPool(), httpsend.ClassTLS, "unknown authority"},
		"wrong host":   {"https://wrong.test:" + port, roots, httpsend.ClassTLS, "wrong.test"},
		"old protocol": {old.URL, roots, httpsend.ClassTLS, "protocol version"},
		"no TLS":       {strings.Replace(plain.URL, "http:", "https:", 1), roots, httpsend.ClassTLS, "handshake"},
	} {
		c := client(t, httpsend.Options{Allow: local, DNS: dns})
		c.Trust(x.roots)
		s := sender(t, c, httpsend.Target{URL: x.url})
		for range 2 { // the second resumes the session, or the connection
			r := s.Send(t.Context(), httpsend.Call{})
			want := httpsend.Retry
			if x.class == httpsend.Answered {
				want = httpsend.Success
			}
			if r.Class != x.class || r.Outcome != want || x.text != "" && !strings.Contains(r.Err.Error(), x.text) {
				t.Errorf("%s: %+v", name, r)
			}
		}
	}
}

// A handshake that stands still ends with the connect timeout.
func TestConnectTimeoutCoversTheHandshake(t *testing.T) {
	t.Parallel()
	addr := server(t, func(_ int, _ net.Conn, r *bufio.Reader) { _, _ = io.Copy(io.Discard, r) })
	s := sender(t, client(t, httpsend.Options{Allow: local}), httpsend.Target{
		URL: "https://" + addr, ConnectTimeout: 50 * time.Millisecond, Timeout: time.Minute,
	})
	if r := s.Send(t.Context(), httpsend.Call{}); r.Class != httpsend.ClassTLS || r.Outcome != httpsend.Retry {
		t.Errorf("%+v", r)
	}
}
