// Command dispatcher is the service of that name; see internal/dispatcher.
package main

import (
	"os"

	"github.com/weir-dev/weir/internal/app"
	"github.com/weir-dev/weir/internal/app/dispatcher"
)

func main() {
	dispatcher.LeaveRoom()
	os.Exit(app.Main("dispatcher", dispatcher.PingInterval, dispatcher.Run))
}
