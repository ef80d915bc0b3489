// Command orchestrator is the service of that name; see internal/orchestrator.
package main

import (
	"os"

	"github.com/weir-dev/weir/internal/app"
	"github.com/weir-dev/weir/internal/app/orchestrator"
)

func main() {
	os.Exit(app.Main("orchestrator", orchestrator.PingInterval, orchestrator.Run))
}
