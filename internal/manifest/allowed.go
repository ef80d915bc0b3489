package manifest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/weir-dev/weir/api/v1alpha1"
)

// AllowedRoutes say which routes a namespace may have: those that at least one rule allows. None means that every namespace may
// have every route.
type AllowedRoutes []AllowedRoute

// AllowedRoute is a rule of AllowedRoutes.
type AllowedRoute struct {
	// Namespaces are whom it is for; * is all of them.
	Namespaces []string `json:"namespaces"`
	// Hosts that routes may name; *.example.com are those below example.com. Empty means that they may name any, or none.
	Hosts []string `json:"hosts"`
	// Paths that routes may have, and all below them. Empty means all.
	Paths []string `json:"paths"`
}

const anyNamespace = "*"

// ParseAllowedRoutes reads a JSON array of rules; empty text has none.
func ParseAllowedRoutes(text string) (AllowedRoutes, error) {
	if text == "" {
		return nil, nil
	}
	var rules AllowedRoutes
	dec := json.NewDecoder(bytes.NewReader([]byte(text)))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&rules); err != nil {
		return nil, fmt.Errorf("a JSON array of rules is wanted: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("one JSON array of rules is wanted: there is more behind it")
	}
	for i, r := range rules {
		if err := r.validate(); err != nil {
			return nil, fmt.Errorf("rule %d: %w", i, err)
		}
	}
	return rules, nil
}

func (r *AllowedRoute) validate() error {
	if len(r.Namespaces) == 0 {
		return fmt.Errorf("namespaces: say whom it is for; %s is all of them", anyNamespace)
	}
	for _, host := range r.Hosts {
		if err := v1alpha1.CheckHost(strings.TrimPrefix(host, "*.")); err != nil {
			return fmt.Errorf("hosts: %q: %w", host, err)
		}
	}
	for _, path := range r.Paths {
		if !strings.HasPrefix(path, "/") || strings.ContainsAny(path, "{}") {
			return fmt.Errorf("paths: %q: must begin with '/' and have no wildcard: all below it is meant", path)
		}
	}
	return nil
}

// refusal says why a namespace may not have a route, with what it may have; empty if it may.
func (a AllowedRoutes) refusal(namespace, host, path string) string {
	if len(a) == 0 {
		return ""
	}
	var may []string
	for _, r := range a {
		if !slices.Contains(r.Namespaces, namespace) && !slices.Contains(r.Namespaces, anyNamespace) {
			continue
		}
		if r.allowsHost(host) && r.allowsPath(path) {
			return ""
		}
		may = append(may, r.String())
	}
	where := "on every host"
	if host != "" {
		where = "on " + host
	}
	if len(may) == 0 {
		return fmt.Sprintf("%s %s: the release's controller.allowedRoutes allows the namespace %s no routes", path, where, namespace)
	}
	return fmt.Sprintf("%s %s: the release's controller.allowedRoutes allows the namespace %s only %s", path, where, namespace, strings.Join(may, ", or "))
}

func (r *AllowedRoute) allowsHost(host string) bool {
	return len(r.Hosts) == 0 || slices.ContainsFunc(r.Hosts, func(allowed string) bool {
		if parent, ok := strings.CutPrefix(allowed, "*"); ok {
			return strings.HasSuffix(host, parent)
		}
		return host == allowed
	})
}

// allowsPath compares segments as ServeMux reads them: a wildcard is in no allowed path.
func (r *AllowedRoute) allowsPath(path string) bool {
	return len(r.Paths) == 0 || slices.ContainsFunc(r.Paths, func(allowed string) bool {
		if allowed = strings.TrimSuffix(allowed, "/"); allowed == "" {
			return true
		}
		above, segments := segmentsOf("", allowed), segmentsOf("", path)
		return len(above) <= len(segments) && slices.Equal(above, segments[:len(above)])
	})
}

// String is for messages.
func (r *AllowedRoute) String() string {
	paths, hosts := "all paths", ""
	if len(r.Paths) > 0 {
		paths = "below " + strings.Join(r.Paths, " and ")
	}
	if len(r.Hosts) > 0 {
		hosts = " on the host " + strings.Join(r.Hosts, " or ")
	}
	return paths + hosts
}
