// Command gateway is the service of that name; see internal/gateway.
package main

import (
	"os"

	"github.com/weir-dev/weir/internal/app"
	"github.com/weir-dev/weir/internal/app/gateway"
)

func main() { os.Exit(app.Main("gateway", gateway.PingInterval, gateway.Run)) }
