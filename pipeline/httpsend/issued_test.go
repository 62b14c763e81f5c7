package httpsend

import (
	"crypto/x509"
	"strings"
	"testing"
	"time"

	"github.com/millrace-io/millrace/pipeline/pipelinetest"
)

// A chain that ends under a root of the system is full, also when one of its
// certificates is not good now: that is what is said of it then.
func TestChainsToSystemRoots(t *testing.T) {
	t.Parallel()
	const hour = time.Hour
	now := time.Now()
	root := pipelinetest.Authority(t, "root")
	system := func(c *x509.Certificate) bool { return issuedBy(root.Pool(), c, now) }
	old, soon := pipelinetest.ValidFor(hour/2, -hour/4), pipelinetest.ValidFor(-hour, 2*hour)
	isAuthority := func(c *x509.Certificate) { c.IsCA, c.KeyUsage = true, x509.KeyUsageCertSign }
	for name, x := range map[string]struct{ cert, want string }{
		"good":                       {root.Leaf(t, "client").PEM, ""},
		"expired":                    {root.Leaf(t, "old", old).PEM, `tls.cert: "CN=old" has expired on `},
		"not valid yet":              {root.Leaf(t, "soon", soon).PEM, `tls.cert: "CN=soon" is not valid before `},
		"an intermediate":            {root.Intermediate(t, "upper").Leaf(t, "client").Chain(), ""},
		"an intermediate, expired":   {root.Leaf(t, "upper", old, isAuthority).Leaf(t, "client").Chain(), `tls.cert: "CN=upper" has expired on `},
		"of another":                 {pipelinetest.Authority(t, "other").Leaf(t, "client").PEM, `tls.cert: the chain is cut short: the issuer of "CN=client", "CN=other", is missing`},
		"of another, and expired":    {pipelinetest.Authority(t, "other").Leaf(t, "client", old).PEM, `tls.cert: the chain is cut short: `},
		"of a namesake, and expired": {pipelinetest.Authority(t, "root").Leaf(t, "client", old).PEM, `tls.cert: the chain is cut short: `},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := material{system: system}
			got := ""
			for _, p := range m.setChain(x.cert, now) {
				got += p.Error()
			}
			if got != x.want && (x.want == "" || !strings.HasPrefix(got, x.want)) {
				t.Errorf("it says\n%s\nexpected\n%s", got, x.want)
			}
		})
	}
}
