package gateway

import (
	"net/http"

	"github.com/weir-dev/weir/internal/jobapi"
	"github.com/weir-dev/weir/internal/ownpath"
	"github.com/weir-dev/weir/internal/taskapi"
)

// taskRoutes are Weir's own paths of tasks of state machines: reports, and workers that ask for tasks of activities.
func (g *Gateway) taskRoutes() []jobapi.Route {
	most := func(n int64) func(*http.Request) int64 { return func(*http.Request) int64 { return n } }
	report, small := most(taskapi.MaxReportBytes), most(taskapi.MaxTakeBytes)
	return []jobapi.Route{
		{Pattern: "POST " + ownpath.Tasks + "{token}/success", Class: jobapi.ClassCallbacks, MaxBody: report, Serve: g.tasks.Report(taskapi.Succeeded)},
		{Pattern: "POST " + ownpath.Tasks + "{token}/failure", Class: jobapi.ClassCallbacks, MaxBody: report, Serve: g.tasks.Report(taskapi.Failed)},
		{Pattern: "POST " + ownpath.Tasks + "{token}/heartbeat", Class: jobapi.ClassCallbacks, MaxBody: small, Serve: g.tasks.Report(taskapi.Alive)},
		{Pattern: "POST " + ownpath.Activities + "{address}/tasks", Class: jobapi.ClassCallbacks, MaxBody: small, Serve: g.tasks.TakeAt},
	}
}
