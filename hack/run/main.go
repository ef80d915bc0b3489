// Command run is `make run`: a private PostgreSQL and PgBouncer, and `weir
// local` with the orders sample, from a checkout, until Ctrl-C.
//
//	go run ./hack/run          start, and stop on Ctrl-C
//	go run ./hack/run -clean   remove .weir, where all of it keeps its data
//
// Shutdown follows the data flow: weir is drained first, then PgBouncer stops, then PostgreSQL. If this process is
// killed, the kernel ends the three of them (on Linux), and the next start cleans up.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	clean := flag.Bool("clean", false, "remove the data of this checkout's runs")
	flag.Parse()

	// A second Ctrl-C doesn't wait for the drain: see child.stop.
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)

	r, err := newRunner(os.Stdout, signals)
	if err == nil {
		if *clean {
			err = r.clean()
		} else {
			err = r.run(context.Background())
		}
	}
	switch {
	case err == nil:
	case errors.Is(err, errInterrupted):
		fmt.Println("\nStopped before it was ready.")
		os.Exit(130)
	default:
		fmt.Fprintf(os.Stderr, "\nmake run: %v\n", err)
		os.Exit(1)
	}
}
