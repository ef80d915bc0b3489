package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/weir-dev/weir/internal/job"
	"github.com/weir-dev/weir/internal/tracelog"
)

const (
	// traceEvery is how often a trace is asked for that is not there yet, or may be incomplete: spans come once a call is over.
	traceEvery = 300 * time.Millisecond
	// maxTraceBytes bounds an answer: what package tracelog keeps of a trace, as JSON.
	maxTraceBytes = 64 << 20
)

var (
	errNoTrace  = errors.New("there is no such trace: it was not sampled, has gone for newer ones, or its spans have not come yet")
	errNoTraces = errors.New("no traces are kept there: start it with WEIR_TELEMETRY=1, as in WEIR_TELEMETRY=1 make run")
)

func newTrace() *cobra.Command {
	var t traces
	var all bool
	var wait time.Duration
	var limit int
	cmd := &cobra.Command{
		Use:   "trace [ID]",
		Short: "Show hop by hop where the time of a request went; without an ID the last traces",
		Long: `Show a trace as a tree: of each hop when it began, how long it took, and what it was.

ID is the id of a trace, of a record (what a 202 answers with), of a job, or of an execution of a state machine, or a job's
address. Without one the last traces are listed.

They are those that a weir local with WEIR_TELEMETRY=1 keeps in memory. It also takes spans of other processes:
OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=$WEIR_ADMIN_URL/v1/traces in their environment.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if u, err := url.Parse(t.admin); err != nil || u.Host == "" {
				return errors.New("--admin, or WEIR_ADMIN_URL, is the admin address of a weir local, such as http://127.0.0.1:8081; make run writes it into .weir/env, to be sourced")
			}
			if len(args) == 0 {
				list, err := t.last(cmd.Context(), limit)
				if err != nil {
					return err
				}
				return tracelog.PrintList(cmd.OutOrStdout(), list)
			}
			found, err := t.settled(cmd.Context(), traceID(args[0]), wait)
			if err != nil {
				return err
			}
			return found.Print(cmd.OutOrStdout(), all)
		},
	}
	f := cmd.Flags()
	f.StringVar(&t.admin, "admin", os.Getenv("WEIR_ADMIN_URL"), "admin address of weir local; default: WEIR_ADMIN_URL")
	f.BoolVar(&all, "all", false, "all attributes and links, uncut")
	f.DurationVar(&wait, "wait", 5*time.Second, "how long to wait for a trace that is not there yet")
	f.IntVar(&limit, "limit", 20, "how many to list")
	return cmd
}

// traceID is the id of a trace or of a record that text names: as it is, or of a job's id or address.
func traceID(text string) string {
	if _, after, ok := strings.Cut(text, "/jobs/"); ok {
		text, _, _ = strings.Cut(after, "/")
	}
	text, _, _ = strings.Cut(text, "?")
	if id, ok := job.RecordOf(text); ok {
		return id.String()
	}
	return text
}

// traces is where traces are kept.
type traces struct{ admin string }

// settled returns a trace that has not grown between two looks, or what there is when wait is over.
func (t traces) settled(ctx context.Context, id string, wait time.Duration) (*tracelog.Trace, error) {
	deadline := time.Now().Add(wait)
	spans := -1
	for {
		var found tracelog.Trace
		err := t.get(ctx, "/traces/"+url.PathEscape(id), &found)
		last := time.Now().Add(traceEvery).After(deadline)
		switch {
		case err == nil && (last || len(found.Spans) == spans):
			return &found, nil
		case err == nil:
			spans = len(found.Spans)
		case last, !errors.Is(err, errNoTrace):
			return nil, err
		}
		select {
		case <-time.After(traceEvery):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (t traces) last(ctx context.Context, n int) ([]tracelog.Summary, error) {
	var list tracelog.List
	err := t.get(ctx, fmt.Sprintf("/traces?limit=%d", n), &list)
	return list.Traces, err
}

// get reads the answer of a path as JSON.
func (t traces) get(ctx context.Context, path string, into any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(t.admin, "/")+path, http.NoBody)
	if err != nil {
		return err
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("asking for traces: is weir local running? %w", err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, maxTraceBytes))
	switch {
	case err != nil:
		return fmt.Errorf("reading traces: %w", err)
	case res.StatusCode == http.StatusNotFound && strings.HasPrefix(string(body), tracelog.NotFound):
		return errNoTrace
	case res.StatusCode == http.StatusNotFound:
		return errNoTraces
	case res.StatusCode != http.StatusOK:
		return fmt.Errorf("asking for traces: %s: %.200q", res.Status, body)
	}
	if err := json.Unmarshal(body, into); err != nil {
		return fmt.Errorf("reading traces: %w", err)
	}
	return nil
}
