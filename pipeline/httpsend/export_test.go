package httpsend

import (
	"crypto/x509"
	"time"
)

// Trust replaces the system's certificate authorities, for Senders made later.
func (c *Client) Trust(roots *x509.CertPool) { c.roots = roots }

// TokenTimeout sets how long a token endpoint has, for Senders made later.
func (c *Client) TokenTimeout(d time.Duration) { c.tokenTimeout = d }

// Age makes the secrets that were looked up as old as they may get.
func (s *Sender) Age() {
	old := *s.prepared.Load()
	old.until = time.Unix(0, 1)
	s.prepared.Store(&old)
}
