// Package emf puts together what turns lines in embedded metric format into metrics that somebody gets: `weir emf`, at the
// end of a pipe or over the logs of a node's pods, and the collector's image.
//
// Invariants: of a pipe every byte is passed on before anything else is done with it. What is pushed, where and how often
// is said by OpenTelemetry's own variables, and by nothing else.
//
// May import: every package below it.
package emf

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/spf13/pflag"
	"go.opentelemetry.io/otel/attribute"

	"github.com/weir-dev/weir/internal/emf"
	"github.com/weir-dev/weir/internal/emf/podlogs"
	"github.com/weir-dev/weir/internal/lifecycle"
	"github.com/weir-dev/weir/internal/telemetry"
)

// Bounds of the end.
const (
	exportTimeout = 10 * time.Second // the last export
	inputTimeout  = 5 * time.Second  // so long after SIGTERM the input may go on: who writes it has got the signal as well
	copyBytes     = 64 << 10
)

// DefaultPods is where a kubelet keeps the logs of a node's pods.
const DefaultPods = "/var/log/pods"

// Config says what is read and where the metrics go.
type Config struct {
	Pods       string // folder of the pods' logs; empty: the input
	Namespaces []string
	PodNames   []string // patterns
	Containers []string
	Listen     string // address of the page for Prometheus; empty: none
	LogFormat  string
	LogLevel   string
}

// Flags adds the flags of the command to a set.
func (c *Config) Flags(f *pflag.FlagSet) {
	f.StringVar(&c.Listen, "listen", "", "HOST:PORT at which /metrics is served for Prometheus")
	f.StringVar(&c.Pods, "pods", "", "follow the logs of a node's pods in this folder instead of reading the input; without a folder: "+DefaultPods)
	f.Lookup("pods").NoOptDefVal = DefaultPods
	f.StringArrayVar(&c.Namespaces, "namespace", nil, "with --pods: only pods of this namespace (repeatable)")
	f.StringArrayVar(&c.PodNames, "pod", nil, "with --pods: only pods whose name matches this pattern, such as order-* (repeatable)")
	f.StringArrayVar(&c.Containers, "container", nil, "with --pods: only containers of this name, as user-container of a Knative Service (repeatable)")
	f.StringVar(&c.LogFormat, "log-format", "text", "text or json")
	f.StringVar(&c.LogLevel, "log-level", "info", "debug, info, warn or error")
}

// Complete takes what is left of the command's arguments: the folder after --pods.
func (c *Config) Complete(args []string) error {
	switch {
	case len(args) == 0:
	case len(args) == 1 && c.Pods == DefaultPods:
		c.Pods = args[0]
	default:
		return fmt.Errorf("%q is not understood: the lines come by standard input, or with --pods FOLDER from the logs of pods", args)
	}
	if c.Pods == "" && len(c.Namespaces)+len(c.PodNames)+len(c.Containers) > 0 {
		return errors.New("--namespace, --pod and --container select from the logs of pods: add --pods")
	}
	return nil
}

// Run reads until the input ends or ctx is cancelled, and exports what there is. The input is passed on to out.
func Run(ctx context.Context, cfg Config, in io.Reader, out, log io.Writer) error {
	lines, err := telemetry.NewLines(log, cfg.LogFormat, cfg.LogLevel)
	if err != nil {
		return err
	}
	defer lines.Close() //nolint:contextcheck // it writes lines of no request
	logger := lines.Logger(nil)
	page, err := listen(ctx, cfg.Listen)
	if err != nil {
		return err
	}
	m, err := newMetrics(ctx, os.Getenv, page != nil, logger)
	if err != nil {
		return errors.Join(err, closeListener(page))
	}
	recorder, err := emf.NewRecorder(emf.Config{Providers: m.meters(), Log: logger})
	if err != nil {
		return errors.Join(err, closeListener(page), m.shutdown(ctx))
	}
	inputEnded := errors.New("the input has ended")
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	var parts []lifecycle.Part
	if page != nil {
		parts = append(parts, m.serve(page))
	}
	if cfg.Pods != "" {
		follower, ferr := follow(cfg, recorder, logger)
		if ferr != nil {
			return errors.Join(ferr, closeListener(page), m.shutdown(ctx))
		}
		parts = append(parts, follower)
	} else {
		parts = append(parts, lifecycle.Part{Name: "input", Run: func(ctx context.Context, ready func()) error {
			ready()
			err := pass(ctx, in, out, recorder.Source().Splitter())
			end(inputEnded) // an orderly end of the whole
			<-ctx.Done()
			return err
		}})
	}
	err = lifecycle.Run(ctx, logger, func() { logger.Debug("reads lines", "pods", cfg.Pods) }, parts...)
	return errors.Join(err, m.shutdown(ctx))
}

// follow returns the part that follows the logs of pods.
func follow(cfg Config, recorder *emf.Recorder, log *slog.Logger) (lifecycle.Part, error) {
	pods := podlogs.Config{
		Dir: cfg.Pods, Namespaces: cfg.Namespaces, Pods: cfg.PodNames, Containers: cfg.Containers, Log: log,
		Source: func(c podlogs.Container) *emf.Source {
			// Not the pod's name: each deployment brings new ones, for ever.
			return recorder.Source(attribute.String("k8s.namespace.name", c.Namespace), attribute.String("faas.name", podlogs.Workload(c.Pod)))
		},
	}
	if err := pods.Validate(); err != nil {
		return lifecycle.Part{}, err
	}
	return lifecycle.Part{Name: "pods", Run: podlogs.New(pods).Run}, nil
}

// pass copies in to out, and each piece to the splitter once it is out. When ctx is cancelled the input gets a while to
// end by itself.
func pass(ctx context.Context, in io.Reader, out io.Writer, lines *emf.Splitter) error {
	copied := make(chan error, 1)
	go func() {
		_, err := io.CopyBuffer(onlyWriter{io.MultiWriter(out, lines)}, onlyReader{in}, make([]byte, copyBytes))
		copied <- errors.Join(err, lines.Close())
	}()
	select {
	case err := <-copied:
		return passed(err)
	case <-ctx.Done():
	}
	timeout := time.NewTimer(inputTimeout)
	defer timeout.Stop()
	select {
	case err := <-copied:
		return passed(err)
	case <-timeout.C:
		// A read of a terminal or of another's pipe can't be cancelled: the goroutine ends with the process, which is next.
		return nil
	}
}

func passed(err error) error {
	if err != nil {
		return fmt.Errorf("pass the input on: %w", err)
	}
	return nil
}

// onlyReader and onlyWriter hide the short cuts of io.Copy, by which the splitter would be left out or get its bytes late.
type (
	onlyReader struct{ io.Reader }
	onlyWriter struct{ io.Writer }
)
