// Command controller is the service of that name; see internal/controller. For the chart's Jobs `controller move` is
// `weir nats move` by itself (internal/app/move), and `controller uninstalled` says in the statuses that the release is no more.
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
	commands := map[string]func(context.Context, []string) int{"move": move.Main, "uninstalled": controller.Uninstalled}
	if len(os.Args) > 1 && commands[os.Args[1]] != nil {
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
		code := commands[os.Args[1]](ctx, os.Args[2:])
		stop()
		os.Exit(code)
	}
	os.Exit(app.Main("controller", controller.PingInterval, controller.Run))
}
