package definition

import (
	"regexp"
	"strings"
	"time"

	"github.com/millrace-io/millrace/pipeline/httpsend"
)

// TLS says what a destination wants of its connections beside the usual. CA and
// Cert are PEM, written out or as references; so is Key, which is sealed.
type TLS struct {
	CA           Secret `json:"ca,omitzero"`            // whom to trust, instead of the system's authorities
	Cert         Secret `json:"cert,omitzero"`          // the client's certificate, with its full chain
	Key          Secret `json:"key,omitzero"`           // of Cert
	ServerName   string `json:"server_name,omitempty"`  // in the server's certificate; empty: the URL's host
	PartialChain bool   `json:"partial_chain,omitzero"` // Cert may be cut short
}

var serverNameForm = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._-]{0,252})$`)

func tlsKeys() []key {
	return []key{
		{"ca", secretText(true), false},
		{"cert", secretText(true), false},
		{"key", secretText(false), false},
		{"server_name", pattern(serverNameForm, "a host name, as it stands in the server's certificate"), false},
		{"partial_chain", boolean(), false},
	}
}

// checkTLS finds what is wrong whatever the certificates say.
func (d *Destination) checkTLS(is *issues) {
	t := d.TLS
	if t.isZero() {
		return
	}
	if scheme, _, ok := strings.Cut(d.Request.URL, "://"); ok && strings.EqualFold(scheme, "http") {
		is.add(at("tls"), "found tls for a URL that begins with http://, expected https://")
	}
	switch { // at the one that is not there: it may be, with a problem of its own
	case t.Key.IsZero() && !t.Cert.IsZero():
		is.add(at("tls", "key"), "found a cert without a key, expected both")
	case t.Cert.IsZero() && !t.Key.IsZero():
		is.add(at("tls", "cert"), "found a key without a cert, expected both")
	case t.Cert.IsZero() && t.PartialChain:
		is.add(at("tls", "partial_chain"), "found partial_chain without a cert")
	}
	if !t.Key.bare() && !t.Key.Literal() {
		is.add(at("tls", "key"), "found text around a reference, expected the reference alone, with all of the key behind it")
	}
}

func (t TLS) isZero() bool {
	return t.CA.IsZero() && t.Cert.IsZero() && t.Key.IsZero() && t.ServerName == "" && !t.PartialChain
}

// bare says whether a text holds references and nothing else.
func (s Secret) bare() bool {
	text := s.String()
	for _, p := range s.Placeholders() {
		text = strings.Replace(text, p, "", 1)
	}
	return strings.TrimSpace(text) == ""
}

// checkCertificates looks at the certificates that are written out. That is done
// when a definition is saved, and not each time that it is read: what comes of
// it depends on the time and on the machine, and a destination in force must not
// become unusable on its way. The sink looks again before it makes calls.
func (d *Definition) checkCertificates(now time.Time) issues {
	spec := d.Spec
	if spec == nil {
		spec = d.rest
	}
	v, err := decodeSpec(d.Key, spec)
	if err != nil {
		return nil
	}
	dest, ok := v.(*Destination)
	if !ok {
		return nil
	}
	var is issues
	t := dest.TLS
	for _, p := range (httpsend.TLS{CA: t.CA.Reference, Cert: t.Cert.Reference, Key: t.Key.Reference, PartialChain: t.PartialChain}).Check(now) {
		is.add(at("tls", p.Field), "%v", p.Err)
	}
	return is
}
