package testkit

import (
	"context"
	"sync"
	"testing"

	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/ledger"
	"github.com/weir-dev/weir/internal/stream"
)

// OwnStates makes the test the owner of the states of queue k's jobs, as a dispatcher is, until it ends or calls the
// function that is returned.
func OwnStates(t testing.TB, c *stream.Conn, k catalog.Key) (leave func()) {
	t.Helper()
	owner, err := ledger.Open(t.Context(), c, k, Log(t))
	if err != nil {
		t.Fatal(err)
	}
	stop, err := owner.Jobs(c).Serve(func() bool { return true })
	if err != nil {
		t.Fatal(err)
	}
	leave = sync.OnceFunc(func() {
		stop()
		ctx, cancel := context.WithTimeout(context.Background(), Patience)
		defer cancel()
		owner.Close(ctx)
	})
	t.Cleanup(leave)
	return leave
}
