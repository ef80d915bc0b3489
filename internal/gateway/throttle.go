package gateway

import (
	"fmt"
	"math"
	"net/http"
	"time"

	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/problem"
	"github.com/weir-dev/weir/internal/throttle"
)

// bucket is a throttle with its spec, so that a new catalog keeps an unchanged one, and a changed one its fill level.
type bucket struct {
	*throttle.Bucket
	spec catalog.Throttle
	name string // in the RateLimit fields
}

func newBucket(name string, spec catalog.Throttle) *bucket {
	return &bucket{Bucket: throttle.New(spec.Rate, spec.Burst, time.Now()), spec: spec, name: name}
}

// throttle takes a token from both the route's and the API's bucket, or from neither.
func (x *exchange) throttle() *problem.Problem { return x.take(x.w.Header(), x.now) }

func (r *route) take(h http.Header, now time.Time) *problem.Problem {
	if r.bucket != nil {
		if ok, wait := r.bucket.Take(now); !ok {
			return r.bucket.refuse(h, wait)
		}
	}
	if r.api != nil {
		if ok, wait := r.api.Take(now); !ok {
			if r.bucket != nil {
				r.bucket.Return()
			}
			return r.api.refuse(h, wait)
		}
	}
	return nil
}

// refuse is 429 with Retry-After and the fields of draft-ietf-httpapi-ratelimit-headers.
func (b *bucket) refuse(h http.Header, wait time.Duration) *problem.Problem {
	seconds := max(1, int(math.Ceil(wait.Seconds())))
	h.Set("RateLimit-Policy", fmt.Sprintf("%q;q=%d;w=1", b.name, int(math.Ceil(b.spec.Rate))))
	h.Set("RateLimit", fmt.Sprintf("%q;r=0;t=%d", b.name, seconds))
	return &problem.Problem{
		Status: http.StatusTooManyRequests, Type: problem.Throttled, Title: "Too many requests", RetryAfter: time.Duration(seconds) * time.Second,
		Detail: fmt.Sprintf("%s allows %g requests a second and %d at once. Wait as long as Retry-After says.", b.name, b.spec.Rate, b.spec.Burst),
	}
}
