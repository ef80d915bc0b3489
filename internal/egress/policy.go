package egress

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Policy is what may be reached besides public addresses. The zero value allows nothing more.
type Policy struct {
	// Allow are addresses that may be reached, by whatever name. A metadata service must be listed as a single address.
	Allow []netip.Prefix
	// AllowHosts are names that may be reached wherever they resolve to, a metadata service excepted: in lower case, such as
	// "partner.internal", or "*.partner.internal" for all names below that one. Who answers for such a name in the DNS
	// decides what tenants reach.
	AllowHosts []string
	// PlainHTTP allows URLs with the scheme http.
	PlainHTTP bool
}

// ParsePolicy reads a setting such as "10.1.0.0/16,fd12::7,partner.internal,*.example.org": prefixes, addresses and names,
// separated by commas. An empty text is the zero value.
func ParsePolicy(text string) (Policy, error) {
	var p Policy
	if strings.TrimSpace(text) == "" {
		return p, nil
	}
	for i, entry := range strings.Split(text, ",") {
		entry = strings.TrimSpace(entry)
		if entry == "" {
			return Policy{}, fmt.Errorf("egress: entry %d of %q is empty: remove a comma", i+1, text)
		}
		if err := p.add(entry); err != nil {
			return Policy{}, fmt.Errorf("egress: %q %w", entry, err)
		}
	}
	return p, nil
}

// add takes one entry. Its errors go on after the entry's name.
func (p *Policy) add(entry string) error {
	if strings.Contains(entry, "://") {
		return errors.New("is a URL: write its host only")
	}
	if strings.Contains(entry, "/") {
		prefix, err := netip.ParsePrefix(entry)
		if err != nil {
			return errors.New("is not a prefix such as 10.1.0.0/16")
		}
		p.Allow = append(p.Allow, prefix)
		return checkPrefix(prefix)
	}
	if a, err := netip.ParseAddr(entry); err == nil {
		if a.Zone() != "" {
			return errors.New("has a zone: write it without")
		}
		prefix := netip.PrefixFrom(a, a.BitLen())
		p.Allow = append(p.Allow, prefix)
		return checkPrefix(prefix)
	}
	host := canonicalHost(entry)
	p.AllowHosts = append(p.AllowHosts, host)
	return checkHost(host)
}

// Validate names an entry that allows nothing, or not what it seems to, and says what to write.
func (p Policy) Validate() error {
	for _, prefix := range p.Allow {
		if err := checkPrefix(prefix); err != nil {
			return fmt.Errorf("egress: Policy.Allow: %q %w", prefix, err)
		}
	}
	for _, host := range p.AllowHosts {
		canonical := canonicalHost(host)
		err := checkHost(canonical)
		if err == nil && host != canonical {
			err = fmt.Errorf("is not in lower case, or ends in a dot: write %s", canonical)
		}
		if err != nil {
			return fmt.Errorf("egress: Policy.AllowHosts: %q %w", host, err)
		}
	}
	return nil
}

func checkPrefix(p netip.Prefix) error {
	switch {
	case !p.IsValid():
		return errors.New("is not a prefix such as 10.1.0.0/16")
	case p.Addr().Is4In6(), wellKnownNAT64().Contains(p.Addr()) && p.Bits() >= 48:
		return errors.New("stands for IPv4 addresses, and is judged as those: write them as IPv4")
	case p != p.Masked():
		return fmt.Errorf("has bits beyond its length: write %s", p.Masked())
	}
	return nil
}

// checkHost takes a name in its canonical form.
func checkHost(h string) error {
	name := strings.TrimPrefix(h, "*.")
	if h == "*" {
		return errors.New("is not a name: to allow all addresses, write 0.0.0.0/0,::/0")
	}
	if len(name) > 253 {
		return errors.New("is longer than a name may be: 253 bytes")
	}
	labels := strings.Split(name, ".")
	for _, label := range labels {
		if label == "" || len(label) > 63 || strings.ContainsFunc(label, notInNames) {
			return errors.New("is neither an address, a prefix nor a name: write it without a port, and in ASCII")
		}
	}
	// Names don't end so: it is an address with a mistake, or in a spelling that only some understand.
	last := labels[len(labels)-1]
	if strings.Trim(last, "0123456789") == "" || strings.HasPrefix(last, "0x") {
		return errors.New("ends in a number like an IP address, but is none")
	}
	return nil
}

// notInNames reports a character that no name has; the underscore is in some.
func notInNames(r rune) bool {
	return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' && r != '_'
}

// canonicalHost is the form in which names are compared. That of a request comes in ASCII from net/http.
func canonicalHost(h string) string { return strings.ToLower(strings.TrimSuffix(h, ".")) }

// listsExactly reports whether the address is listed, and not only a prefix that holds it.
func (p Policy) listsExactly(a netip.Addr) bool {
	return slices.Contains(p.Allow, netip.PrefixFrom(a, a.BitLen()))
}

// allows reports whether the address or the name is listed.
func (p Policy) allows(host string, a netip.Addr) bool {
	if slices.ContainsFunc(p.Allow, func(prefix netip.Prefix) bool { return prefix.Contains(a) }) {
		return true
	}
	host = canonicalHost(host)
	return slices.ContainsFunc(p.AllowHosts, func(pattern string) bool {
		below, wildcard := strings.CutPrefix(pattern, "*")
		return pattern == host || wildcard && len(host) > len(below) && strings.HasSuffix(host, below)
	})
}
