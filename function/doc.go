// Package function is for people who write Weir functions in Go: an event, an http.Handler made of
// a Go function that takes a batch of events, and the errors that say what is to become of a batch.
//
//	func main() {
//		handler := function.Batch(func(ctx context.Context, events []function.Event) (failed []function.Failure, err error) {
//			…
//		})
//		if err := function.Serve(context.Background(), os.Getenv, handler); err != nil { … }
//	}
//
// A Weir function is any container that speaks HTTP; nobody needs this package. It holds one end of
// the function call contract, which docs/contracts.md describes for both ends:
//
//	the function returns                 the answer                          the dispatcher
//	no failures, nil                     200                                 settles all records
//	failures, nil                        200 with batchItemFailures          settles the others; the named ones: attempt + 1
//	NotNow(err, retryAfter)              503 with Retry-After                waits, counts no attempt, lowers its concurrency
//	Permanent(err)                       422                                 bisects down to the culprit and dead-letters it
//	any other error                      500                                 attempt + 1 for the batch, which is halved
//
// A function that takes jobs needs no more than an http.Handler; [CallbackOf] is for its progress, and for
// the outcome of work that goes on after a 202.
//
// Invariants: a body is bounded before it is read; a batch is parsed strictly (what encoding/json
// refuses is refused here) and each event's data once; an answer never carries the text of an error
// unless the author asked for it with [WithDetail] or in a [Failure].
//
// A function's metrics and traces are OpenTelemetry's, which [Serve] sets up by its environment.
//
// May import: telemetry, and nothing else of Weir: a function's image carries no NATS and no Kubernetes.
package function
