// Package httpsend makes one HTTP call and says what it means: delivered, try
// again, give up, pause or disable the destination. It keeps calls away from
// private addresses, bounds what a destination can cost (time, bytes,
// connections), and never lets a secret out in an error or a response.
//
// A Client is made once, a Sender once for each revision of a destination; what
// is the same for every call is done there, so that Send does little more than
// net/http.
package httpsend

import (
	"cmp"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"runtime"
	"sync"
	"time"
	"weak"

	"github.com/millrace-io/millrace/pipeline/secret"
)

// Options are what all destinations of a process have in common.
type Options struct {
	Secrets *secret.Resolver // looks up references; nil: in the environment alone
	// Allow opens private addresses (the setting egress.allow): CIDRs, addresses,
	// and host names. A name opens whatever it resolves to.
	Allow     []string
	Proxy     *Proxy // what calls go through; nil: nothing
	UserAgent string // default "Millrace"
	// MaxIdle is how many idle connections are kept, over all destinations; the
	// one that was used longest ago is closed first. Default 4096, at about 20 KiB
	// each and one file descriptor.
	MaxIdle int
	DNS     *net.Resolver // default net.DefaultResolver
	// OnFetch is told what comes of each fetch of an access token: FetchGiven,
	// FetchRefused or FetchFailed. May be nil.
	OnFetch func(result string)
}

// Client makes Senders and owns their connections.
//
// Destinations share one http.Transport, unless their connections differ in
// kind (see wire). A slow destination can't take anything from the others,
// since nothing in it is scarce: connections are dialled as calls need them, how
// many calls are open at once is the caller's to limit, and only idle
// connections are bounded. That bound is why they share: with 10,000
// destinations, 10,000 bounds would be none.
//
// HTTP/2 is off. It would put all calls to a host on one connection, where one
// lost packet or one limit on streams holds up every destination there, and
// net/http would repeat calls by itself.
type Client struct {
	secrets   *secret.Resolver
	guard     *guard
	proxy     *proxy
	dns       *net.Resolver
	userAgent string
	onFetch   func(result string)
	maxIdle   int
	roots     *x509.CertPool // nil: the system's
	sessions  tls.ClientSessionCache
	// tokenTimeout is how long a token endpoint has at least: a destination from
	// which answers are expected within milliseconds may have a slow one.
	tokenTimeout time.Duration

	mu sync.Mutex
	// Senders keep transports alive; one that no Sender has is collected once its
	// last connection has closed.
	transports map[wire]weak.Pointer[http.Transport]
	grants     map[grantKey]*tokens
}

// wire is what makes connections differ in kind: two destinations that agree on
// it may use each other's idle connections to the same host.
type wire struct {
	connectTimeout time.Duration
	secured        [sha256.Size]byte // the id of the destination's own TLS, zero without
}

const (
	defaultUserAgent = "Millrace"
	defaultMaxIdle   = 4096
	idleTimeout      = 30 * time.Second // short of the 60 s after which usual load balancers hang up
	maxHeaderBytes   = 64 << 10         // of a response
	maxSessions      = 1024             // TLS sessions kept, to shorten handshakes
)

// New returns a Client. The error names every entry of Allow that is wrong, and
// what is wrong with Proxy.
//
// What a server sends without having been asked, behind its response, net/http
// quotes in the standard logger of package log, and nothing here can keep it from
// that. It may be a secret that the server was sent: a program that sends some
// should silence that logger, with log.SetOutput(io.Discard).
func New(o Options) (*Client, error) {
	g, wrongAllow := newGuard(o.Allow)
	p, wrongProxy := newProxy(o.Proxy, o.DNS, cmp.Or(o.UserAgent, defaultUserAgent))
	if err := errors.Join(wrongAllow, wrongProxy); err != nil {
		return nil, err
	}
	return &Client{
		secrets:      cmp.Or(o.Secrets, &secret.Resolver{}),
		guard:        g,
		proxy:        p,
		dns:          o.DNS,
		userAgent:    cmp.Or(o.UserAgent, defaultUserAgent),
		onFetch:      o.OnFetch,
		maxIdle:      cmp.Or(o.MaxIdle, defaultMaxIdle),
		sessions:     tls.NewLRUClientSessionCache(maxSessions),
		tokenTimeout: defaultTimeout,
		transports:   map[wire]weak.Pointer[http.Transport]{},
		grants:       map[grantKey]*tokens{},
	}, nil
}

// Close closes idle connections. Calls that are under way go on; their
// connections close 30 s after the last one.
func (c *Client) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range c.transports {
		if t := p.Value(); t != nil {
			t.CloseIdleConnections()
		}
	}
}

// transport returns the transport of what needs no TLS of its own.
func (c *Client) transport(w wire) *http.Transport {
	return c.transportFor(w, &tls.Config{RootCAs: c.roots, ClientSessionCache: c.sessions, MinVersion: tls.VersionTLS12})
}

// transportFor returns the transport of a wire, whose TLS is this.
func (c *Client) transportFor(w wire, config *tls.Config) *http.Transport {
	c.mu.Lock()
	defer c.mu.Unlock()
	if t := c.transports[w].Value(); t != nil {
		return t
	}
	t := c.newTransport(w, config)
	c.transports[w] = weak.Make(t)
	runtime.AddCleanup(t, c.forget, w)
	return t
}

// forget drops what is left of a transport that was collected.
func (c *Client) forget(w wire) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.transports[w].Value() == nil {
		delete(c.transports, w)
	}
}

func (c *Client) newTransport(w wire, config *tls.Config) *http.Transport {
	var http1 http.Protocols
	http1.SetHTTP1(true)
	d := &dialer{
		guard:   c.guard,
		timeout: w.connectTimeout,
		plain:   net.Dialer{Resolver: c.dns},
		guarded: net.Dialer{Resolver: c.dns, ControlContext: c.guard.control},
		proxy:   c.proxy,
		tls:     config,
		roots:   c.roots,
	}
	return &http.Transport{
		DialContext:            counting(d.dial),
		DialTLSContext:         counting(d.dialTLS),
		Protocols:              &http1,
		DisableCompression:     true, // nothing of a response is worth inflating a bomb for
		MaxIdleConns:           c.maxIdle,
		MaxIdleConnsPerHost:    c.maxIdle, // bounded by the calls that were open at once
		IdleConnTimeout:        idleTimeout,
		MaxResponseHeaderBytes: maxHeaderBytes,
	}
}
