package httpsend_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/millrace-io/millrace/pipeline/httpsend"
	"github.com/millrace-io/millrace/pipeline/pipelinetest"
)

// drip writes first and then the text over and over, a byte every millisecond,
// until the other side hangs up: there is always something new, and never an end.
func drip(first, text string) func(int, net.Conn, *bufio.Reader) {
	return func(_ int, c net.Conn, r *bufio.Reader) {
		_, _ = r.Peek(1)
		_, _ = io.WriteString(c, first)
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for i := 0; ; i++ {
			<-tick.C
			if _, err := c.Write([]byte{text[i%len(text)]}); err != nil {
				return
			}
		}
	}
}

// flooding writes first and then the block over and over, without an end.
func flooding(first string, block []byte) func(int, net.Conn, *bufio.Reader) {
	return func(_ int, c net.Conn, r *bufio.Reader) {
		_, _ = r.Peek(1)
		_, err := io.WriteString(c, first)
		for err == nil {
			_, err = c.Write(block)
		}
	}
}

// greeting waits for the client's first bytes, whatever they are, writes text and
// waits for the client to hang up.
func greeting(text string) func(int, net.Conn, *bufio.Reader) {
	return func(_ int, c net.Conn, r *bufio.Reader) {
		_, _ = r.Peek(1)
		_, _ = io.WriteString(c, text)
		_, _ = io.Copy(io.Discard, r)
	}
}

// closing answers a request with text and hangs up.
func closing(text string) func(int, net.Conn, *bufio.Reader) {
	return func(_ int, c net.Conn, r *bufio.Reader) {
		hear(r)
		_, _ = io.WriteString(c, text)
	}
}

func TestSlowAndStrangeServers(t *testing.T) {
	t.Parallel()
	const short = 500 * time.Millisecond
	const ok, oops, chunked = "HTTP/1.1 200 OK\r\n", "HTTP/1.1 500 Oops\r\n", "Transfer-Encoding: chunked\r\n\r\n"
	for name, x := range map[string]struct {
		serve   func(int, net.Conn, *bufio.Reader)
		timeout time.Duration
		status  int
		outcome httpsend.Outcome
		class   httpsend.Class
	}{
		"drips the status":            {drip("", "HTTP/1.1 200 OK OK OK OK OK"), short, 0, httpsend.Retry, httpsend.ClassTimeout},
		"drips the header":            {drip(ok, "A: b\r\n"), short, 0, httpsend.Retry, httpsend.ClassTimeout},
		"drips one header line":       {drip(ok+"A: ", "b"), short, 0, httpsend.Retry, httpsend.ClassTimeout},
		"drips the body of a success": {drip(ok+"\r\n", "x"), short, 200, httpsend.Success, httpsend.ClassTimeout},
		"drips the body of a failure": {drip(oops+"\r\n", "x"), short, 500, httpsend.Retry, httpsend.ClassTimeout},
		"drips chunks":                {drip(ok+chunked, "1\r\nx\r\n"), short, 200, httpsend.Success, httpsend.ClassTimeout},
		"drips news of its progress":  {drip("", "HTTP/1.1 102 Processing\r\n\r\n"), short, 0, httpsend.Retry, httpsend.ClassTimeout},
		"never takes the request": {func(_ int, _ net.Conn, r *bufio.Reader) {
			_, _ = r.Peek(1)
			_, _ = r.Peek(1 << 30) // no further than its buffer: the rest stays where it is
		}, 0, 0, httpsend.Retry, httpsend.ClassNetwork},
		"an endless trailer":         {flooding(ok+chunked+"0\r\n", []byte("A: b\r\n")), 0, 200, httpsend.Success, httpsend.ClassProtocol},
		"an endless chunk extension": {flooding(ok+chunked+"1;", []byte("aaaaaaaa")), 0, 200, httpsend.Success, httpsend.ClassProtocol},
		"chunks of one byte":         {flooding(oops+chunked, []byte("1\r\nx\r\n")), 0, 500, httpsend.Retry, httpsend.ClassMaxResponse},
		"an absurd chunk":            {closing(oops + chunked + "ffffffffffffffffff\r\n"), 0, 500, httpsend.Retry, httpsend.ClassProtocol},
		"an absurd length":           {closing(ok + "Content-Length: 99999999999999999999\r\n\r\n"), 0, 0, httpsend.Retry, httpsend.ClassProtocol},
		"a negative length":          {closing(ok + "Content-Length: -1\r\n\r\n"), 0, 0, httpsend.Retry, httpsend.ClassProtocol},
		"endless empty lines":        {flooding("", []byte("\r\n\r\n\r\n\r\n")), 0, 0, httpsend.Retry, httpsend.ClassProtocol},
		"endless zeros":              {flooding("", make([]byte, 4096)), 0, 0, httpsend.Retry, httpsend.ClassProtocol},
		"HTTP/2 frames":              {closing("\x00\x00\x12\x04\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x80\r\n\r\n"), 0, 0, httpsend.Retry, httpsend.ClassProtocol},
		"HTTP/0.9":                   {closing("<html>hello</html>\n"), 0, 0, httpsend.Retry, httpsend.ClassProtocol},
		"no status":                  {closing("HTTP/1.1 OK\r\n\r\n"), 0, 0, httpsend.Retry, httpsend.ClassProtocol},
		"a status of five digits":    {closing("HTTP/1.1 20000 OK\r\n\r\n"), 0, 0, httpsend.Retry, httpsend.ClassProtocol},
		"a status that nobody knows": {closing("HTTP/1.1 999 Request denied\r\nContent-Length: 0\r\n\r\n"), 0, 999, httpsend.DeadLetter, ""},
		"a header that folds":        {closing("HTTP/1.1 200 OK\r\n A: b\r\n\r\n"), 0, 0, httpsend.Retry, httpsend.ClassProtocol},
		"a header without a colon":   {closing("HTTP/1.1 200 OK\r\nwhat\r\n\r\n"), 0, 0, httpsend.Retry, httpsend.ClassProtocol},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := sender(t, client(t, httpsend.Options{Allow: local}), httpsend.Target{
				URL: "http://" + server(t, x.serve), Timeout: x.timeout, MaxBody: 32 << 20,
			})
			body := []byte("{}")
			if name == "never takes the request" {
				body = make([]byte, 16<<20)
			}
			r := s.Send(t.Context(), httpsend.Call{ID: "1", Body: body})
			if r.Status != x.status || r.Outcome != x.outcome || r.Class != x.class {
				t.Errorf("%d, %v, class %q: %v", r.Status, r.Outcome, r.Class, r.Err)
			}
			if len(r.Response) > httpsend.MaxKept || r.Latency > 5*time.Second {
				t.Errorf("%d bytes kept, after %v", len(r.Response), r.Latency)
			}
		})
	}
}

// What stands in the way of a handshake: it takes no longer than the connect
// timeout, and no more than TLS needs.
func TestHostileHandshakes(t *testing.T) {
	t.Parallel()
	root := pipelinetest.Authority(t, "root")
	bomb := root.Leaf(t, "server").TLS(t)
	for range 1000 {
		bomb.Certificate = append(bomb.Certificate, root.Raw)
	}
	const record = "\x16\x03\x03" // of a handshake, then its length
	for name, serve := range map[string]func(int, net.Conn, *bufio.Reader){
		"garbage":          greeting("\x00\x01\x02 what?\r\n\r\n"),
		"another protocol": greeting("220 mail.example ESMTP\r\n"),
		"hangs up":         func(_ int, _ net.Conn, r *bufio.Reader) { _, _ = r.Peek(1) },
		"an alert":         greeting("\x15\x03\x01\x00\x02\x02\x28"),
		"endless records":  flooding("", []byte(record+"\x00\x00")),
		"an endless hello": flooding(record+"\x40\x00\x02\xff\xff\xff", bytes.Repeat([]byte("x"), 4096)),
		"an endless alert": flooding("", []byte("\x15\x03\x03\x00\x02\x01\x5a")),
		"drips its hello":  drip(record+"\x40\x00\x02\x00\xff\xff", "x"),
		"certificate bomb": func(_ int, c net.Conn, _ *bufio.Reader) {
			_ = tls.Server(c, &tls.Config{Certificates: []tls.Certificate{bomb}}).Handshake()
		},
		"no common version": func(_ int, c net.Conn, _ *bufio.Reader) {
			_ = tls.Server(c, &tls.Config{MaxVersion: tls.VersionTLS11}).Handshake()
		}, //nolint:gosec // the test is that it is refused
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := client(t, httpsend.Options{Allow: local})
			c.Trust(root.Pool())
			s := sender(t, c, httpsend.Target{
				URL: "https://" + server(t, serve), ConnectTimeout: 300 * time.Millisecond, TLS: httpsend.TLS{ServerName: "server.test"},
			})
			r := s.Send(t.Context(), httpsend.Call{})
			if r.Outcome != httpsend.Retry || r.Class != httpsend.ClassTLS || strings.ContainsAny(r.Err.Error(), "\n\x00") || r.Latency > 5*time.Second {
				t.Errorf("%+v", r)
			}
		})
	}
}

// A hostile server costs a call what it costs a good one, and some buffers.
// Not parallel: what is allocated is counted for the whole process.
func TestHostileServersCostLittle(t *testing.T) {
	x := bytes.Repeat([]byte("x"), 32<<10)
	bomb := []byte("X-Bomb: " + string(x) + "\r\n")
	for name, serve := range map[string]func(int, net.Conn, *bufio.Reader){
		"a gigabyte":      flooding("HTTP/1.1 200 OK\r\nContent-Length: 1073741824\r\n\r\n", x),
		"endless failure": flooding("HTTP/1.1 500 Oops\r\n\r\n", x),
		"header bomb":     flooding("HTTP/1.1 200 OK\r\n", bomb),
		"endless line":    flooding("HTTP/1.1 200 OK\r\nX-Bomb: ", x),
		"informing":       flooding("", []byte("HTTP/1.1 103 Early Hints\r\n"+string(bomb[:8000])+"\r\n\r\n")),
		"garbage":         flooding("", x),
	} {
		s := sender(t, client(t, httpsend.Options{Allow: local}), httpsend.Target{URL: "http://" + server(t, serve)})
		s.Send(t.Context(), httpsend.Call{}) // looks up, dials
		const calls, most = 20, 1 << 20
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for range calls {
			if r := s.Send(t.Context(), httpsend.Call{Body: []byte("{}")}); r.Class == httpsend.Answered || r.Class == httpsend.ClassTimeout {
				t.Errorf("%s: %+v", name, r)
			}
		}
		runtime.ReadMemStats(&after)
		t.Logf("%s: a call allocates %d bytes", name, (after.TotalAlloc-before.TotalAlloc)/calls)
		if each := (after.TotalAlloc - before.TotalAlloc) / calls; each > most {
			t.Errorf("%s: a call allocates %d bytes, expected at most %d", name, each, most)
		}
	}
}

// A DNS that mixes addresses, changes its mind with every question, or is none.
func TestHostileDNS(t *testing.T) {
	t.Parallel()
	e := pipelinetest.Receiver(t)
	at := func(name string) string { return "http://" + name + ":" + portOf(t, e.URL) }
	asked := make(chan struct{}, 100)
	dns := answering(t, func(name string) string {
		switch name {
		case "mixed.test":
			return "10.0.0.1 169.254.169.254 127.0.0.1"
		case "private.test":
			return "10.0.0.1 169.254.169.254"
		case "behind.test": // nobody listens there, and 127.0.0.1 is not allowed
			return "127.0.0.9 127.0.0.1"
		}
		asked <- struct{}{}
		return map[bool]string{true: "127.0.0.9", false: "127.0.0.1"}[len(asked)%2 == 1]
	})
	send := func(o httpsend.Options, url string) httpsend.Result {
		return sender(t, client(t, o), httpsend.Target{URL: url, ConnectTimeout: time.Second}).Send(t.Context(), httpsend.Call{})
	}
	if r := send(httpsend.Options{Allow: []string{"127.0.0.1"}, DNS: dns}, at("mixed.test")); r.Outcome != httpsend.Success || e.Count() != 1 {
		t.Errorf("one address of three is public: %+v", r)
	}
	if r := send(httpsend.Options{DNS: dns}, at("private.test")); r.Outcome != httpsend.Pause || r.Class != httpsend.ClassBlocked {
		t.Errorf("all are private: %+v", r)
	}
	for _, name := range []string{"behind.test", "flips.test", "flips.test", "flips.test"} {
		if r := send(httpsend.Options{Allow: []string{"127.0.0.9"}, DNS: dns}, at(name)); r.Outcome == httpsend.Success || e.Count() != 1 {
			t.Errorf("%s: %+v", name, r)
		}
	}
	for name, answer := range map[string]string{"silent": "", "garbage": "\x00\x05hello", "cut-short": "\x00\xff", "hangs-up": "-"} {
		none := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
			ours, theirs := net.Pipe()
			context.AfterFunc(ctx, func() { _ = theirs.Close() })
			go func() {
				if _, err := io.CopyN(io.Discard, theirs, 2); answer == "-" || err != nil {
					_ = theirs.Close()
					return
				}
				go func() { _, _ = io.Copy(io.Discard, theirs) }() // until it is closed
				_, _ = io.WriteString(theirs, answer)
			}()
			return ours, nil
		}}
		if r := send(httpsend.Options{Allow: local, DNS: none}, at(name+".test")); r.Outcome != httpsend.Retry || r.Class != httpsend.ClassDNS {
			t.Errorf("%s: %+v", name, r)
		}
	}
}

func FuzzSendToAnyone(f *testing.F) {
	for _, text := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "HTTP/1.1 429 Slow\r\nRetry-After: 5\r\n\r\n", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No\r\n\r\n",
		"HTTP/1.0 500 Oops\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\nA: b\r\n\r\n", "\x15\x03\x01\x00\x02\x02\x16", "",
	} {
		f.Add([]byte(text))
	}
	const planted = "t0ken-of-the-fuzz"
	f.Fuzz(func(t *testing.T, answer []byte) {
		addr := server(t, func(_ int, c net.Conn, r *bufio.Reader) {
			hear(r)
			_, _ = c.Write(append(answer, planted...))
		})
		c := client(t, httpsend.Options{Allow: local, Secrets: secrets(map[string]string{"A": planted})})
		s := sender(t, c, httpsend.Target{
			URL: "http://" + addr, Timeout: time.Second, Auth: httpsend.Bearer{Token: reference(t, "${env:MILLRACE_SECRET_A}")},
		})
		r := s.Send(t.Context(), httpsend.Call{Body: []byte("{}")})
		switch {
		case r.Outcome == httpsend.Success && (r.Status < 200 || r.Status > 299 || r.Err != nil):
			t.Errorf("%+v", r)
		case r.Outcome != httpsend.Success && r.Err == nil, len(r.Response) > httpsend.MaxKept:
			t.Errorf("%+v", r)
		case strings.Contains(shown(r), planted):
			t.Errorf("the secret is seen in %s", shown(r))
		case r.RetryAfter < 0 || r.RetryAfter > httpsend.MaxRetryAfter:
			t.Error(fmt.Sprint("Retry-After ", r.RetryAfter))
		}
	})
}
