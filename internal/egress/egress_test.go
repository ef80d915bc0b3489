package egress_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/net/dns/dnsmessage"

	"github.com/weir-dev/weir/internal/egress"
)

// A proxy that nobody reaches is in the environment from the start, since net/http reads it once: see TestProxy.
func TestMain(m *testing.M) {
	for _, name := range []string{"HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"} {
		os.Setenv(name, "http://192.0.2.1:1")
	}
	goleak.VerifyTestMain(m)
}

// newGuard returns a guard with the policy of the text, which allows plain HTTP, and the name server's answers.
func newGuard(t *testing.T, policy string, names *nameServer) *egress.Guard {
	t.Helper()
	p, err := egress.ParsePolicy(policy)
	if err != nil {
		t.Fatal(err)
	}
	p.PlainHTTP = true
	c := egress.Config{Policy: p}
	if names != nil {
		c.Resolver = names.resolver()
	}
	g, err := egress.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func newClient(t *testing.T, g *egress.Guard) *http.Client {
	t.Helper()
	c := g.Client()
	t.Cleanup(c.CloseIdleConnections)
	return c
}

// counter is a server on 127.0.0.1 that counts its requests. /to?URL redirects.
type counter struct {
	*httptest.Server
	requests atomic.Int64
}

func newCounter(t *testing.T) *counter {
	t.Helper()
	c := new(counter)
	c.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c.requests.Add(1)
		if r.URL.Path == "/to" {
			http.Redirect(w, r, r.URL.RawQuery, http.StatusFound)
		}
	}))
	t.Cleanup(c.Close)
	return c
}

// at is the server's URL with another host.
func (c *counter) at(host string) string {
	return "http://" + host + ":" + c.URL[strings.LastIndex(c.URL, ":")+1:]
}

type answer struct {
	status   int
	http2    bool
	location string
	body     string
}

func get(t *testing.T, c *http.Client, address string) (answer, error) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := c.Do(r)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return answer{status: resp.StatusCode, http2: resp.ProtoMajor == 2, location: resp.Header.Get("Location"), body: string(body)}, err
}

// nameServer answers every question for IPv4 addresses with the answers, one after the other and from the start again.
type nameServer struct {
	answers [][]string
	next    atomic.Int64
}

func (n *nameServer) resolver() *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		if len(n.answers) == 0 {
			return nil, errors.New("there is no name server")
		}
		ours, theirs := net.Pipe()
		go func() {
			defer ours.Close()
			n.serve(ours)
		}()
		return theirs, nil
	}}
}

// serve answers as over TCP, with lengths, until the other end closes.
func (n *nameServer) serve(c net.Conn) {
	for {
		var size [2]byte
		if _, err := io.ReadFull(c, size[:]); err != nil {
			return
		}
		query := make([]byte, binary.BigEndian.Uint16(size[:]))
		if _, err := io.ReadFull(c, query); err != nil {
			return
		}
		var m dnsmessage.Message
		if err := m.Unpack(query); err != nil || len(m.Questions) != 1 {
			return
		}
		m.Response, m.RecursionAvailable, m.Additionals = true, true, nil
		if q := m.Questions[0]; q.Type == dnsmessage.TypeA {
			answer := n.answers[int(n.next.Add(1)-1)%len(n.answers)]
			for _, a := range answer {
				m.Answers = append(m.Answers, dnsmessage.Resource{
					Header: dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class},
					Body:   &dnsmessage.AResource{A: netip.MustParseAddr(a).As4()},
				})
			}
		}
		packed, err := m.Pack()
		if err != nil {
			return
		}
		if _, err := c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(packed))), packed...)); err != nil {
			return
		}
	}
}

func TestLocalhostIsRefused(t *testing.T) {
	s := newCounter(t)
	for _, policy := range []string{"", "10.0.0.0/8", "127.1.0.0/16,::/128,*.localhost,local", "host.localhost"} {
		_, err := get(t, newClient(t, newGuard(t, policy, nil)), s.at("localhost"))
		var forbidden *egress.ForbiddenError
		var outer *url.Error
		if !errors.As(err, &forbidden) || !errors.As(err, &outer) {
			t.Fatalf("%q: got %v", policy, err)
		}
		if forbidden.Host != "localhost" || !forbidden.Address.IsLoopback() || !strings.HasPrefix(forbidden.Reason, "loopback") {
			t.Errorf("%q: got %+v", policy, forbidden)
		}
	}
	if n := s.requests.Load(); n != 0 {
		t.Errorf("%d requests came", n)
	}
}

func TestLocalhostIsAllowed(t *testing.T) {
	s := newCounter(t)
	for _, policy := range []string{"127.0.0.1", "127.0.0.1/32", "127.0.0.0/8", "localhost", "LOCALHOST.", "::/0,0.0.0.0/0"} {
		got, err := get(t, newClient(t, newGuard(t, policy, nil)), s.at("localhost"))
		if err != nil || got.status != http.StatusOK {
			t.Errorf("%q: got %v, %v", policy, got, err)
		}
	}
	if n := s.requests.Load(); n != 6 {
		t.Errorf("%d requests came", n)
	}
}

// A name that a check finds harmless and that has another answer when it is dialed.
func TestRebinding(t *testing.T) {
	s := newCounter(t)
	names := &nameServer{answers: [][]string{{"93.184.216.34"}, {"127.0.0.1"}}}
	g := newGuard(t, "", names)
	checked, err := names.resolver().LookupNetIP(t.Context(), "ip4", "rebinding.example.")
	if err != nil || len(checked) != 1 {
		t.Fatalf("got %v, %v", checked, err)
	}
	if err := g.CheckAddress("rebinding.example.", checked[0]); err != nil {
		t.Fatal(err)
	}
	_, err = get(t, newClient(t, g), s.at("rebinding.example."))
	var forbidden *egress.ForbiddenError
	if !errors.As(err, &forbidden) || forbidden.Host != "rebinding.example." || forbidden.Address != netip.MustParseAddr("127.0.0.1") {
		t.Errorf("got %v", err)
	}
	if n := s.requests.Load(); n != 0 {
		t.Errorf("%d requests came", n)
	}
}

func TestNamesWithSeveralAddresses(t *testing.T) {
	s := newCounter(t)
	names := &nameServer{answers: [][]string{{"127.0.0.2", "10.0.0.1", "127.0.0.1", "169.254.169.254"}}}
	if got, err := get(t, newClient(t, newGuard(t, "127.0.0.1", names)), s.at("several.example.")); err != nil || got.status != http.StatusOK {
		t.Errorf("one that is allowed: %v, %v", got, err)
	}
	var forbidden *egress.ForbiddenError
	if _, err := get(t, newClient(t, newGuard(t, "", names)), s.at("several.example.")); !errors.As(err, &forbidden) {
		t.Errorf("none that is allowed: %v", err)
	}
	// A name that is allowed does not lead to a metadata service.
	names = &nameServer{answers: [][]string{{"169.254.169.254"}}}
	if _, err := get(t, newClient(t, newGuard(t, "several.example", names)), s.at("several.example.")); !errors.As(err, &forbidden) || !strings.Contains(forbidden.Reason, "metadata") {
		t.Errorf("got %v", err)
	}
	if n := s.requests.Load(); n != 1 {
		t.Errorf("%d requests came", n)
	}
}

func TestRedirects(t *testing.T) {
	s := newCounter(t)
	names := &nameServer{answers: [][]string{{"127.0.0.1"}}}
	client := newClient(t, newGuard(t, "partner.example,*.partner.example", names))
	got, err := get(t, client, s.at("partner.example.")+"/to?"+s.URL)
	if err != nil || got.status != http.StatusFound || got.location != s.URL {
		t.Errorf("not following: %v, %v", got, err)
	}

	client.CheckRedirect = nil
	if got, err := get(t, client, s.at("partner.example.")+"/to?"+s.at("a.partner.example.")); err != nil || got.status != http.StatusOK {
		t.Errorf("following to what is allowed: %v, %v", got, err)
	}
	before := s.requests.Load()
	targets := []string{
		s.URL, s.at("other.example."), s.at("user:secret@partner.example."), s.at("[::ffff:127.0.0.1]"), "http://169.254.169.254/latest/meta-data/",
		"ftp://partner.example/", "file:///etc/passwd", "gopher://127.0.0.1/",
	}
	for _, target := range targets {
		var forbidden *egress.ForbiddenError
		if _, err := get(t, client, s.at("partner.example.")+"/to?"+target); !errors.As(err, &forbidden) {
			t.Errorf("%s: got %v", target, err)
		}
	}
	if n := s.requests.Load() - before; n != int64(len(targets)) {
		t.Errorf("%d requests came, not the %d that were redirected", n, len(targets))
	}
}

// See TestMain: a transport that takes proxies from the environment would fail to reach this one's.
func TestProxy(t *testing.T) {
	s := newCounter(t)
	names := &nameServer{answers: [][]string{{"127.0.0.1"}}}
	if got, err := get(t, newClient(t, newGuard(t, "partner.example", names)), s.at("partner.example.")); err != nil || got.status != http.StatusOK {
		t.Errorf("got %v, %v", got, err)
	}
	if s.requests.Load() != 1 {
		t.Error("no request came")
	}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.at("partner.example."), nil)
	if err != nil {
		t.Fatal(err)
	}
	if proxy, err := http.ProxyFromEnvironment(r); err != nil || proxy == nil {
		t.Errorf("this test proves nothing: %v, %v", proxy, err)
	}
}

func TestCheckURL(t *testing.T) {
	https, err := egress.New(egress.Config{})
	if err != nil {
		t.Fatal(err)
	}
	http := newGuard(t, "10.1.0.0/16,partner.internal", nil)
	for _, row := range []struct {
		url    string
		g      *egress.Guard
		reason string // empty if it passes
	}{
		{"https://example.com", https, ""},
		{"https://example.com:8443/a?b=c#d", https, ""},
		{"https://partner.internal", https, ""}, // dialing it may fail
		{"https://93.184.216.34/", https, ""},
		{"https://[2606:2800:220:1::1]:443/", https, ""},
		{"https://[64:ff9b::5db8:d822]/", https, ""},
		{"http://example.com", https, "plain HTTP"},
		{"http://example.com", http, ""},
		{"HTTP://example.com", http, ""},
		{"ftp://example.com", http, "scheme"},
		{"file:///etc/passwd", http, "scheme"},
		{"//example.com/", http, "scheme"},
		{"example.com", http, "scheme"},
		{"", http, "scheme"},
		{"https://user@example.com", http, "user name"},
		{"https://user:secret@example.com", http, "user name"},
		{"https://@example.com", http, "user name"},
		{"https:example.com", http, "no host"},
		{"https:///path", http, "no host"},
		{"https://:443/", http, "no host"},
		{"https://10.1.2.3/", http, ""},
		{"https://[::ffff:10.1.2.3]/", http, ""},
		{"https://10.2.2.3/", http, "private"},
		{"https://127.0.0.1:6443/", http, "loopback"},
		{"https://[::1]/", http, "loopback"},
		{"https://[::ffff:127.0.0.1]/", http, "loopback"},
		{"https://[::ffff:7f00:1]/", http, "loopback"},
		{"https://[64:ff9b::7f00:1]/", http, "loopback"},
		{"https://[fe80::1%25eth0]/", http, "link-local"},
		{"https://0.0.0.0/", http, "this network"},
		{"https://[::]/", http, "unspecified"},
		{"http://169.254.169.254/latest/meta-data/", http, "metadata"},
		{"http://[fd00:ec2::254]/", http, "metadata"},
	} {
		u, err := url.Parse(row.url)
		if err != nil {
			t.Fatal(err)
		}
		err = row.g.CheckURL(u)
		var forbidden *egress.ForbiddenError
		switch {
		case row.reason == "" && err != nil:
			t.Errorf("%s: %v", row.url, err)
		case row.reason != "" && (!errors.As(err, &forbidden) || !strings.Contains(forbidden.Reason, row.reason) || forbidden.Host != u.Hostname()):
			t.Errorf("%s: got %v, not %s", row.url, err, row.reason)
		case err != nil && strings.Contains(err.Error(), "secret"):
			t.Errorf("%s: %v", row.url, err)
		}
	}
}

// What net/url takes for a name, others take for 127.0.0.1: whatever becomes of it, nothing is sent.
func TestOddSpellings(t *testing.T) {
	s := newCounter(t)
	g := newGuard(t, "", new(nameServer))
	for _, host := range []string{
		"127.1", "127.0.1", "2130706433", "0x7f000001", "0x7f.0.0.1", "0177.0.0.1", "127.0.0.1.", "127.000.000.001", "0",
		"１２７.0.0.1", "127。0。0。1", "①②⑦.0.0.1", "[0:0:0:0:0:ffff:127.0.0.1]", "[0::1]", "[::127.0.0.1]", "localhost", "LOCALHOST", "localhost.",
	} {
		if got, err := get(t, newClient(t, g), s.at(host)); err == nil {
			t.Errorf("%s: got %+v", host, got)
		}
	}
	if n := s.requests.Load(); n != 0 {
		t.Errorf("%d requests came", n)
	}
}

func TestTransport(t *testing.T) {
	newServer := func(change func(*httptest.Server)) (*http.Client, string) {
		s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/large" {
				w.Header().Set("Large", strings.Repeat("x", 100<<10))
			}
			fmt.Fprint(w, r.Header.Get("Accept-Encoding")) // there is none
		}))
		s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
		change(s)
		s.StartTLS()
		t.Cleanup(s.Close)
		roots := x509.NewCertPool()
		roots.AddCert(s.Certificate())
		g, err := egress.New(egress.Config{Policy: egress.Policy{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}}, RootCAs: roots})
		if err != nil {
			t.Fatal(err)
		}
		return newClient(t, g), s.URL
	}
	for _, http2 := range []bool{false, true} {
		client, address := newServer(func(s *httptest.Server) { s.EnableHTTP2 = http2 })
		got, err := get(t, client, address)
		if err != nil || got.http2 != http2 || got.body != "" {
			t.Errorf("HTTP/2 %t: got %v, %v", http2, got, err)
		}
		if got, err := get(t, client, address+"/large"); err == nil {
			t.Errorf("HTTP/2 %t: a large header: got %+v", http2, got)
		}
	}
	client, address := newServer(func(s *httptest.Server) {
		s.TLS = &tls.Config{MaxVersion: tls.VersionTLS11, MinVersion: tls.VersionTLS10}
	})
	if got, err := get(t, client, address); err == nil {
		t.Errorf("TLS 1.1: got %+v", got)
	}
}

type closing struct {
	io.Reader
	closed bool
}

func (c *closing) Close() error {
	c.closed = true
	return nil
}

func TestTransportClosesBodies(t *testing.T) {
	body := &closing{Reader: strings.NewReader("x")}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://127.0.0.1/", body)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := newGuard(t, "", nil).Transport().RoundTrip(r)
	if err == nil {
		resp.Body.Close()
	}
	if err == nil || !body.closed {
		t.Errorf("got %v, closed %t", err, body.closed)
	}
}

func ExampleGuard() {
	policy, err := egress.ParsePolicy("10.1.0.0/16,partner.internal")
	if err != nil {
		panic(err)
	}
	guard, err := egress.New(egress.Config{Policy: policy})
	if err != nil {
		panic(err)
	}
	resp, err := guard.Client().Get("https://10.2.0.1/")
	if err == nil {
		resp.Body.Close()
	}
	if forbidden, ok := errors.AsType[*egress.ForbiddenError](err); ok {
		fmt.Println(forbidden)
	}
	// Output:
	// egress: "10.2.0.1" is refused: private (RFC 1918)
}
