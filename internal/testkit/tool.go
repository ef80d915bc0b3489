package testkit

import (
	"os"
	"path/filepath"
	"testing"
)

// Tool is the absolute path of the pinned program name in bin/ of the checkout at root, which hack/tools/FROM/install.sh builds.
func Tool(t testing.TB, root, from, name string) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join(root, "bin", name))
	if err == nil {
		_, err = os.Stat(path)
	}
	if err != nil {
		t.Fatalf("there is no %s: %v\nmake tools, or hack/tools/%s/install.sh, builds it into bin/", name, err, from)
	}
	return path
}
