package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/util/intstr"
	"knative.dev/networking/pkg/apis/networking/v1alpha1"
)

// newIngress serves the rules through a proxy whose backends are found by their service names.
func newIngress(t *testing.T, local bool, backends map[string]string, rules ...v1alpha1.IngressRule) string {
	t.Helper()
	table := &routes{}
	table.set([]*v1alpha1.Ingress{{Spec: v1alpha1.IngressSpec{Rules: rules}}})
	proxy := newProxy(func(split *v1alpha1.IngressBackendSplit) string { return backends[split.ServiceName] })
	server := httptest.NewServer(&router{routes: table, local: local, proxy: proxy})
	t.Cleanup(server.Close)
	return server.Listener.Addr().String()
}

func newBackend(t *testing.T, handler http.HandlerFunc) string {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return server.Listener.Addr().String()
}

func says(text string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s host=%s revision=%s", text, r.Host, r.Header.Get("Knative-Serving-Revision"))
	}
}

func path(service string, headers map[string]v1alpha1.HeaderMatch) v1alpha1.HTTPIngressPath {
	return v1alpha1.HTTPIngressPath{
		Headers: headers,
		Splits: []v1alpha1.IngressBackendSplit{{
			IngressBackend: v1alpha1.IngressBackend{ServiceName: service, ServiceNamespace: "default", ServicePort: intstr.FromInt32(80)},
			Percent:        100,
			AppendHeaders:  map[string]string{"Knative-Serving-Revision": service},
		}},
	}
}

func rule(host string, visibility v1alpha1.IngressVisibility, paths ...v1alpha1.HTTPIngressPath) v1alpha1.IngressRule {
	return v1alpha1.IngressRule{
		Hosts: []string{host}, Visibility: visibility, HTTP: &v1alpha1.HTTPIngressRuleValue{Paths: paths},
	}
}

func get(t *testing.T, address, host string, headers map[string]string) (int, string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+address+"/", nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Host = host
	for name, value := range headers {
		request.Header.Set(name, value)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(body)
}

func TestRoutesByHostAndHeader(t *testing.T) {
	backends := map[string]string{"plain": newBackend(t, says("plain")), "tagged": newBackend(t, says("tagged"))}
	address := newIngress(t, false, backends, rule("Hello.example.com", v1alpha1.IngressVisibilityExternalIP,
		path("plain", nil), path("tagged", map[string]v1alpha1.HeaderMatch{"Knative-Serving-Tag": {Exact: "next"}})))

	if code, body := get(t, address, "hello.example.com:80", nil); code != 200 ||
		body != "plain host=hello.example.com:80 revision=plain" {
		t.Errorf("by host: %d %q", code, body)
	}
	if code, body := get(t, address, "hello.example.com", map[string]string{"Knative-Serving-Tag": "next"}); code != 200 ||
		!strings.HasPrefix(body, "tagged") {
		t.Errorf("by header: %d %q", code, body)
	}
	if code, _ := get(t, address, "other.example.com", nil); code != http.StatusNotFound {
		t.Errorf("unknown host: %d, want 404", code)
	}
}

func TestLocalRulesAreHiddenFromOutside(t *testing.T) {
	backends := map[string]string{"plain": newBackend(t, says("plain"))}
	hidden := rule("hello.default.svc.cluster.local", v1alpha1.IngressVisibilityClusterLocal, path("plain", nil))
	if code, _ := get(t, newIngress(t, false, backends, hidden), hidden.Hosts[0], nil); code != http.StatusNotFound {
		t.Errorf("from outside: %d, want 404", code)
	}
	if code, _ := get(t, newIngress(t, true, backends, hidden), hidden.Hosts[0], nil); code != http.StatusOK {
		t.Errorf("from inside: %d, want 200", code)
	}
}

func TestErrorsOfTheService(t *testing.T) {
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	listener.Close() // its port refuses
	breaks := newBackend(t, func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err == nil {
			conn.Close()
		}
	})
	backends := map[string]string{"refuses": listener.Addr().String(), "missing": "missing.invalid.:80", "breaks": breaks}
	empty := rule("empty", v1alpha1.IngressVisibilityExternalIP, v1alpha1.HTTPIngressPath{})
	for service, want := range map[string]int{"refuses": 503, "missing": 503, "breaks": 502, "empty": 503} {
		rules := []v1alpha1.IngressRule{empty, rule(service, v1alpha1.IngressVisibilityExternalIP, path(service, nil))}
		if code, body := get(t, newIngress(t, false, backends, rules...), service, nil); code != want {
			t.Errorf("%s: %d %q, want %d", service, code, body, want)
		}
	}
}

// An upgraded connection, a WebSocket's, passes bytes both ways.
func TestUpgradePasses(t *testing.T) {
	backend := newBackend(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") != "websocket" {
			http.Error(w, "no upgrade arrived", http.StatusBadRequest)
			return
		}
		conn, stream, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		fmt.Fprint(stream, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
		stream.Flush()
		line, _ := stream.ReadString('\n')
		fmt.Fprint(stream, "echo ", line)
		stream.Flush()
	})
	address := newIngress(t, false, map[string]string{"ws": backend}, rule("ws", v1alpha1.IngressVisibilityExternalIP, path("ws", nil)))
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	stop := context.AfterFunc(t.Context(), func() { conn.Close() })
	defer stop()
	fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: ws\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	reader := bufio.NewReader(conn)
	response, err := http.ReadResponse(reader, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("status %d, want 101", response.StatusCode)
	}
	fmt.Fprint(conn, "ping\n")
	if line, err := reader.ReadString('\n'); err != nil || line != "echo ping\n" {
		t.Errorf("got %q, %v", line, err)
	}
}

func TestPickFollowsThePercentages(t *testing.T) {
	splits := []v1alpha1.IngressBackendSplit{{Percent: 30}, {Percent: 70}}
	if got := pick(splits, 29); got != &splits[0] {
		t.Error("29 must be the first split's")
	}
	if got := pick(splits, 30); got != &splits[1] {
		t.Error("30 must be the second split's")
	}
	if pick(nil, 0) != nil {
		t.Error("no splits: want nil")
	}
}
