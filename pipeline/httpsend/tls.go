package httpsend

import (
	"crypto"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/millrace-io/millrace/pipeline/secret"
)

// TLS is what a destination wants of its connections beside the usual. The zero
// TLS wants nothing. Certificates and key are PEM, written out or as references
// to secrets. A file that changes is put to use within a second or two.
type TLS struct {
	CA secret.Reference // whom to trust, instead of the system's authorities
	// Cert is the client's certificate and the chain that it is the beginning of:
	// each signed by the next, the last by itself, by a root of CA or of the
	// system's. Key is the private key of the first.
	Cert, Key    secret.Reference
	ServerName   string // in the server's certificate, if it is not the URL's host
	PartialChain bool   // Cert may lack the issuers of certificates
}

// TLSError says what is wrong with one field of a TLS: ca, cert or key.
type TLSError struct {
	Field string
	Err   error
}

func (e *TLSError) Error() string { return "tls." + e.Field + ": " + e.Err.Error() }

// Unwrap returns the cause.
func (e *TLSError) Unwrap() error { return e.Err }

// Check says what is wrong with what is written out. What is behind references is
// checked when they are looked up.
func (t TLS) Check(now time.Time) []*TLSError {
	var problems []*TLSError
	m := material{partial: t.PartialChain, system: systemIssued}
	if written(t.CA) {
		problems = m.setCA(t.CA.String(), now)
	}
	if m.ca == nil && t.CA.String() != "" {
		m.system = unknownRoots
	}
	if written(t.Cert) {
		problems = append(problems, m.setChain(t.Cert.String(), now)...)
	}
	if written(t.Key) {
		problems = append(problems, m.setKey(t.Key.String())...)
	}
	return problems
}

// written says whether a text stands there as it is.
func written(r secret.Reference) bool { return r.Literal() && r.String() != "" }

func (t TLS) references() []secret.Reference {
	return []secret.Reference{t.CA, t.Cert, t.Key}
}

func (t TLS) isZero() bool {
	return t.CA.String()+t.Cert.String()+t.Key.String()+t.ServerName == ""
}

// validate finds what can be said without looking anything up.
func (t TLS) validate() error {
	if (t.Cert.String() == "") != (t.Key.String() == "") {
		return errors.New("tls: cert and key are needed together")
	}
	return nil
}

// material is what the texts of a TLS hold.
type material struct {
	partial bool
	system  func(*x509.Certificate) bool // of roots
	ca      []*x509.Certificate
	chain   []*x509.Certificate
	key     crypto.Signer
}

func fieldError(field string, err error) []*TLSError {
	if err == nil {
		return nil
	}
	return []*TLSError{{field, err}}
}

// setCA takes the authorities. In a bundle some may have expired, but not all.
func (m *material) setCA(text string, now time.Time) []*TLSError {
	certs, err := parseCertificates(text)
	if err != nil {
		return fieldError("ca", err)
	}
	for _, c := range certs {
		late := checkTime(c, now)
		if late == nil {
			m.ca = certs
			return nil
		}
		err = late
	}
	return fieldError("ca", err)
}

func (m *material) setChain(text string, now time.Time) []*TLSError {
	chain, err := parseCertificates(text)
	if err == nil {
		err = checkChain(chain, roots{m.ca, m.system}, m.partial)
	}
	if err != nil {
		return fieldError("cert", err)
	}
	m.chain = chain
	return m.checkTimes(now)
}

func (m *material) setKey(text string) []*TLSError {
	key, err := parseKey(text)
	if err == nil && len(m.chain) > 0 { // else it is not known, or has problems of its own
		err = checkKey(key, m.chain)
	}
	m.key = key
	return fieldError("key", err)
}

func (m *material) checkTimes(now time.Time) []*TLSError {
	for _, c := range m.chain {
		if err := checkTime(c, now); err != nil {
			return fieldError("cert", err)
		}
	}
	return nil
}

// secured is a TLS whose references are looked up.
type secured struct {
	id     [sha256.Size]byte // of all that it is made of
	config *tls.Config
	material
}

// found are the texts of a TLS.
type found struct{ ca, cert, key string }

// id is different for different texts.
func (t TLS) id(f found) [sha256.Size]byte {
	h := sha256.New()
	for _, text := range []string{f.ca, f.cert, f.key, t.ServerName, fmt.Sprint(t.PartialChain)} {
		_, _ = h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(text))))
		_, _ = h.Write([]byte(text))
	}
	return [sha256.Size]byte(h.Sum(nil))
}

// secure makes what connections need; base are the authorities to trust where t
// names none, nil the system's. The last one is kept if nothing has changed, so
// that connections are too; then only its age is looked at.
func (t TLS) secure(f found, base *x509.CertPool, last *secured, now time.Time) (*secured, []*TLSError) {
	id := t.id(f)
	if last != nil && last.id == id {
		late := last.checkTimes(now)
		return last, late
	}
	s := &secured{id: id, material: material{partial: t.PartialChain, system: systemIssued}}
	var problems []*TLSError
	if f.ca != "" {
		problems = s.setCA(f.ca, now)
	}
	if f.cert != "" && len(problems) == 0 {
		problems = s.setChain(f.cert, now)
	}
	if f.key != "" && len(problems) == 0 {
		problems = s.setKey(f.key)
	}
	if len(problems) > 0 {
		return nil, problems
	}
	s.config = s.newConfig(t.ServerName, base)
	return s, nil
}

// maxOwnSessions is how many TLS sessions are kept for destinations that share
// no connections with others: they speak to one host, mostly.
const maxOwnSessions = 16

// newConfig has sessions of its own: one that was begun under another
// certificate would go on under that.
func (m *material) newConfig(serverName string, base *x509.CertPool) *tls.Config {
	config := &tls.Config{
		ServerName: serverName, RootCAs: base, MinVersion: tls.VersionTLS12,
		ClientSessionCache: tls.NewLRUClientSessionCache(maxOwnSessions),
	}
	if m.ca != nil {
		config.RootCAs = x509.NewCertPool()
		for _, c := range m.ca {
			config.RootCAs.AddCert(c)
		}
	}
	if m.chain == nil {
		return config
	}
	cert := &tls.Certificate{PrivateKey: m.key, Leaf: m.chain[0]}
	for _, c := range m.chain {
		cert.Certificate = append(cert.Certificate, c.Raw)
	}
	// Not by Certificates: those are left out, without a word, if the server's
	// list of authorities does not name who issued them.
	config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return cert, nil }
	return config
}

// secure looks up the sender's TLS. What is wrong goes to the builder's errors.
func (b *builder) secure(s *Sender, now time.Time) *secured {
	if s.tls.isZero() {
		return nil
	}
	var texts []string
	before := len(b.errs)
	for _, ref := range s.tls.references() {
		// Not by b.resolve: what is never sent can't be echoed.
		v, err := b.sender.client.secrets.Resolve(ref)
		if err != nil {
			b.errs = append(b.errs, err)
		}
		texts = append(texts, v.Reveal())
	}
	if len(b.errs) > before {
		return nil
	}
	made, problems := s.tls.secure(found{texts[0], texts[1], texts[2]}, s.client.roots, s.secured, now)
	for _, p := range problems {
		b.errs = append(b.errs, s.tls.located(p))
	}
	s.secured = made
	return made
}

// securedFor is the TLS for a token endpoint: that of the destination. At another
// host it is more likely to be somebody else's, whom the system trusts, than
// under the destination's name.
func (b *builder) securedFor(endpoint *url.URL) *secured {
	if b.secured == nil || b.target == nil || endpoint.Hostname() == b.target.Hostname() {
		return b.secured
	}
	other := &secured{id: sha256.Sum256(append([]byte("elsewhere"), b.secured.id[:]...)), config: b.secured.config.Clone()}
	other.config.ServerName = ""
	if b.secured.ca == nil {
		return other
	}
	other.config.RootCAs = systemRoots(b.sender.client.roots)
	for _, c := range b.secured.ca {
		other.config.RootCAs.AddCert(c)
	}
	return other
}

// systemRoots is a copy of the authorities to trust where nobody names others;
// base is what stands for the system's, nil for those themselves.
func systemRoots(base *x509.CertPool) *x509.CertPool {
	if base != nil {
		return base.Clone()
	}
	if system, err := x509.SystemCertPool(); err == nil {
		return system
	}
	return x509.NewCertPool()
}

// located adds to a problem what it was read from.
func (t TLS) located(p *TLSError) error {
	ref := map[string]secret.Reference{"ca": t.CA, "cert": t.Cert, "key": t.Key}[p.Field]
	if ref.Literal() {
		return p
	}
	return &TLSError{p.Field, fmt.Errorf("%s: %w", strings.Join(ref.Names(), ", "), p.Err)}
}

// handshake secures a connection. A server may ask for a certificate and, with
// TLS 1.3, say what it thinks of it only later: see askedConn.
func handshake(conn net.Conn, config *tls.Config, do func(*tls.Conn) error) (net.Conn, error) {
	asked, give := false, config.GetClientCertificate
	config.GetClientCertificate = func(info *tls.CertificateRequestInfo) (*tls.Certificate, error) {
		asked = true
		if give == nil {
			return &tls.Certificate{}, nil
		}
		return give(info)
	}
	client := tls.Client(conn, config)
	err := do(client)
	switch {
	case err != nil && asked:
		return nil, refusedCertificate(give != nil, err)
	case err != nil:
		return nil, &handshakeError{plainServer(err)}
	case asked:
		return &askedConn{Conn: client, gave: give != nil}, nil
	}
	return client, nil
}

func refusedCertificate(gave bool, err error) error {
	if gave {
		return &handshakeError{fmt.Errorf("after the server was given the client certificate: %w", err)}
	}
	return &handshakeError{fmt.Errorf("the server asks for a client certificate, and the destination has none (tls.cert): %w", err)}
}

// plainServer says in plain words that a server does not speak TLS.
func plainServer(err error) error {
	if header, ok := errors.AsType[tls.RecordHeaderError](err); ok && string(header.RecordHeader[:]) == "HTTP/" {
		return errors.New("the server answers in plain HTTP, so the URL would have to begin with http://")
	}
	return err
}

// askedConn is a connection whose server asked for a client certificate. Until
// it has said anything else, an end of the connection is its refusal.
type askedConn struct {
	*tls.Conn
	gave  bool
	heard atomic.Bool
}

// Read tells a refusal from other ends.
func (c *askedConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if n > 0 {
		c.heard.Store(true)
	}
	if err != nil && !c.heard.Load() && (!c.gave || isAlert(err)) {
		err = refusedCertificate(c.gave, err)
	}
	return n, err
}

// Write does likewise: a server that has refused does not wait for the request.
func (c *askedConn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	if err != nil && !c.heard.Load() {
		err = refusedCertificate(c.gave, err)
	}
	return n, err
}

// isAlert says whether the other side ended a TLS connection with a reason.
func isAlert(err error) bool {
	op, ok := errors.AsType[*net.OpError](err)
	return ok && op.Op == "remote error"
}
