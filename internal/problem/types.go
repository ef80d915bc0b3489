package problem

import (
	"net/http"
	"time"

	"github.com/weir-dev/weir/function"
)

// Types of problems: stable, for programs (docs/contracts.md lists them).
const (
	base = "https://weir.dev/problems/"

	BadRequest       = function.ProblemBadRequest
	Method           = function.ProblemMethod
	TooLarge         = function.ProblemTooLarge
	UnsupportedMedia = function.ProblemMediaType

	SlowBody      = base + "slow-body"
	Attribute     = base + "attribute"
	Schema        = base + "schema"
	NoRoute       = base + "no-route"
	TargetTooLong = base + "target-too-long"
	Throttled     = base + "throttled"
	QueueFull     = base + "queue-full"
	QueueClosed   = base + "queue-closed"
	NotServed     = base + "route-not-served"
	Unavailable   = base + "unavailable"
	BadGateway    = base + "bad-gateway"
	Timeout       = base + "function-timeout"
	Internal      = base + "internal"
	KeyReused     = base + "idempotency-key-reused"

	NoJob        = base + "no-job"
	JobFailed    = base + "job-failed"
	JobCancelled = base + "job-cancelled"
	JobExpired   = base + "job-expired"
	JobEnded     = base + "job-ended"
	NoCallback   = base + "no-callback"
	AttemptOver  = base + "attempt-over"
	NoTask       = base + "no-task"
	TaskOver     = base + "task-over"
	NoActivity   = base + "no-activity"
	NotFound     = function.ProblemNotFound
	Conflict     = base + "conflict"
	NoFeed       = base + "no-feed"
	NoWebSocket  = base + "no-websocket"
	NoUpload     = base + "no-upload"
	NoObject     = base + "no-object"
	URLExpired   = base + "url-expired"
	ObjectGone   = base + "object-gone"
	ObjectsFull  = base + "objects-full"
)

// NotNow is a temporary problem: a 503 with Retry-After.
func NotNow(title, detail string, retryAfter time.Duration) Problem {
	return Problem{Status: http.StatusServiceUnavailable, Type: Unavailable, Title: title, Detail: detail, RetryAfter: retryAfter}
}

// UnknownJob is the problem of an id that was never given.
func UnknownJob() Problem {
	return Problem{Status: http.StatusNotFound, Type: NoJob, Title: "No such job", Detail: "No job was ever given this id, or its queue was deleted."}
}

// UnknownFeed is the problem of a feed that was never given.
func UnknownFeed() Problem {
	return Problem{Status: http.StatusNotFound, Type: NoFeed, Title: "No such feed", Detail: "No feed was ever given this id. POST /weir/feeds gives one."}
}
