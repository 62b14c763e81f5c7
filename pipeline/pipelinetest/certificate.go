package pipelinetest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"testing"
	"time"
)

// Certificate is a certificate with its key, and may issue others.
type Certificate struct {
	*x509.Certificate
	Key     *ecdsa.PrivateKey
	PEM     string // of this certificate alone
	KeyPEM  string
	issuers []*Certificate // from the one that issued it up to the root
}

// Authority returns a self-signed certificate that may issue others.
func Authority(t testing.TB, name string) *Certificate {
	t.Helper()
	return issue(t, nil, authority(name))
}

// Intermediate returns a certificate that c issued and that may issue others.
func (c *Certificate) Intermediate(t testing.TB, name string) *Certificate {
	t.Helper()
	return issue(t, c, authority(name))
}

// Leaf returns a certificate that c issued, for a server at 127.0.0.1 and
// name.test, or a client. Each change changes what is asked for.
func (c *Certificate) Leaf(t testing.TB, name string, changes ...func(*x509.Certificate)) *Certificate {
	t.Helper()
	leaf := template(name)
	leaf.DNSNames, leaf.IPAddresses = []string{name + ".test"}, []net.IP{net.IPv4(127, 0, 0, 1)}
	leaf.KeyUsage = x509.KeyUsageDigitalSignature
	for _, change := range changes {
		change(leaf)
	}
	return issue(t, c, leaf)
}

// ValidFor makes a certificate that is good from now-before to now+after.
func ValidFor(before, after time.Duration) func(*x509.Certificate) {
	return func(c *x509.Certificate) {
		c.NotBefore, c.NotAfter = time.Now().Add(-before), time.Now().Add(after)
	}
}

// Chain returns the certificate and all that issued it, without the root.
func (c *Certificate) Chain() string {
	text := c.PEM
	for _, i := range c.issuers {
		if len(i.issuers) > 0 {
			text += i.PEM
		}
	}
	return text
}

// Pool returns a pool that trusts c.
func (c *Certificate) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(c.Certificate)
	return pool
}

// TLS returns the certificate as a server presents it: its chain and its key.
func (c *Certificate) TLS(t testing.TB) tls.Certificate {
	t.Helper()
	pair, err := tls.X509KeyPair([]byte(c.Chain()), []byte(c.KeyPEM))
	if err != nil {
		t.Fatal(err)
	}
	return pair
}

func template(name string) *x509.Certificate {
	return &x509.Certificate{
		Subject:   pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		BasicConstraintsValid: true,
	}
}

func authority(name string) *x509.Certificate {
	c := template(name)
	c.IsCA, c.KeyUsage = true, x509.KeyUsageCertSign
	return c
}

func issue(t testing.TB, by *Certificate, c *x509.Certificate) *Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	out := &Certificate{Key: key}
	parent, signer := c, key
	if by != nil {
		parent, signer = by.Certificate, by.Key
		out.issuers = append([]*Certificate{by}, by.issuers...)
	}
	if c.SerialNumber, err = rand.Int(rand.Reader, big.NewInt(1<<62)); err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	if out.Certificate, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	out.PEM = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	out.KeyPEM = string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}))
	return out
}
