package httpsend

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"syscall"
)

// guard says which addresses may be called.
type guard struct {
	prefixes []netip.Prefix // of egress.allow
	hosts    map[string]bool
}

func newGuard(allow []string) (*guard, error) {
	g := &guard{hosts: map[string]bool{}}
	var errs []error
	for _, entry := range allow {
		if err := g.allow(strings.TrimSpace(entry)); err != nil {
			errs = append(errs, err)
		}
	}
	return g, errors.Join(errs...)
}

func (g *guard) allow(entry string) error {
	if p, err := netip.ParsePrefix(entry); err == nil {
		g.prefixes = append(g.prefixes, plainPrefix(p.Masked()))
		return nil
	}
	if a, err := netip.ParseAddr(entry); err == nil {
		a = plainAddr(a)
		g.prefixes = append(g.prefixes, netip.PrefixFrom(a, a.BitLen()))
		return nil
	}
	host := hostName(entry)
	if host == "" || strings.ContainsFunc(host, notHost) {
		return fmt.Errorf("parsing egress.allow entry %q: expected a CIDR, an address or a host name", entry)
	}
	g.hosts[host] = true
	return nil
}

func hostName(s string) string { return strings.TrimSuffix(strings.ToLower(s), ".") }

func notHost(r rune) bool {
	return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' && r != '.' && r != '_'
}

func (g *guard) allowsHost(host string) bool { return g.hosts[hostName(host)] }

// blockedError says that an address may not be called.
type blockedError struct {
	addr netip.Addr
	kind string
}

func (e *blockedError) Error() string {
	return fmt.Sprintf("%s is %s; the setting egress.allow opens such addresses", e.addr, e.kind)
}

// control is called by net.Dialer with each address it is about to connect to.
func (g *guard) control(_ context.Context, _, address string, _ syscall.RawConn) error {
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("parsing address: %w", err)
	}
	return g.check(ap.Addr())
}

func (g *guard) check(addr netip.Addr) error {
	addr = plainAddr(addr)
	kind := kindOf(addr)
	inner, embeds := embedded(addr)
	if kind == "" && embeds {
		kind = kindOf(inner)
	}
	if kind == "" || g.allows(addr) || embeds && g.allows(inner) {
		return nil
	}
	return &blockedError{addr, kind}
}

func (g *guard) allows(addr netip.Addr) bool {
	for _, p := range g.prefixes {
		if p.Contains(addr) {
			return true
		}
	}
	return false
}

// allowsAll says whether every address is opened.
func (g *guard) allowsAll() bool {
	return slices.Contains(g.prefixes, netip.MustParsePrefix("0.0.0.0/0")) &&
		slices.Contains(g.prefixes, netip.MustParsePrefix("::/0"))
}

// plainAddr strips what writes the same address differently: a zone, and the
// IPv6 form of an IPv4 address.
func plainAddr(a netip.Addr) netip.Addr { return a.WithZone("").Unmap() }

// plainPrefix does likewise for what holds such addresses alone.
func plainPrefix(p netip.Prefix) netip.Prefix {
	const mapped = 96 // bits before the IPv4 address
	if p.Addr().Is4In6() && p.Bits() >= mapped {
		return netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-mapped)
	}
	return p
}

// kindOf names the kind of address that must not be called; "" is public.
func kindOf(addr netip.Addr) string {
	ranges := special6
	if addr.Is4() {
		ranges = special4
	}
	for _, r := range ranges {
		if r.prefix.Contains(addr) {
			return r.kind
		}
	}
	if addr.Is6() && !global6.Contains(addr) && !nat64.Contains(addr) {
		return "not a public address"
	}
	return ""
}

var (
	global6  = netip.MustParsePrefix("2000::/3") // all that is handed out for public use
	nat64    = netip.MustParsePrefix("64:ff9b::/96")
	six2four = netip.MustParsePrefix("2002::/16")
)

// embedded returns the IPv4 address that a gateway would call for addr.
func embedded(addr netip.Addr) (netip.Addr, bool) {
	b := addr.As16()
	switch {
	case nat64.Contains(addr):
		return netip.AddrFrom4([4]byte(b[12:16])), true
	case six2four.Contains(addr):
		return netip.AddrFrom4([4]byte(b[2:6])), true
	}
	return netip.Addr{}, false
}

type addressRange struct {
	prefix netip.Prefix
	kind   string
}

// The ranges of the IANA special-purpose registries that are not public, and a
// public address that is one of the host in a cloud.
var (
	special4 = []addressRange{
		{netip.MustParsePrefix("0.0.0.0/8"), "an address of this host"},
		{netip.MustParsePrefix("10.0.0.0/8"), "a private address"},
		{netip.MustParsePrefix("100.64.0.0/10"), "a shared (carrier NAT) address"},
		{netip.MustParsePrefix("127.0.0.0/8"), "a loopback address"},
		{netip.MustParsePrefix("168.63.129.16/32"), "the address of Azure's host agent"},
		{netip.MustParsePrefix("169.254.0.0/16"), "a link-local address"},
		{netip.MustParsePrefix("172.16.0.0/12"), "a private address"},
		{netip.MustParsePrefix("192.0.0.0/24"), "a protocol assignment"},
		{netip.MustParsePrefix("192.0.2.0/24"), "a documentation address"},
		{netip.MustParsePrefix("192.88.99.0/24"), "a 6to4 relay"},
		{netip.MustParsePrefix("192.168.0.0/16"), "a private address"},
		{netip.MustParsePrefix("198.18.0.0/15"), "a benchmarking address"},
		{netip.MustParsePrefix("198.51.100.0/24"), "a documentation address"},
		{netip.MustParsePrefix("203.0.113.0/24"), "a documentation address"},
		{netip.MustParsePrefix("224.0.0.0/4"), "a multicast address"},
		{netip.MustParsePrefix("240.0.0.0/4"), "a reserved address"},
	}
	special6 = []addressRange{
		{netip.MustParsePrefix("::/128"), "an address of this host"},
		{netip.MustParsePrefix("::1/128"), "a loopback address"},
		{netip.MustParsePrefix("64:ff9b:1::/48"), "a local NAT64 address"},
		{netip.MustParsePrefix("2001::/23"), "a protocol assignment (Teredo, ORCHID, benchmarking)"},
		{netip.MustParsePrefix("2001:db8::/32"), "a documentation address"},
		{netip.MustParsePrefix("3fff::/20"), "a documentation address"},
		{netip.MustParsePrefix("fc00::/7"), "a private address"},
		{netip.MustParsePrefix("fe80::/10"), "a link-local address"},
		{netip.MustParsePrefix("fec0::/10"), "a site-local address"},
		{netip.MustParsePrefix("ff00::/8"), "a multicast address"},
	}
)
