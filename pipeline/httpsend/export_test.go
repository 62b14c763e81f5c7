package httpsend

import "crypto/x509"

// Trust replaces the system's certificate authorities, for Senders made later.
func (c *Client) Trust(roots *x509.CertPool) { c.roots = roots }
