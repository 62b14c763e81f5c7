package stream

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/millrace-io/millrace/pipeline/pipelinetest"
)

// selfSigned makes a certificate for a name, as files and for a server.
func selfSigned(t *testing.T, name string) (certFile, keyFile string, pair tls.Certificate) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	made := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, made, made, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	certFile, keyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for file, block := range map[string]*pem.Block{
		certFile: {Type: "CERTIFICATE", Bytes: der}, keyFile: {Type: "PRIVATE KEY", Bytes: keyDER},
	} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if pair, err = tls.LoadX509KeyPair(certFile, keyFile); err != nil {
		t.Fatal(err)
	}
	return certFile, keyFile, pair
}

func TestTLS(t *testing.T) {
	t.Parallel()
	ca, _, server := selfSigned(t, "kafka.example")
	cert, key, _ := selfSigned(t, "millrace")
	other, _, _ := selfSigned(t, "kafka.example")
	roots := x509.NewCertPool()
	if pem, err := os.ReadFile(cert); err != nil || !roots.AppendCertsFromPEM(pem) {
		t.Fatal(err)
	}
	f := pipelinetest.StartFake(t, "", kfake.TLS(&tls.Config{
		Certificates: []tls.Certificate{server}, ClientCAs: roots, ClientAuth: tls.RequireAndVerifyClientCert,
	}))
	for name, c := range map[string]struct {
		tls  *TLSConfig
		want string // of the error; empty if it works
	}{
		"all right":      {&TLSConfig{CA: ca, Cert: cert, Key: key, ServerName: "kafka.example"}, ""},
		"no certificate": {&TLSConfig{CA: ca, ServerName: "kafka.example"}, "certificate required"},
		"another root":   {&TLSConfig{CA: other, Cert: cert, Key: key, ServerName: "kafka.example"}, "unknown authority"},
		"another name":   {&TLSConfig{CA: ca, Cert: cert, Key: key, ServerName: "else.example"}, "kafka.example"},
		"no such file":   {&TLSConfig{CA: ca + ".gone"}, "reading the CA"},
		"no root":        {&TLSConfig{CA: key}, "no certificate in"},
		"a wrong key":    {&TLSConfig{CA: ca, Cert: cert, Key: cert}, "client certificate"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := Config{Brokers: f.Addrs(), TLS: c.tls, Log: slog.New(slog.DiscardHandler)}.Ping(t.Context())
			wantError(t, err, c.want)
		})
	}
}

func wantError(t *testing.T, err error, want string) {
	t.Helper()
	if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
		t.Errorf("got error %v; want %q", err, want)
	}
}

func TestSASL(t *testing.T) {
	t.Parallel()
	for _, mechanism := range []string{Plain, ScramSHA256, ScramSHA512} {
		t.Run(mechanism, func(t *testing.T) {
			t.Parallel()
			f := pipelinetest.StartFake(t, "", kfake.EnableSASL(), kfake.Superuser(mechanism, "mill", "right"))
			ping := func(password string, failure error) error {
				return Config{Brokers: f.Addrs(), Log: slog.New(slog.DiscardHandler), SASL: &SASLConfig{
					Mechanism: mechanism, Username: "mill",
					Password: func() (string, error) { return password, failure },
				}}.Ping(t.Context())
			}
			wantError(t, ping("right", nil), "")
			wantError(t, ping("wrong", nil), "at the login") // Kafka itself says why: TestKafkaIsKilled
			if err := ping("wrong", nil); strings.Contains(err.Error(), "wrong") {
				t.Errorf("the error shows the password: %v", err)
			}
			wantError(t, ping("", errors.New("no such secret")), "no such secret")
		})
	}
}

func TestValidate(t *testing.T) {
	t.Parallel()
	good := Config{Brokers: []string{"a:1", "[::1]:9092"}, Names: "millrace.", Compression: "none"}
	if err := good.Validate(); err != nil {
		t.Error(err)
	}
	bad := Config{
		Brokers: []string{"a", ":9092"}, Names: "mill/race", Compression: "zip", MaxEventBytes: 1,
		TLS: &TLSConfig{Cert: "x"}, SASL: &SASLConfig{Mechanism: "GSSAPI"},
	}
	err := bad.Validate()
	for _, want := range []string{`"a" is not host:port`, `":9092"`, "mill/race", "zip", "events.max_bytes", "cert and key", "GSSAPI", "username"} {
		wantError(t, err, want)
	}
}
