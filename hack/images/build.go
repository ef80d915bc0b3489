package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// mainPackage is a program to put into an image.
type mainPackage struct {
	name       string // of the image: the last element of the path
	importPath string
}

// findMains asks the go command for the packages at the paths. A path without a main is in missing; err means that
// nothing can be built at all.
func findMains(ctx context.Context, cfg config) (mains []mainPackage, missing, err error) {
	var errs []error
	paths := map[string]string{}
	for _, p := range cfg.packages {
		out, err := command(ctx, cfg.root, nil, "go", "list", "-e", "-json=Name,ImportPath,Error", p)
		if err != nil {
			return nil, nil, err
		}
		var listed struct {
			Name, ImportPath string
			Error            *struct{ Err string }
		}
		if err := json.Unmarshal(out, &listed); err != nil {
			return nil, nil, fmt.Errorf("%s must name one package: %w", p, err)
		}
		switch {
		case listed.Error != nil:
			errs = append(errs, fmt.Errorf("no image of %s: %s", p, strings.TrimSpace(listed.Error.Err)))
			continue
		case listed.Name != "main":
			errs = append(errs, fmt.Errorf("no image of %s: it is package %q, not a main", p, listed.Name))
			continue
		}
		m := mainPackage{name: path.Base(listed.ImportPath), importPath: listed.ImportPath}
		if other := paths[m.name]; other != "" {
			if other == m.importPath {
				continue
			}
			return nil, nil, fmt.Errorf("%s and %s would be the same image %s: rename a folder", other, m.importPath, m.name)
		}
		paths[m.name] = m.importPath
		mains = append(mains, m)
	}
	return mains, errors.Join(errs...), nil
}

// buildBinaries builds all mains in one go, so that they share the work, and returns their folder.
func buildBinaries(ctx context.Context, cfg config, p v1.Platform, mains []mainPackage, stderr io.Writer) (string, error) {
	dir, err := filepath.Abs(filepath.Join(cfg.out, p.OS+"_"+p.Architecture))
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	args := []string{"build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w -buildid=", "-tags=" + cfg.tags, "-o", dir + string(filepath.Separator)}
	for _, m := range mains {
		args = append(args, m.importPath)
	}
	// The environment's own GOFLAGS, GOAMD64 and so on would make another binary of the same sources.
	env := []string{
		"CGO_ENABLED=0", "GOOS=" + p.OS, "GOARCH=" + p.Architecture,
		"GOFLAGS=-mod=readonly", "GOAMD64=v1", "GOARM64=v8.0", "GOEXPERIMENT=",
	}
	out, err := command(ctx, cfg.root, env, "go", args...)
	if len(out) > 0 {
		_, _ = stderr.Write(out)
	}
	return dir, err
}

// labelsOf are the annotations of the OCI image specification that don't depend on the time.
func labelsOf(ctx context.Context, root string) map[string]string {
	labels := map[string]string{
		"org.opencontainers.image.source":   "https://github.com/weir-dev/weir",
		"org.opencontainers.image.licenses": "Apache-2.0",
		"org.opencontainers.image.vendor":   "weir-dev",
	}
	// An archive of the sources has no commit; that is no reason to stop.
	revision, err := command(ctx, root, nil, "git", "rev-parse", "HEAD")
	if err != nil {
		return labels
	}
	label := strings.TrimSpace(string(revision))
	if status, err := command(ctx, root, nil, "git", "status", "--porcelain", "--untracked-files=no"); err != nil || len(status) > 0 {
		label += "-modified"
	}
	labels["org.opencontainers.image.revision"] = label
	return labels
}

// command runs a program and returns what it writes to stdout. Its error holds what it wrote to stderr.
func command(ctx context.Context, dir string, env []string, name string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), env...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return out, fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, bytes.TrimSpace(stderr.Bytes()))
	}
	return out, nil
}
