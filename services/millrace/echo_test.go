package main

import (
	"bufio"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/pipeline"
)

// A destination that echoes a token behind its response, where nobody asked for
// anything: net/http quotes that in the standard log. Not parallel, since that log
// is one for the whole process.
func TestEchoesBehindAResponseAreNotLogged(t *testing.T) {
	const token = "t0ken-of-the-echo"
	var logged logBuffer
	log.SetOutput(&logged)
	t.Cleanup(func() { log.SetOutput(os.Stderr) })
	var config net.ListenConfig
	l, err := config.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	echoed := make(chan string, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		r := bufio.NewReader(c)
		req, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		_, _ = io.Copy(io.Discard, req.Body)
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"+req.Header.Get("Authorization"))
		_, _ = io.Copy(io.Discard, r) // until the client has seen it and hangs up
		echoed <- req.Header.Get("Authorization")
	}()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "token"), []byte(token), 0o600); err != nil {
		t.Fatal(err)
	}
	m := start(t, options{secrets: dir})
	m.apply(strings.Replace(soonAgain("echo", "http://"+l.Addr().String()), "retry:", "auth: {type: bearer, token: '${file:token}'}\nretry:", 1))
	m.produce(tickEvent(t, 1))
	m.ledger(map[string]endings{"echo": {pipeline.Matched: 1, pipeline.Delivered: 1}})
	if got := <-echoed; got != "Bearer "+token {
		t.Fatalf("it was sent %q", got)
	}
	if text := logged.String() + m.log.String(); strings.Contains(text, token) {
		t.Errorf("the token is logged: %s", text)
	}
}
