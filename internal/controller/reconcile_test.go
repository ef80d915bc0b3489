package controller

import (
	"strings"
	"testing"

	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/manifest"
	"github.com/weir-dev/weir/internal/stream"
)

// TestTooLargeIsRefusedAlone: the API of a route that fits into no message is named, once, and what was refused before stays.
func TestTooLargeIsRefusedAlone(t *testing.T) {
	shop, orders := catalog.Key{Namespace: "default", Name: "shop"}, catalog.Key{Namespace: "default", Name: "orders"}
	refused := map[manifest.Ref]manifest.Verdict{manifest.QueueRef(orders): {Reason: reasonNoRoom}}
	large := &stream.EntriesTooLargeError{Limit: 100, Entries: []stream.LargeEntry{
		{Key: "queue.default.orders", Bytes: 200}, {Key: "route.default.shop.create", Bytes: 300}, {Key: "route.default.shop.more", Bytes: 400},
	}}
	if !refuseLarge(refused, large) {
		t.Error("nothing is refused")
	}
	v := refused[manifest.APIRef(shop)]
	if len(refused) != 2 || refused[manifest.QueueRef(orders)].Reason != reasonNoRoom || v.Reason != reasonTooLarge {
		t.Errorf("refused are %+v", refused)
	}
	for _, want := range []string{"route.default.shop.create", "300 bytes", "100"} {
		if !strings.Contains(v.Message, want) {
			t.Errorf("the message lacks %q: %s", want, v.Message)
		}
	}
	if refuseLarge(refused, large) {
		t.Error("the same is refused again: it would go on for ever")
	}
}
