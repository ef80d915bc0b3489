package app

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/http"
	"time"

	"github.com/weir-dev/weir/internal/lifecycle"
	"github.com/weir-dev/weir/internal/problem"
)

// HealthOff as the address of Health disables the probes.
const HealthOff = "off"

// Bounds of the server of probes.
const (
	healthTimeout     = 5 * time.Second // of a request, and of the answers in flight at the end
	healthHeaderBytes = 8 << 10
	// scrapeTimeout is of an answer with metrics, which may be long.
	scrapeTimeout = 30 * time.Second
)

// Admin is what the admin port serves besides the probes.
type Admin struct {
	Metrics http.Handler // at /metrics; nil if disabled
	Traces  http.Handler // at /traces, /traces/{id} and /v1/traces; nil if disabled
	// Machines is the API of state machines, at /state-machines, /executions, /tasks and /activities; nil if disabled.
	Machines http.Handler
}

// Health returns the part that serves /healthz, /readyz and what admin has on listen. ready returns what /readyz shows besides its
// status, or why the process can't serve. Anybody may read all of it, so nothing of it may be confidential.
//
// /healthz is 200 as long as the process serves: a part that ends by itself ends the process (package lifecycle).
// /readyz is 503 as soon as process ends, although this part serves until the ones after it have drained: so it has to
// come before them.
func Health(process context.Context, listen string, ready func() (map[string]string, error), admin Admin) lifecycle.Part {
	return lifecycle.Part{Name: "health", Run: func(ctx context.Context, started func()) error {
		if listen == HealthOff {
			started()
			<-ctx.Done()
			return nil
		}
		var lc net.ListenConfig
		l, err := lc.Listen(ctx, "tcp", listen)
		if err != nil {
			return fmt.Errorf("listen on %s (WEIR_HEALTH_LISTEN; %q turns the probes off): %w", listen, HealthOff, err)
		}
		return HealthOn(process, l, ready, admin).Run(ctx, started)
	}}
}

// HealthOn is Health on a listener, which it closes.
func HealthOn(process context.Context, l net.Listener, ready func() (map[string]string, error), admin Admin) lifecycle.Part {
	return lifecycle.Part{Name: "health", Run: func(ctx context.Context, started func()) error {
		err := lifecycle.Server{
			Listener: l, Drain: healthTimeout,
			HTTP: &http.Server{
				Handler: healthHandler(process, ready, admin), MaxHeaderBytes: healthHeaderBytes,
				ReadTimeout: healthTimeout, WriteTimeout: healthTimeout, IdleTimeout: time.Minute,
			},
		}.Run(ctx, started)
		if ctx.Err() != nil {
			return nil //nolint:nilerr // a probe that hangs must not block the drain
		}
		return err
	}}
}

func healthHandler(process context.Context, ready func() (map[string]string, error), admin Admin) http.Handler {
	mux := http.NewServeMux()
	if admin.Metrics != nil {
		mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, r *http.Request) {
			_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(scrapeTimeout)) // net/http's has one
			admin.Metrics.ServeHTTP(w, r)
		})
	}
	if admin.Traces != nil {
		for _, path := range []string{"/traces", "/traces/{id}", "/v1/traces"} {
			mux.Handle(path, admin.Traces)
		}
	}
	if admin.Machines != nil {
		for _, path := range []string{"/state-machines", "/state-machines/", "/executions/", "/tasks/", "/activities/", "/tables/"} {
			mux.Handle(path, admin.Machines)
		}
	}
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { writeStatus(w, map[string]string{"status": "ok"}) })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if process.Err() != nil {
			notReady(w, "Draining", "This process is stopping.")
			return
		}
		state, err := ready()
		if err != nil {
			notReady(w, "Not ready", err.Error())
			return
		}
		shown := map[string]string{"status": "ready"}
		maps.Copy(shown, state)
		writeStatus(w, shown)
	})
	return mux
}

func notReady(w http.ResponseWriter, title, detail string) {
	problem.NotNow(title, detail, time.Second).Write(w)
}

func writeStatus(w http.ResponseWriter, status map[string]string) {
	body, err := json.Marshal(status)
	if err != nil {
		panic(fmt.Sprintf("app: a map of strings always marshals: %v", err))
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(append(body, '\n')) // an error means that the prober is gone
}
