package main

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// hello returns the arguments for a build of the small main in a module of its own, in a folder of its own.
func hello(t *testing.T, args ...string) config {
	t.Helper()
	root := t.TempDir()
	source, err := os.ReadFile("testdata/hello/main.go")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(root, "cmd", "hello"), 0o755); err != nil {
		t.Fatal(err)
	}
	for path, content := range map[string]string{
		"go.mod": "module example.com/hello\n\ngo 1.26.0\n", "cmd/hello/main.go": string(source), "lib.go": "package hello\n",
	} {
		if err := os.WriteFile(filepath.Join(root, path), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	cfg, err := parse(append(args, "--services", "none", "--json", "--out", filepath.Join(root, "out"), "./cmd/hello"), func(string) string { return "" })
	if err != nil {
		t.Fatal(err)
	}
	cfg.root = root
	return cfg
}

func build(t *testing.T, cfg config) []fact {
	t.Helper()
	var stdout, stderr bytes.Buffer
	if err := run(t.Context(), cfg, &stdout, &stderr); err != nil {
		t.Fatalf("%v\n%s", err, stderr.String())
	}
	var facts []fact
	if err := json.Unmarshal(stdout.Bytes(), &facts); err != nil {
		t.Fatalf("%v\n%s", err, stdout.String())
	}
	return facts
}

// TestReproducible: another folder, other file times and another moment give the same digest.
func TestReproducible(t *testing.T) {
	a := build(t, hello(t))
	cfg := hello(t)
	old := time.Unix(1e9, 0)
	if err := os.Chtimes(filepath.Join(cfg.root, "cmd", "hello", "main.go"), old, old); err != nil {
		t.Fatal(err)
	}
	t.Setenv("GOAMD64", "v3") // the machine's default doesn't count
	b := build(t, cfg)
	if len(a) != 1 || len(b) != 1 || a[0].Digest != b[0].Digest || a[0].ID != b[0].ID {
		t.Errorf("two builds of the same sources differ:\n%+v\n%+v", a, b)
	}
	archives := make([][]byte, 2)
	for i, f := range []fact{a[0], b[0]} {
		var err error
		if archives[i], err = os.ReadFile(f.Archive); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(archives[0], archives[1]) {
		t.Error("the archives of the two builds differ")
	}
	later := hello(t)
	later.epoch = time.Unix(1e9, 0).UTC()
	if c := build(t, later); c[0].Digest == a[0].Digest {
		t.Error("SOURCE_DATE_EPOCH makes no difference")
	}
}

// TestContents checks what the deployments rely on: the account, the entrypoint, no shell.
func TestContents(t *testing.T) {
	facts := build(t, hello(t, "--repo", "ko.local/weir", "--tag", "e2e"))
	f := facts[0]
	if f.Reference != "ko.local/weir/hello:e2e" || f.Platform != "linux/"+runtime.GOARCH {
		t.Errorf("the image is %s for %s", f.Reference, f.Platform)
	}
	tag, err := name.NewTag(f.Reference)
	if err != nil {
		t.Fatal(err)
	}
	img, err := tarball.ImageFromPath(f.Archive, &tag)
	if err != nil {
		t.Fatal(err)
	}
	file, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	c := file.Config
	if !slices.Equal(c.Entrypoint, []string{"/ko-app/hello"}) || len(c.Cmd) > 0 || c.User != "65532:65532" || c.WorkingDir != "/" {
		t.Errorf("configuration: %+v", c)
	}
	if !file.Created.Equal(time.Unix(0, 0)) || c.Labels["org.opencontainers.image.licenses"] != "Apache-2.0" ||
		c.Labels["org.opencontainers.image.source"] == "" || c.Labels["org.opencontainers.image.title"] != "hello" {
		t.Errorf("created %v, labels %v", file.Created, c.Labels)
	}
	if id, err := img.ConfigName(); err != nil || id.String() != f.ID {
		t.Errorf("id %v, want %s: %v", id, f.ID, err)
	}
	layers, err := img.Layers()
	if err != nil || len(layers) != 1 {
		t.Fatalf("%d layers, want one: %v", len(layers), err)
	}
	r, err := layers[0].Uncompressed()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var paths []string
	var unpacked int64
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Uid != 0 || h.Gid != 0 || h.Uname != "" || !h.ModTime.Equal(time.Unix(0, 0)) {
			t.Errorf("%s: owner %d:%d %q, time %v", h.Name, h.Uid, h.Gid, h.Uname, h.ModTime)
		}
		paths = append(paths, fmt.Sprintf("%s %o", h.Name, h.Mode))
		unpacked += h.Size
		if h.Name == "ko-app/hello" {
			runs(t, tr)
		}
	}
	want := []string{"etc/ 755", "etc/group 644", "etc/passwd 644", "ko-app/ 755", "ko-app/hello 555", "tmp/ 1777"}
	if !slices.Equal(paths, want) {
		t.Errorf("the layer holds %q, want %q", paths, want)
	}
	if f.Unpacked < unpacked || f.Size <= 0 || f.Size >= f.Unpacked {
		t.Errorf("%d bytes in files, %d unpacked, %d to pull", unpacked, f.Unpacked, f.Size)
	}
}

// runs starts the program that r holds.
func runs(t *testing.T, r io.Reader) {
	t.Helper()
	content, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "hello")
	if err := os.WriteFile(file, content, 0o755); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(file).Output(); err != nil || string(out) != "hello\n" {
		t.Errorf("it says %q: %v", out, err)
	}
}

// TestPush pushes to a registry in this process, and reads back what a cluster would pull.
func TestPush(t *testing.T) {
	srv := httptest.NewServer(registry.New(registry.Logger(slog.NewLogLogger(slog.DiscardHandler, slog.LevelError))))
	defer srv.Close()
	repo := strings.TrimPrefix(srv.URL, "http://") + "/weir"

	one := build(t, hello(t, "--repo", repo, "--tag", "one", "--push"))
	ref, err := name.ParseReference(one[0].Reference)
	if err != nil {
		t.Fatal(err)
	}
	img, err := remote.Image(ref)
	if err != nil {
		t.Fatal(err)
	}
	if d, err := img.Digest(); err != nil || d.String() != one[0].Digest {
		t.Errorf("the registry has %v, printed was %s: %v", d, one[0].Digest, err)
	}

	both := build(t, hello(t, "--repo", repo, "--tag", "both", "--push", "--platform", "linux/amd64,linux/arm64"))
	if ref, err = name.ParseReference(both[0].Reference); err != nil {
		t.Fatal(err)
	}
	if len(both) != 2 || both[0].Archive == both[1].Archive || both[0].Digest == both[1].Digest {
		t.Fatalf("two platforms gave %+v", both)
	}
	for _, f := range both {
		p, err := v1.ParsePlatform(f.Platform)
		if err != nil {
			t.Fatal(err)
		}
		img, err := remote.Image(ref, remote.WithPlatform(*p))
		if err != nil {
			t.Fatal(err)
		}
		if d, err := img.Digest(); err != nil || d.String() != f.Digest {
			t.Errorf("for %s the registry has %v, printed was %s: %v", f.Platform, d, f.Digest, err)
		}
	}
}

// TestMissingMain: the mains that exist are built, and the missing one is reported.
func TestMissingMain(t *testing.T) {
	cfg := hello(t)
	cfg.packages = append(cfg.packages, "./cmd/nothing", ".")
	var stdout, stderr bytes.Buffer
	err := run(t.Context(), cfg, &stdout, &stderr)
	if err == nil || !strings.Contains(err.Error(), "no image of ./cmd/nothing") || !strings.Contains(err.Error(), `package "hello", not a main`) {
		t.Errorf("the error is %v", err)
	}
	if _, err := os.Stat(filepath.Join(cfg.out, "hello.tar")); err != nil {
		t.Errorf("the other image is not there: %v", err)
	}
}

func TestCommandLine(t *testing.T) {
	t.Chdir(filepath.Join("..", "..")) // where make images runs
	for _, c := range []struct {
		args  []string
		epoch string
		says  string
	}{
		{args: []string{"--services", "gateway,nonsense"}, says: `--services "nonsense"`},
		{args: []string{"--services", "none"}, says: "nothing to build"},
		{args: []string{"--platform", "windows/amd64"}, says: "use linux/ARCH"},
		{args: []string{"--platform", "amd64"}, says: "use linux/ARCH"},
		{epoch: "yesterday", says: "SOURCE_DATE_EPOCH"},
		{args: []string{"--help"}, says: flag.ErrHelp.Error()},
	} {
		null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		stderr := os.Stderr
		os.Stderr = null // flag writes its usage there
		_, err = parse(c.args, func(string) string { return c.epoch })
		os.Stderr = stderr
		_ = null.Close()
		if err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%q, epoch %q: %v, want %q", c.args, c.epoch, err, c.says)
		}
	}
	cfg, err := parse([]string{"--services", "gateway,order-api"}, func(string) string { return "7" })
	if err != nil || !slices.Equal(cfg.packages, []string{"./services/gateway", "./services/functions/order-api"}) || cfg.epoch.Unix() != 7 {
		t.Errorf("%+v: %v", cfg, err)
	}
}

// TestCancelled: an interrupt ends the build.
func TestCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := run(ctx, hello(t), io.Discard, io.Discard); !errors.Is(err, context.Canceled) {
		t.Errorf("it ended with %v", err)
	}
}

// TestServices: every main below services/ has an image, in whatever folder; a folder without one has none.
func TestServices(t *testing.T) {
	root := t.TempDir()
	if _, err := services(root); err == nil || !strings.Contains(err.Error(), "must be the checkout") {
		t.Errorf("in an empty folder: %v", err)
	}
	for _, file := range []string{"services/b/main.go", "services/functions/a/main.go", "services/functions/a/README.md", "services/c/other.go", "cmd/d/main.go"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(root, file)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, file), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := services(root); err != nil || !slices.Equal(got, []string{"./services/b", "./services/functions/a"}) {
		t.Errorf("services are %v, %v", got, err)
	}
	got, err := services(filepath.Join("..", ".."))
	if err != nil || !slices.Contains(got, "./services/gateway") || !slices.Contains(got, "./services/functions/order-writer") {
		t.Errorf("this checkout's services are %v, %v", got, err)
	}
}
