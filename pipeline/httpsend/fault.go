package httpsend

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
)

// classify says what kind of failure err is. call is the context of the call, a
// child of the caller's that ends with the timeout.
func classify(caller, call context.Context, err error) Class {
	var dns *net.DNSError
	var op *net.OpError
	var netErr net.Error
	switch {
	case caller.Err() != nil:
		return ClassCanceled
	case call.Err() != nil:
		return ClassTimeout
	case is[*blockedError](err):
		return ClassBlocked
	case is[*proxyError](err):
		return ClassProxy
	case errors.As(err, &dns):
		return ClassDNS
	case is[*handshakeError](err), isAlert(err):
		return ClassTLS
	case errors.As(err, &op) && op.Op == "dial", errors.Is(err, context.DeadlineExceeded):
		return ClassConnect
	case errors.As(err, &netErr), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return ClassNetwork
	}
	return ClassProtocol
}

func is[E error](err error) bool {
	_, ok := errors.AsType[E](err)
	return ok
}

// plainly is the text of an error, in plain words where net/http has none.
func plainly(err error) string {
	if errors.Is(err, context.DeadlineExceeded) && !is[*net.OpError](err) { // which names the address
		return "no answer in time"
	}
	text := err.Error()
	if strings.Contains(text, `malformed HTTP response "\x15\x03`) {
		return "the server speaks TLS, so the URL would have to begin with https://: " + text
	}
	return text
}

// oneLine makes an error's text fit a log line.
func oneLine(s string) string {
	const most = 500
	s = strings.Join(strings.Fields(strings.ToValidUTF8(s, "\uFFFD")), " ")
	return cutText(s, most)
}

// cutText cuts s to at most n bytes, between two characters.
func cutText(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "")
}
