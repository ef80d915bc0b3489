package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"time"
)

// image is what hack/images prints of one image (its type fact).
type image struct {
	Name     string `json:"name"`
	Size     int64  `json:"size"`
	Unpacked int64  `json:"unpacked"`
	Binary   string `json:"binary"`
}

// images measures what a scale from zero costs on Weir's side: how much a node has to pull, and how long a
// program takes from its start to its first answer at /healthz.
func (b *bench) images(ctx context.Context) error {
	images, err := b.buildImages(ctx)
	if err != nil {
		return err
	}
	const mib = 1 << 20
	for _, i := range images {
		b.results.add("image_mib_"+i.Name, float64(i.Size)/mib)
		b.results.add("image_unpacked_mib_"+i.Name, float64(i.Unpacked)/mib)
	}
	if runtime.GOOS != "linux" {
		b.say("the programs in the images are for Linux: no start times")
		return nil
	}
	_, url, err := b.startNATS(ctx, b.folder("nats"))
	if err != nil {
		return err
	}
	// The functions don't wait for their database, so there is none: what is measured is the program.
	nowhere, err := freeAddress(ctx)
	if err != nil {
		return err
	}
	database := "postgres://weir:weir@" + nowhere + "/weir?sslmode=disable"
	secrets, err := b.secrets(database, database)
	if err != nil {
		return err
	}
	for _, i := range images {
		for range b.rounds {
			addr, err := freeAddress(ctx)
			if err != nil {
				return err
			}
			env, ok := startEnv(i.Name, addr, url, filepath.Join(secrets, "orders-database"))
			if !ok {
				break
			}
			took, err := b.startOnce(ctx, i, addr, env)
			if err != nil {
				return err
			}
			b.results.add("start_ms_"+i.Name, float64(took.Microseconds())/1000)
		}
	}
	return nil
}

// buildImages runs hack/images, as make images does.
func (b *bench) buildImages(ctx context.Context) ([]image, error) {
	program := filepath.Join(b.bin, "images")
	build := exec.CommandContext(ctx, "go", "build", "-o", program, "./hack/images")
	build.Dir, build.Stdout, build.Stderr = b.root, os.Stderr, os.Stderr
	if err := build.Run(); err != nil {
		return nil, fmt.Errorf("build hack/images: %w", err)
	}
	run := exec.CommandContext(ctx, program, "--json", "--out", b.folder("images"))
	run.Dir, run.Stderr = b.root, os.Stderr
	out, err := run.Output()
	if err != nil {
		return nil, fmt.Errorf("hack/images: %w", err)
	}
	var images []image
	if err := json.Unmarshal(out, &images); err != nil {
		return nil, fmt.Errorf("hack/images --json: %w", err)
	}
	return images, nil
}

// startEnv is what a program needs to answer at addr. The controller can't: it needs a cluster.
func startEnv(name, addr, natsURL, database string) ([]string, bool) {
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, false
	}
	switch name {
	case "controller":
		return nil, false
	case "order-writer", "order-api", "report", "query":
		return []string{
			"PORT=" + port, "DATABASE_URL_FILE=" + filepath.Join(database, "url"),
			"MIGRATE_DATABASE_URL_FILE=" + filepath.Join(database, "direct-url"),
		}, true
	default: // another stage; the dispatcher ignores WEIR_LISTEN
		return []string{"WEIR_NATS_URL=" + natsURL, "WEIR_LISTEN=127.0.0.1:0", "WEIR_HEALTH_LISTEN=" + addr}, true
	}
}

// startOnce returns the time from just before the fork to the first 200 at /healthz.
func (b *bench) startOnce(ctx context.Context, i image, addr string, env []string) (time.Duration, error) {
	start := time.Now()
	c, err := b.start(i.Name, i.Binary, nil, env)
	if err != nil {
		return 0, err
	}
	defer c.stop()
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	for {
		if status, _ := get(ctx, http.MethodGet, "http://"+addr+"/healthz", "", nil); status == http.StatusOK {
			return time.Since(start), nil
		}
		select {
		case <-c.Done():
			return 0, c.failure(fmt.Sprintf("ended (%s)", c.State()))
		case <-ctx.Done():
			return 0, c.failure("was not ready in time")
		default:
			wait(ctx, 500*time.Microsecond) // a refused connection costs the machine next to nothing
		}
	}
}
