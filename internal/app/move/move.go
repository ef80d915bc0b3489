// Package move puts together the move of all streams from one NATS to another: `weir nats move`, and, in the controller's
// image, the chart's Job.
//
// May import: every package below it.
package move

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/weir-dev/weir/internal/app"
	"github.com/weir-dev/weir/internal/lifecycle"
	"github.com/weir-dev/weir/internal/stream"
)

const (
	// pingInterval is long: a server that restores a stream reads nothing else from the connection meanwhile.
	pingInterval = 20 * time.Second
	// connectTimeout is that of a volume that is being read, or of a cluster that is being made.
	connectTimeout = 10 * time.Minute
)

// DefaultName is a move's that nobody waits for.
const DefaultName = "move"

// Config says from where to where.
type Config struct {
	From, To app.NATS // of To, what is empty is taken from the environment
	Name     string
	Replicas int
}

// Flags adds the flags of the command to a set.
func (c *Config) Flags(f *pflag.FlagSet) {
	f.StringVar(&c.From.URL, "from", "", "URL of the NATS that the streams are moved from")
	f.StringVar(&c.From.User, "from-user", "", "user at it")
	f.StringVar(&c.From.PasswordFile, "from-password-file", "", "file with the user's password")
	f.StringVar(&c.From.CAFile, "from-ca", "", "PEM file of its CA, turns TLS on")
	// The environment is not the flags' default: --help would print the token.
	f.StringVar(&c.To.URL, "to", "", "URL of the NATS that they are moved to; default: $WEIR_NATS_URL")
	f.StringVar(&c.To.User, "to-user", "", "user at it; default: $WEIR_NATS_USER")
	f.StringVar(&c.To.PasswordFile, "to-password-file", "", "file with the user's password; default: $WEIR_NATS_PASSWORD_FILE")
	f.StringVar(&c.To.CAFile, "to-ca", "", "PEM file of its CA, turns TLS on; default: $WEIR_NATS_CA_FILE")
	f.IntVar(&c.Replicas, "replicas", 1, "replicas of the streams where they are moved to: 1, 3 or 5")
	f.StringVar(&c.Name, "name", DefaultName, "name of the move, for a controller that waits for it ($WEIR_AWAIT_MOVE)")
}

// names fit a token of a subject, as the names of volume claims without dots do.
var names = regexp.MustCompile(`^[a-zA-Z0-9_-]+$`)

// CheckName reports what can't be a move's name.
func CheckName(name string) error {
	if !names.MatchString(name) {
		return fmt.Errorf("%q is no name of a move: use letters, digits, - and _", name)
	}
	return nil
}

func (c *Config) complete(getenv func(string) string) error {
	env := app.NATSFromEnv(getenv)
	c.To = app.NATS{
		URL: cmp.Or(c.To.URL, env.URL), User: cmp.Or(c.To.User, env.User),
		PasswordFile: cmp.Or(c.To.PasswordFile, env.PasswordFile), CAFile: cmp.Or(c.To.CAFile, env.CAFile),
	}
	switch {
	case c.From.URL == "":
		return errors.New("from where? give --from the URL of the NATS that holds the streams")
	case c.To.URL == "":
		return errors.New("to where? give --to the URL of another NATS, or set WEIR_NATS_URL")
	case c.To.URL == c.From.URL:
		return errors.New("--from and --to are the same NATS")
	case !slices.Contains([]int{1, 3, 5}, c.Replicas):
		return fmt.Errorf("--replicas is %d: a stream has 1, 3 or 5", c.Replicas)
	}
	return CheckName(c.Name)
}

// Run moves, and returns when all is there. It may be run again after an error, or a crash.
func Run(ctx context.Context, cfg Config, getenv func(string) string, log *slog.Logger) (stream.Moved, error) {
	if err := cfg.complete(getenv); err != nil {
		return stream.Moved{}, err
	}
	from, err := connect(ctx, cfg.From, "the NATS to move from", log)
	if err != nil {
		return stream.Moved{}, err
	}
	defer from.Close()
	to, err := connect(ctx, cfg.To, "the NATS to move to", log)
	if err != nil {
		return stream.Moved{}, err
	}
	defer to.Close()
	return stream.Move{From: from, To: to, Name: cfg.Name, Replicas: cfg.Replicas, Log: log}.Run(ctx)
}

func connect(ctx context.Context, n app.NATS, what string, log *slog.Logger) (*stream.Conn, error) {
	cfg := n.Stream("weir-move", log)
	cfg.PingInterval = pingInterval
	conn, err := stream.Connect(cfg)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	if err := conn.WaitUpFor(ctx, connectTimeout); err != nil {
		conn.Close()
		return nil, fmt.Errorf("%s does not answer: %w", what, err)
	}
	return conn, nil
}

// Awaited is the part of a service that waits for the move name to its NATS before run; empty means none.
func Awaited(conn *stream.Conn, name string, part lifecycle.Part) lifecycle.Part {
	if name == "" {
		return part
	}
	return lifecycle.Part{Name: part.Name, Run: func(ctx context.Context, ready func()) error {
		if err := conn.AwaitMove(ctx, name); err != nil {
			return nil //nolint:nilerr // stopping
		}
		return part.Run(ctx, ready)
	}}
}

// Main is the command by itself, for an image without cmd/weir. It returns the process's exit code.
func Main(ctx context.Context, args []string) int {
	var cfg Config
	flags := pflag.NewFlagSet("move", pflag.ContinueOnError)
	cfg.Flags(flags)
	log := slog.New(slog.NewJSONHandler(os.Stderr, nil))
	err := flags.Parse(args)
	if errors.Is(err, pflag.ErrHelp) {
		return 0
	}
	if err == nil && flags.NArg() > 0 {
		err = fmt.Errorf("%q is not understood", strings.Join(flags.Args(), " "))
	}
	var done stream.Moved
	if err == nil {
		done, err = Run(ctx, cfg, os.Getenv, log)
	}
	if err != nil {
		log.ErrorContext(ctx, "the streams were not moved", "error", err)
		return 1
	}
	log.InfoContext(ctx, "the streams are moved", "streams", done.Streams, "messages", done.Messages, "bytes", done.Bytes)
	return 0
}
