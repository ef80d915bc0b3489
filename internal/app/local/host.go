package local

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/trace/noop"
	"go.uber.org/zap"
	"knative.dev/networking/pkg/http/stats"
	"knative.dev/serving/pkg/http/handler"
	"knative.dev/serving/pkg/queue"

	"github.com/weir-dev/weir/function"
	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/functions/orderapi"
	"github.com/weir-dev/weir/internal/functions/orderwriter"
	"github.com/weir-dev/weir/internal/functions/query"
	"github.com/weir-dev/weir/internal/functions/report"
	"github.com/weir-dev/weir/internal/invoke"
	"github.com/weir-dev/weir/internal/manifest"
	"github.com/weir-dev/weir/internal/telemetry"
)

// A host stands in for Knative's queue-proxy, whose handlers it runs, and autoscaler.
const (
	queueFactor = 10 // as queue-proxy's queue depth
	stopTimeout = 10 * time.Second
)

// closer is a function's handler with the resources that it holds.
type closer interface {
	http.Handler
	Close()
}

// builders are the constructors of the sample functions, which run in this process, by the suffix of their image.
func builders(tel telemetry.Providers) map[string]func(ctx context.Context, getenv func(string) string, log *slog.Logger) (closer, error) {
	return map[string]func(context.Context, func(string) string, *slog.Logger) (closer, error){
		"services/functions/order-writer": func(ctx context.Context, getenv func(string) string, log *slog.Logger) (closer, error) {
			cfg, err := orderwriter.ConfigFromEnv(getenv)
			if err != nil {
				return nil, err
			}
			cfg.Log, cfg.Database.Telemetry = log, tel
			return orderwriter.New(ctx, cfg)
		},
		"services/functions/order-api": func(ctx context.Context, getenv func(string) string, log *slog.Logger) (closer, error) {
			cfg, err := orderapi.ConfigFromEnv(getenv)
			if err != nil {
				return nil, err
			}
			cfg.Log, cfg.Database.Telemetry = log, tel
			return orderapi.New(ctx, cfg)
		},
		"services/functions/report": func(ctx context.Context, getenv func(string) string, log *slog.Logger) (closer, error) {
			cfg, err := report.ConfigFromEnv(getenv)
			if err != nil {
				return nil, err
			}
			cfg.Log, cfg.Database.Telemetry = log, tel
			return report.New(ctx, cfg)
		},
		"services/functions/query": func(ctx context.Context, getenv func(string) string, log *slog.Logger) (closer, error) {
			cfg, err := query.ConfigFromEnv(getenv)
			if err != nil {
				return nil, err
			}
			cfg.Log, cfg.Database.Telemetry = log, tel
			return query.New(ctx, cfg)
		},
	}
}

// hosts are the function hosts of all Services.
type hosts struct {
	log  *slog.Logger
	tel  telemetry.Providers
	list []*host
}

type host struct {
	key      catalog.Key
	listener net.Listener
	srv      *http.Server
	fn       closer         // nil if it is the user's own process
	caller   *invoke.Caller // to the user's own process
}

// url returns where the Service k will answer. It opens the port, because the catalog is compiled before the functions
// are started.
func (h *hosts) url(k catalog.Key) string {
	i := slices.IndexFunc(h.list, func(x *host) bool { return x.key == k })
	if i < 0 {
		var lc net.ListenConfig
		l, err := lc.Listen(context.Background(), "tcp", "127.0.0.1:0")
		if err != nil {
			h.log.Error("no port for a function", "function", k.Name, "error", err)
			return "http://127.0.0.1:1" // nothing answers there; open fails next
		}
		h.list = append(h.list, &host{key: k, listener: l})
		i = len(h.list) - 1
	}
	return "http://" + h.list[i].listener.Addr().String()
}

// open builds the functions of services. If there are state machines, their tasks may call processes that no Service stands for.
func (h *hosts) open(ctx context.Context, cfg Config, services []manifest.Service, machines bool) error {
	names := map[string]bool{}
	var errs []error
	for _, s := range services {
		names[s.Name] = true
		h.url(s.Key) //nolint:contextcheck // opening a loopback port doesn't block
		i := slices.IndexFunc(h.list, func(x *host) bool { return x.key == s.Key })
		if i < 0 {
			return fmt.Errorf("function %s: no free port on loopback", s.Name)
		}
		errs = append(errs, h.list[i].build(ctx, cfg, h.tel, s))
	}
	for name, url := range cfg.Functions {
		switch {
		case names[name]:
		case machines:
			cfg.Log.Info("tasks of state machines call your own process, which no Knative Service caps", "function", name, "url", url)
		default:
			errs = append(errs, fmt.Errorf("--function %s=…: the folder has no Knative Service of that name (apiVersion serving.knative.dev/v1), and no StateMachine whose tasks could call it without one", name))
		}
	}
	return errors.Join(errs...)
}

func (x *host) build(ctx context.Context, cfg Config, tel telemetry.Providers, s manifest.Service) error {
	log := cfg.Log.With("function", s.Name)
	var h http.Handler
	if url := cfg.Functions[s.Name]; url != "" {
		x.caller = invoke.NewCaller(maxIdle, telemetry.Providers{})
		forward, err := x.caller.Forward(invoke.Hop{
			Base: url, Host: s.Name + "." + s.Namespace + ".svc.cluster.local", Inner: true, H2C: s.H2C, Failed: notReached(log, url),
		})
		if err != nil {
			return fmt.Errorf("--function %s=%s: %w", s.Name, url, err)
		}
		h = forward
		log.Info("calls go to your own process", "url", url)
	} else {
		for suffix, build := range builders(tel) {
			if strings.HasSuffix(s.Image, suffix) {
				getenv, err := environment(s, cfg.Secrets)
				if err != nil {
					return fmt.Errorf("function %s: %w", s.Name, err)
				}
				fn, err := build(ctx, getenv, log)
				if err != nil {
					return fmt.Errorf("function %s: %w", s.Name, err)
				}
				x.fn, h = fn, observed(fn, s.Name, tel)
			}
		}
	}
	if h == nil {
		return fmt.Errorf("function %s: its image %s can't run in this process: start it yourself and say where with --function %s=http://127.0.0.1:PORT", s.Name, s.Image, s.Name)
	}
	x.srv = &http.Server{
		Handler: proxied(h, s), ReadHeaderTimeout: 10 * time.Second,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	return nil
}

// observed is what function.Serve makes of a function in a process of its own.
func observed(fn http.Handler, name string, tel telemetry.Providers) http.Handler {
	t := function.Telemetry{Meters: tel.Meters, Traces: tel.Traces}
	if t.Traces == nil {
		t.Traces = noop.NewTracerProvider()
	}
	return function.Observe(fn, name, t)
}

// run serves all hosts until ctx is cancelled.
func (h *hosts) run(ctx context.Context, ready func()) error {
	served := make(chan error, len(h.list))
	for _, x := range h.list {
		go func() { served <- x.srv.Serve(x.listener) }()
	}
	ready()
	var errs []error
	left := len(h.list)
	select {
	case <-ctx.Done():
	case err := <-served:
		errs = append(errs, fmt.Errorf("a function host ended: %w", err))
		left--
	}
	sctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	for _, x := range h.list {
		if err := x.srv.Shutdown(sctx); err != nil {
			errs = append(errs, fmt.Errorf("function %s: %w", x.key.Name, errors.Join(err, x.srv.Close())))
		}
	}
	for range left {
		if err := <-served; !errors.Is(err, http.ErrServerClosed) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// close frees what open opened. It is idempotent.
func (h *hosts) close() {
	for _, x := range h.list {
		_ = x.listener.Close() // the server has closed it on an orderly stop
		if x.fn != nil {
			x.fn.Close()
		}
		if x.caller != nil {
			x.caller.Close()
		}
	}
	h.list = nil
}

// environment returns the container's variables: secrets are read from the folder of secrets, and paths
// below a mounted Secret lead there.
func environment(s manifest.Service, secrets string) (func(string) string, error) {
	needs := func(secret string) error {
		return fmt.Errorf("it needs the Secret %s: give --secrets FOLDER, where %s/KEY is a file for each of its keys (`make run` writes .weir/secrets)", secret, secret)
	}
	for _, m := range s.SecretMounts {
		if _, err := os.Stat(filepath.Join(secrets, m.SecretName)); secrets == "" || err != nil {
			return nil, errors.Join(needs(m.SecretName), err)
		}
	}
	env := make(map[string]string, len(s.Env))
	for _, e := range s.Env {
		switch {
		case e.SecretName != "":
			b, err := os.ReadFile(filepath.Join(secrets, e.SecretName, e.SecretKey))
			if secrets == "" || err != nil {
				return nil, errors.Join(needs(e.SecretName), err)
			}
			env[e.Name] = strings.TrimSpace(string(b))
		default:
			env[e.Name] = e.Value
			for _, m := range s.SecretMounts {
				if rest, ok := strings.CutPrefix(path.Clean(e.Value), path.Clean(m.Path)+"/"); ok {
					env[e.Name] = filepath.Join(secrets, m.SecretName, filepath.FromSlash(rest))
				}
			}
		}
	}
	return func(name string) string { return env[name] }, nil
}

// proxied is next behind Knative's own handlers, put together as its queue-proxy does: containerConcurrency × max-scale
// calls at once, of which further ones wait for their turn until the Service's timeoutSeconds, ten times as many at most;
// then 503, or 504 for a call that takes as long.
func proxied(next http.Handler, s manifest.Service) http.Handler {
	var breaker *queue.Breaker
	if limit := s.ContainerConcurrency * s.MaxScale; limit > 0 {
		breaker = queue.NewBreaker(queue.BreakerParams{QueueDepth: queueFactor * limit, MaxConcurrency: limit, InitialCapacity: limit})
	}
	tracer := noop.NewTracerProvider().Tracer("")
	h := http.Handler(queue.ProxyHandler(tracer, breaker, stats.NewRequestStats(time.Now()), next))
	h = queue.ForwardedShimHandler(h)
	return handler.NewTimeoutHandler(h, "request timeout", func(*http.Request) (whole, start, idle time.Duration) { return s.Timeout, 0, 0 }, zap.NewNop().Sugar())
}

// unreachedEvery is how often the log says that a process of the user's can't be reached.
const unreachedEvery = 10 * time.Second

// notReached answers for a process of the user's that gives no answer. A process that isn't there is no
// failure of the records: 503.
func notReached(log *slog.Logger, url string) func(http.ResponseWriter, *http.Request, error) {
	var said atomic.Pointer[time.Time]
	return func(w http.ResponseWriter, _ *http.Request, err error) {
		p := function.Problem{Status: http.StatusBadGateway, Title: "The function broke the connection", Detail: err.Error()}
		switch {
		case errors.Is(err, invoke.ErrNotReached):
			p = function.ProblemOf(function.NotNow(errors.New("the function's process does not answer; is it running?"), time.Second))
			now := time.Now()
			if last := said.Load(); (last == nil || now.Sub(*last) >= unreachedEvery) && said.CompareAndSwap(last, &now) {
				log.Warn("your process can't be reached; what is for it waits", "url", url, "error", err)
			}
		case errors.Is(err, invoke.ErrTimeout):
			p = function.Problem{Status: http.StatusGatewayTimeout, Title: "The function did not answer in time", Detail: err.Error()}
		}
		p.Write(w)
	}
}
