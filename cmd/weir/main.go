// Command weir runs everything on a laptop (`weir local`), finds the mistakes of resources before they are applied (`weir lint`),
// is the operator's tool (`weir queue`, `weir mapping`, `weir dlq`), shows where the time went (`weir trace`), tests state machines
// (`weir sm`), makes metrics of what functions print (`weir emf`) and moves all streams to another NATS (`weir nats`).
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends the process at once
	root := newRoot()
	if err := root.ExecuteContext(ctx); err != nil {
		root.PrintErrln("weir:", err)
		stop()
		os.Exit(exitCode(err))
	}
}
