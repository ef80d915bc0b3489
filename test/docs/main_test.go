// Package docs_test holds the documentation against the code: the commands are run, the examples compiled,
// the tables compared and the links followed.
package docs_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// root is the checkout.
const root = "../.."

// page is one Markdown file.
type page struct {
	path  string // from the root
	lines []string
}

func read(t testing.TB, path string) page {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root, path))
	if err != nil {
		t.Fatal(err)
	}
	return page{path, strings.Split(strings.TrimSuffix(string(b), "\n"), "\n")}
}

// pages are all that this package answers for.
func pages(t testing.TB) []page {
	t.Helper()
	all := []page{read(t, "README.md"), read(t, "CHANGELOG.md"), read(t, "CONTRIBUTING.md"), read(t, "SECURITY.md"), read(t, "examples/README.md")}
	for _, pattern := range []string{"docs/*.md", "docs/*/*.md"} {
		names, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			rel, err := filepath.Rel(root, name)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, read(t, filepath.ToSlash(rel)))
		}
	}
	if len(all) < 11 {
		t.Fatalf("only %d pages were found", len(all))
	}
	return all
}

// block is a fenced block. Its mark is the comment right before it, <!-- mark -->.
type block struct {
	page  string
	line  int
	lang  string
	mark  string
	text  string
	after bool // only blank lines lie between it and the block before
}

func (p page) blocks() []block {
	var out []block
	var open *block
	mark, after := "", false
	for i, line := range p.lines {
		switch fence, isFence := strings.CutPrefix(line, "```"); {
		case open != nil && isFence:
			out = append(out, *open)
			open, mark, after = nil, "", true
		case open != nil:
			open.text += line + "\n"
		case isFence:
			open = &block{page: p.path, line: i + 1, lang: fence, mark: mark, after: after && mark == ""}
		case strings.HasPrefix(line, "<!--"):
			mark = strings.TrimSpace(strings.TrimSuffix(strings.TrimPrefix(line, "<!--"), "-->"))
		case line != "":
			mark, after = "", false
		}
	}
	return out
}

// prose is the page without its fenced blocks, line by line.
func (p page) prose() []string {
	out := make([]string, len(p.lines))
	inside := false
	for i, line := range p.lines {
		isFence := strings.HasPrefix(line, "```")
		if !inside && !isFence {
			out[i] = line
		}
		inside = inside != isFence
	}
	return out
}

// rows are the body rows of every table with these column heads, code marks removed from the cells.
func (p page) rows(t testing.TB, heads ...string) [][]string {
	t.Helper()
	var out [][]string
	inside := false
	for _, line := range p.prose() {
		cells, ok := cells(line)
		switch {
		case !ok:
			inside = false
		case slices.Equal(cells, heads):
			inside = true
		case inside && strings.Trim(cells[0], "-") != "":
			if len(cells) != len(heads) {
				t.Fatalf("%s: %q has %d cells, want %d", p.path, line, len(cells), len(heads))
			}
			out = append(out, cells)
		}
	}
	if len(out) == 0 {
		t.Fatalf("%s has no table with the columns %q", p.path, heads)
	}
	return out
}

func cells(line string) ([]string, bool) {
	if !strings.HasPrefix(line, "|") {
		return nil, false
	}
	out := strings.Split(strings.Trim(line, "|"), "|")
	for i := range out {
		out[i] = strings.ReplaceAll(strings.TrimSpace(out[i]), "`", "")
	}
	return out, true
}

var (
	link    = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	code    = regexp.MustCompile("`([^`]+)`")
	heading = regexp.MustCompile(`^#+ (.+)$`)
	noSlug  = regexp.MustCompile(`[^\p{L}\p{N} _-]`)
)

// anchors are the headings as GitHub makes fragments of them.
func (p page) anchors() []string {
	var out []string
	for _, line := range p.prose() {
		if m := heading.FindStringSubmatch(line); m != nil {
			out = append(out, strings.ReplaceAll(noSlug.ReplaceAllString(strings.ToLower(m[1]), ""), " ", "-"))
		}
	}
	return out
}

func TestLinksResolve(t *testing.T) {
	n := 0
	for _, p := range pages(t) {
		for i, line := range p.prose() {
			for _, m := range link.FindAllStringSubmatch(line, -1) {
				target, fragment, _ := strings.Cut(m[1], "#")
				if strings.Contains(target, "://") {
					continue
				}
				n++
				to := p.path
				if target != "" {
					to = filepath.Join(filepath.Dir(p.path), target)
				}
				if _, err := os.Stat(filepath.Join(root, to)); err != nil {
					t.Errorf("%s:%d: %v", p.path, i+1, err)
					continue
				}
				if fragment != "" && !slices.Contains(read(t, to).anchors(), fragment) {
					t.Errorf("%s:%d: %s has no heading #%s", p.path, i+1, to, fragment)
				}
			}
		}
	}
	if n < 20 {
		t.Errorf("only %d links were found", n)
	}
}

// TestPathsExist checks what stands in code marks and looks like a path of the repository.
func TestPathsExist(t *testing.T) {
	repository := regexp.MustCompile(`^(api|bench|charts|cmd|deploy|docs|examples|function|hack|internal|services|test)/[\w./-]+$`)
	for _, p := range pages(t) {
		for i, line := range p.prose() {
			for _, m := range code.FindAllStringSubmatch(line, -1) {
				if !repository.MatchString(m[1]) {
					continue
				}
				// bench/latest.json is not in git.
				if _, err := os.Stat(filepath.Join(root, m[1])); err != nil && m[1] != "bench/latest.json" {
					t.Errorf("%s:%d: %v", p.path, i+1, err)
				}
			}
		}
	}
}
