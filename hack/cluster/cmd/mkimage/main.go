// Mkimage makes container images for machines with no registry and no Docker: from scratch, one layer, the same bytes
// for the same files (sorted, all times zero, all owned by root), as an archive that containerd imports.
//
//	mkimage -ref NAME:TAG -o ARCHIVE base              what a static binary may want: certificates, users, /tmp
//	mkimage -ref NAME:TAG -o ARCHIVE static BINARY     the same and the binary at /ko-app, as ko does
//	mkimage -ref NAME:TAG -o ARCHIVE postgres SCRIPT   Debian's PostgreSQL of this machine, started by the script
//	mkimage -ref NAME:TAG -o ARCHIVE pgbouncer         Debian's PgBouncer of this machine
package main

import (
	"flag"
	"fmt"
	"os"
	"runtime"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

func main() {
	ref := flag.String("ref", "", "`name` and tag of the image")
	out := flag.String("o", "", "`file` to write the archive to")
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), "usage: mkimage -ref NAME:TAG -o ARCHIVE base | static BINARY | postgres SCRIPT | pgbouncer")
		flag.PrintDefaults()
	}
	flag.Parse()
	if err := run(*ref, *out, flag.Args()); err != nil {
		fmt.Fprintf(os.Stderr, "mkimage: %s: %v\n", *ref, err)
		os.Exit(1)
	}
}

func run(ref, out string, args []string) error {
	tag, err := name.NewTag(ref, name.StrictValidation)
	if err != nil {
		return fmt.Errorf("-ref: %w", err)
	}
	if out == "" {
		return fmt.Errorf("-o is missing: name the archive to write")
	}
	contents, err := contentsOf(args)
	if err != nil {
		return err
	}
	image, err := contents.image()
	if err != nil {
		return err
	}
	// Renamed into place: an archive that exists is complete.
	if err := tarball.WriteToFile(out+".part", tag, image); err != nil {
		return err
	}
	return os.Rename(out+".part", out)
}

// contents is what an image is made of.
type contents struct {
	files  *tree
	config v1.Config
}

func contentsOf(args []string) (*contents, error) {
	switch {
	case len(args) == 1 && args[0] == "base":
		return base()
	case len(args) == 2 && args[0] == "static":
		return staticBinary(args[1])
	case len(args) == 2 && args[0] == "postgres":
		return postgres(args[1])
	case len(args) == 1 && args[0] == "pgbouncer":
		return pgbouncer()
	}
	return nil, fmt.Errorf("what image? want base, static BINARY, postgres SCRIPT or pgbouncer, got %q", args)
}

func (c *contents) image() (v1.Image, error) {
	layer, err := c.files.layer()
	if err != nil {
		return nil, err
	}
	image, err := mutate.AppendLayers(empty.Image, layer)
	if err != nil {
		return nil, err
	}
	file, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	file = file.DeepCopy()
	file.OS, file.Architecture = "linux", runtime.GOARCH
	file.Config = c.config
	return mutate.ConfigFile(image, file)
}
