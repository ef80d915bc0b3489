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
	bucketID
	spec    catalog.Throttle
	counted counted
}

// bucketID says whose a bucket is.
type bucketID struct {
	kind string // route, api, own
	api  string // NAMESPACE/API; empty for Weir's own paths
	name string // in the RateLimit fields
}

func newBucket(id bucketID, spec catalog.Throttle) *bucket {
	return &bucket{Bucket: throttle.New(spec.Rate, spec.Burst, time.Now()), spec: spec, bucketID: id}
}

// throttle takes a token from both the route's and the API's bucket, or from neither.
func (x *exchange) throttle() *problem.Problem { return x.take(x.w.Header(), x.now) }

func (r *route) take(h http.Header, now time.Time) *problem.Problem {
	if r.bucket != nil {
		if ok, wait := r.bucket.Take(now); !ok {
			r.g.metrics.throttle(r.bucket)
			return r.bucket.refuse(h, wait)
		}
	}
	if r.api != nil {
		if ok, wait := r.api.Take(now); !ok {
			if r.bucket != nil {
				r.bucket.Return()
			}
			r.g.metrics.throttle(r.api)
			return r.api.refuse(h, wait)
		}
	}
	return nil
}

// refuse is 429 with Retry-After and the fields of draft-ietf-httpapi-ratelimit-headers.
func (b *bucket) refuse(h http.Header, wait time.Duration) *problem.Problem {
	seconds := max(1, int(math.Ceil(wait.Seconds())))
	quota, window := policy(b.spec.Rate)
	h.Set("RateLimit-Policy", fmt.Sprintf("%q;q=%d;w=%d", b.name, quota, window))
	h.Set("RateLimit", fmt.Sprintf("%q;r=0;t=%d", b.name, seconds))
	return &problem.Problem{
		Status: http.StatusTooManyRequests, Type: problem.Throttled, Title: "Too many requests", RetryAfter: time.Duration(seconds) * time.Second,
		Detail: fmt.Sprintf("%s allows %g requests a second and %d at once, at each gateway. Wait as long as Retry-After says.", b.name, b.spec.Rate, b.spec.Burst),
	}
}

// policy is a rate in whole requests in a window of whole seconds, never more than the rate, but for one that is below a
// request in about a year.
func policy(rate float64) (quota, window int64) {
	const longest, about = 60, 1e-9
	for w := 1.0; w <= longest; w++ {
		if q := rate * w; q > 1-about && math.Abs(q-math.Round(q)) < about {
			return int64(math.Round(q)), int64(w)
		}
	}
	if q := math.Floor(rate * longest); q >= 1 {
		return int64(q), longest
	}
	return 1, int64(math.Ceil(min(1/rate, 1<<25)))
}
