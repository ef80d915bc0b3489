package main

import (
	"archive/tar"
	"bytes"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// tree is the file system of an image. Paths are clean and absolute; parent folders are added automatically.
type tree struct {
	entries map[string]entry
}

type entry struct {
	kind    byte // tar.TypeDir, tar.TypeReg or tar.TypeSymlink
	mode    int64
	content []byte
	target  string
}

func newTree() *tree { return &tree{entries: map[string]entry{}} }

func (t *tree) folder(name string, mode int64) { t.put(name, entry{kind: tar.TypeDir, mode: mode}) }

func (t *tree) file(name string, mode int64, content []byte) {
	t.put(name, entry{kind: tar.TypeReg, mode: mode, content: content})
}

func (t *tree) symlink(name, target string) {
	t.put(name, entry{kind: tar.TypeSymlink, mode: 0o777, target: target})
}

func (t *tree) has(name string) bool { _, ok := t.entries[path.Clean(name)]; return ok }

func (t *tree) put(name string, e entry) {
	name = path.Clean(name)
	if parent := path.Dir(name); parent != "/" && !t.has(parent) {
		t.folder(parent, 0o755)
	}
	t.entries[name] = e
}

// layer is not compressed: it is read from the same disk that it was written to.
func (t *tree) layer() (v1.Layer, error) {
	var buffer bytes.Buffer
	w := tar.NewWriter(&buffer)
	for _, name := range slices.Sorted(maps.Keys(t.entries)) {
		e := t.entries[name]
		header := &tar.Header{
			Typeflag: e.kind, Name: strings.TrimPrefix(name, "/"), Mode: e.mode, Size: int64(len(e.content)), Linkname: e.target,
		}
		if e.kind == tar.TypeDir {
			header.Name += "/"
		}
		if err := w.WriteHeader(header); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		if _, err := w.Write(e.content); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return static.NewLayer(buffer.Bytes(), types.DockerUncompressedLayer), nil
}
