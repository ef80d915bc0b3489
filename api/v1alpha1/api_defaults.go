package v1alpha1

import (
	"time"

	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	// DefaultMaxBodyBytes is a route's body limit when it names none.
	DefaultMaxBodyBytes = 256 << 10
	// DefaultMaxDepth is a route's nesting limit when it names none.
	DefaultMaxDepth = 128
	// MaxDepth is the largest: with the two levels that a batch adds, it is about what parsers that recurse still read.
	MaxDepth = 1000
	// DefaultCORSMaxAge is how long browsers remember an API's cors when it doesn't say.
	DefaultCORSMaxAge = 10 * time.Minute
	// DefaultRouteTimeout is a function route's timeout when it names none. It is that of Amazon API
	// Gateway's integrations.
	DefaultRouteTimeout = 29 * time.Second
)

// Default fills in what the user left out. It is idempotent.
func (a *API) Default() {
	a.Spec.Class = a.ClassOf()
	if a.Spec.CORS != nil {
		defaultDuration(&a.Spec.CORS.MaxAge, DefaultCORSMaxAge)
	}
	for i := range a.Spec.Routes {
		r := &a.Spec.Routes[i]
		defaultQuantity(&r.MaxBodyBytes, DefaultMaxBodyBytes)
		defaultInt32(&r.MaxDepth, DefaultMaxDepth)
		if r.Function != nil {
			defaultDuration(&r.Function.Timeout, DefaultRouteTimeout)
		}
	}
}

func defaultDuration(d **metav1.Duration, v time.Duration) {
	if *d == nil {
		*d = &metav1.Duration{Duration: v}
	}
}

func defaultQuantity(q **resource.Quantity, bytes int64) {
	if *q == nil {
		*q = resource.NewQuantity(bytes, resource.BinarySI)
	}
}

func defaultInt32(p **int32, v int32) {
	if *p == nil {
		*p = &v
	}
}
