package httpsend

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"sync/atomic"
	"time"
)

// dialer opens connections. The address is checked after the name was resolved,
// on the very address that is dialled, so that DNS can't say one thing to a
// check and another to the dial.
type dialer struct {
	guard   *guard
	timeout time.Duration // of resolving, connecting and the TLS handshake together
	plain   net.Dialer    // for names that egress.allow opens
	guarded net.Dialer
	proxy   *proxy // nil: none
	tls     *tls.Config
	roots   *x509.CertPool // that the proxy's certificate is checked by; nil: the system's
}

func (d *dialer) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	if d.proxy.serves(host) {
		return d.tunnel(ctx, host, port)
	}
	if d.guard.allowsHost(host) {
		return d.plain.DialContext(ctx, network, addr)
	}
	return d.guarded.DialContext(ctx, network, addr)
}

func (d *dialer) dialTLS(ctx context.Context, network, addr string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	conn, err := d.dial(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	config := d.tls.Clone()
	config.ServerName = cmp.Or(config.ServerName, host)
	secured, err := handshake(conn, config, func(c *tls.Conn) error { return c.HandshakeContext(ctx) })
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	return secured, nil
}

// counting has connections count what is written to them.
func counting(dial dialFunc) dialFunc {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return &countedConn{Conn: conn}, nil
	}
}

type dialFunc func(ctx context.Context, network, addr string) (net.Conn, error)

// countedConn knows how many bytes were written to it.
type countedConn struct {
	net.Conn
	written atomic.Int64
}

// Write counts.
func (c *countedConn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.written.Add(int64(n))
	return n, err
}

// handshakeError tells a failed TLS handshake from everything else.
type handshakeError struct{ err error }

func (e *handshakeError) Error() string { return fmt.Sprintf("TLS handshake: %v", e.err) }

func (e *handshakeError) Unwrap() error { return e.err }
