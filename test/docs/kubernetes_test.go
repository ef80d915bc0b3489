package docs_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"testing"
)

// TestReasons holds the tables of docs/kubernetes.md to the reasons that the code gives.
func TestReasons(t *testing.T) {
	constant := regexp.MustCompile(`(?m)^\s+\w+ +(?:manifest\.)?Reason += "(\w+)"`)
	var want []string
	for _, file := range []string{"internal/manifest/reconcile.go", "internal/manifest/drains.go", "internal/controller/status.go"} {
		text, err := os.ReadFile(filepath.Join(root, file))
		if err != nil {
			t.Fatal(err)
		}
		found := constant.FindAllSubmatch(text, -1)
		if len(found) == 0 {
			t.Errorf("no reasons in %s", file)
		}
		for _, m := range found {
			want = append(want, string(m[1]))
		}
	}
	page, err := os.ReadFile(filepath.Join(root, "docs/kubernetes.md"))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, m := range regexp.MustCompile("(?m)^\\| `([A-Z]\\w+)` \\|").FindAllSubmatch(page, -1) {
		got = append(got, string(m[1]))
	}
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("docs/kubernetes.md has the reasons\n%v\nand the code\n%v", got, want)
	}
}
