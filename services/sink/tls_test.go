package sink

import (
	"crypto/tls"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/pipeline"
	"github.com/millrace-io/millrace/pipeline/definition"
	"github.com/millrace-io/millrace/pipeline/httpsend"
	"github.com/millrace-io/millrace/pipeline/pipelinetest"
	"github.com/millrace-io/millrace/pipeline/secret"
)

// A delivery to a server that wants a client certificate arrives with a full
// chain; with one that is cut short it waits, no attempt is used, and what is
// missing is named.
func TestClientCertificateOfADestination(t *testing.T) {
	t.Parallel()
	root := pipelinetest.Authority(t, "root")
	leaf := root.Intermediate(t, "middle").Leaf(t, "client")
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.TLS = &tls.Config{
		Certificates: []tls.Certificate{root.Leaf(t, "server").TLS(t)},
		ClientAuth:   tls.RequireAndVerifyClientCert, ClientCAs: root.Pool(),
	}
	server.StartTLS()
	t.Cleanup(server.Close)
	const files = ", cert: '${file:client.pem}', key: '${file:key.pem}', ca: '${file:ca.pem}'}"
	for name, x := range map[string]struct {
		chain, tls string
		want       string // "" arrives
	}{
		"full":                  {leaf.Chain(), "tls: {server_name: server.test" + files, ""},
		"cut short":             {leaf.PEM, "tls: {server_name: server.test" + files, `tls.cert: ${file:client.pem}: the chain is cut short: the issuer of "CN=client", "CN=middle", is missing`},
		"cut short, as allowed": {leaf.Chain(), "tls: {partial_chain: true" + files, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			for file, text := range map[string]string{"client.pem": x.chain, "key.pem": leaf.KeyPEM, "ca.pem": root.PEM} {
				if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			h := build(t, strings.Replace(aDestination("crm", x.tls), "https://crm.example", server.URL, 1)+aWebhook("hook", "crm", ""))
			client, err := httpsend.New(httpsend.Options{Allow: []string{"127.0.0.1"}, Secrets: &secret.Resolver{Dir: dir}})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(client.Close)
			h.newSender = func(def *definition.Destination) (sender, error) { return client.Target(target(def)) }
			got := h.became(h.takes(t.Context(), h.slipOf(h.delivery("hook"))))
			if x.want == "" {
				if got.ending != pipeline.Delivered {
					t.Errorf("it became %+v", got)
				}
				return
			}
			if got.again == nil || got.again.Attempts != 0 || len(got.attempts) != 0 {
				t.Errorf("it became %+v", got)
			}
			if lacks := h.destination("crm").lacks(); !strings.Contains(lacks, x.want) {
				t.Errorf("/readyz says %q, expected %q", lacks, x.want)
			}
		})
	}
}
