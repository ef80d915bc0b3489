package jobapi_test

import (
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/job"
	"github.com/weir-dev/weir/internal/jobapi"
	"github.com/weir-dev/weir/internal/record"
	"github.com/weir-dev/weir/internal/stream"
	"github.com/weir-dev/weir/internal/testkit"
)

// TestAwaitKeepsTheState: who can't be told the result of a job that has ended still has its state.
func TestAwaitKeepsTheState(t *testing.T) {
	srv := testkit.NATS(t)
	conn := testkit.Conn(t, srv)
	api := jobapi.New(jobapi.Config{Conn: conn, Log: slog.New(slog.DiscardHandler)})
	t.Cleanup(api.Close)
	id, err := record.NewID()
	if err != nil {
		t.Fatal(err)
	}
	queue := catalog.Key{Namespace: "default", Name: "reports"}
	rec := &record.Record{ID: id, Time: time.Now()}
	about := api.About(job.NewID(queue, rec, rec.Time), "x", time.Hour)
	watch := api.Watch(queue, rec)
	defer watch.Close()
	srv.Stop()
	state, _, err := about.Await(t.Context(), watch, &job.State{Status: job.Succeeded}, time.Second, func(*job.State) bool { return true })
	if !errors.Is(err, stream.ErrUnavailable) || state == nil || state.Status != job.Succeeded {
		t.Errorf("%+v, %v", state, err)
	}
}
