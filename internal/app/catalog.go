package app

import (
	"context"

	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/lifecycle"
	"github.com/weir-dev/weir/internal/sign"
	"github.com/weir-dev/weir/internal/stream"
)

// WatchCatalog returns the part that hands the published catalog, and every later one, to use.
func WatchCatalog(conn stream.Catalogs, use func(*catalog.Catalog)) lifecycle.Part {
	return lifecycle.Part{Name: "catalog", Run: func(ctx context.Context, ready func()) error {
		ready()
		return conn.WatchCatalog(ctx, use)
	}}
}

// WatchKeys returns the part that passes the signing keys to use, now and whenever they change. It is ready
// with the first ones.
func WatchKeys(conn stream.Keys, use func(sign.Ring)) lifecycle.Part {
	return lifecycle.Part{Name: "keys", Run: func(ctx context.Context, ready func()) error {
		return conn.WatchKeys(ctx, func(ring sign.Ring) {
			use(ring)
			ready()
		})
	}}
}
