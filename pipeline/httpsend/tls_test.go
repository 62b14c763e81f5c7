package httpsend_test

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace-io/millrace/pipeline/httpsend"
	"github.com/millrace-io/millrace/pipeline/pipelinetest"
	"github.com/millrace-io/millrace/pipeline/secret"
)

// secureServer answers each call with 200 and remembers the certificates that
// the last caller gave.
type secureServer struct {
	*httptest.Server
	mu    sync.Mutex
	peers []*x509.Certificate
}

func serveTLS(t *testing.T, config *tls.Config) *secureServer {
	t.Helper()
	s := &secureServer{}
	s.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.peers = r.TLS.PeerCertificates
	}))
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.TLS = config
	s.StartTLS()
	t.Cleanup(s.Close)
	return s
}

// caller names the certificates that the last caller gave.
func (s *secureServer) caller() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var names []string
	for _, c := range s.peers {
		names = append(names, c.Subject.CommonName)
	}
	return strings.Join(names, " ")
}

// vault holds secrets that a test changes.
type vault struct {
	mu     sync.Mutex
	values map[string]string
}

func (v *vault) set(name, value string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.values == nil {
		v.values = map[string]string{}
	}
	v.values["MILLRACE_SECRET_"+name] = value
}

func (v *vault) resolver() *secret.Resolver {
	return &secret.Resolver{Env: func(name string) (string, bool) {
		v.mu.Lock()
		defer v.mu.Unlock()
		value, ok := v.values[name]
		return value, ok
	}}
}

func fromEnv(t *testing.T, ca bool) httpsend.TLS {
	t.Helper()
	c := httpsend.TLS{Cert: reference(t, "${env:MILLRACE_SECRET_CERT}"), Key: reference(t, "${env:MILLRACE_SECRET_KEY}")}
	if ca {
		c.CA = reference(t, "${env:MILLRACE_SECRET_CA}")
	}
	return c
}

// What servers are made of, and callers, and what comes of it, with both
// versions of TLS: they refuse at different times.
func TestClientCertificates(t *testing.T) {
	t.Parallel()
	root, stranger := pipelinetest.Authority(t, "root"), pipelinetest.Authority(t, "stranger")
	server := root.Leaf(t, "server").TLS(t)
	leaf := root.Intermediate(t, "middle").Leaf(t, "client")
	foreign := stranger.Leaf(t, "foreign")
	for name, x := range map[string]struct {
		cert  string
		key   string
		auth  tls.ClientAuthType
		class httpsend.Class
		want  string // of the error; the names that the server saw, where there is none
	}{
		"given":        {leaf.Chain(), leaf.KeyPEM, tls.RequireAndVerifyClientCert, httpsend.Answered, "client middle"},
		"with root":    {leaf.Chain() + root.PEM, leaf.KeyPEM, tls.RequireAndVerifyClientCert, httpsend.Answered, "client middle root"},
		"unasked":      {leaf.Chain(), leaf.KeyPEM, tls.NoClientCert, httpsend.Answered, ""},
		"none, asked":  {"", "", tls.RequestClientCert, httpsend.Answered, ""},
		"none, wanted": {"", "", tls.RequireAndVerifyClientCert, httpsend.ClassTLS, "the server asks for a client certificate, and the destination has none (tls.cert)"},
		"of a stranger": {
			foreign.PEM + stranger.PEM, foreign.KeyPEM, tls.RequireAndVerifyClientCert,
			httpsend.ClassTLS, "after the server was given the client certificate",
		},
	} {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			t.Run(name+"/"+tls.VersionName(version), func(t *testing.T) {
				t.Parallel()
				e := serveTLS(t, &tls.Config{Certificates: []tls.Certificate{server}, ClientAuth: x.auth, ClientCAs: root.Pool(), MinVersion: version, MaxVersion: version})
				var v vault
				v.set("CA", root.PEM)
				v.set("CERT", x.cert)
				v.set("KEY", x.key)
				target := httpsend.Target{URL: e.URL, TLS: fromEnv(t, true)}
				if x.cert == "" {
					target.TLS = httpsend.TLS{CA: reference(t, root.PEM)}
				}
				s := sender(t, client(t, httpsend.Options{Allow: local, Secrets: v.resolver()}), target)
				for range 3 { // the later ones resume the session, or the connection
					r := s.Send(t.Context(), httpsend.Call{Body: []byte("{}")})
					switch {
					case r.Class != x.class:
						t.Errorf("%+v", r)
					case x.class == httpsend.Answered && (r.Outcome != httpsend.Success || e.caller() != x.want):
						t.Errorf("%+v, the server saw %q", r, e.caller())
					case x.class != httpsend.Answered && (r.Outcome != httpsend.Retry || !strings.Contains(r.Err.Error(), x.want) || secretLines(shown(r), x.key)):
						t.Errorf("%+v", r)
					}
				}
			})
		}
	}
}

func TestServerCertificates(t *testing.T) {
	t.Parallel()
	root := pipelinetest.Authority(t, "root")
	middle := root.Intermediate(t, "middle")
	hour := time.Hour
	cut := middle.Leaf(t, "server").TLS(t)
	cut.Certificate = cut.Certificate[:1]
	for name, x := range map[string]struct {
		server tls.Certificate
		tls    httpsend.TLS
		want   string // "" is a success
	}{
		"its authority in ca":    {middle.Leaf(t, "server").TLS(t), httpsend.TLS{CA: reference(t, root.PEM)}, ""},
		"one of ca":              {middle.Leaf(t, "server").TLS(t), httpsend.TLS{CA: reference(t, pipelinetest.Authority(t, "x").PEM+root.PEM)}, ""},
		"an intermediate in ca":  {cut, httpsend.TLS{CA: reference(t, middle.PEM)}, ""},
		"ca instead of system's": {middle.Leaf(t, "server").TLS(t), httpsend.TLS{CA: reference(t, pipelinetest.Authority(t, "x").PEM)}, "unknown authority"},
		"cut short":              {cut, httpsend.TLS{CA: reference(t, root.PEM)}, "unknown authority"},
		"expired":                {root.Leaf(t, "server", pipelinetest.ValidFor(2*hour, -hour)).TLS(t), httpsend.TLS{CA: reference(t, root.PEM)}, "expired"},
		"not valid yet":          {root.Leaf(t, "server", pipelinetest.ValidFor(-hour, 2*hour)).TLS(t), httpsend.TLS{CA: reference(t, root.PEM)}, "not yet valid"},
		"the system's":           {root.Leaf(t, "server").TLS(t), httpsend.TLS{ServerName: "server.test"}, ""},
		"server_name":            {root.Leaf(t, "server").TLS(t), httpsend.TLS{CA: reference(t, root.PEM), ServerName: "server.test"}, ""},
		"another server_name":    {root.Leaf(t, "server").TLS(t), httpsend.TLS{CA: reference(t, root.PEM), ServerName: "other.test"}, "not other.test"},
		"another address":        {root.Leaf(t, "server", func(c *x509.Certificate) { c.IPAddresses = nil }).TLS(t), httpsend.TLS{CA: reference(t, root.PEM)}, "127.0.0.1"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := serveTLS(t, &tls.Config{Certificates: []tls.Certificate{x.server}})
			c := client(t, httpsend.Options{Allow: local})
			c.Trust(root.Pool())
			s := sender(t, c, httpsend.Target{URL: e.URL, TLS: x.tls})
			r := s.Send(t.Context(), httpsend.Call{})
			if x.want == "" && r.Outcome != httpsend.Success {
				t.Errorf("%+v", r)
			}
			if x.want != "" && (r.Outcome != httpsend.Retry || r.Class != httpsend.ClassTLS || !strings.Contains(r.Err.Error(), x.want)) {
				t.Errorf("%+v, expected %q", r, x.want)
			}
		})
	}
}

// Two destinations at the same host, one with a certificate: neither speaks over
// the other's connections, nor goes on with its sessions.
func TestIdentitiesAreKeptApart(t *testing.T) {
	t.Parallel()
	root := pipelinetest.Authority(t, "root")
	e := serveTLS(t, &tls.Config{
		Certificates: []tls.Certificate{root.Leaf(t, "server").TLS(t)}, ClientAuth: tls.RequestClientCert,
	})
	var v vault
	c := client(t, httpsend.Options{Allow: local, Secrets: v.resolver()})
	c.Trust(root.Pool())
	plain := sender(t, c, httpsend.Target{URL: e.URL})
	var senders []*httpsend.Sender
	for _, name := range []string{"a", "b"} {
		leaf := root.Leaf(t, name)
		v.set("CERT_"+name, leaf.PEM+root.PEM)
		v.set("KEY_"+name, leaf.KeyPEM)
		senders = append(senders, sender(t, c, httpsend.Target{URL: e.URL, TLS: httpsend.TLS{
			Cert: reference(t, "${env:MILLRACE_SECRET_CERT_"+name+"}"), Key: reference(t, "${env:MILLRACE_SECRET_KEY_"+name+"}"),
		}}))
	}
	for round := range 3 {
		for i, want := range []string{"", "a root", "b root"} {
			s := append([]*httpsend.Sender{plain}, senders...)[i]
			if r := s.Send(t.Context(), httpsend.Call{}); r.Outcome != httpsend.Success || e.caller() != want {
				t.Errorf("round %d: %+v, the server saw %q, expected %q", round, r, e.caller(), want)
			}
		}
		if round == 1 {
			c.Close() // the next round resumes sessions
		}
	}
}

// A certificate that is rotated is used without a restart; connections that were
// made with the old one are not.
func TestRotatedCertificates(t *testing.T) {
	t.Parallel()
	root := pipelinetest.Authority(t, "root")
	e := serveTLS(t, &tls.Config{
		Certificates: []tls.Certificate{root.Leaf(t, "server").TLS(t)}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: root.Pool(),
	})
	var v vault
	v.set("CA", root.PEM)
	s := sender(t, client(t, httpsend.Options{Allow: local, Secrets: v.resolver()}), httpsend.Target{URL: e.URL, TLS: fromEnv(t, true)})
	one, two := root.Leaf(t, "one"), root.Leaf(t, "two")
	send := func(cert, key, want string) {
		t.Helper()
		v.set("CERT", cert)
		v.set("KEY", key)
		for range 2 {
			r := s.Send(t.Context(), httpsend.Call{})
			refused := r.Outcome == httpsend.NotSent && r.Class == httpsend.ClassSecret && strings.Contains(r.Err.Error(), want)
			if !refused && (r.Outcome != httpsend.Success || e.caller() != want) {
				t.Errorf("%+v, the server saw %q, expected %q", r, e.caller(), want)
			}
			if secretLines(shown(r), one.KeyPEM+two.KeyPEM) {
				t.Errorf("a key is seen in %+v", r)
			}
			s.Age()
		}
	}
	send(one.PEM, one.KeyPEM, "one")
	send(two.PEM, one.KeyPEM, `tls.key: ${env:MILLRACE_SECRET_KEY}: the key does not fit the first certificate of cert, "CN=two"`)
	send(two.PEM, two.KeyPEM, "two")
	send("", two.KeyPEM, "secret ${env:MILLRACE_SECRET_CERT} is missing")
	send(one.PEM[:50], one.KeyPEM, "tls.cert: ${env:MILLRACE_SECRET_CERT}: found the beginning of 1 PEM blocks, of which 0 can be read")
	send(one.PEM, one.KeyPEM, "one")
}

// A certificate that runs out while it is in use is told as such before anybody
// is called with it, and so is one whose time has come.
func TestCertificatesThatRunOut(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		root := pipelinetest.Authority(t, "root")
		leaf := root.Leaf(t, "client", pipelinetest.ValidFor(-time.Minute, time.Hour))
		write(t, filepath.Join(dir, "ca.pem"), root.PEM)
		write(t, filepath.Join(dir, "cert.pem"), leaf.PEM)
		write(t, filepath.Join(dir, "key.pem"), leaf.KeyPEM)
		c := client(t, httpsend.Options{Secrets: &secret.Resolver{Dir: dir}})
		s := sender(t, c, httpsend.Target{URL: "https://127.0.0.1", TLS: httpsend.TLS{
			CA: reference(t, "${file:ca.pem}"), Cert: reference(t, "${file:cert.pem}"), Key: reference(t, "${file:key.pem}"),
		}})
		ready := func(want string) {
			t.Helper()
			time.Sleep(2 * secret.Fresh)
			err := s.Ready()
			if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
				t.Errorf("Ready: %v, expected %q", err, want)
			}
		}
		ready(`tls.cert: ${file:cert.pem}: "CN=client" is not valid before 2000-01-01T00:01:00Z`)
		time.Sleep(time.Minute)
		ready("")
		time.Sleep(time.Hour)
		ready(`tls.cert: ${file:cert.pem}: "CN=client" has expired on 2000-01-01T01:00:00Z`)
		next := root.Leaf(t, "next")
		write(t, filepath.Join(dir, "cert.pem"), next.PEM)
		write(t, filepath.Join(dir, "key.pem"), next.KeyPEM)
		ready("")
		write(t, filepath.Join(dir, "ca.pem"), pipelinetest.Authority(t, "other").PEM)
		ready(`tls.cert: ${file:cert.pem}: the chain is cut short: the issuer of "CN=next", "CN=root", is missing`)
	})
}

// What a destination says of TLS has no meaning over plain HTTP, and nobody must
// think that it had.
func TestTLSNeedsHTTPS(t *testing.T) {
	t.Parallel()
	leaf := selfSigned(t)
	var v vault
	v.set("CERT", leaf.PEM)
	v.set("KEY", leaf.KeyPEM)
	s := sender(t, client(t, httpsend.Options{Allow: local, Secrets: v.resolver()}), httpsend.Target{URL: "http://127.0.0.1:1", TLS: fromEnv(t, false)})
	if r := s.Send(t.Context(), httpsend.Call{}); r.Outcome != httpsend.NotSent || !strings.Contains(r.Err.Error(), "begins with http://") {
		t.Errorf("%+v", r)
	}
	_, err := client(t, httpsend.Options{}).Target(httpsend.Target{URL: "https://x.test", TLS: httpsend.TLS{Cert: reference(t, leaf.PEM)}})
	if err == nil || !strings.Contains(err.Error(), "cert and key are needed together") {
		t.Errorf("a certificate without a key: %v", err)
	}
}

// Garbage in the place of a handshake, and TLS in the place of garbage.
func TestWrongSideOfTLS(t *testing.T) {
	t.Parallel()
	root := pipelinetest.Authority(t, "root")
	e := serveTLS(t, &tls.Config{Certificates: []tls.Certificate{root.Leaf(t, "server").TLS(t)}})
	plain := pipelinetest.Receiver(t)
	alert := server(t, func(_ int, c net.Conn, r *bufio.Reader) {
		hear(r)
		_, _ = io.WriteString(c, "\x15\x03\x01\x00\x02\x02\x16") // what many a TLS server says to HTTP
	})
	for name, x := range map[string]struct {
		url    string
		status int
		class  httpsend.Class
		want   string
	}{
		"https to a plain port":             {strings.Replace(plain.URL, "http:", "https:", 1), 0, httpsend.ClassTLS, "the server answers in plain HTTP"},
		"http to a TLS port":                {"http://" + alert, 0, httpsend.ClassProtocol, "the server speaks TLS"},
		"http to a TLS port that tells why": {strings.Replace(e.URL, "https:", "http:", 1), 400, httpsend.Answered, "400"},
	} {
		s := sender(t, client(t, httpsend.Options{Allow: local}), httpsend.Target{URL: x.url})
		r := s.Send(t.Context(), httpsend.Call{})
		if r.Class != x.class || r.Status != x.status || !strings.Contains(r.Err.Error(), x.want) {
			t.Errorf("%s: %+v", name, r)
		}
	}
}

// All problems are told at once, each at its field.
func TestTLSErrors(t *testing.T) {
	t.Parallel()
	problems := written(t, "x", "y", false).Check(time.Now())
	if len(problems) != 2 || problems[0].Field != "ca" || problems[1].Field != "cert" {
		t.Errorf("problems are %v", problems)
	}
}
