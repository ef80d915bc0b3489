package testkit

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// Tool is the absolute path of the pinned program name in bin/ of the checkout at root. hack/tools/FROM/install.sh builds it, if
// make has not.
func Tool(t testing.TB, root, from, name string) string {
	t.Helper()
	root, err := filepath.Abs(root)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(root, "bin", name)
	if _, err := os.Stat(path); err == nil {
		return path
	}
	script := filepath.Join(root, "hack", "tools", from, "install.sh")
	if out, err := exec.CommandContext(t.Context(), script).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", script, err, out)
	}
	return path
}
