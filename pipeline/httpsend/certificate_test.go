package httpsend_test

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/millrace-io/millrace/pipeline/httpsend"
	"github.com/millrace-io/millrace/pipeline/pipelinetest"
)

// written is a TLS whose certificates stand there as they are.
func written(t *testing.T, ca, cert string, partial bool) httpsend.TLS {
	t.Helper()
	return httpsend.TLS{
		CA: reference(t, ca), Cert: reference(t, cert),
		Key: reference(t, "${env:MILLRACE_SECRET_KEY}"), PartialChain: partial,
	}
}

func said(problems []*httpsend.TLSError) string {
	var texts []string
	for _, p := range problems {
		texts = append(texts, p.Error())
	}
	return strings.Join(texts, "\n")
}

func TestChains(t *testing.T) {
	t.Parallel()
	root := pipelinetest.Authority(t, "root")
	upper := root.Intermediate(t, "upper")
	lower := upper.Intermediate(t, "lower")
	leaf := lower.Leaf(t, "client")
	twin := pipelinetest.Authority(t, "lower").Leaf(t, "twin") // of another "lower"
	other := pipelinetest.Authority(t, "other")
	byLeaf := leaf.Leaf(t, "impostor")
	hour := time.Hour
	const unknown = "${file:ca.pem}"
	for name, x := range map[string]struct {
		ca, cert string
		partial  bool
		want     string // "" is none
	}{
		"to its root":                {cert: leaf.Chain() + root.PEM},
		"to a root of ca":            {ca: other.PEM + root.PEM, cert: leaf.Chain()},
		"to a root yet unknown":      {ca: unknown, cert: leaf.Chain()},
		"self-signed, not a CA":      {cert: selfSigned(t).PEM},
		"text around":                {ca: root.PEM, cert: "subject=CN = client\n" + leaf.PEM + "\n\nissuer\n" + lower.PEM + upper.PEM + "end"},
		"without what signs upper":   {cert: leaf.Chain(), want: `tls.cert: the chain is cut short: the issuer of "CN=upper", "CN=root", is missing`},
		"a leaf alone":               {ca: root.PEM, cert: leaf.PEM, want: `the issuer of "CN=client", "CN=lower", is missing`},
		"without the end":            {ca: root.PEM, cert: leaf.PEM + lower.PEM, want: `the issuer of "CN=lower", "CN=upper", is missing`},
		"a gap":                      {ca: root.PEM, cert: leaf.PEM + upper.PEM, want: `the issuer of "CN=client", "CN=lower", is missing`},
		"a gap before the root":      {cert: leaf.PEM + lower.PEM + root.PEM, want: `the issuer of "CN=lower", "CN=upper", is missing`},
		"a gap, root unknown":        {ca: unknown, cert: leaf.PEM + upper.PEM, want: `the issuer of "CN=client", "CN=lower", is missing`},
		"an intermediate is no root": {ca: lower.PEM, cert: leaf.PEM, want: `the issuer of "CN=client", "CN=lower", is missing`},
		"another root":               {ca: other.PEM, cert: leaf.Chain(), want: `the issuer of "CN=upper"`},
		"partial: a leaf":            {cert: leaf.PEM, partial: true},
		"partial: without the root":  {cert: leaf.Chain(), partial: true},
		"partial: a gap":             {cert: leaf.PEM + upper.PEM, partial: true},
		"partial: out of order":      {cert: leaf.PEM + upper.PEM + lower.PEM, partial: true, want: "wrong order"},
		"partial: expired":           {cert: lower.Leaf(t, "old", pipelinetest.ValidFor(2*hour, -hour)).PEM, partial: true, want: `"CN=old" has expired on `},
		"reversed":                   {cert: root.PEM + upper.PEM + lower.PEM + leaf.PEM, want: `wrong order: found "CN=root" before "CN=upper", which it signed`},
		"two reversed":               {ca: root.PEM, cert: lower.PEM + leaf.PEM + upper.PEM, want: `wrong order: found "CN=lower" before "CN=client", which it signed`},
		"swapped":                    {cert: leaf.PEM + upper.PEM + lower.PEM + root.PEM, want: `wrong order: found "CN=upper" behind "CN=client", expected "CN=lower", which signed it`},
		"twice":                      {cert: leaf.PEM + leaf.PEM + lower.PEM, want: `found "CN=client" twice`},
		"behind the root":            {cert: leaf.Chain() + root.PEM + other.PEM, want: `found "CN=other" behind "CN=root", which is self-signed`},
		"a namesake":                 {ca: root.PEM, cert: twin.PEM + lower.PEM + upper.PEM, want: `"CN=twin" names "CN=lower" as its issuer, but is not signed by the certificate that follows`},
		"signed by no CA":            {ca: root.PEM, cert: byLeaf.PEM + leaf.Chain(), want: `"CN=impostor" names "CN=client" as its issuer, but is not signed`},
		"not valid yet":              {ca: root.PEM, cert: root.Leaf(t, "soon", pipelinetest.ValidFor(-hour, 2*hour)).PEM, want: `tls.cert: "CN=soon" is not valid before `},
		"expired":                    {ca: root.PEM, cert: root.Leaf(t, "old", pipelinetest.ValidFor(2*hour, -hour)).PEM, want: `tls.cert: "CN=old" has expired on `},
		"no PEM":                     {cert: "hello", want: "tls.cert: expected PEM"},
		"no PEM in ca":               {ca: "hello", cert: leaf.PEM, want: "tls.ca: expected PEM"},
		"cut off":                    {cert: leaf.PEM + root.PEM[:len(root.PEM)-40], want: "found the beginning of 2 PEM blocks, of which 1 can be read"},
		"damaged":                    {cert: strings.Replace(leaf.PEM, "MII", "!!!", 1) + root.PEM, want: "found the beginning of 2 PEM blocks, of which 1 can be read"},
		"no certificate":             {cert: block("CERTIFICATE", []byte("x")), want: "certificate 1 can't be parsed"},
		"a key in cert":              {cert: leaf.PEM + leaf.KeyPEM, want: "tls.cert: found a private key, which belongs under key"},
		"a request":                  {cert: block("CERTIFICATE REQUEST", []byte("x")), want: `found a PEM block of the type "CERTIFICATE REQUEST"`},
		"ca has expired":             {ca: expired(t).PEM, want: `tls.ca: "CN=old" has expired on `},
		"one of ca has expired":      {ca: expired(t).PEM + root.PEM, cert: leaf.Chain()},
		"an absurd RSA key":          {ca: absurd(t), want: "has an RSA key of 9000 bits"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := said(written(t, x.ca, x.cert, x.partial).Check(time.Now()))
			if got != x.want && (x.want == "" || !strings.Contains(got, x.want)) {
				t.Errorf("it says\n%s\nexpected\n%s", got, x.want)
			}
			if secretLines(got, leaf.KeyPEM) {
				t.Errorf("a key is seen in %s", got)
			}
		})
	}
}

// secretLines says whether a line of a PEM text is seen.
func secretLines(text, pem string) bool {
	for _, line := range strings.Split(pem, "\n") {
		if line != "" && !strings.HasPrefix(line, "-----") && strings.Contains(text, line) {
			return true
		}
	}
	return false
}

func block(kind string, b []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: b}))
}

// selfSigned is a certificate as people make it for one client: no authority.
func selfSigned(t *testing.T) *pipelinetest.Certificate {
	t.Helper()
	var none *pipelinetest.Certificate
	return none.Leaf(t, "alone")
}

func expired(t *testing.T) *pipelinetest.Certificate {
	t.Helper()
	var none *pipelinetest.Certificate
	return none.Leaf(t, "old", pipelinetest.ValidFor(2*time.Hour, -time.Hour))
}

// absurd is a certificate about a key that costs whoever looks at it.
func absurd(t *testing.T) string {
	t.Helper()
	signer, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	const bits = 9000
	n := new(big.Int).SetBit(big.NewInt(1), bits-1, 1)
	c := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "absurd"}}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &rsa.PublicKey{N: n, E: 65537}, signer)
	if err != nil {
		t.Fatal(err)
	}
	return block("CERTIFICATE", der)
}

func TestKeys(t *testing.T) {
	t.Parallel()
	root := pipelinetest.Authority(t, "root")
	leaf := root.Leaf(t, "client")
	ec, err := x509.MarshalECPrivateKey(leaf.Key)
	if err != nil {
		t.Fatal(err)
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ed, err := x509.MarshalPKCS8PrivateKey(edKey)
	if err != nil {
		t.Fatal(err)
	}
	sec1, pkcs1 := block("EC PRIVATE KEY", ec), block("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(rsaKey))
	legacy := strings.Replace(pkcs1, "KEY-----\n", "KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\n", 1)
	for name, x := range map[string]struct{ key, want string }{
		"PKCS 8":                {leaf.KeyPEM, ""},
		"SEC 1":                 {sec1, ""},
		"with parameters":       {block("EC PARAMETERS", []byte{6, 0}) + sec1, ""},
		"of another":            {root.Leaf(t, "other").KeyPEM, `tls.key: ${env:MILLRACE_SECRET_KEY}: the key does not fit the first certificate of cert, "CN=client"`},
		"RSA of another":        {pkcs1, "does not fit"},
		"Ed25519 of another":    {block("PRIVATE KEY", ed), "does not fit"},
		"of the root":           {root.KeyPEM, `the key fits certificate 2 of cert, "CN=root", which must then be the first`},
		"two":                   {leaf.KeyPEM + pkcs1, "found 2 PEM blocks, expected one private key"},
		"a certificate":         {leaf.PEM, "found PEM that is no private key"},
		"with its certificate":  {leaf.PEM + leaf.KeyPEM, "found 2 PEM blocks, expected one private key"},
		"no PEM":                {"geheim", "expected PEM"},
		"cut off":               {leaf.KeyPEM[:len(leaf.KeyPEM)-30], "one is cut off or damaged"},
		"no key":                {block("PRIVATE KEY", []byte("geheim")), "can't be read"},
		"under a passphrase":    {block("ENCRYPTED PRIVATE KEY", []byte("geheim")), "passphrase"},
		"likewise, the old way": {legacy, "passphrase"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := client(t, httpsend.Options{Secrets: secrets(map[string]string{"KEY": x.key})})
			s := sender(t, c, httpsend.Target{URL: "https://127.0.0.1:1", TLS: written(t, "", leaf.PEM+root.PEM, false)})
			err := s.Ready()
			if (err == nil) != (x.want == "") || err != nil && !strings.Contains(err.Error(), x.want) {
				t.Errorf("it says %v, expected %q", err, x.want)
			}
			if err != nil && (strings.Contains(err.Error(), "geheim") || secretLines(err.Error(), x.key)) {
				t.Errorf("the key is seen in %v", err)
			}
		})
	}
}

func FuzzTLSCheck(f *testing.F) {
	root := pipelinetest.Authority(f, "root")
	leaf := root.Leaf(f, "client")
	f.Add(root.PEM, leaf.PEM, false)
	f.Add("", leaf.PEM+root.PEM, true)
	f.Add("", leaf.KeyPEM, true)
	f.Add("-----BEGIN ", "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----", true)
	f.Fuzz(func(t *testing.T, ca, cert string, partial bool) {
		if strings.Contains(ca+cert, "${") {
			return
		}
		problems := written(t, ca, cert, partial).Check(time.Now())
		if cert != "" && !strings.Contains(cert, "-----BEGIN ") && len(problems) == 0 {
			t.Error("text without PEM is taken for certificates")
		}
	})
}
