package manifest

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	k8syaml "sigs.k8s.io/yaml"
)

// FuzzParse: no input makes the package panic, every mistake has a message on one line, and what is
// accepted is accepted again after its objects were written and read.
func FuzzParse(f *testing.F) {
	f.Add([]byte(good))
	f.Add([]byte(asList(good)))
	for _, pattern := range []string{"../../deploy/k8s/orders/*.yaml", "testdata/many-mistakes/*.yaml"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			f.Fatal(err)
		}
		for _, file := range files {
			data, err := os.ReadFile(file)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(data)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		objs, errs := Parse("a.yaml", data)
		for _, e := range errs {
			if e.Msg == "" || e.Line < 0 || strings.Contains(e.Error(), "\n") {
				t.Errorf("a mistake that is not one line of text: %+v", e)
			}
		}
		others, _ := Parse("a.yaml", data)
		mistakes, _ := Lint(others, errs, LintOptions{})
		b, err := Compile(objs, Options{})
		if accepted := err == nil && len(errs) == 0; accepted != (len(mistakes) == 0) {
			t.Errorf("weir local says %v %v, weir lint %v", errs, err, mistakes)
		}
		if err != nil || len(errs) > 0 {
			return
		}
		again, errs := Parse("b.yaml", write(t, objs))
		if len(errs) > 0 {
			t.Fatalf("what was accepted is refused when it is written and read again: %v", errs)
		}
		b2, err := Compile(again, Options{})
		if err != nil {
			t.Fatalf("what was accepted is refused when it is written and read again: %v", err)
		}
		if b.Catalog.Revision() != b2.Catalog.Revision() {
			t.Fatalf("the catalog changed:\n%+v\n%+v", b.Catalog, b2.Catalog)
		}
	})
}

func write(t *testing.T, objs *Objects) []byte {
	t.Helper()
	var buf bytes.Buffer
	put := func(o any) {
		out, err := k8syaml.Marshal(o)
		if err != nil {
			t.Fatal(err)
		}
		buf.WriteString("---\n")
		buf.Write(out)
	}
	for _, r := range objs.APIs {
		put(r.Object)
	}
	for _, r := range objs.Queues {
		put(r.Object)
	}
	for _, r := range objs.Mappings {
		put(r.Object)
	}
	for _, r := range objs.Machines {
		put(r.Object)
	}
	for _, r := range objs.Services {
		put(r.Object)
	}
	return buf.Bytes()
}
