package chart_test

import (
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

var (
	codeMark  = regexp.MustCompile("`([^`]+)`")
	filePath  = regexp.MustCompile(`^\.?[\w-]+(/[\w.-]+)+$|^\.?[\w-]+\.(yaml|md|go|mod|json)$`)
	listHead  = regexp.MustCompile(`^A new (.+): (\d+) files`)
	listEntry = regexp.MustCompile("^(\\d+)\\. `([^`]+)`[:,] ")
)

// TestContributing holds CONTRIBUTING.md's lists of what to touch: their files exist and are as many as is said, and
// whatever file names all the stages is in the list of a new one, or takes them from services/ as stageNames does.
func TestContributing(t *testing.T) {
	const root = "../.."
	text, err := os.ReadFile(filepath.Join(root, "CONTRIBUTING.md"))
	if err != nil {
		t.Fatal(err)
	}
	var ofStage []string
	lists := 0
	for section := range strings.SplitSeq(string(text), "\n### ") {
		var named, entries []string
		for _, m := range codeMark.FindAllStringSubmatch(section, -1) {
			if !filePath.MatchString(m[1]) {
				continue
			}
			named = append(named, m[1])
			if _, err := os.Stat(filepath.Join(root, m[1])); err != nil {
				t.Error(err)
			}
		}
		head := listHead.FindStringSubmatch(section)
		if head == nil {
			continue
		}
		lists++
		if head[1] == "stage" {
			ofStage = named
		}
		for line := range strings.Lines(section) {
			if entry := listEntry.FindStringSubmatch(line); entry != nil {
				entries = append(entries, entry[2])
				if !filePath.MatchString(entry[2]) || entry[1] != strconv.Itoa(len(entries)) {
					t.Errorf("a new %s: entry %d is %q", head[1], len(entries), line)
				}
			}
		}
		if want, _ := strconv.Atoi(head[2]); len(entries) != want || len(slices.Compact(slices.Sorted(slices.Values(entries)))) != want {
			t.Errorf("a new %s: the heading says %d files, and there are %d: %v", head[1], want, len(entries), entries)
		}
	}
	if lists != 3 || len(ofStage) == 0 {
		t.Errorf("there are %d lists, want those of a field, a stage and a metric", lists)
	}
	for _, file := range naming(t, root, stageNames()) {
		if !slices.Contains(ofStage, file) {
			t.Errorf("%s names all stages, and CONTRIBUTING.md's list of a new one doesn't have it: let it take them from services/*/main.go, or add it", file)
		}
	}
}

// naming are the files that have all the words, but for pages, which are for people.
func naming(t *testing.T, root string, words []string) []string {
	t.Helper()
	patterns := make([]*regexp.Regexp, len(words))
	for i, w := range words {
		patterns[i] = regexp.MustCompile(`(?i)\b` + regexp.QuoteMeta(w) + `\b`)
	}
	var out []string
	err := fs.WalkDir(os.DirFS(root), ".", func(file string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && file != "." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "bin"):
			return fs.SkipDir // not in git, or git's
		case !d.Type().IsRegular() || path.Ext(file) == ".md":
			return nil
		}
		text, err := os.ReadFile(filepath.Join(root, file))
		if err == nil && !slices.ContainsFunc(patterns, func(p *regexp.Regexp) bool { return !p.Match(text) }) {
			out = append(out, file)
		}
		return err
	})
	if err != nil || len(out) == 0 {
		t.Fatalf("files that name %v: %v, %v", words, out, err)
	}
	return out
}
