package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// The account that every image runs as: "nonroot", as in the usual base images, so that the same
// securityContext fits images that ko makes.
const nonroot = 65532

// binaryDir is where ko puts a binary, too: one entrypoint, whoever built the image.
const binaryDir = "/ko-app"

// pushTimeout bounds the push of one image.
const pushTimeout = 10 * time.Minute

// newImage makes the image of one binary.
func newImage(cfg config, p v1.Platform, program, binary string, labels map[string]string) (v1.Image, error) {
	content, err := layerTar(cfg.epoch, program, binary)
	if err != nil {
		return nil, err
	}
	// Caching: the layer is compressed once, not again for the archive and the push.
	layer, err := tarball.LayerFromOpener(
		func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(content)), nil },
		tarball.WithCompressedCaching, tarball.WithCompressionLevel(gzip.DefaultCompression), tarball.WithMediaType(types.OCILayer),
	)
	if err != nil {
		return nil, err
	}
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	created := v1.Time{Time: cfg.epoch}
	img, err = mutate.Append(img, mutate.Addendum{
		Layer:     layer,
		MediaType: types.OCILayer,
		History:   v1.History{Created: created, CreatedBy: "weir hack/images", Comment: program},
	})
	if err != nil {
		return nil, err
	}
	file, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	file = file.DeepCopy()
	file.OS, file.Architecture, file.Created = p.OS, p.Architecture, created
	labels = maps.Clone(labels)
	labels["org.opencontainers.image.title"] = program
	file.Config = v1.Config{
		Entrypoint: []string{binaryDir + "/" + program},
		Env:        []string{"PATH=" + binaryDir},
		User:       fmt.Sprintf("%d:%d", nonroot, nonroot),
		WorkingDir: "/",
		Labels:     labels,
	}
	return mutate.ConfigFile(img, file)
}

// layerTar is the whole file system of an image. The order of the entries and all that is in them is fixed.
func layerTar(epoch time.Time, program, binary string) ([]byte, error) {
	content, err := os.ReadFile(binary)
	if err != nil {
		return nil, err
	}
	id := strconv.Itoa(nonroot)
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, e := range []struct {
		path    string
		mode    int64
		content []byte
	}{
		{"etc/", 0o755, nil},
		{"etc/group", 0o644, []byte("root:x:0:\nnonroot:x:" + id + ":\n")},
		// os/user and PostgreSQL's clients look their own account up.
		{"etc/passwd", 0o644, []byte("root:x:0:0:root:/:/sbin/nologin\nnonroot:x:" + id + ":" + id + ":nonroot:/:/sbin/nologin\n")},
		{"ko-app/", 0o755, nil},
		{"ko-app/" + program, 0o555, content},
		{"tmp/", 0o1777, nil},
	} {
		h := &tar.Header{Name: e.path, Mode: e.mode, ModTime: epoch, Format: tar.FormatPAX, Typeflag: tar.TypeReg, Size: int64(len(e.content))}
		if e.content == nil {
			h.Typeflag = tar.TypeDir
		}
		if err := w.WriteHeader(h); err != nil {
			return nil, err
		}
		if _, err := w.Write(e.content); err != nil {
			return nil, err
		}
	}
	return out.Bytes(), w.Close()
}

// writeArchive writes the image as docker save does and completes f. The file appears only when it is complete.
func writeArchive(ctx context.Context, cfg config, f fact, img v1.Image) (fact, error) {
	tag, err := name.NewTag(cfg.repo + "/" + f.Name + ":" + cfg.tag)
	if err != nil {
		return f, fmt.Errorf("--repo and --tag don't make a reference: %w", err)
	}
	f.Reference = tag.String()
	digest, err := img.Digest()
	if err != nil {
		return f, err
	}
	id, err := img.ConfigName()
	if err != nil {
		return f, err
	}
	f.Digest, f.ID = digest.String(), id.String()
	if f.Size, f.Unpacked, err = sizes(img); err != nil {
		return f, err
	}
	file := f.Name + ".tar"
	if len(cfg.platforms) > 1 { // the format holds one platform
		file = f.Name + "_" + filepath.Base(filepath.Dir(f.Binary)) + ".tar"
	}
	if f.Archive, err = filepath.Abs(filepath.Join(cfg.out, file)); err != nil {
		return f, err
	}
	if err := ctx.Err(); err != nil {
		return f, err
	}
	part := f.Archive + ".part"
	if err := tarball.WriteToFile(part, tag, img); err != nil {
		return f, errors.Join(err, os.Remove(part))
	}
	return f, os.Rename(part, f.Archive)
}

// sizes returns the bytes to pull and the bytes of the unpacked layers.
func sizes(img v1.Image) (pull, unpacked int64, err error) {
	m, err := img.Manifest()
	if err != nil {
		return 0, 0, err
	}
	own, err := img.Size()
	if err != nil {
		return 0, 0, err
	}
	pull = own + m.Config.Size
	for _, l := range m.Layers {
		pull += l.Size
	}
	layers, err := img.Layers()
	if err != nil {
		return 0, 0, err
	}
	for _, l := range layers {
		r, err := l.Uncompressed()
		if err != nil {
			return 0, 0, err
		}
		n, err := io.Copy(io.Discard, r)
		if err := errors.Join(err, r.Close()); err != nil {
			return 0, 0, err
		}
		unpacked += n
	}
	return pull, unpacked, nil
}

// platformImage is an image of one platform.
type platformImage struct {
	platform v1.Platform
	image    v1.Image
}

// push pushes one image, or an index of several platforms' images, with the credentials that docker login
// keeps. A registry on loopback is spoken to without TLS.
func push(ctx context.Context, cfg config, program string, images []platformImage) (ref, digest string, err error) {
	ctx, cancel := context.WithTimeout(ctx, pushTimeout)
	defer cancel()
	tag, err := name.NewTag(cfg.repo + "/" + program + ":" + cfg.tag)
	if err != nil {
		return "", "", err
	}
	options := []remote.Option{remote.WithContext(ctx), remote.WithAuthFromKeychain(authn.DefaultKeychain)}
	var pushed interface{ Digest() (v1.Hash, error) }
	if len(images) == 1 {
		pushed = images[0].image
		err = remote.Write(tag, images[0].image, options...)
	} else {
		index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
		for _, i := range images {
			index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: i.image, Descriptor: v1.Descriptor{Platform: &i.platform}})
		}
		pushed = index
		err = remote.WriteIndex(tag, index, options...)
	}
	if err != nil {
		return "", "", fmt.Errorf("push %s: %w", tag, err)
	}
	h, err := pushed.Digest()
	return tag.String(), h.String(), err
}
