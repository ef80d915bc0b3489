// Command controller is the service of that name; see internal/controller.
package main

import (
	"os"

	"github.com/weir-dev/weir/internal/app"
	"github.com/weir-dev/weir/internal/app/controller"
)

func main() { os.Exit(app.Main("controller", controller.PingInterval, controller.Run)) }
