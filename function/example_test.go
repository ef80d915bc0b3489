package function_test

import (
	"context"
	"fmt"
	"net/http"
	"os"

	"go.opentelemetry.io/otel"

	"github.com/weir-dev/weir/function"
)

// A custom metric is two lines: one where it is made, one where something is counted. It is summed up in the process and
// exported in batches, beside the calls.
func ExampleServe() {
	parcels, err := otel.Meter("example.com/parcels").Int64Counter("parcels.sent")
	if err != nil {
		panic(err)
	}
	handler := function.Batch(func(ctx context.Context, events []function.Event) ([]function.Failure, error) {
		parcels.Add(ctx, int64(len(events)))
		return nil, nil
	})
	if err := function.Serve(context.Background(), os.Getenv, handler); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
}

// A span of one's own is below the call's.
func ExampleObserve() {
	tracer := otel.Tracer("example.com/parcels")
	handler := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, span := tracer.Start(r.Context(), "weigh")
		defer span.End()
	})
	_ = http.Server{Handler: function.Observe(handler, "parcels", function.Telemetry{})}
}
