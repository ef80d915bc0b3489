package main

import (
	"context"
	"errors"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"time"

	"knative.dev/networking/pkg/apis/networking/v1alpha1"
)

// router answers one of the two addresses.
type router struct {
	routes *routes
	local  bool
	proxy  http.Handler
}

// target is what the router has chosen, for the proxy.
type target struct {
	path  *v1alpha1.HTTPIngressPath
	split *v1alpha1.IngressBackendSplit
}

type targetKey struct{}

func (r *router) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	path := r.routes.find(request, r.local)
	if path == nil {
		http.Error(w, "kingress: no rule for this host and path", http.StatusNotFound)
		return
	}
	split := pick(path.Splits, rand.IntN(100)) //nolint:gosec // it spreads load, nothing depends on it being secret
	if split == nil {
		http.Error(w, "kingress: the rule has no splits", http.StatusServiceUnavailable)
		return
	}
	r.proxy.ServeHTTP(w, request.WithContext(
		context.WithValue(request.Context(), targetKey{}, target{path: path, split: split})))
}

// serviceAddress is the address of a split's Service. The final dot keeps the resolver's search list out of it.
func serviceAddress(split *v1alpha1.IngressBackendSplit) string {
	return net.JoinHostPort(split.ServiceName+"."+split.ServiceNamespace+".svc.cluster.local.", split.ServicePort.String())
}

func newProxy(address func(*v1alpha1.IngressBackendSplit) string) http.Handler {
	http1 := &http.Transport{
		DialContext:         (&net.Dialer{Timeout: 5 * time.Second}).DialContext,
		MaxIdleConnsPerHost: 200,
		// A connection to a Service stays with the pod it was balanced to; a short life spreads load to new pods.
		IdleConnTimeout:    5 * time.Second,
		DisableCompression: true,
	}
	http2 := http1.Clone()
	http2.Protocols = new(http.Protocols)
	http2.Protocols.SetUnencryptedHTTP2(true)
	return &httputil.ReverseProxy{
		FlushInterval: -1, // streams pass at once
		Transport:     byProtocol{http1: http1, grpc: http2},
		Rewrite: func(p *httputil.ProxyRequest) {
			to := p.In.Context().Value(targetKey{}).(target)
			p.SetURL(&url.URL{Scheme: "http", Host: address(to.split)})
			p.Out.Host = p.In.Host
			if to.path.RewriteHost != "" {
				p.Out.Host = to.path.RewriteHost
			}
			p.Out.Header["X-Forwarded-For"] = p.In.Header["X-Forwarded-For"]
			p.SetXForwarded()
			for name, value := range to.path.AppendHeaders {
				p.Out.Header.Set(name, value)
			}
			for name, value := range to.split.AppendHeaders {
				p.Out.Header.Set(name, value)
			}
		},
		ErrorHandler: answerError,
	}
}

// answerError answers as Envoy would: 503 if no connection to the Service could be made (none of that name, no ready
// pod), 502 if one broke.
func answerError(w http.ResponseWriter, request *http.Request, err error) {
	if request.Context().Err() != nil {
		return // the client is gone: nobody reads an answer
	}
	log.Printf("%s %s%s: %v", request.Method, request.Host, request.URL.Path, err)
	if opError := (*net.OpError)(nil); errors.As(err, &opError) && opError.Op == "dial" {
		http.Error(w, "kingress: the service cannot be reached", http.StatusServiceUnavailable)
		return
	}
	http.Error(w, "kingress: the connection to the service broke", http.StatusBadGateway)
}

// byProtocol speaks HTTP/2 with prior knowledge for gRPC, which needs it, and HTTP/1.1, which can upgrade, otherwise.
type byProtocol struct{ http1, grpc http.RoundTripper }

func (b byProtocol) RoundTrip(request *http.Request) (*http.Response, error) {
	if strings.HasPrefix(request.Header.Get("Content-Type"), "application/grpc") {
		return b.grpc.RoundTrip(request)
	}
	return b.http1.RoundTrip(request)
}
