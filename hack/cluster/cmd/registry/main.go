// Registry is a container registry for the throw-away cluster, over plain HTTP on a loopback address: what is pushed
// from inside the cluster's network namespace (skaffold, ko) can be pulled by its containerd. The content of images
// is stored on disk; their manifests and tags are in memory and end with it, as the cluster does.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:5000", "`address` to listen on")
	blobs := flag.String("blobs", "", "`folder` for the content of the images")
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), "usage: registry -blobs FOLDER [-listen ADDRESS] [NAME:TAG=ARCHIVE...]")
		flag.PrintDefaults()
	}
	flag.Parse()
	if err := run(*listen, *blobs, flag.Args()); err != nil {
		log.Fatal(err)
	}
}

// run serves until SIGTERM; each of the archives is in the registry, under its name, from the start.
func run(listen, blobs string, archives []string) error {
	if blobs == "" {
		return fmt.Errorf("-blobs is missing: name a folder for the content of the images")
	}
	if err := os.MkdirAll(blobs, 0o755); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	listener, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	server := &http.Server{
		Handler:           registry.New(registry.WithBlobHandler(registry.NewDiskBlobHandler(blobs))),
		ReadHeaderTimeout: 10 * time.Second,
	}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()
	for _, archive := range archives {
		if err := push(ctx, listener.Addr().String(), archive); err != nil {
			return err
		}
	}
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
		return server.Close()
	}
}

// push puts an archive into the registry: NAME:TAG=FILE.
func push(ctx context.Context, address, archive string) error {
	ref, file, ok := strings.Cut(archive, "=")
	if !ok {
		return fmt.Errorf("%q: want NAME:TAG=ARCHIVE", archive)
	}
	tag, err := name.NewTag(address+"/"+ref, name.Insecure)
	if err != nil {
		return err
	}
	image, err := tarball.ImageFromPath(file, nil)
	if err != nil {
		return fmt.Errorf("read %s: %w", file, err)
	}
	if err := remote.Write(tag, image, remote.WithContext(ctx)); err != nil {
		return fmt.Errorf("push %s: %w", tag, err)
	}
	log.Printf("%s is there", tag)
	return nil
}
