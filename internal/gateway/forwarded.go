package gateway

import (
	"fmt"
	"net/http"
	"net/netip"
	"strings"

	"github.com/weir-dev/weir/internal/invoke"
)

// ParseTrustedProxies reads a list such as "10.0.0.0/8, fd00::/8, 192.0.2.7".
func ParseTrustedProxies(text string) ([]netip.Prefix, error) {
	var out []netip.Prefix
	for part := range strings.SplitSeq(text, ",") {
		part = strings.TrimSpace(part)
		if part == "" {
			continue
		}
		p, err := netip.ParsePrefix(part)
		if addr, aerr := netip.ParseAddr(part); aerr == nil {
			p, err = netip.PrefixFrom(addr, addr.BitLen()), nil
		}
		if err != nil {
			return nil, fmt.Errorf("%q: must be addresses and networks, such as 10.0.0.0/8,192.0.2.7", part)
		}
		out = append(out, p.Masked())
	}
	return out, nil
}

// distrust drops what the request says of the hops before it, unless its peer is a trusted proxy: neither functions nor
// attributes may take a client's word for a proxy's.
func (g *Gateway) distrust(r *http.Request) {
	said := false
	for _, name := range forwardedHeaders {
		_, ok := r.Header[name]
		said = said || ok
	}
	if !said || g.trusts(r.RemoteAddr) {
		return
	}
	for _, name := range forwardedHeaders {
		delete(r.Header, name)
	}
}

var forwardedHeaders = invoke.ForwardedHeaders() //nolint:gochecknoglobals // a constant list

func (g *Gateway) trusts(peer string) bool {
	if len(g.cfg.TrustedProxies) == 0 {
		return false
	}
	at, err := netip.ParseAddrPort(peer)
	if err != nil {
		return false
	}
	for _, p := range g.cfg.TrustedProxies {
		if p.Contains(at.Addr().Unmap()) {
			return true
		}
	}
	return false
}
