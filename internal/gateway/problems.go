package gateway

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"time"

	"github.com/weir-dev/weir/internal/jobapi"
	"github.com/weir-dev/weir/internal/problem"
	"github.com/weir-dev/weir/internal/record"
	"github.com/weir-dev/weir/internal/stream"
)

func problemStarting() problem.Problem {
	return problem.NotNow("Starting", "This gateway has no catalog yet. Try again.", time.Second)
}

func problemTooLarge(limit int64) problem.Problem {
	return problem.Problem{
		Status: http.StatusRequestEntityTooLarge, Type: problem.TooLarge, Title: "Body too large",
		Detail: fmt.Sprintf("This route takes at most %d bytes (maxBodyBytes).", limit),
	}
}

func problemNotServed(why string) problem.Problem {
	return problem.Problem{
		Status: http.StatusServiceUnavailable, Type: problem.NotServed, Title: "This gateway can't serve the route", RetryAfter: 5 * time.Second,
		Detail: "Nothing was stored. Update the gateway, or mend the route: " + why + ".",
	}
}

func problemQueueClosed() problem.Problem {
	return problem.Problem{
		Status: http.StatusServiceUnavailable, Type: problem.QueueClosed, Title: "The queue is being deleted", RetryAfter: 5 * time.Second,
		Detail: "Nothing was stored: the queue takes no more records. Try again if it is to be created again; else remove the route.",
	}
}

// problemOf maps the error of a failed write to a queue, or of a failed submission of a job, to a problem.
func problemOf(err error) problem.Problem {
	if p, ok := jobapi.ProblemOf(err); ok {
		return p
	}
	unavailable := func(title, detail string) problem.Problem { return problem.NotNow(title, detail, time.Second) }
	switch {
	case errors.Is(err, errKeyReused):
		return problem.Problem{
			Status: http.StatusUnprocessableEntity, Type: problem.KeyReused, Title: "The idempotency key is in use",
			Detail: "Another request came with this Idempotency-Key. Give each request a key of its own.",
		}
	case errors.Is(err, stream.ErrQueueFull):
		return problem.Problem{
			Status: http.StatusServiceUnavailable, Type: problem.QueueFull, Title: "The queue is full", RetryAfter: 5 * time.Second,
			Detail: "Nothing was stored. Try again when the queue has drained, or raise its maxBytes.",
		}
	case errors.Is(err, stream.ErrQueueClosed):
		return problemQueueClosed()
	case errors.Is(err, stream.ErrBusy):
		return unavailable("Too many writes are waiting", "Nothing was stored. Try again.")
	case errors.Is(err, stream.ErrClosed):
		return unavailable("This gateway is stopping", "Nothing was stored. Try again: another one takes it.")
	case errors.Is(err, stream.ErrNoQueue):
		return unavailable("The queue does not exist", "Nothing was stored. Try again: it is made anew, or the route is about to change.")
	case errors.Is(err, stream.ErrTooLargeForServer):
		return problem.Problem{
			Status: http.StatusRequestEntityTooLarge, Type: problem.TooLarge, Title: "Too large for NATS",
			Detail: "Nothing was stored: NATS takes no message as large as this (max_payload of its server). Send less, or raise max_payload; Weir needs 1 MiB for all that its routes may allow.",
		}
	case errors.Is(err, record.ErrTooLarge):
		return problemTooLarge(record.MaxRecordBytes)
	case errors.Is(err, context.Canceled) && !errors.Is(err, stream.ErrUnavailable): // a lost connection to NATS cancels too
		return unavailable("The client went away", "The request may have been stored.")
	}
	return unavailable("Storage is not available", "The request may or may not have been stored. Try again with the same Idempotency-Key: it takes effect once.")
}

// problemOfBody maps the error of a failed read of the body to a problem.
func problemOfBody(err error, limit int64) problem.Problem {
	switch {
	case errors.Is(err, errBodyTooLarge):
		return problemTooLarge(limit)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return problemSlowBody()
	case errors.Is(err, errNoMemory):
		return problem.NotNow("Too many requests at once", "Nothing was stored. Try again.", time.Second)
	}
	return jobapi.BadBody()
}

func problemSlowBody() problem.Problem {
	return problem.Problem{
		Status: http.StatusRequestTimeout, Type: problem.SlowBody, Title: "The body came too slowly",
		Detail: fmt.Sprintf("Nothing came for %s, or fewer than %d bytes a second over all. Nothing was stored.", bodyGrace, minBodyRate),
	}
}

// noRoute asks the mux's own handler whether other methods would match.
func noRoute(h http.Handler, req *http.Request) problem.Problem {
	probe := &headerProbe{header: http.Header{}}
	h.ServeHTTP(probe, req)
	if probe.status == http.StatusMethodNotAllowed {
		return problem.Problem{
			Status: http.StatusMethodNotAllowed, Type: problem.Method, Title: "Method not allowed", Allow: probe.header.Get("Allow"),
			Detail: fmt.Sprintf("This path takes %s.", probe.header.Get("Allow")),
		}
	}
	return problem.Problem{Status: http.StatusNotFound, Type: problem.NoRoute, Title: "No route", Detail: "No route of any API matches this path."}
}

// headerProbe records what a handler answers and drops the body.
type headerProbe struct {
	header http.Header
	status int
}

func (p *headerProbe) Header() http.Header         { return p.header }
func (p *headerProbe) Write(b []byte) (int, error) { return len(b), nil }
func (p *headerProbe) WriteHeader(status int)      { p.status = status }
