package egress_test

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/weir-dev/weir/internal/egress"
)

// Every special-purpose block: its first and its last address are refused, and the neighbours are what they are.
func TestBlocks(t *testing.T) {
	const (
		none    = iota // there is no such neighbour
		public         // it may be reached
		refused        // it is in another block
	)
	g := newGuard(t, "", nil)
	for _, row := range []struct {
		block         string
		before, after int
	}{
		{"0.0.0.0/8", none, public},
		{"10.0.0.0/8", public, public},
		{"100.64.0.0/10", public, public},
		{"127.0.0.0/8", public, public},
		{"168.63.129.16/32", public, public},
		{"169.254.0.0/16", public, public},
		{"172.16.0.0/12", public, public},
		{"192.0.0.0/24", public, public},
		{"192.0.2.0/24", public, public},
		{"192.88.99.0/24", public, public},
		{"192.168.0.0/16", public, public},
		{"198.18.0.0/15", public, public},
		{"198.51.100.0/24", public, public},
		{"203.0.113.0/24", public, public},
		{"224.0.0.0/4", public, refused},
		{"240.0.0.0/4", refused, none},
		{"255.255.255.255/32", refused, none},

		{"::/128", none, refused},
		{"::1/128", refused, refused},
		{"::/96", none, refused},
		{"::ffff:0:0:0/96", refused, refused},
		{"64:ff9b:1::/48", refused, refused},
		{"100::/64", refused, refused},
		{"100:0:0:1::/64", refused, refused},
		{"::/3", none, public}, // all below 2000::
		{"2001::/32", public, refused},
		{"2001:2::/48", refused, refused},
		{"2001:10::/28", refused, refused},
		{"2001:20::/28", refused, refused},
		{"2001:30::/28", refused, refused},
		{"2001::/23", public, public},
		{"2001:db8::/32", public, public},
		{"2002::/16", public, public},
		{"3fff::/20", public, public},
		{"4000::/2", public, refused}, // all above 3fff:
		{"5f00::/16", refused, refused},
		{"8000::/1", refused, none},
		{"fc00::/7", refused, refused},
		{"fe80::/10", refused, refused},
		{"fec0::/10", refused, refused},
		{"ff00::/8", refused, none},
	} {
		block := netip.MustParsePrefix(row.block)
		first, last := block.Addr(), lastOf(block)
		for _, a := range []netip.Addr{first, last} {
			if err := g.CheckAddress("", a); err == nil {
				t.Errorf("%s of %s may be reached", a, block)
			}
		}
		for a, want := range map[netip.Addr]int{first.Prev(): row.before, last.Next(): row.after} {
			if err := g.CheckAddress("", a); a.IsValid() != (want != none) || a.IsValid() && (err == nil) != (want == public) {
				t.Errorf("%s beside %s: got %v", a, block, err)
			}
		}
		// Each can be allowed, but for a metadata service in it.
		if allowing := newGuard(t, row.block, nil); block.Bits() < block.Addr().BitLen() {
			for _, a := range []netip.Addr{first, last} {
				if err := allowing.CheckAddress("", a); err != nil {
					t.Errorf("%s is allowed: %v", block, err)
				}
			}
		}
	}
}

func lastOf(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

func TestAddresses(t *testing.T) {
	g := newGuard(t, "", nil)
	for text, reason := range map[string]string{
		"1.1.1.1": "", "8.8.8.8": "", "93.184.216.34": "", "223.255.255.255": "", "2606:4700:4700::1111": "", "2a00:1450:4001::200e": "",
		"2000::": "", "3ffe:ffff::1": "", "2620:4f:8000::1": "", "192.31.196.1": "", "192.52.193.1": "", "192.175.48.1": "", // AS112 and AMT are global
		"::ffff:1.1.1.1": "", "64:ff9b::1.1.1.1": "", "64:ff9b::101:101": "",

		"127.0.0.1": "loopback", "127.255.255.254": "loopback", "10.96.0.1": "private", "172.17.0.1": "private", "192.168.1.1": "private",
		"100.64.0.1": "shared", "169.254.1.1": "link-local", "0.0.0.0": "this network", "255.255.255.255": "broadcast", "224.0.0.251": "multicast",
		"192.0.0.1": "IETF", "192.0.0.8": "IETF", "192.0.0.9": "IETF", "198.18.0.1": "benchmarks", "203.0.113.7": "documentation", "240.0.0.1": "reserved",
		"::": "unspecified", "::1": "loopback", "fe80::1": "link-local", "fe80::1%eth0": "link-local", "fd12::1": "unique local", "fec0::1": "site-local",
		"ff02::1": "multicast", "2001:db8::1": "documentation", "3fff::1": "documentation", "100::1": "discarded", "100:0:0:1::1": "dummy",
		"2001:2::1": "benchmarks", "2001:10::1": "ORCHID ", "2001:20::1": "ORCHIDv2", "2001:30::1": "drones", "2001:1::1": "IETF", "5f00::1": "segment",
		"1000::1": "not given out", "4000::1": "not given out", "9000::1": "not given out",

		// Forms that hold an IPv4 address.
		"::ffff:127.0.0.1": "loopback", "::ffff:10.0.0.1": "private", "::ffff:0.0.0.0": "this network",
		"64:ff9b::127.0.0.1": "loopback", "64:ff9b::10.0.0.1": "private", "64:ff9b::169.254.169.254": "metadata", "64:ff9b::10.0.0.1%eth0": "private",
		"::127.0.0.1": "IPv4-compatible", "::10.0.0.1": "IPv4-compatible", "::1.1.1.1": "IPv4-compatible", "::ffff:0:127.0.0.1": "IPv4-translated",
		"64:ff9b:1::10.0.0.1": "local translation", "2002:7f00:1::": "6to4", "2002:a00:1::1": "6to4", "2002:101:101::1": "6to4",
		"2001:0:7f00:1::": "Teredo", "2001:0:4136:e378:8000:63bf:80ff:fffe": "Teredo",

		"169.254.169.254": "metadata", "::ffff:169.254.169.254": "metadata", "fd00:ec2::254": "metadata", "168.63.129.16": "metadata",
		"100.100.100.200": "metadata", "192.0.0.192": "metadata", "169.254.170.2": "metadata", "169.254.170.23": "metadata", "fd00:ec2::23": "metadata",
		"fd20:ce::254": "metadata", "169.254.0.23": "metadata", "169.254.42.42": "metadata", "fd00:42::42": "metadata", "fe80::a9fe:a9fe": "metadata",
	} {
		err := g.CheckAddress("a.example", netip.MustParseAddr(text))
		var forbidden *egress.ForbiddenError
		if reason == "" && err != nil || reason != "" && (!errors.As(err, &forbidden) || !strings.Contains(forbidden.Reason, reason)) {
			t.Errorf("%s: got %v, not %q", text, err, reason)
		}
	}
	if err := g.CheckAddress("", netip.Addr{}); err == nil {
		t.Error("no address is allowed")
	}
}

func TestAllowedAddresses(t *testing.T) {
	for _, row := range []struct{ policy, allowed, refused string }{
		{"10.1.0.0/16", "10.1.0.0 10.1.255.255 ::ffff:10.1.2.3 64:ff9b::10.1.2.3 1.1.1.1", "10.0.255.255 10.2.0.0 ::10.1.2.3 2002:a01:203::"},
		{"10.1.2.3", "10.1.2.3 ::ffff:10.1.2.3", "10.1.2.2 10.1.2.4"},
		{"fd12::/16", "fd12::1 fd12::1%eth0", "fd13::1 fd11::1"},
		{"127.0.0.1", "127.0.0.1", "127.0.0.2 ::1"},
		{"fe80::/10", "fe80::1%eth0", "fec0::1 fe80::a9fe:a9fe fe80::a9fe:a9fe%eth0"},
		// A metadata service is refused in every form, unless it is listed itself.
		{
			"0.0.0.0/0,::/0", "127.0.0.1 ::1 10.0.0.1 2002:a00:1:: 64:ff9b:1::10.0.0.1",
			"169.254.169.254 ::ffff:169.254.169.254 64:ff9b::169.254.169.254 ::169.254.169.254 ::ffff:0:169.254.169.254 64:ff9b:1::169.254.169.254 " +
				"2002:a9fe:a9fe:: 2001:0:a9fe:a9fe:: 2001:0:4136:e378:8000:63bf:5601:5601 64:ff9b:1:a9fe:a9:fe00:: 64:ff9b:1:22a9:fe:a9fe:: " +
				"64:ff9b:1:2222:a9:fea9:fe00:0 2a00:1::169.254.169.254 " +
				"fd00:ec2::254 fd00:ec2::254%eth0 168.63.129.16 100.100.100.200 192.0.0.192 169.254.170.2 fd20:ce::254",
		},
		{"169.254.0.0/16", "169.254.1.1 169.254.169.253", "169.254.169.254 169.254.170.2"},
		{"169.254.169.254/31", "169.254.169.255", "169.254.169.254"},
		{"169.254.169.254", "169.254.169.254 ::ffff:169.254.169.254 64:ff9b::169.254.169.254", "169.254.169.253 ::169.254.169.254 169.254.170.2 fd00:ec2::254"},
		{"169.254.169.254/32", "169.254.169.254", "fd00:ec2::254"},
		{"fd00:ec2::254", "fd00:ec2::254", "fd00:ec2::253 169.254.169.254"},
		{"2a00:1::169.254.169.254", "2a00:1::169.254.169.254", "2a00:2::169.254.169.254"},
	} {
		g := newGuard(t, row.policy, nil)
		for a := range strings.FieldsSeq(row.allowed) {
			if err := g.CheckAddress("", netip.MustParseAddr(a)); err != nil {
				t.Errorf("%s: %v", row.policy, err)
			}
		}
		for a := range strings.FieldsSeq(row.refused) {
			if err := g.CheckAddress("", netip.MustParseAddr(a)); err == nil {
				t.Errorf("%s: %s may be reached", row.policy, a)
			}
		}
	}
}

// Any address is judged alike in all its forms, and what may be reached is listed or public by what netip knows.
func FuzzAddress(f *testing.F) {
	for _, a := range []string{"127.0.0.1", "10.1.0.1", "169.254.169.254", "1.1.1.1", "::1", "::ffff:10.0.0.1", "64:ff9b::a00:1", "2002:7f00:1::", "fd12::1", "2606::1"} {
		f.Add(netip.MustParseAddr(a).AsSlice())
	}
	policy, err := egress.ParsePolicy("10.1.0.0/16,fd12::/16,169.254.0.0/16,100.100.100.200")
	if err != nil {
		f.Fatal(err)
	}
	g, err := egress.New(egress.Config{Policy: policy})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		a, ok := netip.AddrFromSlice(b)
		if !ok {
			return
		}
		verdict := g.CheckAddress("a.example", a)
		var forbidden *egress.ForbiddenError
		if verdict != nil && (!errors.As(verdict, &forbidden) || forbidden.Reason == "" || forbidden.Address != a.Unmap()) {
			t.Fatalf("%s: %v", a, verdict)
		}
		forms := []netip.Addr{a.Unmap()}
		if a.Is4() {
			nat64 := netip.MustParseAddr("64:ff9b::").As16()
			copy(nat64[12:], b)
			forms = append(forms, netip.AddrFrom16(a.As16()), netip.AddrFrom16(nat64), netip.AddrFrom16(nat64).WithZone("eth0"))
		} else if !a.Is4In6() {
			forms = append(forms, a.WithZone("eth0"))
		}
		for _, form := range forms {
			if err := g.CheckAddress("a.example", form); (err == nil) != (verdict == nil) {
				t.Errorf("%s: %v, and %s: %v", a, verdict, form, err)
			}
		}
		plain := a.Unmap()
		listed := slices.ContainsFunc(policy.Allow, func(p netip.Prefix) bool { return p.Contains(plain) })
		if verdict == nil && !listed && (!plain.IsGlobalUnicast() || plain.IsPrivate()) {
			t.Errorf("%s may be reached", a)
		}
		if verdict == nil && plain == netip.MustParseAddr("169.254.169.254") {
			t.Errorf("%s may be reached", a)
		}
		for _, tunnel := range prefixes("::/96", "2002::/16", "2001::/32", "64:ff9b:1::/48") {
			if verdict == nil && tunnel.Contains(plain) {
				t.Errorf("%s may be reached", a)
			}
		}
	})
}

// TestIsMetadataService: hosts of URLs, as people write them.
func TestIsMetadataService(t *testing.T) {
	for host, want := range map[string]bool{
		"169.254.169.254": true, "::ffff:169.254.169.254": true, "fd00:ec2::254": true, "168.63.129.16": true, "Metadata.Google.Internal.": true, "metadata.goog": true, "instance-data.ec2.internal": true,
		"169.254.1.1": false, "10.0.0.1": false, "billing.internal": false, "127.0.0.1": false, "": false,
	} {
		if got := egress.IsMetadataService(host); got != want {
			t.Errorf("%q: %t", host, got)
		}
	}
}
