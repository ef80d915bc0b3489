package orchestrator

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/weir-dev/weir/function"
	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/jsontree"
	"github.com/weir-dev/weir/internal/lifecycle"
	"github.com/weir-dev/weir/internal/statelang"
	"github.com/weir-dev/weir/internal/stream"
	"github.com/weir-dev/weir/internal/taskapi"
)

const (
	// maxStarting bounds the starts that are under way for one batch.
	maxStarting = 64
	// maxStartsBytes bounds a batch: the largest one that a mapping makes, with its events' frames.
	maxStartsBytes = 64 << 20
	// startsTimeout bounds how long a call may take to come.
	startsTimeout = 30 * time.Second
	// startAgain is when a start that can't be taken now may be made again.
	startAgain = time.Second
	// attributeRedrives says how often a record was redriven.
	attributeRedrives = "weirredrives"
)

// ServeStarts serves what event source mappings call instead of a function, until ctx ends.
func (o *Orchestrator) ServeStarts(ctx context.Context, l net.Listener, ready func()) error {
	return lifecycle.Server{
		Listener: l, Drain: o.cfg.DrainTimeout,
		HTTP: &http.Server{
			Handler: o.starts(), ReadHeaderTimeout: startsTimeout, ReadTimeout: startsTimeout, WriteTimeout: 2 * startsTimeout, IdleTimeout: 2 * time.Minute,
			ErrorLog: slog.NewLogLogger(o.cfg.Log.Handler(), slog.LevelDebug),
		},
	}.Run(ctx, ready)
}

// starts starts an execution for each event. It is durable when the answer is given. A job is answered with 202, and reported
// when its execution has ended.
func (o *Orchestrator) starts() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+catalog.StartPath+"{namespace}/{name}", func(w http.ResponseWriter, r *http.Request) {
		k := catalog.Key{Namespace: r.PathValue("namespace"), Name: r.PathValue("name")}
		callback := r.Header.Get(function.HeaderCallback)
		if callback != "" {
			w = accepted{w}
		}
		function.Batch(func(ctx context.Context, events []function.Event) ([]function.Failure, error) {
			return o.startEach(ctx, k, events, callback[strings.LastIndexByte(callback, '/')+1:])
		}, function.Logger(o.cfg.Log), function.MaxBodyBytes(maxStartsBytes)).ServeHTTP(w, r)
	})
	return mux
}

// accepted answers 202 for 200: the job goes on.
type accepted struct{ http.ResponseWriter }

// WriteHeader implements http.ResponseWriter.
func (a accepted) WriteHeader(status int) {
	if status == http.StatusOK {
		status = http.StatusAccepted
	}
	a.ResponseWriter.WriteHeader(status)
}

// startEach starts an execution for each event, and returns those whose start will never be taken. callback is of the job that
// the only event is; empty if it is none.
func (o *Orchestrator) startEach(ctx context.Context, k catalog.Key, events []function.Event, callback string) ([]function.Failure, error) {
	errs := make([]error, len(events))
	var wg sync.WaitGroup
	slots := make(chan struct{}, maxStarting)
	for i := range events {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			errs[i] = o.startFor(ctx, k, &events[i], callback)
		})
	}
	wg.Wait()
	var failed []function.Failure
	for i, err := range errs {
		refused, isRefused := errors.AsType[*stream.RefusedError](err)
		switch {
		case err == nil:
		case isRefused && (refused.Code == taskapi.CodeInvalid || refused.Code == CodeExists), errors.Is(err, stream.ErrTooLargeForServer):
			if len(events) == 1 {
				return nil, function.Permanent(function.WithDetail(err, err.Error()))
			}
			failed = append(failed, function.Failure{ID: events[i].ID, Reason: err.Error()})
		default: // also a machine that is not there: it may come, and nothing is lost meanwhile
			return nil, function.NotNow(function.WithDetail(err, err.Error()), startAgain)
		}
	}
	return failed, nil
}

func (o *Orchestrator) startFor(ctx context.Context, k catalog.Key, e *function.Event, callback string) error {
	id := ID{Machine: k, Name: e.ID}
	if n := e.Extensions[attributeRedrives]; n != "" {
		id.Name += "-" + n // the execution before is over
	}
	if err := taskapi.CheckName(id.Name); err != nil {
		return invalid(err)
	}
	input := json.RawMessage(e.Data)
	if len(input) == 0 {
		input = json.RawMessage("{}")
	} else if !function.IsJSON(e.DataContentType) || !json.Valid(input) {
		text, err := jsontree.Append(nil, string(e.Data))
		if err != nil {
			return invalid(fmt.Errorf("the body is neither JSON nor text: %w", err))
		}
		input = text
	}
	if len(input) > statelang.MaxDataBytes {
		return invalid(fmt.Errorf("the input has %d bytes: at most %d are allowed", len(input), statelang.MaxDataBytes))
	}
	_, err := o.ask(o.under(ctx, e.Extensions["traceparent"], e.Extensions["tracestate"]), id, askStart, ask{Input: input, Callback: callback})
	return err
}
