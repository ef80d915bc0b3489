// Command realtime is the service of that name; see internal/realtime.
package main

import (
	"os"

	"github.com/weir-dev/weir/internal/app"
	"github.com/weir-dev/weir/internal/app/realtime"
)

func main() { os.Exit(app.Main("realtime", realtime.PingInterval, realtime.Run)) }
