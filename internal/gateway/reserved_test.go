package gateway

import (
	"testing"

	"github.com/weir-dev/weir/api/v1alpha1"
)

// TestReserved: what API routes can't have is what the gateway answers itself.
func TestReserved(t *testing.T) {
	for _, path := range []string{
		"/", "/healthz", "/readyz", "/jobs", "/jobs/", "/jobs/a/events", "/callbacks", "/callbacks/a", "/objects", "/objects/a", "/uploads", "/uploads/", "/uploads/a",
		"/feeds", "/feeds/", "/feeds/a/socket", "/feedsa", "/orders",
	} {
		probe := path == "/healthz" || path == "/readyz"
		if got := reserved(path) || probe; got != v1alpha1.Reserved(path) {
			t.Errorf("%s: %t", path, got)
		}
	}
}
