package main

import (
	"net"
	"net/http"
	"sort"
	"strings"
	"sync/atomic"

	"knative.dev/networking/pkg/apis/networking/v1alpha1"
)

// routes is the table of all rules, by host. It is replaced as a whole, so that a request sees one snapshot of it.
type routes struct {
	byHost atomic.Pointer[map[string][]route]
}

type route struct {
	local bool // answers to requests from within the cluster only
	path  v1alpha1.HTTPIngressPath
}

// set replaces the table by the rules of these ingresses.
func (r *routes) set(ingresses []*v1alpha1.Ingress) {
	byHost := map[string][]route{}
	for _, ingress := range ingresses {
		for _, rule := range ingress.Spec.Rules {
			if rule.HTTP == nil {
				continue
			}
			local := rule.Visibility == v1alpha1.IngressVisibilityClusterLocal
			for _, host := range rule.Hosts {
				host = strings.ToLower(host)
				for _, path := range rule.HTTP.Paths {
					byHost[host] = append(byHost[host], route{local: local, path: path})
				}
			}
		}
	}
	// The most specific rule first: the longer path, then the one that asks for more headers.
	for _, of := range byHost {
		sort.SliceStable(of, func(i, j int) bool {
			if a, b := len(of[i].path.Path), len(of[j].path.Path); a != b {
				return a > b
			}
			return len(of[i].path.Headers) > len(of[j].path.Headers)
		})
	}
	r.byHost.Store(&byHost)
}

// find returns the rule for a request, or nil.
func (r *routes) find(request *http.Request, local bool) *v1alpha1.HTTPIngressPath {
	byHost := r.byHost.Load()
	if byHost == nil {
		return nil
	}
	host := request.Host
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	of := (*byHost)[strings.ToLower(host)]
	for i := range of {
		if (!of[i].local || local) && matches(&of[i].path, request) {
			return &of[i].path
		}
	}
	return nil
}

func matches(path *v1alpha1.HTTPIngressPath, request *http.Request) bool {
	if !strings.HasPrefix(request.URL.Path, path.Path) {
		return false
	}
	for name, match := range path.Headers {
		if request.Header.Get(name) != match.Exact {
			return false
		}
	}
	return true
}

// pick chooses one of the splits by their percentages; n is in [0,100).
func pick(splits []v1alpha1.IngressBackendSplit, n int) *v1alpha1.IngressBackendSplit {
	for i := range splits {
		if n -= splits[i].Percent; n < 0 {
			return &splits[i]
		}
	}
	if len(splits) == 0 {
		return nil
	}
	return &splits[0] // percentages that don't add up to 100: a single split may leave them out
}
