package gateway_test

import (
	"crypto/rand"
	"strings"
	"testing"

	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/testkit"
)

// TestTooLargeForNATSIsRefusedForGood has a server whose max_payload is below what a route allows.
func TestTooLargeForNATSIsRefusedForGood(t *testing.T) {
	f := start(t, nil, func(c *catalog.Catalog) {
		c.APIs[0].Routes[0].MaxBodyBytes, c.APIs[0].Routes[0].Schema = 300<<10, nil
	})
	if shown, err := f.g.Ready(); err != nil || shown["maxPayload"] != "" {
		t.Errorf("%v, %v", shown, err)
	}
	f.nats.Stop()
	f.natsCfg.MaxPayload = 256 << 10
	testkit.NATSIn(t, f.natsCfg)
	testkit.Eventually(t, "it is ready, and says what NATS takes", func() bool {
		shown, err := f.g.Ready()
		return err == nil && shown["maxPayload"] == "262144"
	})
	body := make([]byte, 300<<10)
	_, _ = rand.Read(body)
	r := f.do("POST", "/orders", string(body))
	if r.status != 413 || !strings.Contains(string(r.body), "max_payload") || !strings.Contains(string(r.body), "Nothing was stored") || r.header.Get("Retry-After") != "" {
		t.Errorf("%d %s", r.status, r.body)
	}
	if s, err := f.conn.Status(t.Context(), key("orders")); err != nil || !s.Empty() {
		t.Errorf("%+v, %v", s, err)
	}
	if r := f.do("POST", "/orders", string(body[:200<<10])); r.status != 202 {
		t.Errorf("what fits: %d %s", r.status, r.body)
	}
}
