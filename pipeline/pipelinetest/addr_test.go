package pipelinetest_test

import (
	"net"
	"net/netip"
	"testing"

	"github.com/millrace-io/millrace/pipeline/pipelinetest"
)

// While a receiver refuses calls, the system gives its port to nobody; and no
// address comes twice.
func TestFreeAddr(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{pipelinetest.Receiver(t).URL[len("http://"):]: true}
	for range 20 {
		addr := pipelinetest.FreeAddr(t)
		if port := netip.MustParseAddrPort(addr).Port(); seen[addr] || port < 10_000 || port >= 32_768 {
			t.Errorf("%s came after %v", addr, seen)
		}
		seen[addr] = true
		l, err := net.Listen("tcp", addr)
		if err != nil {
			t.Errorf("nobody can listen there: %v", err)
			continue
		}
		l.Close()
	}
}
