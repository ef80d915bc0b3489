package gateway

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/jobapi"
	"github.com/weir-dev/weir/internal/ownpath"
)

const (
	classUploads = "uploads"
	ownSource    = "/weir" // the source of Weir's own paths; each route of an API has its own
)

// defaultOwnThrottles are the throttles of Weir's own paths, by class, for each gateway process: high enough that a
// well-behaved client never reaches them, low enough that one that isn't leaves room for the APIs.
func defaultOwnThrottles() map[string]catalog.Throttle {
	return map[string]catalog.Throttle{
		jobapi.ClassJobs:      {Rate: 10_000, Burst: 20_000}, // polls, results, cancellations
		jobapi.ClassFeeds:     {Rate: 200, Burst: 1_000},     // new feeds
		jobapi.ClassListen:    {Rate: 5_000, Burst: 40_000},  // connections: after an outage all clients reconnect at once
		jobapi.ClassObjects:   {Rate: 500, Burst: 1_000},
		jobapi.ClassCallbacks: {Rate: 5_000, Burst: 10_000},
		classUploads:          {Rate: 500, Burst: 1_000}, // upload URLs: each also counts as a request of its route
	}
}

// ParseOwnThrottles reads the throttles of Weir's own paths: "feeds=200/1000,jobs=10000/20000", a rate in requests a
// second and a burst for each class that differs from the defaults.
func ParseOwnThrottles(text string) (map[string]catalog.Throttle, error) {
	out := defaultOwnThrottles()
	if text == "" {
		return out, nil
	}
	for part := range strings.SplitSeq(text, ",") {
		class, limits, _ := strings.Cut(strings.TrimSpace(part), "=")
		if _, known := out[class]; !known {
			return nil, fmt.Errorf("%q is not a class of own paths: there are %s", class, strings.Join(slices.Sorted(maps.Keys(out)), ", "))
		}
		rate, burst, _ := strings.Cut(limits, "/")
		r, rerr := strconv.ParseFloat(rate, 64)
		b, berr := strconv.Atoi(burst)
		if rerr != nil || berr != nil || !(r > 0) || b < 1 {
			return nil, fmt.Errorf("%q: must be CLASS=RATE/BURST, requests a second and at once, such as %s=200/1000", part, class)
		}
		out[class] = catalog.Throttle{Rate: r, Burst: b}
	}
	return out, nil
}

// ownMux serves Weir's own paths through the same steps as the routes of APIs.
func (g *Gateway) ownMux() *http.ServeMux {
	buckets := map[string]*bucket{}
	for class, spec := range g.cfg.OwnThrottles {
		buckets[class] = newBucket(bucketID{kind: "own", name: "weir " + class}, spec)
	}
	mux := http.NewServeMux()
	routes := append(append(g.jobs.Routes(), g.taskRoutes()...), jobapi.Route{
		Pattern: "POST " + ownpath.Uploads, Class: classUploads, MaxBody: func(*http.Request) int64 { return maxUploadAsked }, Serve: g.upload,
	})
	for _, own := range routes {
		method, pattern, _ := strings.Cut(own.Pattern, " ")
		r := &route{
			g: g, kind: toOwn, source: ownSource, method: method, pattern: pattern, spanName: own.Pattern, answers: new(answers),
			bucket: buckets[own.Class], own: own, maxBody: own.MaxBody, held: new(atomic.Int64),
		}
		if serve := own.Serve; strings.HasSuffix(own.Pattern, "/socket") {
			r.own.Serve = func(w http.ResponseWriter, req *http.Request, body []byte) {
				if streams(req) {
					noSocket(w)
					return
				}
				serve(w, req, body)
			}
		}
		mux.HandleFunc(own.Pattern, r.serve)
	}
	return mux
}
