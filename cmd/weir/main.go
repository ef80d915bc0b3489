// Command weir runs everything on a laptop (`weir local`) and is the operator's tool (`weir dlq`); `weir trace` shows where
// the time went.
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
		os.Exit(1)
	}
}
