package httpsend

import (
	"bufio"
	"context"
	"crypto/sha256"
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
	"sync/atomic"
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
	rejected atomic.Pointer[rejectedLogin] // the last one, until the proxy answers anything else; nil: none
}

// rejectedLogin is a user name and password that the proxy does not take.
type rejectedLogin struct {
	hash [sha256.Size]byte
	at   time.Time
	err  error
}

// loginPause is how long the proxy is not asked again with a login that it does
// not take, which may lock the account, and how long deliveries wait then.
const loginPause = 10 * time.Second

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
	addr   string  // of the proxy
	means  Outcome // for the call
	status int     // of its answer, 0 if there was none
	err    error
}

func (e *proxyError) Error() string { return fmt.Sprintf("egress.proxy %s: %v", e.addr, e.err) }

func (e *proxyError) Unwrap() error { return e.err }

func (p *proxy) failed(err error) *proxyError {
	if ne, ok := errors.AsType[net.Error](err); ok && ne.Timeout() {
		err = errors.New("no answer in time")
	}
	return &proxyError{addr: p.addr, means: Retry, err: err}
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
	login, err := p.login()
	if err != nil {
		return nil, err
	}
	if r := p.rejects(login); r != nil {
		again := *r
		again.at = time.Now()
		if time.Since(r.at) < loginPause || !p.rejected.CompareAndSwap(r, &again) { // or somebody else tries it
			return nil, r.err
		}
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
	err = p.ask(tunnel, p.request(target, login), login)
	if !stop() && err == nil {
		err = p.failed(context.DeadlineExceeded)
	}
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	return tunnel, nil
}

func (p *proxy) request(target, login string) *http.Request {
	h := http.Header{"User-Agent": {p.userAgent}}
	if login != "" {
		h.Set("Proxy-Authorization", login)
	}
	return &http.Request{
		Method: http.MethodConnect, URL: &url.URL{Opaque: target}, Host: target, Header: h,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
	}
}

// login is what logs in; empty without a user name.
func (p *proxy) login() (string, error) {
	if p.Username == "" {
		return "", nil
	}
	password := ""
	if p.Password != nil {
		var err error
		if password, err = p.Password(); err != nil {
			return "", &proxyError{addr: p.addr, means: NotSent, err: fmt.Errorf("egress.proxy-password-file: %w", err)}
		}
	}
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(p.Username+":"+password)), nil
}

// rejects returns that the proxy does not take a login; nil if nothing is known.
func (p *proxy) rejects(login string) *rejectedLogin {
	if r := p.rejected.Load(); r != nil && r.hash == sha256.Sum256([]byte(login)) {
		return r
	}
	return nil
}

// ready says why calls to a host wait: there is no password for the proxy, or one
// that it does not take.
func (p *proxy) ready(host string) error {
	if !p.serves(host) {
		return nil
	}
	login, err := p.login()
	if err != nil {
		return err
	}
	// When nobody has tried it for long, nobody knows.
	if r := p.rejects(login); r != nil && time.Since(r.at) < 6*loginPause {
		return r.err
	}
	return nil
}

// maxProxyHeader is how many bytes a proxy may need to say yes or no.
const maxProxyHeader = 16 << 10

// ask makes the request and reads the answer. Of that nothing is quoted but the
// status: it may echo the password.
func (p *proxy) ask(conn net.Conn, request *http.Request, login string) error {
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
	refusal := p.refusal(response.StatusCode)
	if response.StatusCode == http.StatusProxyAuthRequired {
		p.rejected.Store(&rejectedLogin{sha256.Sum256([]byte(login)), time.Now(), refusal})
		return refusal
	}
	p.rejected.Store(nil)
	switch {
	case response.StatusCode != http.StatusOK:
		return refusal
	case r.Buffered() > 0:
		return p.failed(errors.New("it speaks before it is spoken to"))
	}
	return nil
}

// refusal is what a status means. What is forbidden stays so until somebody acts
// on this destination; a login that is not taken is all destinations' trouble.
func (p *proxy) refusal(status int) error {
	text := fmt.Sprintf("it answered %d %s", status, http.StatusText(status))
	means := Retry
	switch {
	case status == http.StatusProxyAuthRequired && p.Username == "":
		text += "; the settings egress.proxy-username and egress.proxy-password-file log in"
		means = NotSent
	case status == http.StatusProxyAuthRequired:
		text += ": it does not take this user name and password (egress.proxy-username, egress.proxy-password-file)"
		means = NotSent
	case status == http.StatusForbidden:
		text += ": it does not let this destination be called"
		means = Pause
	}
	return &proxyError{p.addr, means, status, errors.New(text)}
}
