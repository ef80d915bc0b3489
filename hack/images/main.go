// Command images is `make images`: container images of Weir's services, from scratch, without a container
// engine. An image holds one static binary in one layer, an account for it and /tmp; no shell, no package
// manager, no CA certificates of the machine that built it (the binaries carry the roots they need).
//
//	go run ./hack/images                                  every service, bin/images/NAME.tar, for this architecture
//	go run ./hack/images --platform linux/amd64,linux/arm64 --push --repo ghcr.io/weir-dev/weir --tag v1.2.3
//	go run ./hack/images --repo ko.local/weir --tag e2e ./test/e2e/slowwriter      one more main, beside the services
//	go run ./hack/images --services none ./test/e2e/slowwriter                     that one alone
//	go run ./hack/images --services gateway,order-api --json                       two of them; facts on stdout
//
// The same sources and the same Go give the same digests, on any machine and in any folder: paths, build
// ids and the VCS's stamp are left out, and every time is SOURCE_DATE_EPOCH (default 0: 1970). What changes
// a digest without changing a binary is the label with the commit.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"path"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// services are the mains that Weir publishes, all that are below services/. An image is named as the last element of its
// main's path.
func services(root string) ([]string, error) {
	var mains []string
	err := fs.WalkDir(os.DirFS(root), "services", func(file string, d fs.DirEntry, err error) error {
		if err == nil && d.Name() == "main.go" {
			mains = append(mains, "./"+path.Dir(file))
		}
		return err
	})
	if err == nil && len(mains) == 0 {
		err = errors.New("there is no main below services/")
	}
	if err != nil {
		return nil, fmt.Errorf("look for services in %s, which must be the checkout: %w", root, err)
	}
	return mains, nil
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	cfg, err := parse(os.Args[1:], os.Getenv)
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err == nil {
		err = run(ctx, cfg, os.Stdout, os.Stderr)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "images: %v\n", err)
		os.Exit(1)
	}
}

// config is the configuration, from the command line and the environment.
type config struct {
	root      string // where the mains' paths start
	out       string // folder of the archives, and of the binaries below OS_ARCH
	repo, tag string
	tags      string // of the build, comma separated
	platforms []v1.Platform
	packages  []string
	push      bool
	json      bool
	epoch     time.Time
}

func parse(args []string, getenv func(string) string) (config, error) {
	var cfg config
	var platforms, only string
	f := flag.NewFlagSet("images", flag.ContinueOnError)
	f.StringVar(&cfg.repo, "repo", "ghcr.io/weir-dev/weir", "what goes before an image's name")
	f.StringVar(&cfg.tag, "tag", "dev", "tag of all images")
	f.StringVar(&cfg.tags, "tags", "", "build tags, comma separated, such as weirnext: the version after this one, for tests of rolling updates")
	f.StringVar(&platforms, "platform", "linux/"+runtime.GOARCH, "comma separated, such as linux/amd64,linux/arm64")
	f.StringVar(&only, "services", "all", "all, none, or names, comma separated")
	f.StringVar(&cfg.out, "out", filepath.Join("bin", "images"), "folder of the archives NAME.tar (docker load, ctr image import) and of the binaries")
	f.BoolVar(&cfg.push, "push", false, "push to the registry that --repo names; several platforms become one index")
	f.BoolVar(&cfg.json, "json", false, "write facts (digest, sizes, files) as JSON to stdout instead of a table")
	if err := f.Parse(args); err != nil {
		return cfg, err
	}
	var err error
	if cfg.root, err = os.Getwd(); err != nil {
		return cfg, err
	}
	if cfg.packages, err = selectServices(cfg.root, only); err != nil {
		return cfg, err
	}
	cfg.packages = append(cfg.packages, f.Args()...)
	if len(cfg.packages) == 0 {
		return cfg, errors.New("nothing to build: --services none needs paths of mains")
	}
	for p := range strings.SplitSeq(platforms, ",") {
		osName, arch, ok := strings.Cut(p, "/")
		if !ok || osName != "linux" || arch == "" || strings.Contains(arch, "/") {
			return cfg, fmt.Errorf("--platform %q: use linux/ARCH, such as linux/amd64 or linux/arm64", p)
		}
		cfg.platforms = append(cfg.platforms, v1.Platform{OS: osName, Architecture: arch})
	}
	cfg.epoch = time.Unix(0, 0).UTC()
	if s := getenv("SOURCE_DATE_EPOCH"); s != "" {
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil || n < 0 {
			return cfg, fmt.Errorf("SOURCE_DATE_EPOCH is %q: use seconds since 1970, or unset it", s)
		}
		cfg.epoch = time.Unix(n, 0).UTC()
	}
	return cfg, nil
}

func selectServices(root, only string) ([]string, error) {
	if only == "none" {
		return nil, nil
	}
	all, err := services(root)
	if err != nil || only == "all" {
		return all, err
	}
	var packages, names []string
	for _, p := range all {
		names = append(names, path.Base(p))
	}
	for want := range strings.SplitSeq(only, ",") {
		found := false
		for _, p := range all {
			if path.Base(p) == want {
				packages, found = append(packages, p), true
			}
		}
		if !found {
			return nil, fmt.Errorf("--services %q: use all, none, or some of %s", want, strings.Join(names, ","))
		}
	}
	return packages, nil
}

// fact is what is printed of one image for one platform. test/load/bench reads it.
type fact struct {
	Name      string `json:"name"`
	Reference string `json:"reference"`
	Platform  string `json:"platform"`
	Digest    string `json:"digest"`   // of the manifest, as a registry knows it
	ID        string `json:"id"`       // of the configuration, as a container engine shows it
	Size      int64  `json:"size"`     // bytes to pull: manifest, configuration and compressed layer
	Unpacked  int64  `json:"unpacked"` // bytes of the layer on a node
	Archive   string `json:"archive"`
	Binary    string `json:"binary"`
}

// run builds what can be built. A main that is missing is an error, after the others are done.
func run(ctx context.Context, cfg config, stdout, stderr io.Writer) error {
	mains, missing, err := findMains(ctx, cfg)
	if err != nil {
		return err
	}
	if len(mains) == 0 {
		return missing
	}
	labels := labelsOf(ctx, cfg.root)
	var facts []fact
	built := map[string][]platformImage{}
	for _, p := range cfg.platforms {
		fmt.Fprintf(stderr, "==> building %d binaries for %s\n", len(mains), p)
		dir, err := buildBinaries(ctx, cfg, p, mains, stderr)
		if err != nil {
			return err
		}
		for _, m := range mains {
			f := fact{Name: m.name, Platform: p.String(), Binary: filepath.Join(dir, m.name)}
			img, err := newImage(cfg, p, m.name, f.Binary, labels)
			if err != nil {
				return fmt.Errorf("%s for %s: %w", m.name, p, err)
			}
			if f, err = writeArchive(ctx, cfg, f, img); err != nil {
				return fmt.Errorf("%s for %s: %w", m.name, p, err)
			}
			facts = append(facts, f)
			built[m.name] = append(built[m.name], platformImage{p, img})
		}
	}
	if cfg.push {
		for _, m := range mains {
			ref, digest, err := push(ctx, cfg, m.name, built[m.name])
			if err != nil {
				return err
			}
			fmt.Fprintf(stderr, "==> pushed %s@%s\n", ref, digest)
		}
	}
	return errors.Join(report(cfg, stdout, facts), missing)
}

func report(cfg config, stdout io.Writer, facts []fact) error {
	if cfg.json {
		e := json.NewEncoder(stdout)
		e.SetIndent("", "  ")
		return e.Encode(facts)
	}
	const mib = 1 << 20
	t := tabwriter.NewWriter(stdout, 0, 8, 2, ' ', 0)
	fmt.Fprintln(t, "IMAGE\tPLATFORM\tDIGEST\tMiB\tMiB UNPACKED\tARCHIVE")
	for _, f := range facts {
		fmt.Fprintf(t, "%s\t%s\t%s\t%.1f\t%.1f\t%s\n", f.Reference, f.Platform, f.Digest, float64(f.Size)/mib, float64(f.Unpacked)/mib, f.Archive)
	}
	return t.Flush()
}
