package httpsend_test

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/millrace-io/millrace/pipeline/httpsend"
	"github.com/millrace-io/millrace/pipeline/pipelinetest"
)

// answering is a DNS that resolves each name to IPv4 addresses, in this order;
// "" does not exist.
func answering(t *testing.T, address func(name string) string) *net.Resolver {
	t.Helper()
	var running sync.WaitGroup
	t.Cleanup(running.Wait)
	return &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		ours, theirs := net.Pipe() // not a packet connection, so messages have their length before them
		running.Go(func() {
			defer theirs.Close()
			for answerOne(theirs, address) == nil {
			}
		})
		return ours, nil
	}}
}

func answerOne(c net.Conn, address func(string) string) error {
	var size [2]byte
	if _, err := io.ReadFull(c, size[:]); err != nil {
		return err
	}
	query := make([]byte, binary.BigEndian.Uint16(size[:]))
	if _, err := io.ReadFull(c, query); err != nil {
		return err
	}
	name, question, err := parseQuestion(query)
	if err != nil {
		return err
	}
	const isA = 1
	ip := address(name)
	asksA := binary.BigEndian.Uint16(question[len(question)-4:]) == isA
	m := append([]byte{}, query[:2]...)
	switch {
	case ip == "":
		m = append(m, 0x81, 0x83, 0, 1, 0, 0, 0, 0, 0, 0) // no such name
		m = append(m, question...)
	case asksA:
		all := strings.Fields(ip)
		m = append(m, 0x81, 0x80, 0, 1, 0, byte(len(all)), 0, 0, 0, 0)
		m = append(m, question...)
		for _, ip := range all {
			m = append(m, 0xc0, 12, 0, isA, 0, 1, 0, 0, 0, 0, 0, 4) // the name above, class IN, ttl 0
			m = append(m, netip.MustParseAddr(ip).AsSlice()...)
		}
	default:
		m = append(m, 0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 0)
		m = append(m, question...)
	}
	_, err = c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(m))), m...))
	return err
}

// parseQuestion returns the name asked for and the bytes of the question.
func parseQuestion(query []byte) (name string, question []byte, err error) {
	const header = 12
	var labels []string
	at := header
	for at < len(query) && query[at] != 0 {
		end := at + 1 + int(query[at])
		if end >= len(query) {
			return "", nil, errors.New("question is cut short")
		}
		labels = append(labels, string(query[at+1:end]))
		at = end
	}
	if at+5 > len(query) {
		return "", nil, errors.New("question is cut short")
	}
	return strings.ToLower(strings.Join(labels, ".")), query[header : at+5], nil
}

func TestPrivateAddressesPause(t *testing.T) {
	t.Parallel()
	e := pipelinetest.Receiver(t)
	u, err := url.Parse(e.URL)
	if err != nil {
		t.Fatal(err)
	}
	port := ":" + u.Port()
	dns := answering(t, func(name string) string {
		return map[string]string{"inside.test": "127.0.0.1", "meta.test": "169.254.169.254", "other.test": "127.0.0.1"}[name]
	})
	for target, outcome := range map[string]httpsend.Outcome{
		"http://inside.test" + port:          httpsend.Success, // allowed by name
		"http://INSIDE.test" + port:          httpsend.Success,
		"http://other.test" + port:           httpsend.Pause,
		"http://127.0.0.1" + port:            httpsend.Pause,
		"http://[::1]" + port:                httpsend.Pause,
		"http://[::ffff:127.0.0.1]" + port:   httpsend.Pause,
		"http://[64:ff9b::127.0.0.1]" + port: httpsend.Pause,
		"http://0.0.0.0" + port:              httpsend.Pause,
		"https://meta.test/latest":           httpsend.Pause,
		"http://10.1.2.3/":                   httpsend.Pause,
		"http://gone.test/":                  httpsend.Retry,
	} {
		s := sender(t, client(t, httpsend.Options{Allow: []string{"inside.test"}, DNS: dns}), httpsend.Target{URL: target})
		r := s.Send(t.Context(), httpsend.Call{})
		if r.Outcome != outcome {
			t.Errorf("%s: %+v", target, r)
		}
		if outcome == httpsend.Pause && (r.Class != httpsend.ClassBlocked || !strings.Contains(r.Err.Error(), "egress.allow")) {
			t.Errorf("%s: %+v", target, r)
		}
		if outcome == httpsend.Retry && r.Class != httpsend.ClassDNS {
			t.Errorf("%s: %+v", target, r)
		}
	}
	if e.Count() != 2 {
		t.Errorf("%d calls came", e.Count())
	}
}

// A name that was public when it was first asked for, or when somebody checked
// it, gets no further when it turns private: what counts is the address dialled.
func TestNamesThatFlip(t *testing.T) {
	t.Parallel()
	open := pipelinetest.Receiver(t)
	var mu sync.Mutex
	address := "127.0.0.1" // opened below, it stands for a public one
	turn := func(to string) {
		mu.Lock()
		defer mu.Unlock()
		address = to
	}
	dns := answering(t, func(string) string {
		mu.Lock()
		defer mu.Unlock()
		return address
	})
	c := client(t, httpsend.Options{Allow: []string{"127.0.0.1/32"}, DNS: dns})
	s := sender(t, c, httpsend.Target{URL: strings.Replace(open.URL, "127.0.0.1", "flip.test", 1)})
	if r := s.Send(t.Context(), httpsend.Call{}); r.Outcome != httpsend.Success {
		t.Fatalf("%+v", r)
	}
	turn("127.0.0.2")
	c.Close() // the next call dials
	if r := s.Send(t.Context(), httpsend.Call{}); r.Outcome != httpsend.Pause || r.Class != httpsend.ClassBlocked {
		t.Errorf("%+v", r)
	}
	turn("10.0.0.1")
	if r := s.Send(t.Context(), httpsend.Call{}); r.Outcome != httpsend.Pause || !strings.Contains(r.Err.Error(), "10.0.0.1") {
		t.Errorf("%+v", r)
	}
	turn("127.0.0.1")
	if r := s.Send(t.Context(), httpsend.Call{}); r.Outcome != httpsend.Success {
		t.Errorf("%+v", r)
	}
	if open.Count() != 2 {
		t.Errorf("%d calls came", open.Count())
	}
}

// A redirect is an answer, not a way around the guard.
func TestRedirectsAreNotFollowed(t *testing.T) {
	t.Parallel()
	hidden := pipelinetest.Receiver(t)
	e := pipelinetest.Receiver(t, pipelinetest.Answering(func(*pipelinetest.Call) pipelinetest.Answer {
		return pipelinetest.Answer{Status: 307, Header: map[string][]string{"Location": {hidden.URL}}}
	}))
	s := sender(t, client(t, httpsend.Options{Allow: local}), httpsend.Target{URL: e.URL})
	if r := s.Send(t.Context(), httpsend.Call{}); r.Outcome != httpsend.DeadLetter || r.Status != 307 || hidden.Count() != 0 {
		t.Errorf("%+v, %d calls elsewhere", r, hidden.Count())
	}
}
