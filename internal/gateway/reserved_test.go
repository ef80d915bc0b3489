package gateway

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/weir-dev/weir/api/v1alpha1"
	"github.com/weir-dev/weir/internal/jobapi"
	"github.com/weir-dev/weir/internal/ownpath"
	"github.com/weir-dev/weir/internal/taskapi"
)

// TestOwnPathsAreBelowOnePrefix: all that the gateway serves itself is below the prefix that no route of an API can have.
func TestOwnPathsAreBelowOnePrefix(t *testing.T) {
	g := &Gateway{cfg: Config{OwnThrottles: defaultOwnThrottles()}, jobs: jobapi.New(jobapi.Config{}), tasks: taskapi.New(taskapi.Config{})}
	defer g.jobs.Close()
	mux := g.ownMux()
	for _, path := range []string{"/", "/healthz", "/readyz", "/jobs/a", "/feeds", "/uploads", "/objects/a", "/callbacks/a", "/weirdo"} {
		for _, method := range []string{http.MethodGet, http.MethodPost} {
			if _, pattern := mux.Handler(httptest.NewRequestWithContext(t.Context(), method, path, http.NoBody)); pattern != "" || ownpath.Reserved(path) {
				t.Errorf("%s %s is the gateway's own: %s", method, path, pattern)
			}
		}
	}
	for _, r := range append(append(g.jobs.Routes(), g.taskRoutes()...), jobapi.Route{Pattern: "POST " + ownpath.Uploads}) {
		_, path, _ := strings.Cut(r.Pattern, " ")
		if !ownpath.Reserved(path) {
			t.Errorf("%s is not below %s", path, ownpath.Prefix)
		}
		api := v1alpha1.RouteMatch{Method: http.MethodPost, Path: path}
		if !v1alpha1.Reserved(api.Path) {
			t.Errorf("an API may have %s", path)
		}
	}
}
