// Command controller is the service of that name; see internal/controller. `controller move` is `weir nats move` by itself,
// for the chart's Job; see internal/app/move.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/weir-dev/weir/internal/app"
	"github.com/weir-dev/weir/internal/app/controller"
	"github.com/weir-dev/weir/internal/app/move"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == "move" {
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
		code := move.Main(ctx, os.Args[2:])
		stop()
		os.Exit(code)
	}
	os.Exit(app.Main("controller", controller.PingInterval, controller.Run))
}
