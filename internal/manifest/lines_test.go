package manifest

import (
	"testing"

	"go.yaml.in/yaml/v2"
)

// TestLines guards the one way in which yaml v2 tells lines: its type errors.
func TestLines(t *testing.T) {
	const doc = `# comment
a: &anchor
  b:
  - one
  - {c: 1, d: [x, y]}
  -
    e: null
f.g/h: text
"quoted key": |
  block
i: *anchor
j:
k: {<<: *anchor, l: 1}
5: five
`
	root := new(node)
	if err := yaml.Unmarshal([]byte(doc), root); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]int{
		"":                  2,
		"a":                 2,
		"a.b":               3,
		"a.b[0]":            4,
		"a.b[1].c":          5,
		"a.b[1].d[1]":       5,
		"a.b[2]":            7,
		"a.b[2].e":          7,
		"a.b[2].e.deeper":   7,
		"a.b[9].c":          3,
		"a.missing.further": 2,
		"f.g/h":             8,
		"[f.g/h]":           8,
		"quoted key":        9,
		"i":                 11,
		"j.k":               12,
		"k.l":               13,
		"5":                 14,
		"nothing":           2,
	} {
		if got := root.lineAt(path); got != want {
			t.Errorf("%q is on line %d, got %d", path, want, got)
		}
	}
}

func TestSplitDocuments(t *testing.T) {
	docs := splitDocuments([]byte("\xef\xbb\xbf# c\n---\na: 1\n--- # two\nb: |\n  ---\n  x\n...\nc: 1\r\n---\r\n\n---\n%d\n--- {e: 1}"))
	var got []string
	var lines []int
	for _, d := range docs {
		got = append(got, string(d.text))
		lines = append(lines, d.offset)
	}
	want := []string{"---\na: 1\n", "--- # two\nb: |\n  ---\n  x\n", "c: 1\r\n", "--- {e: 1}"}
	wantLines := []int{1, 3, 8, 13}
	if len(got) != len(want) {
		t.Fatalf("got %q", got)
	}
	for i := range want {
		if got[i] != want[i] || lines[i] != wantLines[i] {
			t.Errorf("document %d: got %q after %d lines, want %q after %d", i, got[i], lines[i], want[i], wantLines[i])
		}
	}
}

func TestNearest(t *testing.T) {
	known := []string{"orders", "order-api", "throttle", "timeout"}
	for got, want := range map[string]string{
		"oders": "orders", "ORDERS": "orders", "throtle": "throttle", "timeOut": "timeout",
		"deliveries": "", "x": "", "": "",
	} {
		if w := nearest(got, known); w != want {
			t.Errorf("nearest(%q) = %q, want %q", got, w, want)
		}
	}
}
