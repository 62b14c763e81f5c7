package httpsend

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"time"
)

// Proxy is what calls go through (the setting egress.proxy). Each connection is
// a tunnel that the proxy is asked for by CONNECT, for http:// destinations too.
//
// What the proxy is asked for is an address that was resolved and checked here,
// never a name: so calls are kept away from private addresses whatever the proxy
// does, and DNS can't say one thing here and another there. Names that
// egress.allow opens are left to the proxy to resolve, and with 0.0.0.0/0 and
// ::/0 open, all names are.
type Proxy struct {
	URL      string // http://host:port or https://host:port
	Username string // empty: the proxy asks for none
	// Password is asked for at each connection, so that a rotated one is found.
	Password func() (string, error)
	// Direct are hosts, addresses and CIDRs that are called without the proxy, as
	// they stand in URLs: nothing is resolved for that.
	Direct []string
}

// proxy opens tunnels.
type proxy struct {
	Proxy
	secure    bool // speaks TLS itself
	host      string
	addr      string // host:port
	direct    *guard
	userAgent string
	net.Dialer
}

// newProxy returns nil where there is none. Its errors don't quote the URL: it
// may hold a password, which does not belong there.
func newProxy(p *Proxy, dns *net.Resolver, userAgent string) (*proxy, error) {
	if p == nil || p.URL == "" {
		return nil, nil
	}
	u, err := url.Parse(p.URL)
	switch {
	case err != nil, u.Scheme != "http" && u.Scheme != "https", u.Hostname() == "":
		return nil, errors.New("parsing egress.proxy: expected http://host:port or https://host:port")
	case u.User != nil:
		return nil, errors.New("parsing egress.proxy: found a user name or password in the URL, which belong into settings of their own")
	case u.Path != "" && u.Path != "/", u.RawQuery != "", u.Fragment != "":
		return nil, errors.New("parsing egress.proxy: found something behind host and port, expected nothing")
	}
	direct, err := newGuard(p.Direct)
	if err != nil {
		return nil, fmt.Errorf("parsing egress.no-proxy: %w", err)
	}
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	return &proxy{
		Proxy: *p, secure: u.Scheme == "https", host: u.Hostname(), addr: net.JoinHostPort(u.Hostname(), port),
		direct: direct, userAgent: userAgent, Dialer: net.Dialer{Resolver: dns},
	}, nil
}

// serves says whether a host is called through the proxy.
func (p *proxy) serves(host string) bool {
	if p == nil || p.direct.allowsHost(host) {
		return false
	}
	addr, err := netip.ParseAddr(host)
	return err != nil || !p.direct.allows(plainAddr(addr))
}

// proxyError says that there is no tunnel.
type proxyError struct {
	addr    string // of the proxy
	refused bool   // and won't be until somebody acts
	status  int    // of its answer, 0 if there was none
	err     error
}

func (e *proxyError) Error() string { return fmt.Sprintf("egress.proxy %s: %v", e.addr, e.err) }

func (e *proxyError) Unwrap() error { return e.err }

func (p *proxy) failed(err error) *proxyError {
	if ne, ok := errors.AsType[net.Error](err); ok && ne.Timeout() {
		err = errors.New("no answer in time")
	}
	return &proxyError{addr: p.addr, err: err}
}

// tunnel connects to a host through the proxy.
func (d *dialer) tunnel(ctx context.Context, host, port string) (net.Conn, error) {
	if d.guard.allowsHost(host) || d.guard.allowsAll() {
		return d.proxy.open(ctx, net.JoinHostPort(host, port), d.roots)
	}
	dns := d.proxy.Resolver
	if dns == nil {
		dns = net.DefaultResolver
	}
	addrs, err := dns.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, err
	}
	var first error
	for _, addr := range addrs {
		conn, err := d.tunnelTo(ctx, addr, port)
		if err == nil {
			return conn, nil
		}
		if first == nil {
			first = err
		}
		if e, ok := errors.AsType[*proxyError](err); ok && e.status < http.StatusInternalServerError {
			break // it would say the same of the next address
		}
	}
	return nil, first
}

func (d *dialer) tunnelTo(ctx context.Context, addr netip.Addr, port string) (net.Conn, error) {
	if err := d.guard.check(addr); err != nil {
		return nil, err
	}
	return d.proxy.open(ctx, net.JoinHostPort(plainAddr(addr).String(), port), d.roots)
}

// open asks the proxy for a tunnel to target, until ctx ends. The connection to
// the proxy itself is not guarded: whoever set it up named it.
func (p *proxy) open(ctx context.Context, target string, roots *x509.CertPool) (net.Conn, error) {
	request, err := p.request(target)
	if err != nil {
		return nil, err
	}
	conn, err := p.DialContext(ctx, "tcp", p.addr)
	if err != nil {
		return nil, p.failed(err)
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	tunnel := conn
	if p.secure {
		tunnel = tls.Client(conn, &tls.Config{ServerName: p.host, RootCAs: roots, MinVersion: tls.VersionTLS12})
	}
	err = p.ask(tunnel, request)
	if !stop() && err == nil {
		err = p.failed(context.DeadlineExceeded)
	}
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	return tunnel, nil
}

func (p *proxy) request(target string) (*http.Request, error) {
	h := http.Header{"User-Agent": {p.userAgent}}
	if p.Username != "" {
		password, err := p.password()
		if err != nil {
			return nil, &proxyError{addr: p.addr, refused: true, err: err}
		}
		h.Set("Proxy-Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(p.Username+":"+password)))
	}
	return &http.Request{
		Method: http.MethodConnect, URL: &url.URL{Opaque: target}, Host: target, Header: h,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
	}, nil
}

func (p *proxy) password() (string, error) {
	if p.Password == nil {
		return "", nil
	}
	return p.Password()
}

// maxProxyHeader is how many bytes a proxy may need to say yes or no.
const maxProxyHeader = 16 << 10

// ask makes the request and reads the answer. Of that nothing is quoted but the
// status: it may echo the password.
func (p *proxy) ask(conn net.Conn, request *http.Request) error {
	if err := request.Write(conn); err != nil {
		return p.failed(err)
	}
	limited := &io.LimitedReader{R: conn, N: maxProxyHeader}
	r := bufio.NewReader(limited)
	response, err := http.ReadResponse(r, request)
	var netErr net.Error
	switch {
	case errors.As(err, &netErr):
		return p.failed(err)
	case err != nil && limited.N == 0:
		return p.failed(fmt.Errorf("its answer is longer than %d bytes", maxProxyHeader))
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return p.failed(errors.New("it hung up"))
	case err != nil:
		return p.failed(errors.New("its answer is no HTTP"))
	}
	_ = response.Body.Close() // of a tunnel, there is none; of a refusal, nobody reads it
	if response.StatusCode == http.StatusOK && r.Buffered() == 0 {
		return nil
	}
	if response.StatusCode == http.StatusOK {
		return p.failed(errors.New("it speaks before it is spoken to"))
	}
	return p.refusal(response.StatusCode)
}

// refusal is what a status means. What is forbidden stays so until somebody acts.
func (p *proxy) refusal(status int) error {
	text := fmt.Sprintf("it answered %d %s", status, http.StatusText(status))
	refused := status == http.StatusForbidden || status == http.StatusProxyAuthRequired
	switch {
	case status == http.StatusProxyAuthRequired && p.Username == "":
		text += "; the settings egress.proxy-username and egress.proxy-password-file log in"
	case status == http.StatusProxyAuthRequired:
		text += ": it does not take this user name and password"
	case refused:
		text += ": it does not let this destination be called"
	}
	return &proxyError{p.addr, refused, status, errors.New(text)}
}
