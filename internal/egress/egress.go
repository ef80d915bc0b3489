// Package egress guards outgoing HTTP requests whose address a tenant chooses, such as a state machine's http:invoke, against
// server-side request forgery: by default they reach public unicast addresses only.
//
// Invariants: what is judged is the address that is dialed, for every connection, so a name that resolves differently from one
// time to the next does no harm, and a redirect is judged as any request; nothing is sent to an address that is refused; no
// proxy dials for us; a cloud's metadata service is refused unless exactly its address is allowed; all forms of one IPv4
// address (IPv4-mapped, NAT64's well-known prefix) are judged alike.
//
// What it can't see: what a public address forwards to, such as a NAT64 with a prefix of its own or a load balancer of the
// same cluster. A NetworkPolicy guards that.
//
// The files: egress.go (URLs, dials, the client), policy.go (what an operator allows), addresses.go (what is refused).
//
// May import: the standard library only.
package egress

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"syscall"
	"time"
)

// Bounds of a Transport. The request's context bounds the whole; who reads an answer's body bounds its length.
const (
	dialTimeout      = 10 * time.Second // of the name's lookup and all its addresses together
	handshakeTimeout = 10 * time.Second
	idleTimeout      = 30 * time.Second
	maxIdle          = 100
	maxIdlePerHost   = 4
	maxHeaderBytes   = 64 << 10
)

// ForbiddenError says what the guard refused and why. Nothing was sent, and trying again does not help.
//
// Its text names the address that a name resolved to. That is for operators: a tenant who is told it learns what internal
// names exist.
type ForbiddenError struct {
	Host    string     // as in the URL; empty if it has none
	Address netip.Addr // what would have been dialed; the zero value if the URL itself was refused
	Reason  string
}

// Error implements error.
func (e *ForbiddenError) Error() string {
	switch {
	case e.Host == "":
		return "egress: the URL is refused: " + e.Reason
	case !e.Address.IsValid() || e.Address.String() == e.Host:
		return fmt.Sprintf("egress: %q is refused: %s", e.Host, e.Reason)
	}
	return fmt.Sprintf("egress: %q at %s is refused: %s", e.Host, e.Address, e.Reason)
}

// Config is a Guard's configuration.
type Config struct {
	Policy   Policy
	RootCAs  *x509.CertPool // that servers' certificates are checked by; nil for the system's
	Resolver *net.Resolver  // nil for the system's
}

// Guard judges URLs and addresses. It is safe for concurrent use.
type Guard struct {
	config   Config
	reserved []block
	metadata []netip.Addr
}

// New returns a guard that keeps to the policy.
func New(c Config) (*Guard, error) {
	if err := c.Policy.Validate(); err != nil {
		return nil, err
	}
	return &Guard{config: c, reserved: reservedBlocks(), metadata: metadataServices()}, nil
}

// CheckURL refuses, with a *ForbiddenError, a URL that can't be meant: to say so early and clearly. A host that is not spelled
// as an IP address passes, also if it resolves to one that is refused: dialing it fails.
func (g *Guard) CheckURL(u *url.URL) error {
	host := u.Hostname()
	refused := func(reason string) error { return &ForbiddenError{Host: host, Reason: reason} }
	switch {
	case u.Scheme == "http" && !g.config.Policy.PlainHTTP:
		return refused("plain HTTP is not allowed: use https")
	case u.Scheme != "http" && u.Scheme != "https":
		return refused("its scheme is not https")
	case u.User != nil:
		return refused("it holds a user name: credentials go into a header")
	case host == "" || u.Opaque != "":
		return refused("it has no host")
	}
	if a, err := netip.ParseAddr(host); err == nil {
		return g.CheckAddress(host, a)
	}
	return nil
}

// CheckAddress refuses, with a *ForbiddenError, to dial the address for the host of a URL.
func (g *Guard) CheckAddress(host string, a netip.Addr) error {
	if reason := g.refusal(host, a); reason != "" {
		return &ForbiddenError{Host: host, Address: a.Unmap(), Reason: reason}
	}
	return nil
}

// Client returns a client that does not follow redirects: their answers are returned as they are.
// With a CheckRedirect of the caller's it follows them, and each is judged as any request. It has a Transport of its own:
// make one and keep it.
func (g *Guard) Client() *http.Client {
	return &http.Client{
		Transport:     g.Transport(),
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// Transport sends requests that the guard allows. Nobody outside can put a dialer or a proxy of theirs into it.
type Transport struct {
	guard *Guard
	http  *http.Transport
}

// Transport returns a transport, with idle connections of its own, to wrap into what the caller needs besides.
func (g *Guard) Transport() *Transport {
	return &Transport{guard: g, http: &http.Transport{
		Proxy:                  nil, // TestProxy
		DialContext:            g.dial,
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: g.config.RootCAs},
		TLSHandshakeTimeout:    handshakeTimeout,
		ForceAttemptHTTP2:      true, // or a dialer and a TLS configuration turn it off
		MaxIdleConns:           maxIdle,
		MaxIdleConnsPerHost:    maxIdlePerHost,
		IdleConnTimeout:        idleTimeout,
		MaxResponseHeaderBytes: maxHeaderBytes,
		ExpectContinueTimeout:  time.Second,
		DisableCompression:     true, // a small answer must not become a large one
	}}
}

// RoundTrip implements http.RoundTripper.
func (t *Transport) RoundTrip(r *http.Request) (*http.Response, error) {
	if err := t.guard.CheckURL(r.URL); err != nil {
		if r.Body != nil {
			r.Body.Close() // as a RoundTripper must
		}
		return nil, err
	}
	return t.http.RoundTrip(r)
}

// CloseIdleConnections does what http.Client's asks for.
func (t *Transport) CloseIdleConnections() { t.http.CloseIdleConnections() }

// dial judges each address that the name has, after the lookup and before a packet goes out: a check any earlier is one that a
// name's next answer gets around (TestRebinding). An address that is refused does not hinder the name's others.
func (g *Guard) dial(ctx context.Context, network, address string) (net.Conn, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	d := net.Dialer{
		Timeout:  dialTimeout,
		Resolver: g.config.Resolver,
		ControlContext: func(_ context.Context, _, remote string, _ syscall.RawConn) error {
			a, err := netip.ParseAddrPort(remote)
			if err != nil {
				return &ForbiddenError{Host: host, Reason: fmt.Sprintf("%q is not an IP address", remote)}
			}
			return g.CheckAddress(host, a.Addr())
		},
	}
	return d.DialContext(ctx, network, address)
}
