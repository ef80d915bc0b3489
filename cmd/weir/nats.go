package main

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/weir-dev/weir/internal/app"
	"github.com/weir-dev/weir/internal/stream"
	"github.com/weir-dev/weir/internal/telemetry"
)

// connectTimeout bounds how long a command waits for NATS.
const connectTimeout = 5 * time.Second

// natsFlags is how a command reaches NATS, as its flags say; the environment is the default.
type natsFlags app.NATS

func (n *natsFlags) add(p *pflag.FlagSet) {
	// The environment is not the flags' default: --help would print the token.
	p.StringVar(&n.URL, "nats", "", "URL of NATS; default: $WEIR_NATS_URL")
	p.StringVar(&n.User, "nats-user", "", "user at NATS; default: $WEIR_NATS_USER")
	p.StringVar(&n.PasswordFile, "nats-password-file", "", "file with the user's password; default: $WEIR_NATS_PASSWORD_FILE")
	p.StringVar(&n.CAFile, "nats-ca", "", "PEM file of the CA of NATS, turns TLS on; default: $WEIR_NATS_CA_FILE")
}

// with connects, runs f, and closes. tel is the connection's.
func (n *natsFlags) with(cmd *cobra.Command, tel telemetry.Providers, f func(c *stream.Conn) error) error {
	env := app.NATSFromEnv(os.Getenv)
	nats := app.NATS{
		URL: cmp.Or(n.URL, env.URL), User: cmp.Or(n.User, env.User),
		PasswordFile: cmp.Or(n.PasswordFile, env.PasswordFile), CAFile: cmp.Or(n.CAFile, env.CAFile),
	}
	if nats.URL == "" {
		return errors.New("where is NATS? set WEIR_NATS_URL (for a local run: source .weir/env) or give --nats; for the chart see weir dlq --help")
	}
	level := slog.LevelError
	cfg := nats.Stream("weir-"+cmd.Parent().Name(), slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), &slog.HandlerOptions{Level: level})))
	cfg.Telemetry = tel
	c, err := stream.Connect(cfg)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.WaitUpFor(cmd.Context(), connectTimeout); err != nil {
		return fmt.Errorf("NATS does not answer within %s: %w", connectTimeout, err)
	}
	return f(c)
}
