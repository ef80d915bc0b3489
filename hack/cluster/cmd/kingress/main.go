// Kingress is an ingress for Knative in plain Go, for machines that cannot have Envoy. It watches the Knative
// Ingresses of its class, proxies requests by host, header and path to their weighted splits, and reports them ready
// once its table has them. Public rules answer on :8080; on :8081 cluster-local ones do, too.
//
// It is test infrastructure: one replica, no TLS, no retries.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"k8s.io/client-go/rest"
	"knative.dev/networking/pkg/client/clientset/versioned"
)

const (
	publicAddress = ":8080"
	localAddress  = ":8081"
	drainTimeout  = 20 * time.Second
)

func main() {
	if err := run(); err != nil {
		log.Fatal(err)
	}
}

func run() error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	config, err := rest.InClusterConfig()
	if err != nil {
		return err
	}
	client, err := versioned.NewForConfig(config)
	if err != nil {
		return err
	}
	// The listeners come after the first table: a readiness probe of the port must not pass before.
	routes := &routes{}
	watched := make(chan struct{})
	failed := make(chan error, 3)
	go func() { failed <- watch(ctx, client, routes, func() { close(watched) }) }()
	select {
	case err := <-failed:
		return err
	case <-watched:
	}

	servers := []*http.Server{
		newServer(publicAddress, &router{routes: routes, proxy: newProxy(serviceAddress)}),
		newServer(localAddress, &router{routes: routes, local: true, proxy: newProxy(serviceAddress)}),
	}
	for _, server := range servers {
		go func() { failed <- server.ListenAndServe() }()
	}
	select {
	case err := <-failed:
		if ctx.Err() == nil {
			return err
		}
	case <-ctx.Done():
	}
	drain, cancel := context.WithTimeout(context.Background(), drainTimeout)
	defer cancel()
	var errs []error
	for _, server := range servers {
		if err := server.Shutdown(drain); err != nil {
			errs = append(errs, fmt.Errorf("drain %s: %w", server.Addr, err))
		}
	}
	return errors.Join(errs...)
}

func newServer(address string, handler http.Handler) *http.Server {
	server := &http.Server{
		Addr:              address,
		Handler:           handler,
		Protocols:         new(http.Protocols),
		ReadHeaderTimeout: 30 * time.Second,
	}
	server.Protocols.SetHTTP1(true)
	server.Protocols.SetUnencryptedHTTP2(true) // gRPC
	return server
}
