package egress

import (
	"net/netip"
	"slices"
	"strings"
)

// block is a block of addresses that is refused, and what it is.
type block struct {
	prefix netip.Prefix
	is     string
}

// reservedBlocks are the blocks of which IANA's registries do not say that they are globally reachable: the IPv4 and the IPv6
// Special-Purpose Address Registry (RFC 6890; iana.org/assignments/iana-ipv4-special-registry and iana-ipv6-special-registry,
// as of October 2025), multicast and reserved space. A block that another holds comes first, to be named. Left out are the
// exceptions that the registries make within a block, such as anycast addresses in 192.0.0.0/24: nobody serves HTTP there.
//
// Of IPv6, IANA has given out 2000::/3 only; the blocks outside of it are here to be named.
func reservedBlocks() []block {
	b := func(prefix, is string) block { return block{netip.MustParsePrefix(prefix), is} }
	return []block{
		b("0.0.0.0/8", "this network (RFC 791)"),
		b("10.0.0.0/8", "private (RFC 1918)"),
		b("100.64.0.0/10", "shared by providers (RFC 6598)"),
		b("127.0.0.0/8", "loopback (RFC 1122)"),
		b("169.254.0.0/16", "link-local (RFC 3927)"),
		b("172.16.0.0/12", "private (RFC 1918)"),
		b("192.0.0.0/24", "for protocols of the IETF (RFC 6890)"),
		b("192.0.2.0/24", "for documentation (RFC 5737)"),
		b("192.88.99.0/24", "a 6to4 relay (RFC 7526)"),
		b("192.168.0.0/16", "private (RFC 1918)"),
		b("198.18.0.0/15", "for benchmarks (RFC 2544)"),
		b("198.51.100.0/24", "for documentation (RFC 5737)"),
		b("203.0.113.0/24", "for documentation (RFC 5737)"),
		b("224.0.0.0/4", "multicast (RFC 5771)"),
		b("255.255.255.255/32", "broadcast (RFC 919)"),
		b("240.0.0.0/4", "reserved (RFC 1112)"),

		b("::/128", "unspecified (RFC 4291)"),
		b("::1/128", "loopback (RFC 4291)"),
		b("::/96", "an IPv4-compatible address (RFC 4291)"),
		b("::ffff:0:0:0/96", "an IPv4-translated address (RFC 7915)"),
		b("64:ff9b:1::/48", "for local translation to IPv4 (RFC 8215)"),
		b("100::/64", "discarded (RFC 6666)"),
		b("100:0:0:1::/64", "a dummy (RFC 9780)"),
		b("2001::/32", "Teredo (RFC 4380)"),
		b("2001:2::/48", "for benchmarks (RFC 5180)"),
		b("2001:10::/28", "ORCHID (RFC 4843)"),
		b("2001:20::/28", "ORCHIDv2 (RFC 7343)"),
		b("2001:30::/28", "for drones' identities (RFC 9374)"),
		b("2001::/23", "for protocols of the IETF (RFC 2928)"),
		b("2001:db8::/32", "for documentation (RFC 3849)"),
		b("2002::/16", "6to4 (RFC 3056)"),
		b("3fff::/20", "for documentation (RFC 9637)"),
		b("5f00::/16", "a segment routing identifier (RFC 9602)"),
		b("fc00::/7", "unique local (RFC 4193)"),
		b("fe80::/10", "link-local (RFC 4291)"),
		b("fec0::/10", "site-local (RFC 3879)"),
		b("ff00::/8", "multicast (RFC 4291)"),
		b("::/3", "not given out by IANA"),
		b("4000::/2", "not given out by IANA"),
		b("8000::/1", "not given out by IANA"),
	}
}

// metadataServices are where clouds hand out credentials of the machine to whoever asks from it. They are refused within a
// prefix that is allowed, too, and so is what embeds them, such as fe80::a9fe:a9fe of OpenStack.
func metadataServices() []netip.Addr {
	a := netip.MustParseAddr
	return []netip.Addr{
		a("169.254.169.254"), a("fd00:ec2::254"), // AWS, and most others
		a("169.254.170.2"),                     // AWS: tasks of ECS
		a("169.254.170.23"), a("fd00:ec2::23"), // AWS: Pod Identity of EKS
		a("fd20:ce::254"),                    // Google
		a("168.63.129.16"),                   // Azure
		a("100.100.100.200"),                 // Alibaba
		a("192.0.0.192"),                     // Oracle
		a("169.254.0.23"),                    // Tencent
		a("169.254.42.42"), a("fd00:42::42"), // Scaleway
	}
}

// metadataNames are the names that clouds give them: Google two, Amazon and Tencent one.
func metadataNames() []string {
	return []string{"metadata.google.internal", "metadata.goog", "instance-data.ec2.internal", "metadata.tencentyun.com"}
}

// IsMetadataService reports whether the host of a URL is a cloud's metadata service, by its address or by a cloud's name for it.
func IsMetadataService(host string) bool {
	if slices.Contains(metadataNames(), strings.ToLower(strings.TrimSuffix(host, "."))) {
		return true
	}
	a, err := netip.ParseAddr(host)
	return err == nil && among(metadataServices(), canonicalAddress(a))
}

// among reports whether a is in list, or embeds what is.
func among(list []netip.Addr, a netip.Addr) bool {
	return slices.Contains(list, a) || slices.ContainsFunc(embedded(a), func(v4 netip.Addr) bool { return slices.Contains(list, v4) })
}

// refusal says why the address may not be dialed for the host; empty if it may.
func (g *Guard) refusal(host string, a netip.Addr) string {
	if !a.IsValid() {
		return "it is not an IP address"
	}
	a = canonicalAddress(a)
	switch {
	case g.config.Policy.listsExactly(a):
		return ""
	case among(g.metadata, a):
		return "a cloud's metadata service"
	case g.config.Policy.allows(host, a):
		return ""
	}
	for _, b := range g.reserved {
		if b.prefix.Contains(a) {
			return b.is
		}
	}
	return ""
}

// canonicalAddress is the form in which addresses are judged: without a zone, which no prefix contains, and IPv4 for the forms
// that always stand for it. NAT64's is what names resolve to in a network that speaks IPv6 only, so it isn't refused as such.
func canonicalAddress(a netip.Addr) netip.Addr {
	a = a.Unmap().WithZone("")
	if wellKnownNAT64().Contains(a) {
		b := a.As16()
		return netip.AddrFrom4([4]byte(b[12:]))
	}
	return a
}

// wellKnownNAT64 is the prefix of RFC 6052.
func wellKnownNAT64() netip.Prefix { return netip.MustParsePrefix("64:ff9b::/96") }

// embedded are the IPv4 addresses that something on the way may make of an IPv6 address that a policy allows. The last four
// bytes are one whatever the prefix, which a network may choose for its NAT64: a host that happens to end in a metadata
// service's address is refused by mistake, and can be listed.
func embedded(a netip.Addr) []netip.Addr {
	if a.Is4() {
		return nil
	}
	b := a.As16()
	v4 := func(i, j, k, l int) netip.Addr { return netip.AddrFrom4([4]byte{b[i], b[j], b[k], b[l]}) }
	in := func(prefix string) bool { return netip.MustParsePrefix(prefix).Contains(a) }
	all := []netip.Addr{v4(12, 13, 14, 15)}
	switch {
	case in("2002::/16"): // 6to4
		all = append(all, v4(2, 3, 4, 5))
	case in("2001::/32"): // Teredo: the server, and the client
		all = append(all, v4(4, 5, 6, 7), netip.AddrFrom4([4]byte{^b[12], ^b[13], ^b[14], ^b[15]}))
	case in("64:ff9b:1::/48"): // NAT64 with a prefix of 48, 56 or 64 bits (RFC 6052, section 2.2)
		all = append(all, v4(6, 7, 9, 10), v4(7, 9, 10, 11), v4(9, 10, 11, 12))
	}
	return all
}
