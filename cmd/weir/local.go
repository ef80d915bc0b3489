package main

import (
	"fmt"
	"net/url"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/weir-dev/weir/internal/app/local"
	"github.com/weir-dev/weir/internal/record"
	"github.com/weir-dev/weir/internal/telemetry"
)

func newLocal() *cobra.Command {
	var cfg local.Config
	var functions []string
	var compression, logFormat, logLevel string
	cmd := &cobra.Command{
		Use:   "local -f FOLDER",
		Short: "Run gateway, dispatcher, functions and NATS in one process on loopback",
		Long: `Run gateway, dispatcher, functions and an embedded NATS server in one process on loopback.

FOLDER holds the same YAML as a cluster gets: the weir.dev resources and the Knative Services of the
functions. The sample functions run inside this process; for any other start it yourself and say where:

  weir local -f deploy/k8s/orders --function order-writer=http://127.0.0.1:9000`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var err error
			if cfg.Functions, err = parseFunctions(functions); err != nil {
				return err
			}
			if cfg.Codec, err = record.ParseCodec(compression); err != nil {
				return fmt.Errorf("--compression: %w", err)
			}
			if cfg.Lines, err = telemetry.NewLines(cmd.ErrOrStderr(), logFormat, logLevel); err != nil {
				return err
			}
			return local.Run(cmd.Context(), cfg)
		},
	}
	f := cmd.Flags()
	f.StringVarP(&cfg.Folder, "folder", "f", "", "folder of YAML")
	f.StringVar(&cfg.Listen, "listen", "127.0.0.1:8080", "address of the gateway")
	f.StringVar(&cfg.Admin, "admin", "127.0.0.1:0", "address of /healthz, /readyz, /metrics and, with --traces, of /traces and /v1/traces")
	f.StringVar(&cfg.Data, "data", ".weir/nats", "folder of the queues' data")
	f.StringVar(&cfg.Secrets, "secrets", "", "folder of secrets: NAME/KEY is the key KEY of the Secret NAME")
	f.StringArrayVar(&functions, "function", nil, "NAME=URL: calls to the Knative Service NAME go to your own process at URL (repeatable)")
	f.StringVar(&cfg.Trusted, "trusted-proxies", "", "addresses and networks of the proxies in front whose X-Forwarded-* headers are kept")
	f.StringVar(&cfg.Prefix, "path-prefix", "", "path, such as /shop, below which clients find Weir: a proxy in front takes it off")
	f.StringVar(&cfg.EgressAllow, "egress-allow", "", "networks, addresses and hosts, such as 127.0.0.1, *.partner.internal, that http:invoke of state machines may call besides public ones")
	f.StringVar(&cfg.AccessLog, "access-log", "off", "log a line for each request (full), or for a share of them (0.01), or off")
	f.BoolVar(&cfg.H2C, "h2c", false, "serve HTTP/2 by prior knowledge beside HTTP/1.1")
	f.StringVar(&cfg.EnvFile, "env-file", "", "file to write when ready, to be sourced: WEIR_URL, WEIR_ADMIN_URL and WEIR_NATS_URL")
	f.BoolVar(&cfg.Traces, "traces", os.Getenv("WEIR_TELEMETRY") == "1", "keep the last traces in memory, for weir trace; WEIR_TELEMETRY=1 in the environment turns it on")
	f.StringVar(&compression, "compression", record.DefaultCodec.String(), "of stored records: s2, zstd or none")
	f.StringVar(&logFormat, "log-format", "text", "text or json")
	f.StringVar(&logLevel, "log-level", "info", "debug, info, warn or error")
	if err := cmd.MarkFlagRequired("folder"); err != nil {
		panic(err) // the flag is defined above
	}
	return cmd
}

func parseFunctions(list []string) (map[string]string, error) {
	out := make(map[string]string, len(list))
	for _, f := range list {
		name, target, ok := strings.Cut(f, "=")
		u, err := url.Parse(target)
		if !ok || name == "" || err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
			return nil, fmt.Errorf("--function %s: write NAME=URL, such as order-writer=http://127.0.0.1:9000", f)
		}
		if _, twice := out[name]; twice {
			return nil, fmt.Errorf("--function %s is given twice", name)
		}
		out[name] = target
	}
	return out, nil
}
