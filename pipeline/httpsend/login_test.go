package httpsend

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"
)

// A login that the proxy has rejected counts as rejected until it answers
// anything else, or nobody has tried it for long.
func TestProxyTakesALoginAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p, err := newProxy(&Proxy{URL: "http://127.0.0.1:3128", Username: "millrace"}, nil, "test")
		if err != nil {
			t.Fatal(err)
		}
		login, err := p.login()
		if err != nil {
			t.Fatal(err)
		}
		answer := func(status string) error {
			here, there := net.Pipe()
			defer here.Close()
			go func() {
				defer there.Close()
				if _, err := http.ReadRequest(bufio.NewReader(there)); err == nil {
					_, _ = io.WriteString(there, "HTTP/1.1 "+status+"\r\nContent-Length: 0\r\n\r\n") // who asked may have hung up
				}
			}()
			return p.ask(here, p.request("a.example:443", login), login)
		}
		const rejected = "407 Proxy Authentication Required"
		if err := answer(rejected); err == nil || p.ready("a.example") == nil {
			t.Errorf("%v, and it is ready", err)
		}
		time.Sleep(6 * loginPause)
		if err := p.ready("a.example"); err != nil {
			t.Errorf("after a long time without a call: %v", err)
		}
		if err := answer(rejected); err == nil || p.ready("a.example") == nil {
			t.Errorf("%v, and it is ready", err)
		}
		if err := answer("503 Service Unavailable"); err == nil || p.ready("a.example") != nil {
			t.Errorf("%v; ready: %v", err, p.ready("a.example"))
		}
	})
}
