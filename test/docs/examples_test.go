package docs_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestExamples runs the README of each example: what it starts, and what comes of a PUT with a path parameter.
func TestExamples(t *testing.T) {
	for _, program := range []string{"bash", "go", "curl", "node", "python3"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Fatalf("the examples need %s: install it (hack/install-deps.sh --test does)", program)
		}
	}
	dir := copyCheckout(t)
	build := exec.CommandContext(t.Context(), "go", "build", "-o", "bin/weir", "./cmd/weir")
	build.Dir = dir
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	readmes, err := filepath.Glob(filepath.Join(root, "examples/*/README.md"))
	if err != nil || len(readmes) != 4 {
		t.Fatal(readmes, err)
	}
	for _, readme := range readmes {
		name := filepath.Base(filepath.Dir(readme))
		t.Run(name, func(t *testing.T) {
			s := &shell{t: t, dir: dir, ids: map[string]string{}}
			ports := freePorts(t, 2)
			s.env = append(os.Environ(), "CURL_HOME="+dir)
			write(t, filepath.Join(dir, ".curlrc"), "silent\nshow-error\n")
			s.ports = strings.NewReplacer("127.0.0.1:8081", fmt.Sprintf("127.0.0.1:%d", ports[0]),
				"127.0.0.1:9000", fmt.Sprintf("127.0.0.1:%d", ports[1]), "PORT=9000", fmt.Sprintf("PORT=%d", ports[1]), ".weir/example", ".weir/"+name)
			if ran := s.follow(read(t, "examples/"+name+"/README.md").blocks(), map[string]*background{}); ran != 3 {
				t.Errorf("%d commands were run", ran)
			}
		})
	}
}
