package egress_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/weir-dev/weir/internal/egress"
)

func TestParsePolicy(t *testing.T) {
	for text, want := range map[string]egress.Policy{
		"":             {},
		"  ":           {},
		"10.1.0.0/16":  {Allow: prefixes("10.1.0.0/16")},
		"10.1.2.3":     {Allow: prefixes("10.1.2.3/32")},
		"fd12::7":      {Allow: prefixes("fd12::7/128")},
		"0.0.0.0/0":    {Allow: prefixes("0.0.0.0/0")},
		"::/0":         {Allow: prefixes("::/0")},
		"localhost":    {AllowHosts: []string{"localhost"}},
		"Partner.COM.": {AllowHosts: []string{"partner.com"}},
		"*.Internal":   {AllowHosts: []string{"*.internal"}},
		"a_b.x-1.1a":   {AllowHosts: []string{"a_b.x-1.1a"}},
		" 10.1.0.0/16 , partner.internal,*.example.org, fd00::/8": {
			Allow: prefixes("10.1.0.0/16", "fd00::/8"), AllowHosts: []string{"partner.internal", "*.example.org"},
		},
	} {
		got, err := egress.ParsePolicy(text)
		if err != nil || !slices.Equal(got.Allow, want.Allow) || !slices.Equal(got.AllowHosts, want.AllowHosts) || got.PlainHTTP {
			t.Errorf("%q: got %+v, %v", text, got, err)
		}
		if _, err := egress.New(egress.Config{Policy: got}); err != nil {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestParsePolicyMistakes(t *testing.T) {
	for _, row := range []struct{ text, entry, says string }{
		{"10.0.0.1,,a", "entry 2", "empty"},
		{"a,", "entry 2", "empty"},
		{",", "entry 1", "empty"},
		{"ok.example, 10.1.2.3/16", "10.1.2.3/16", "write 10.1.0.0/16"},
		{"10.1.0.0/33", "10.1.0.0/33", "not a prefix"},
		{"10.1.0.0/", "10.1.0.0/", "not a prefix"},
		{"10.1/16", "10.1/16", "not a prefix"},
		{"fd12::1/16", "fd12::1/16", "write fd12::/16"},
		{"::ffff:10.0.0.0/104", "::ffff:10.0.0.0/104", "as IPv4"},
		{"::ffff:10.0.0.1", "::ffff:10.0.0.1", "as IPv4"},
		{"64:ff9b::a00:1", "64:ff9b::a00:1", "as IPv4"},
		{"64:ff9b::/96", "64:ff9b::/96", "as IPv4"},
		{"fe80::1%eth0", "fe80::1%eth0", "zone"},
		{"10.0.0.256", "10.0.0.256", "ends in a number"},
		{"10.0.1", "10.0.1", "ends in a number"},
		{"2130706433", "2130706433", "ends in a number"},
		{"0x7f000001", "0x7f000001", "ends in a number"},
		{"https://partner.internal/x", "https://partner.internal/x", "URL"},
		{"partner.internal/x", "partner.internal/x", "not a prefix"},
		{"partner.internal:443", "partner.internal:443", "without a port"},
		{"10.0.0.1:443", "10.0.0.1:443", "without a port"},
		{"[::1]", "[::1]", "neither"},
		{"*", `"*"`, "0.0.0.0/0,::/0"},
		{"*.", `"*."`, "0.0.0.0/0,::/0"},
		{"*..", `"*.."`, "neither"},
		{".", `"."`, "neither"},
		{"a.*.b", "a.*.b", "neither"},
		{"*a.b", "*a.b", "neither"},
		{"a..b", "a..b", "neither"},
		{"a..", "a..", "neither"},
		{".a", ".a", "neither"},
		{"a b", "a b", "neither"},
		{"bücher.example", "bücher.example", "ASCII"},
		{strings.Repeat("a", 64) + ".b", "aaa", "neither"},
		{strings.Repeat("a.", 127) + "b", "a.a", "longer"},
	} {
		p, err := egress.ParsePolicy(row.text)
		if err == nil || !strings.Contains(err.Error(), row.entry) || !strings.Contains(err.Error(), row.says) {
			t.Errorf("%q: got %+v, %v", row.text, p, err)
		}
	}
}

func TestPolicyValidate(t *testing.T) {
	for _, p := range []egress.Policy{
		{Allow: []netip.Prefix{{}}},
		{Allow: []netip.Prefix{netip.PrefixFrom(netip.MustParseAddr("10.1.2.3"), 8)}},
		{Allow: prefixes("::ffff:10.0.0.0/104")},
		{AllowHosts: []string{""}},
		{AllowHosts: []string{"Partner.internal"}},
		{AllowHosts: []string{"partner.internal."}},
		{AllowHosts: []string{"10.0.0.1"}},
		{AllowHosts: []string{"*"}},
	} {
		if _, err := egress.New(egress.Config{Policy: p}); err == nil || !strings.Contains(err.Error(), "Policy.Allow") {
			t.Errorf("%+v: got %v", p, err)
		}
	}
}

func TestAllowHosts(t *testing.T) {
	g := newGuard(t, "partner.internal,*.example.org", nil)
	private := netip.MustParseAddr("10.0.0.1")
	for host, want := range map[string]bool{
		"partner.internal": true, "partner.internal.": true, "PARTNER.internal": true, "a.partner.internal": false, "xpartner.internal": false,
		"partner.internal.evil.com": false, "a.example.org": true, "a.b.Example.Org": true, "a.example.org.": true, "example.org": false,
		".example.org": false, "xexample.org": false, "a.example.org.evil.com": false, "": false, "10.0.0.1": false,
	} {
		if err := g.CheckAddress(host, private); (err == nil) != want {
			t.Errorf("%q: got %v", host, err)
		}
		if err := g.CheckAddress(host, netip.MustParseAddr("169.254.169.254")); err == nil {
			t.Errorf("%q leads to a metadata service", host)
		}
	}
}

func FuzzParsePolicy(f *testing.F) {
	f.Add("10.1.0.0/16,partner.internal,*.example.org")
	f.Add("A000000000..")
	f.Add("::ffff:1.2.3.4,64:ff9b::/96,fe80::1%a,,*")
	f.Fuzz(func(t *testing.T, text string) {
		p, err := egress.ParsePolicy(text)
		if err != nil {
			return
		}
		if _, err := egress.New(egress.Config{Policy: p}); err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		// What it allows can be written, and is read as the same.
		var entries []string
		for _, prefix := range p.Allow {
			entries = append(entries, fmt.Sprint(prefix))
		}
		again, err := egress.ParsePolicy(strings.Join(append(entries, p.AllowHosts...), ","))
		if err != nil || !slices.Equal(p.Allow, again.Allow) || !slices.Equal(p.AllowHosts, again.AllowHosts) {
			t.Fatalf("%q: %+v, then %+v, %v", text, p, again, err)
		}
	})
}

func prefixes(texts ...string) (all []netip.Prefix) {
	for _, text := range texts {
		all = append(all, netip.MustParsePrefix(text))
	}
	return all
}
