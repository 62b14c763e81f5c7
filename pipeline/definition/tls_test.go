package definition_test

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/millrace-io/millrace/pipeline"
	"github.com/millrace-io/millrace/pipeline/definition"
	"github.com/millrace-io/millrace/pipeline/pipelinetest"
)

// withTLS is a destination with certificates written out.
func withTLS(ca, cert, more string) string {
	text := "kind: Destination\nname: bank\nrequest:\n  url: https://bank.example/in\ntls:\n  server_name: in.bank.example\n"
	for key, pem := range map[string]string{"ca": ca, "cert": cert} {
		if pem != "" {
			text += "  " + key + ": |\n    " + strings.ReplaceAll(strings.TrimSpace(pem), "\n", "\n    ") + "\n"
		}
	}
	if cert != "" {
		text += "  key: ${file:bank/key.pem}\n"
	}
	return text + more
}

func TestCertificatesAreCheckedWhenSaved(t *testing.T) {
	t.Parallel()
	root := pipelinetest.Authority(t, "root")
	middle := root.Intermediate(t, "middle")
	leaf := middle.Leaf(t, "client")
	old := root.Leaf(t, "old", pipelinetest.ValidFor(2*time.Hour, -time.Hour))
	for name, x := range map[string]struct{ text, want string }{
		"full":                     {withTLS("", leaf.Chain()+root.PEM, ""), ""},
		"to a root of ca":          {withTLS(root.PEM, leaf.Chain(), ""), ""},
		"cut short":                {withTLS("", leaf.Chain(), ""), `tls.cert: the chain is cut short: the issuer of "CN=middle", "CN=root", is missing; add its certificate, or set partial_chain: true`},
		"cut short, as wished":     {withTLS("", leaf.PEM, "  partial_chain: true\n"), ""},
		"cut short, and more":      {withTLS(root.PEM, leaf.PEM, "status: asleep\n"), `the issuer of "CN=client", "CN=middle", is missing`},
		"in the wrong order":       {withTLS("", root.PEM+leaf.Chain(), ""), "wrong order"},
		"expired":                  {withTLS(root.PEM, old.PEM, ""), `"CN=old" has expired`},
		"ca is behind a reference": {strings.Replace(withTLS("", leaf.Chain(), ""), "tls:\n", "tls:\n  ca: ${file:ca.pem}\n", 1), ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, problems := parse(x.text).Check(empty(t))
			want := strings.TrimPrefix(x.want, "tls.cert: ")
			err := problems.Err()
			if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
				t.Fatalf("it says %v, expected %q", err, want)
			}
			if err == nil {
				return
			}
			line := 1 + strings.Count(x.text[:strings.Index(x.text, "  cert:")], "\n")
			for _, p := range problems {
				if strings.Contains(p.Message, want) && p.Line != line {
					t.Errorf("it stands in line %d, expected %d: %v", p.Line, line, p)
				}
			}
		})
	}
}

// A certificate that runs out, or a machine that has other roots, must not make
// what is in force unusable on its way to the sink: that would end deliveries.
func TestCertificatesInForceStayUsable(t *testing.T) {
	t.Parallel()
	root := pipelinetest.Authority(t, "root")
	old := root.Leaf(t, "old", pipelinetest.ValidFor(2*time.Hour, -time.Hour))
	spec := `{"request":{"url":"https://bank.example/in"},"tls":{"cert":` + quote(old.PEM) + `,"key":"${file:key.pem}"}}`
	s := empty(t).With([]pipeline.Record{put("Destination", "bank", spec)}, 1)
	if d := s.Destinations["bank"]; len(s.Broken) != 0 || d == nil || d.TLS.Cert.String() != old.PEM {
		t.Errorf("broken: %v, destination %+v", s.Broken, d)
	}
}

func quote(text string) string { return `"` + strings.ReplaceAll(text, "\n", `\n`) + `"` }

func TestTLSIsExportedAsItWasWritten(t *testing.T) {
	t.Parallel()
	root := pipelinetest.Authority(t, "root")
	set := parse(withTLS(root.PEM, root.Leaf(t, "client").PEM, "  partial_chain: true\n"))
	if err := set.Problems.Err(); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	s := empty(t).With([]pipeline.Record{put("Destination", "bank", string(set.Definitions[0].Spec))}, 1)
	if err := definition.Export(&b, s); err != nil {
		t.Fatal(err)
	}
	again := parse(b.String())
	if err := again.Problems.Err(); err != nil || !bytes.Equal(again.Definitions[0].Spec, set.Definitions[0].Spec) {
		t.Errorf("%v\n%s\nis read from\n%s", err, again.Definitions[0].Spec, b.String())
	}
}
