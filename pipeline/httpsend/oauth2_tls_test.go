package httpsend_test

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"log"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/millrace-io/millrace/pipeline/httpsend"
	"github.com/millrace-io/millrace/pipeline/pipelinetest"
)

// secureIssuer is an issuer that only talks to callers with a certificate of an
// authority.
func secureIssuer(t *testing.T, server, callers *pipelinetest.Certificate) (i *issuer, url string) {
	t.Helper()
	i = newIssuer(t)
	s := httptest.NewUnstartedServer(i.Endpoint)
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.TLS = &tls.Config{
		Certificates: []tls.Certificate{server.TLS(t)}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: callers.Pool(),
	}
	s.StartTLS()
	t.Cleanup(s.Close)
	return i, s.URL
}

func localhost(c *x509.Certificate) { c.DNSNames = []string{"localhost"} }

// A token endpoint is called with the destination's certificate. At the same host
// it is whom the destination's ca knows, under server_name; elsewhere it may be
// anybody whom the system knows, under its own name.
func TestOAuth2WithTLS(t *testing.T) {
	t.Parallel()
	root, public := pipelinetest.Authority(t, "root"), pipelinetest.Authority(t, "public")
	me := root.Leaf(t, "client")
	for name, x := range map[string]struct {
		server     *pipelinetest.Certificate
		host       string // of the token endpoint; the destination is at 127.0.0.1
		serverName string
		bare       bool   // the destination has no certificate
		want       string // of the error
	}{
		"same host":                  {server: root.Leaf(t, "one"), host: "127.0.0.1"},
		"same host, by name":         {server: root.Leaf(t, "one"), host: "127.0.0.1", serverName: "one.test"},
		"same host, by another name": {server: root.Leaf(t, "one"), host: "127.0.0.1", serverName: "two.test", want: "two.test"},
		"same host, known to others": {server: public.Leaf(t, "one"), host: "127.0.0.1", want: "unknown authority"},
		"elsewhere, ours":            {server: root.Leaf(t, "x", localhost), host: "localhost", serverName: "one.test"},
		"elsewhere, of the system":   {server: public.Leaf(t, "x", localhost), host: "localhost", serverName: "one.test"},
		"elsewhere, of another name": {server: root.Leaf(t, "one"), host: "localhost", serverName: "one.test", want: "localhost"},
		"same host, no certificate":  {server: root.Leaf(t, "one"), host: "127.0.0.1", bare: true, want: "the server asks for a client certificate"},
		"elsewhere, no certificate":  {server: root.Leaf(t, "x", localhost), host: "localhost", bare: true, want: "the server asks for a client certificate"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			i, issuerURL := secureIssuer(t, x.server, root)
			c := client(t, httpsend.Options{
				Allow:   []string{"127.0.0.0/8", "::1", "localhost"},
				Secrets: secrets(map[string]string{"CLIENT": "s3cret", "CERT": me.Chain(), "KEY": me.KeyPEM}),
			})
			c.Trust(public.Pool())
			target := httpsend.Target{
				URL: "https://127.0.0.1:1", Auth: credentials(t, strings.Replace(issuerURL, "127.0.0.1", x.host, 1)),
				TLS: httpsend.TLS{CA: reference(t, root.PEM), ServerName: x.serverName},
			}
			if !x.bare {
				target.TLS.Cert, target.TLS.Key = reference(t, "${env:MILLRACE_SECRET_CERT}"), reference(t, "${env:MILLRACE_SECRET_KEY}")
			}
			r := sender(t, c, target).Send(t.Context(), httpsend.Call{Body: []byte("{}")})
			switch {
			case x.want == "" && (r.Class != httpsend.ClassConnect || i.Count() != 1): // nobody is at port 1
				t.Errorf("%+v after %d requests for a token", r, i.Count())
			case x.want != "" && (r.Class != httpsend.ClassToken || !strings.Contains(r.Err.Error(), x.want) || i.Count() != 0):
				t.Errorf("%+v after %d requests for a token", r, i.Count())
			}
		})
	}
}

// Destinations with the same credentials share a token if their certificates are
// the same too; and one that is rotated does not cost them the token.
func TestOAuth2TokensByCertificate(t *testing.T) {
	t.Parallel()
	root := pipelinetest.Authority(t, "root")
	one, two := root.Leaf(t, "one"), root.Leaf(t, "two")
	i, issuerURL := secureIssuer(t, root.Leaf(t, "server"), root)
	api := guarded(t, i)
	server := httptest.NewUnstartedServer(api)
	server.TLS = &tls.Config{Certificates: []tls.Certificate{root.Leaf(t, "api").TLS(t)}, ClientAuth: tls.RequireAnyClientCert}
	server.StartTLS()
	t.Cleanup(server.Close)
	var v vault
	for name, value := range map[string]string{
		"CLIENT": "s3cret", "CERT": one.PEM, "KEY": one.KeyPEM, "CERT_2": two.PEM, "KEY_2": two.KeyPEM,
	} {
		v.set(name, value)
	}
	var mu sync.Mutex
	var fetches []string
	c := client(t, httpsend.Options{Allow: local, Secrets: v.resolver(), OnFetch: func(result string) {
		mu.Lock()
		defer mu.Unlock()
		fetches = append(fetches, result)
	}})
	with := func(more string) *httpsend.Sender {
		return sender(t, c, httpsend.Target{URL: server.URL, Auth: credentials(t, issuerURL), TLS: httpsend.TLS{
			CA: reference(t, root.PEM), Cert: reference(t, "${env:MILLRACE_SECRET_CERT"+more+"}"), Key: reference(t, "${env:MILLRACE_SECRET_KEY"+more+"}"),
		}})
	}
	send := func(s *httpsend.Sender, asked int) {
		t.Helper()
		if r := s.Send(t.Context(), httpsend.Call{Body: []byte("{}")}); r.Outcome != httpsend.Success || i.Count() != asked {
			t.Errorf("%+v after %d requests for a token, expected %d", r, i.Count(), asked)
		}
	}
	first := with("")
	send(first, 1)
	send(with(""), 1)
	send(with("_2"), 2)
	v.set("CERT", two.PEM)
	v.set("KEY", two.KeyPEM)
	first.Age()
	send(first, 2)
	v.set("CLIENT", "wr0ng")
	if r := with("").Send(t.Context(), httpsend.Call{}); r.Class != httpsend.ClassToken {
		t.Errorf("%+v", r)
	}
	mu.Lock()
	defer mu.Unlock()
	if want := []string{httpsend.FetchGiven, httpsend.FetchGiven, httpsend.FetchRefused}; !slices.Equal(fetches, want) {
		t.Errorf("fetches are %v", fetches)
	}
}
