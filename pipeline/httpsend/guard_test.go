package httpsend

import (
	"net/netip"
	"strings"
	"testing"
)

func TestGuard(t *testing.T) {
	t.Parallel()
	closed, err := newGuard(nil)
	if err != nil {
		t.Fatal(err)
	}
	for kind, addrs := range map[string]string{
		"": "8.8.8.8 1.1.1.1 9.255.255.255 11.0.0.0 100.63.255.255 100.128.0.0 126.255.255.255 128.0.0.1 " +
			"168.63.129.15 168.63.129.17 169.253.255.255 169.255.0.0 172.15.255.255 172.32.0.0 192.0.1.0 192.167.255.255 192.169.0.0 " +
			"198.17.255.255 198.20.0.0 223.255.255.255 ::ffff:8.8.8.8 64:ff9b::8.8.8.8 2002:808:808::1 " +
			"2001:200::1 2606:4700::1111 2a00:1450:4001::1 3ffe::1",
		"this host":     "0.0.0.0 0.255.255.255 :: ::ffff:0.0.0.0 64:ff9b::0.0.0.0",
		"loopback":      "127.0.0.1 127.255.255.254 ::1 ::ffff:127.0.0.1 64:ff9b::127.0.0.1 2002:7f00:1::",
		"private":       "10.0.0.1 10.255.255.255 172.16.0.0 172.31.255.255 192.168.0.1 192.168.255.255 fc00::1 fdff::1 ::ffff:10.1.2.3 64:ff9b::10.1.2.3 64:ff9b::a01:203 2002:a01:203::1 2002:c0a8:1::",
		"link-local":    "169.254.0.1 169.254.169.254 fe80::1 fe80::1%eth0 febf::1 ::ffff:169.254.169.254 64:ff9b::a9fe:a9fe 2002:a9fe:a9fe::",
		"site-local":    "fec0::1",
		"shared":        "100.64.0.0 100.127.255.255 ::ffff:100.64.0.1",
		"protocol":      "192.0.0.0 192.0.0.255 2001::1 2001:0:4136:e378:8000:63bf:f5ff:fffe 2001:2::1 2001:10::1 2001:20::1 2001:1ff::1",
		"documentation": "192.0.2.1 198.51.100.1 203.0.113.1 2001:db8::1 3fff::1",
		"6to4 relay":    "192.88.99.1",
		"benchmarking":  "198.18.0.0 198.19.255.255",
		"multicast":     "224.0.0.1 239.255.255.255 ff02::1 ff0e::1",
		"reserved":      "240.0.0.1 255.255.255.255",
		"local NAT64":   "64:ff9b:1::1 64:ff9b:1::8.8.8.8",
		"Azure's":       "168.63.129.16 ::ffff:168.63.129.16 64:ff9b::168.63.129.16 2002:a83f:8110::1",
		"not a public":  "::2 ::8.8.8.8 100::1 64:ff9b:2::1 1fff::1 4000::1 5f00::1 fa00::1",
	} {
		for addr := range strings.FieldsSeq(addrs) {
			err := closed.check(netip.MustParseAddr(addr))
			switch {
			case kind == "" && err != nil:
				t.Errorf("%s: %v", addr, err)
			case kind != "" && (err == nil || !strings.Contains(err.Error(), kind) || !strings.Contains(err.Error(), "egress.allow")):
				t.Errorf("%s: %v, want %q and the setting", addr, err, kind)
			}
		}
	}
}

func TestGuardAllow(t *testing.T) {
	t.Parallel()
	g, err := newGuard([]string{"10.0.0.0/8", "192.168.1.9/24", "127.0.0.1", "fd00::/16", " ::ffff:172.16.0.1 ", "::ffff:172.17.9.9/112", "Internal.Example.", "host_1"})
	if err != nil {
		t.Fatal(err)
	}
	for addr, open := range map[string]bool{
		"10.9.8.7": true, "::ffff:10.9.8.7": true, "64:ff9b::10.9.8.7": true, "2002:a09:807::": true,
		"192.168.1.255": true, "192.168.2.1": false, "127.0.0.1": true, "127.0.0.2": false,
		"fd00::1": true, "fd01::1": false, "172.16.0.1": true, "172.16.0.2": false, "172.17.0.1": true, "::ffff:172.17.0.1": true, "172.18.0.1": false, "8.8.8.8": true,
	} {
		if err := g.check(netip.MustParseAddr(addr)); (err == nil) != open {
			t.Errorf("%s: %v, open %v", addr, err, open)
		}
	}
	for host, open := range map[string]bool{
		"internal.example": true, "INTERNAL.example.": true, "host_1": true,
		"sub.internal.example": false, "internal.example.com": false, "10.0.0.1": false,
	} {
		if g.allowsHost(host) != open {
			t.Errorf("host %s: want %v", host, open)
		}
	}
}

func TestGuardRefusesEntries(t *testing.T) {
	t.Parallel()
	_, err := newGuard([]string{"10.0.0.0/33", "http://x", "host:80", "", "*.internal", "fine.example"})
	if err == nil {
		t.Fatal("wrong entries were taken")
	}
	for _, want := range []string{`"10.0.0.0/33"`, `"http://x"`, `"host:80"`, `""`, `"*.internal"`} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%v: want %s in it", err, want)
		}
	}
	if strings.Contains(err.Error(), "fine.example") {
		t.Error(err)
	}
}

// control sees what net.Dialer is about to call; what it can't read, it refuses.
func TestGuardControl(t *testing.T) {
	t.Parallel()
	g, err := newGuard(nil)
	if err != nil {
		t.Fatal(err)
	}
	for address, want := range map[string]bool{
		"8.8.8.8:443": true, "[2606:4700::1111]:443": true,
		"127.0.0.1:80": false, "[::1]:80": false, "[fe80::1%eth0]:80": false, "/run/socket": false, "": false,
	} {
		if err := g.control(t.Context(), "tcp", address, nil); (err == nil) != want {
			t.Errorf("%q: %v", address, err)
		}
	}
}
