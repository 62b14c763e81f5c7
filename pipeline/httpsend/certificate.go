package httpsend

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// maxRSA is the longest RSA key, in bits, that the other side of a TLS
// connection takes. Longer ones would only cost time.
const maxRSA = 8192

// blocks takes a PEM text apart. Text around the blocks is ignored, as it is by
// everybody, but a block that can't be read is an error and not skipped.
func blocks(text string) ([]*pem.Block, error) {
	var all []*pem.Block
	begun := strings.Count(text, "-----BEGIN ")
	for rest := []byte(text); ; {
		var b *pem.Block
		if b, rest = pem.Decode(rest); b == nil {
			break
		}
		all = append(all, b)
	}
	switch {
	case begun == 0:
		return nil, errors.New("expected PEM, which begins with -----BEGIN, found none")
	case len(all) != begun:
		return nil, fmt.Errorf("found the beginning of %d PEM blocks, of which %d can be read: one is cut off or damaged", begun, len(all))
	}
	return all, nil
}

const (
	certificateBlock = "CERTIFICATE"
	ecParameters     = "EC PARAMETERS" // what openssl writes before a key; the key has them too
)

// parseCertificates reads one or more certificates.
func parseCertificates(text string) ([]*x509.Certificate, error) {
	all, err := blocks(text)
	if err != nil {
		return nil, err
	}
	var certs []*x509.Certificate
	for i, b := range all {
		if strings.HasSuffix(b.Type, "PRIVATE KEY") {
			return nil, errors.New("found a private key, which belongs under key, expected certificates alone")
		}
		if b.Type != certificateBlock {
			return nil, fmt.Errorf("found a PEM block of the type %s, expected certificates alone", quoted(b.Type))
		}
		c, err := x509.ParseCertificate(b.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate %d can't be parsed: %w", i+1, err)
		}
		if k, ok := c.PublicKey.(*rsa.PublicKey); ok && k.N.BitLen() > maxRSA {
			return nil, fmt.Errorf("%s has an RSA key of %d bits, expected at most %d", subject(c), k.N.BitLen(), maxRSA)
		}
		certs = append(certs, c)
	}
	return certs, nil
}

// parseKey reads the one private key of a text. Its errors quote nothing.
func parseKey(text string) (crypto.Signer, error) {
	all, err := blocks(text)
	if err != nil {
		return nil, err
	}
	all = slices.DeleteFunc(all, func(b *pem.Block) bool { return b.Type == ecParameters })
	if len(all) != 1 {
		return nil, fmt.Errorf("found %d PEM blocks, expected one private key", len(all))
	}
	b := all[0]
	switch {
	case strings.HasSuffix(b.Type, "ENCRYPTED PRIVATE KEY"), strings.Contains(b.Headers["Proc-Type"], "ENCRYPTED"):
		return nil, errors.New("found a key under a passphrase, expected one without")
	case !strings.HasSuffix(b.Type, "PRIVATE KEY"):
		return nil, errors.New("found PEM that is no private key, expected one")
	}
	return parseKeyBytes(b.Bytes)
}

// parseKeyBytes tries what tools write, whatever the block's type says.
func parseKeyBytes(der []byte) (crypto.Signer, error) {
	if k, err := x509.ParsePKCS1PrivateKey(der); err == nil {
		return k, nil
	}
	if k, err := x509.ParseECPrivateKey(der); err == nil {
		return k, nil
	}
	k, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, errors.New("found a private key that can't be read, expected RSA, ECDSA or Ed25519")
	}
	switch k := k.(type) {
	case *rsa.PrivateKey:
		return k, nil
	case *ecdsa.PrivateKey:
		return k, nil
	case ed25519.PrivateKey:
		return k, nil
	}
	return nil, errors.New("found a private key of another kind, expected RSA, ECDSA or Ed25519")
}

// fits says whether a key is the one that a certificate is about.
func fits(key crypto.Signer, c *x509.Certificate) bool {
	public, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool })
	return ok && public.Equal(c.PublicKey)
}

// checkKey says what is wrong with a key for the first certificate of a chain.
func checkKey(key crypto.Signer, chain []*x509.Certificate) error {
	i := slices.IndexFunc(chain, func(c *x509.Certificate) bool { return fits(key, c) })
	switch {
	case i == 0:
		return nil
	case i > 0:
		return fmt.Errorf("the key fits certificate %d of cert, %s, which must then be the first", i+1, subject(chain[i]))
	}
	return fmt.Errorf("the key does not fit the first certificate of cert, %s", subject(chain[0]))
}

// roots are what the end of a client's chain may be issued by.
type roots struct {
	ca []*x509.Certificate
	// system says whether the system trusts who issued a certificate.
	system func(*x509.Certificate) bool
}

// unknownRoots are taken to have issued whatever a chain ends with.
func unknownRoots(*x509.Certificate) bool { return true }

// issued says whether one of the roots signed c.
func (r roots) issued(c *x509.Certificate) bool {
	for _, root := range r.ca {
		if selfSigned(root) && signedBy(c, root) {
			return true
		}
	}
	return r.system(c)
}

// systemIssued says whether a root that the system trusts signed c.
func systemIssued(c *x509.Certificate) bool {
	pool, err := x509.SystemCertPool()
	return err == nil && issuedBy(pool, c, time.Now())
}

// issuedBy says whether one of the roots of a pool signed c. Whether c is good
// now is another question, see checkTime: if not, it is asked for the moment
// nearest to now when it was, or will be.
func issuedBy(pool *x509.CertPool, c *x509.Certificate, now time.Time) bool {
	switch {
	case now.After(c.NotAfter):
		now = c.NotAfter
	case now.Before(c.NotBefore):
		now = c.NotBefore
	}
	forAnything := []x509.ExtKeyUsage{x509.ExtKeyUsageAny}
	_, err := c.Verify(x509.VerifyOptions{Roots: pool, Intermediates: x509.NewCertPool(), KeyUsages: forAnything, CurrentTime: now})
	return err == nil
}

// missingIssuerError says that a chain lacks a certificate.
type missingIssuerError struct{ of *x509.Certificate }

func (e *missingIssuerError) Error() string {
	return fmt.Sprintf("the chain is cut short: the issuer of %s, %s, is missing; add its certificate, or set partial_chain: true",
		subject(e.of), quoted(e.of.Issuer.String()))
}

// checkChain says whether a chain is full: each certificate is signed by the
// next, and the last by itself or one of the roots. A partial chain may lack
// issuers, but is no less in order.
func checkChain(chain []*x509.Certificate, r roots, partial bool) error {
	for i, c := range chain {
		err := checkLink(chain, i)
		if last := i == len(chain)-1; err == nil && last && !selfSigned(c) && !r.issued(c) {
			err = &missingIssuerError{c}
		}
		if partial && is[*missingIssuerError](err) {
			err = nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// checkLink says whether certificate i is signed by the next, if there is one.
func checkLink(chain []*x509.Certificate, i int) error {
	c, rest := chain[i], chain[i+1:]
	if len(rest) == 0 || !selfSigned(c) && signedBy(c, rest[0]) {
		return nil
	}
	next := rest[0]
	for _, other := range rest {
		switch {
		case c.Equal(other):
			return fmt.Errorf("found %s twice, expected each certificate once", subject(c))
		case signedBy(other, c):
			return fmt.Errorf("the chain is in the wrong order: found %s before %s, which it signed; expected the certificate of the key first, then who signed it, and so on",
				subject(c), subject(other))
		case !selfSigned(c) && signedBy(c, other):
			return fmt.Errorf("the chain is in the wrong order: found %s behind %s, expected %s, which signed it", subject(next), subject(c), subject(other))
		}
	}
	switch {
	case selfSigned(c):
		return fmt.Errorf("found %s behind %s, which is self-signed and so ends the chain", subject(next), subject(c))
	case bytes.Equal(c.RawIssuer, next.RawSubject):
		return fmt.Errorf("%s names %s as its issuer, but is not signed by the certificate that follows: %w",
			subject(c), subject(next), c.CheckSignatureFrom(next))
	}
	return &missingIssuerError{c}
}

func signedBy(c, issuer *x509.Certificate) bool {
	return bytes.Equal(c.RawIssuer, issuer.RawSubject) && c.CheckSignatureFrom(issuer) == nil
}

// selfSigned says whether a certificate is its own issuer. An old root may be
// signed in a way that proves nothing any more; nobody goes by that signature.
func selfSigned(c *x509.Certificate) bool {
	if !bytes.Equal(c.RawIssuer, c.RawSubject) {
		return false
	}
	err := c.CheckSignature(c.SignatureAlgorithm, c.RawTBSCertificate, c.Signature)
	return err == nil || is[x509.InsecureAlgorithmError](err)
}

// checkTime says whether a certificate is good at a time.
func checkTime(c *x509.Certificate, now time.Time) error {
	switch {
	case now.After(c.NotAfter):
		return fmt.Errorf("%s has expired on %s", subject(c), c.NotAfter.UTC().Format(time.RFC3339))
	case now.Before(c.NotBefore):
		return fmt.Errorf("%s is not valid before %s", subject(c), c.NotBefore.UTC().Format(time.RFC3339))
	}
	return nil
}

// subject names a certificate in an error.
func subject(c *x509.Certificate) string {
	if name := c.Subject.String(); name != "" {
		return quoted(name)
	}
	return fmt.Sprintf("the certificate with the serial number %s", c.SerialNumber)
}

// quoted is for names that others chose.
func quoted(name string) string {
	const most = 200
	return fmt.Sprintf("%q", cutText(name, most))
}
