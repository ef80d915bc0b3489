// Package controller puts the controller service together.
package controller

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/weir-dev/weir/api/v1alpha1"
	"github.com/weir-dev/weir/internal/app"
	"github.com/weir-dev/weir/internal/app/move"
	"github.com/weir-dev/weir/internal/app/objects"
	"github.com/weir-dev/weir/internal/controller"
	"github.com/weir-dev/weir/internal/lifecycle"
	"github.com/weir-dev/weir/internal/manifest"
	"github.com/weir-dev/weir/internal/stream"
)

// PingInterval is long: nobody waits for an answer.
const PingInterval = 2 * time.Second

// minMachineBytes is what lets each partition keep some executions of the largest size.
const minMachineBytes = 64 << 20

// Run reconciles until ctx is cancelled. Beside app.Config it reads WEIR_RELEASE (NAMESPACE/NAME), WEIR_CLASS (default weir),
// WEIR_TAKE_OVER (of releases, comma separated), WEIR_STREAM_REPLICAS (default 1), WEIR_NAMESPACES (comma separated; empty means
// the whole cluster), WEIR_EXECUTIONS_MAX_BYTES (0: no state machines), WEIR_ORCHESTRATOR_URL, where mappings start executions
// (empty: nowhere), WEIR_ALLOWED_ROUTES (manifest.ParseAllowedRoutes; empty: all), WEIR_WEBHOOK_LISTEN (empty: no webhook) and
// WEIR_WEBHOOK_CERTS, a folder, and WEIR_AWAIT_MOVE: the name of a move to this NATS (stream.Move) without whose end it does nothing.
func Run(ctx context.Context, cfg app.Config, conn *stream.Conn) error {
	c, err := fromEnv(os.Getenv)
	if err != nil {
		return err
	}
	c.Conn, c.Telemetry, c.Log, c.Batch = conn, cfg.Telemetry.Providers, cfg.Log, cfg.Batch
	if cfg.S3.Endpoint != "" {
		s3, err := objects.S3(cfg)
		if err != nil {
			return err
		}
		defer s3.Close()
		c.Objects = s3
	}
	await, err := awaited(os.Getenv)
	if err != nil {
		return err
	}
	var synced atomic.Bool
	ready := func() (map[string]string, error) {
		switch {
		case !synced.Load() && await != "":
			return nil, fmt.Errorf("the cluster's resources are not read yet: not before the move %s to this NATS is done", await)
		case !synced.Load():
			return nil, errors.New("the cluster's resources are not read yet")
		case conn.Ready() != nil:
			return nil, errors.New("NATS can't be reached; the log says why")
		}
		return map[string]string{}, nil
	}
	return lifecycle.Run(ctx, cfg.Log, func() {},
		app.Health(ctx, cfg.HealthListen, ready, app.Admin{Metrics: cfg.Telemetry.Page(controller.Metrics())}),
		move.Awaited(conn, await, lifecycle.Part{Name: "controller", Run: func(ctx context.Context, started func()) error {
			return controller.Run(ctx, c, func() {
				synced.Store(true)
				started()
			})
		}}),
	)
}

// Uninstalled is the command of that name, for the chart's hook: args is the name of the controller's Deployment
// (controller.Uninstallation). It reads WEIR_RELEASE and WEIR_NAMESPACES, and returns the process's exit code.
func Uninstalled(ctx context.Context, args []string) int {
	log := slog.New(slog.NewJSONHandler(os.Stderr, nil))
	c, err := fromEnv(os.Getenv)
	if err == nil && len(args) != 1 {
		err = errors.New("give it the name of the controller's Deployment")
	}
	if err == nil {
		err = controller.Uninstallation{Release: c.Release, Namespaces: c.Namespaces, Deployment: args[0], Log: log}.Run(ctx)
	}
	if err != nil {
		log.ErrorContext(ctx, "the statuses may go on saying that the release serves them", "error", err)
		return 1
	}
	return 0
}

// awaited is the name of the move that the controller waits for; empty if none.
func awaited(getenv func(string) string) (string, error) {
	name := getenv("WEIR_AWAIT_MOVE")
	if name == "" {
		return "", nil
	}
	if err := move.CheckName(name); err != nil {
		return "", fmt.Errorf("WEIR_AWAIT_MOVE: %w", err)
	}
	return name, nil
}

func fromEnv(getenv func(string) string) (controller.Config, error) {
	c := controller.Config{Replicas: 1, MachineBytes: stream.DefaultMachineBytes, OrchestratorURL: getenv("WEIR_ORCHESTRATOR_URL")}
	c.Release.Class = cmp.Or(getenv("WEIR_CLASS"), v1alpha1.DefaultClass)
	c.Release.TakeOver = list(getenv("WEIR_TAKE_OVER"))
	var ok bool
	if c.Release.Namespace, c.Release.Name, ok = strings.Cut(getenv("WEIR_RELEASE"), "/"); !ok || c.Release.Namespace == "" || c.Release.Name == "" {
		return c, fmt.Errorf("WEIR_RELEASE is %q: give it the namespace that this process runs in, and the release's name, as NAMESPACE/NAME", getenv("WEIR_RELEASE"))
	}
	if v := getenv("WEIR_STREAM_REPLICAS"); v != "" {
		n, err := strconv.Atoi(v)
		if err != nil {
			return c, fmt.Errorf("WEIR_STREAM_REPLICAS is %q: give it 1, 3 or 5", v)
		}
		c.Replicas = n
	}
	if v := getenv("WEIR_EXECUTIONS_MAX_BYTES"); v != "" {
		q, err := resource.ParseQuantity(v)
		if err != nil || q.Value() != 0 && q.Value() < minMachineBytes {
			return c, fmt.Errorf("WEIR_EXECUTIONS_MAX_BYTES is %q: give it a size such as 1Gi, from 64Mi on, or 0 for no state machines", v)
		}
		c.MachineBytes = q.Value()
	}
	c.Namespaces = list(getenv("WEIR_NAMESPACES"))
	if v := getenv("WEIR_WEBHOOK_LISTEN"); v != "" {
		host, port, err := net.SplitHostPort(v)
		n, aerr := strconv.Atoi(port)
		if err != nil || aerr != nil || n < 1 || n > math.MaxUint16 {
			return c, fmt.Errorf("WEIR_WEBHOOK_LISTEN is %q: give it an address such as :9443", v)
		}
		c.Webhook = &controller.Webhook{Host: host, Port: n, Certs: cmp.Or(getenv("WEIR_WEBHOOK_CERTS"), "/var/run/secrets/weir/webhook")}
	}
	var err error
	if c.AllowedRoutes, err = manifest.ParseAllowedRoutes(getenv("WEIR_ALLOWED_ROUTES")); err != nil {
		return c, fmt.Errorf("WEIR_ALLOWED_ROUTES: %w", err)
	}
	return c, nil
}

// list reads a list with commas.
func list(text string) (all []string) {
	for one := range strings.SplitSeq(text, ",") {
		if one = strings.TrimSpace(one); one != "" {
			all = append(all, one)
		}
	}
	return all
}
