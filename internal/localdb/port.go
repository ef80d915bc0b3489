package localdb

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
)

const (
	loopback = "127.0.0.1"

	// Ports are chosen below the ephemeral range (from 32768 on Linux, 49152 on macOS): a server that is stopped for a
	// test finds its port free again.
	firstPort, lastPort = 20000, 32000
	portAttempts        = 50
)

// FreePort returns a port on 127.0.0.1 that was free a moment ago and is outside the ephemeral range: it can be taken
// later, and again after a restart. It is none of others, ports chosen already and not taken yet.
func FreePort(ctx context.Context, others ...int) (int, error) {
	for range portAttempts {
		port := firstPort + rand.IntN(lastPort-firstPort)
		if !slices.Contains(others, port) && portFree(ctx, port) {
			return port, nil
		}
	}
	return 0, errors.New("localdb: found no free port on " + loopback)
}

// choosePort returns the fixed port, else the last one if it is free, else
// any free one but other.
func choosePort(ctx context.Context, fixed, last, other int) (int, error) {
	if fixed != 0 {
		if !portFree(ctx, fixed) {
			return 0, fmt.Errorf("localdb: port %d on %s is taken: choose another, or 0 for a free one", fixed, loopback)
		}
		return fixed, nil
	}
	if last != 0 && last != other && portFree(ctx, last) {
		return last, nil
	}
	return FreePort(ctx, other)
}

// portFree reports whether one can listen on the port now. Another process may take it first; startPostgres and
// startPgBouncer then try again.
func portFree(ctx context.Context, port int) bool {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", net.JoinHostPort(loopback, strconv.Itoa(port)))
	if err != nil {
		return false
	}
	return listener.Close() == nil
}
