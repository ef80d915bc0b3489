package manifest

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// asList makes one List of the documents of text, each item indented below its dash.
func asList(text string) string {
	var b strings.Builder
	b.WriteString("apiVersion: v1\nkind: List\nmetadata: {resourceVersion: \"\"}\nitems:\n")
	for doc := range strings.SplitSeq(text, "\n---\n") {
		b.WriteString("- " + strings.ReplaceAll(strings.TrimSpace(doc), "\n", "\n  ") + "\n")
	}
	return b.String()
}

// TestListIsItsItems: the items of a List mean what the same documents mean, in a list of lists too.
func TestListIsItsItems(t *testing.T) {
	want, err := load(map[string]string{"a.yaml": good}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"a list": asList(good), "a list in a list": asList(asList(good))} {
		got, err := load(map[string]string{"a.yaml": text}, Options{})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got.Catalog.Revision() != want.Catalog.Revision() || len(got.Services) != len(want.Services) {
			t.Errorf("%s is %+v, want %+v", name, got, want)
		}
	}
}

// TestLists: what is said of an item has its line; what has no name yet, its place in the list.
func TestLists(t *testing.T) {
	const list = "apiVersion: v1\nkind: List\nitems:\n"
	const typed = "apiVersion: weir.dev/v1alpha1\nkind: QueueList\nitems:\n"
	for name, c := range map[string]struct {
		text string
		want string // every mistake, exactly
		n    int    // resources
	}{
		"nothing in it":         {list[:len(list)-1] + " []\n", "", 0},
		"a mistake in an item":  {list + "- {apiVersion: weir.dev/v1alpha1, kind: Queue, metadata: {name: a}}\n- apiVersion: weir.dev/v1alpha1\n  kind: Queue\n  metadata: {name: b}\n  spec: {maxAge: 4d}\n", `a.yaml:8: Queue b: spec.maxAge: must be a duration with its unit, such as "500ms", "30s" or "5m", not "4d"; write "96h"`, 2},
		"in a later document":   {"# one\n---\n" + list + "- apiVersion: weir.dev/v1alpha1\n  kind: Queu\n  metadata: {name: a}\n", `a.yaml:7: Queu a: kind: unknown kind "Queu" in weir.dev/v1alpha1; there are API, Queue, EventSourceMapping, StateMachine; did you mean "Queue"?`, 0},
		"in JSON":               {`{"apiVersion": "v1", "kind": "List", "items": [{"apiVersion": "weir.dev/v1alpha1", "kind": "Queue", "metadata": {"name": "a"}, "spec": {"maxAg": "1h"}}]}`, `a.yaml:1: Queue a: spec.maxAg: unknown field; did you mean "maxAge"?`, 1},
		"an item of no kind":    {list + "- {apiVersion: weir.dev/v1alpha1, kind: Queue, metadata: {name: a}}\n- apiVersion: weir.dev/v1alpha1\n", `a.yaml:5: items[1].kind: is missing: every resource says apiVersion and kind, such as apiVersion: weir.dev/v1alpha1, kind: API`, 1},
		"no item":               {list + "- Queue\n-\n", "a.yaml:3: items[1]: must be a resource with apiVersion, kind, metadata and spec, not nothing\na.yaml:4: items[0]: must be a resource with apiVersion, kind, metadata and spec, not \"Queue\"", 0},
		"in a list of a list":   {list + "- apiVersion: v1\n  kind: List\n  items:\n  - kind: Queue\n", `a.yaml:7: items[0].items[0].apiVersion: is missing: every resource says apiVersion and kind, such as apiVersion: weir.dev/v1alpha1, kind: API`, 0},
		"Kubernetes' own kinds": {list + "- {apiVersion: v1, kind: ConfigMap, metadata: {name: a, labels: {x: a, x: b}}}\n", "", 0},
		"a typed list":          {typed + "- metadata: {name: a}\n- metadata: {name: b}\n  spec: {maxAge: 1}\n", `a.yaml:6: Queue b: spec.maxAge: must be a duration with its unit, such as "500ms", "30s" or "5m", not 1`, 2},
		"Kubernetes' own list":  {"apiVersion: v1\nkind: ConfigMapList\nitems:\n- metadata: {name: a}\n", "", 0},
		"too many items":        {"a: b\n---\n" + list + strings.Repeat("- {}\n", MaxDocuments-1), "a.yaml:1: apiVersion: is missing: every resource says apiVersion and kind, such as apiVersion: weir.dev/v1alpha1, kind: API\na.yaml:1: kind: is missing: every resource says apiVersion and kind, such as apiVersion: weir.dev/v1alpha1, kind: API\na.yaml:5: has 1001 resources with the items of this list; at most 1000 are read from one: split it", 0},
	} {
		t.Run(name, func(t *testing.T) {
			objs, errs := Parse("a.yaml", []byte(c.text))
			if errs.Error() != c.want || objs.Len() != c.n {
				t.Errorf("%d resources,\n%v\nwant %d,\n%s", objs.Len(), errs, c.n, c.want)
			}
		})
	}
}

// TestRecursive: the files of subfolders are read as kubectl apply -R reads them, and only then.
func TestRecursive(t *testing.T) {
	dir, outside := t.TempDir(), t.TempDir()
	queue := func(name string) string {
		return "apiVersion: weir.dev/v1alpha1\nkind: Queue\nmetadata: {name: " + name + "}\n"
	}
	for path, text := range map[string]string{
		filepath.Join(dir, "a.yaml"):                     queue("a"),
		filepath.Join(dir, "b", "c.yml"):                 queue("c"),
		filepath.Join(dir, "b", "d", "e.yaml"):           queue("e"),
		filepath.Join(dir, "b", "kustomization.yaml"):    "resources: [c.yml]\n",
		filepath.Join(dir, "b", "README.md"):             "not: [yaml",
		filepath.Join(dir, "only", "below", "here.yaml"): queue("here"),
		filepath.Join(dir, "without", "notes.txt"):       "nothing",
		filepath.Join(outside, "f.yaml"):                 queue("f"),
	} {
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	link := filepath.Join(dir, "linked")
	if err := os.Symlink(outside, link); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		dir       string
		recursive bool
		want      []string
	}{
		"the folder itself":    {dir, false, []string{"a"}},
		"all":                  {dir, true, []string{"a", "c", "e", "here"}},
		"of a subfolder":       {filepath.Join(dir, "b"), true, []string{"c", "e"}},
		"nothing but below":    {filepath.Join(dir, "only"), true, []string{"here"}},
		"a folder that's link": {link, false, []string{"f"}},
	} {
		t.Run(name, func(t *testing.T) {
			objs, errs, err := ParseDir(c.dir, c.recursive)
			if err != nil || len(errs) > 0 {
				t.Fatal(err, errs)
			}
			var got []string
			for _, q := range objs.Queues {
				got = append(got, q.Object.Name)
				if base := filepath.Base(q.Origin.File); q.Origin.File == base || strings.TrimSuffix(base, filepath.Ext(base)) != q.Object.Name {
					t.Errorf("queue %s is from %s", q.Object.Name, q.Origin.File)
				}
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("%v, want %v", got, c.want)
			}
		})
	}
	for sub, below := range map[string]string{"only": filepath.Join(dir, "only", "below", "here.yaml"), "without": ""} {
		_, _, err := ParseDir(filepath.Join(dir, sub), false)
		if none, ok := errors.AsType[*NoFilesError](err); !ok || none.Below != below {
			t.Errorf("%s: %v", sub, err)
		}
	}
}
