package main

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// table is what docs/metrics.md says.
type table struct {
	rows       map[string]*row   // by the metric's name
	everywhere map[string]values // of attributes, where a row says nothing else
	others     []string          // metrics that have no row, but are named; those of a package end in "*"
	sets       map[string]*regexp.Regexp
}

// row is a metric.
type row struct {
	name, unit, kind string
	attributes       map[string]values // one that ends in ".*" stands for all of that prefix
}

// values are what an attribute may be: each is a value, or in italics the name of a set.
type values []string

var (
	quoted = regexp.MustCompile("`([^`]+)`")
	// attributeForm is one of a list of attributes, with its values in parentheses, which are followed by what else there is
	// to say of it: `weir.bucket` (route, api), `error.type` (*5xx*, aborted; of a 5xx).
	attributeForm = regexp.MustCompile("^`([a-z][a-z0-9_]*(?:\\.[a-z0-9_]+)*(?:\\.\\*)?)`(?: \\(([^()]*)\\))?(?:, |$)")
	valueForm     = regexp.MustCompile(`^(?:\*[a-z0-9]+\*|[A-Za-z0-9_-]+)$`)
	problemRow    = regexp.MustCompile("(?m)^\\| [0-9][^|]* \\| `([a-z-]+)` \\|")
)

// readTable reads docs/metrics.md. What is not in the form that it promises is an error: what isn't read isn't held to anything.
func readTable(t *testing.T) *table {
	t.Helper()
	text, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	contracts, err := os.ReadFile("../../docs/contracts.md")
	if err != nil {
		t.Fatal(err)
	}
	var problems []string
	for _, m := range problemRow.FindAllStringSubmatch(string(contracts), -1) {
		problems = append(problems, m[1])
	}
	if len(problems) < 20 {
		t.Fatalf("docs/contracts.md has only the problems %v", problems)
	}
	tab := &table{rows: map[string]*row{}, sets: map[string]*regexp.Regexp{
		"*any*": regexp.MustCompile(`.`), "*name*": regexp.MustCompile(`^[a-z0-9-]+/[a-z0-9.-]+$`), "*host*": regexp.MustCompile(`^[a-z0-9.:\[\]-]+$`),
		"*status*": regexp.MustCompile(`^[1-5]\d\d$`), "*4xx*": regexp.MustCompile(`^4\d\d$`), "*5xx*": regexp.MustCompile(`^5\d\d$`),
		"*problem*": regexp.MustCompile(`^(` + strings.Join(problems, "|") + `)$`),
	}}
	for paragraph := range strings.SplitSeq(string(text), "\n\n") {
		flowing := strings.TrimSpace(strings.ReplaceAll(paragraph, "\n", " "))
		if said, ok := strings.CutPrefix(flowing, "Everywhere: "); ok {
			if tab.everywhere, err = tab.attributes(strings.TrimSuffix(said, ".")); err != nil {
				t.Errorf("docs/metrics.md: %v", err)
			}
		}
		if said, ok := strings.CutPrefix(flowing, "Besides: "); ok {
			for _, m := range quoted.FindAllStringSubmatch(said, -1) {
				tab.others = append(tab.others, m[1])
			}
		}
		for line := range strings.Lines(paragraph) {
			if !strings.HasPrefix(line, "| `") {
				continue
			}
			if err := tab.read(line); err != nil {
				t.Errorf("docs/metrics.md: %v in %q", err, line)
			}
		}
	}
	if t.Failed() || len(tab.rows) < 40 || len(tab.everywhere) == 0 || len(tab.others) == 0 {
		t.Fatalf("docs/metrics.md is read as %d metrics, %v and %v", len(tab.rows), tab.everywhere, tab.others)
	}
	return tab
}

// read reads a row.
func (tab *table) read(line string) (err error) {
	cells := strings.Split(line, "|")
	if len(cells) != 8 {
		return fmt.Errorf("there are %d cells", len(cells)-2)
	}
	for i := range cells {
		cells[i] = strings.TrimSpace(cells[i])
	}
	r := &row{name: strings.Trim(cells[1], "`"), unit: cells[2], kind: cells[3]}
	if tab.rows[r.name] != nil {
		return errors.New("a second row")
	}
	tab.rows[r.name] = r
	if r.attributes, err = tab.attributes(cells[5]); err != nil {
		return err
	}
	for name, of := range r.attributes {
		if of == nil {
			of = tab.everywhere[name]
		}
		if of == nil {
			return fmt.Errorf("nothing says what %s may be", name)
		}
		r.attributes[name] = of
	}
	return nil
}

// attributes reads a list of attributes. The values are nil of one without parentheses.
func (tab *table) attributes(said string) (map[string]values, error) {
	out := map[string]values{}
	for rest := said; rest != ""; {
		m := attributeForm.FindStringSubmatch(rest)
		if m == nil {
			return nil, fmt.Errorf("%q is no list of attributes", rest)
		}
		name, list := m[1], m[2]
		if _, twice := out[name]; twice {
			return nil, fmt.Errorf("%s is there twice", name)
		}
		out[name] = nil
		if strings.Contains(m[0], "(") {
			list, _, _ = strings.Cut(list, "; ")
			for v := range strings.SplitSeq(list, ", ") {
				if !valueForm.MatchString(v) || v[0] == '*' && tab.sets[v] == nil {
					return nil, fmt.Errorf("%s: %q is no value", name, v)
				}
				out[name] = append(out[name], v)
			}
		}
		rest = rest[len(m[0]):]
	}
	return out, nil
}

// has reports whether an attribute may be v.
func (tab *table) has(of values, v string) bool {
	return slices.ContainsFunc(of, func(value string) bool {
		set := tab.sets[value]
		return set == nil && value == v || set != nil && set.MatchString(v)
	})
}

// other reports whether a metric without a row is named nevertheless. as is how names are spelt.
func (tab *table) other(name string, as func(string) string) bool {
	return slices.ContainsFunc(tab.others, func(o string) bool {
		prefix, all := strings.CutSuffix(o, "*")
		return as(o) == name || all && strings.HasPrefix(name, as(prefix))
	})
}

// attribute is the one of the row that stands for name, as names are spelt by as; "" if there is none.
func (r *row) attribute(name string, as func(string) string) string {
	for a := range maps.Keys(r.attributes) {
		prefix, all := strings.CutSuffix(a, "*")
		if as(a) == name || all && strings.HasPrefix(name, as(prefix)) {
			return a
		}
	}
	return ""
}

// TestMetricsForm: what can't be held to anything is not passed over.
func TestMetricsForm(t *testing.T) {
	tab := readTable(t)
	for _, cell := range []string{
		"weir.queue", "`weir.queue` and `weir.api`", "as above", "`weir.queue`, ", "`weir.queue` (the queue)", "`weir.queue` ()",
		"`weir.queue` (a, b and c)", "`weir.queue` (*nonsense*)", "`weir.queue` (a), `weir.queue` (b)", "`weir.queue` (a; (b))",
		"`weir.queue` (a,b)", "`weir.nonsense`",
	} {
		if err := tab.read("| `weir.x` | 1 | gauge | all | " + cell + " | x |"); err == nil {
			t.Errorf("%s is read", cell)
		}
		delete(tab.rows, "weir.x")
	}
	if err := tab.read("| `weir.x` | 1 | gauge | all | `weir.queue`, `error.type` (a, *5xx*; or (not)) | x |"); err == nil {
		t.Error("parentheses in parentheses are read")
	}
	delete(tab.rows, "weir.x")
	if err := tab.read("| `weir.x` | 1 | gauge | all | `error.type` (a, *5xx*; of a 5xx, or not), `weir.queue` | x |"); err != nil {
		t.Fatal(err)
	}
	r := tab.rows["weir.x"]
	for v, want := range map[string]bool{"a": true, "503": true, "404": false, "b": false, "*5xx*": false, "": false} {
		if tab.has(r.attributes["error.type"], v) != want {
			t.Errorf("%q is a value: %t", v, !want)
		}
	}
}
