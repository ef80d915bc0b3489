package docs_test

import (
	"fmt"
	"go/ast"
	"go/constant"
	"go/token"
	"maps"
	"net/http"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/weir-dev/weir/internal/record"
)

// same reports what is in one of two sets only.
func same(t *testing.T, what, in string, documented, actual []string) {
	t.Helper()
	slices.Sort(documented)
	slices.Sort(actual)
	for _, s := range slices.Compact(slices.Clone(actual)) {
		if !slices.Contains(documented, s) {
			t.Errorf("%s does not say %s %s", in, what, s)
		}
	}
	for _, s := range slices.Compact(slices.Clone(documented)) {
		if !slices.Contains(actual, s) {
			t.Errorf("%s says %s %s, which the code does not have", in, what, s)
		}
	}
}

func TestRanks(t *testing.T) {
	var actual, documented []string
	walk(parseDir(t, "internal", true), func(v *ast.ValueSpec) {
		if v.Names[0].Name != "ranks" {
			return
		}
		for _, e := range v.Values[0].(*ast.CompositeLit).Elts {
			kv := e.(*ast.KeyValueExpr)
			name, _ := text(kv.Key)
			actual = append(actual, name+" "+kv.Value.(*ast.BasicLit).Value)
		}
	})
	const doc = "docs/architecture.md"
	for _, row := range read(t, doc).rows(t, "Package", "Rank", "What it is") {
		documented = append(documented, row[0]+" "+row[1])
	}
	same(t, "package and rank", doc, documented, actual)
}

func TestHops(t *testing.T) {
	for _, row := range read(t, "docs/architecture.md").rows(t, "Hop", "File", "Function") {
		dir, base := path.Split(row[1])
		if _, ok := parseDir(t, dir, false).functions()[base][row[2]]; !ok {
			t.Errorf("%s has no function %s", row[1], row[2])
		}
	}
}

// TestOwners checks that the functions exist that start goroutines and wait for them.
func TestOwners(t *testing.T) {
	known := map[string]bool{}
	for _, dir := range goDirs(t, "internal", "function") {
		for _, functions := range parseDir(t, dir, false).functions() {
			for name := range functions {
				known[name] = true
				known[path.Base(dir)+"."+name] = true
			}
		}
	}
	page := read(t, "docs/architecture.md")
	page.rows(t, "Goroutine", "Started by", "Waited for by") // it is there
	inside := false
	for _, line := range page.lines {
		inside = strings.HasPrefix(line, "| Goroutine |") || inside && strings.HasPrefix(line, "|")
		if !inside {
			continue
		}
		for _, m := range code.FindAllStringSubmatch(line, -1) {
			if !known[m[1]] {
				t.Errorf("there is no function %s", m[1])
			}
		}
	}
}

func TestBounds(t *testing.T) {
	for _, row := range read(t, "docs/architecture.md").rows(t, "Constant", "File", "Value", "Past it") {
		dir, base := path.Split(row[1])
		got, ok := parseDir(t, dir, false).constants(t)[base][row[0]]
		if !ok {
			t.Errorf("%s has no constant %s", row[1], row[0])
			continue
		}
		if want := quantity(t, row[2]); !constant.Compare(got, token.EQL, constant.MakeInt64(want)) {
			t.Errorf("%s: %s is %s, documented as %s (%d)", row[1], row[0], got, row[2], want)
		}
	}
}

// quantity reads "48 MiB", "15 s" (nanoseconds) or "512".
func quantity(t *testing.T, s string) int64 {
	t.Helper()
	number, unit, _ := strings.Cut(s, " ")
	n, err := strconv.ParseInt(number, 10, 64)
	factor, ok := map[string]int64{
		"": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30,
		"ms": int64(time.Millisecond), "s": int64(time.Second), "min": int64(time.Minute), "h": int64(time.Hour),
	}[unit]
	if err != nil || !ok {
		t.Fatalf("%q is no quantity", s)
	}
	return n * factor
}

func TestProblems(t *testing.T) {
	const doc = "docs/contracts.md"
	types := problemTypes(t)
	answered := map[string]bool{}
	for _, dir := range []string{"internal/problem", "internal/gateway", "internal/jobapi", "internal/realtime", "internal/taskapi"} {
		maps.Copy(answered, parseDir(t, dir, false).problems("Problem", types))
	}
	literal := map[string]bool{} // the types that come with a status
	for pair := range answered {
		_, typ, _ := strings.Cut(pair, " ")
		literal[typ] = true
	}
	var documented, pairs []string
	for _, row := range read(t, doc).rows(t, "Status", "Type", "When", "Headers") {
		documented = append(documented, row[1])
		if literal[row[1]] {
			pairs = append(pairs, row[0]+" "+row[1])
		}
	}
	same(t, "problem type", doc, documented, slices.Collect(maps.Values(types)))
	same(t, "status and problem type", doc, pairs, slices.Collect(maps.Keys(answered)))
}

// problemTypes are the words of all types, by the constants of internal/problem; some are those of package function.
func problemTypes(t *testing.T) map[string]string {
	t.Helper()
	types := parseDir(t, "internal/problem", false).problemTypes(t, "types.go")
	shared := parseDir(t, "function", false).problemTypes(t, "errors.go")
	for name, of := range map[string]string{
		"BadRequest": "ProblemBadRequest", "Method": "ProblemMethod", "TooLarge": "ProblemTooLarge", "UnsupportedMedia": "ProblemMediaType",
		"NotFound": "ProblemNotFound",
	} {
		types[name] = shared[of]
	}
	return types
}

// TestFunctionProblems holds that package function answers with the gateway's type where both refuse a request
// for the same thing, and that docs/contracts.md names the types that only the package has.
func TestFunctionProblems(t *testing.T) {
	function, types := parseDir(t, "function", false), problemTypes(t)
	ours := parseDir(t, "internal/gateway", false).problems("Problem", types)
	maps.Copy(ours, parseDir(t, "internal/jobapi", false).problems("Problem", types))
	theirs := function.problems("Problem", function.problemTypes(t, "errors.go"))
	for _, pair := range []string{"400 bad-request", "405 method-not-allowed", "413 body-too-large", "415 unsupported-media-type"} {
		if !ours[pair] || !theirs[pair] {
			t.Errorf("%s: of the gateway %t, of package function %t", pair, ours[pair], theirs[pair])
		}
	}
	prose := strings.Join(read(t, "docs/contracts.md").prose(), "\n")
	for _, word := range function.problemTypes(t, "errors.go") {
		if !strings.Contains(prose, "`"+word+"`") {
			t.Errorf("docs/contracts.md does not name %s", word)
		}
	}
}

const problemBase = "https://weir.dev/problems/"

// problemTypes are the words of the types in a file, by constant.
func (s source) problemTypes(t *testing.T, file string) map[string]string {
	t.Helper()
	types := map[string]string{}
	for name, v := range s.constants(t)[file] {
		if v.Kind() != constant.String {
			continue
		}
		if word, ok := strings.CutPrefix(constant.StringVal(v), problemBase); ok && word != "" {
			types[name] = word
		}
	}
	return types
}

// problems are "status type" of the literals of a type that say both.
func (s source) problems(of string, types map[string]string) map[string]bool {
	statuses := map[string]int{}
	for code := 100; code < 600; code++ {
		statuses["Status"+strings.ReplaceAll(http.StatusText(code), " ", "")] = code
	}
	answered := map[string]bool{}
	walk(s, func(lit *ast.CompositeLit) {
		if nameOf(lit.Type) != of {
			return
		}
		status, typ := 0, ""
		for _, e := range lit.Elts {
			kv, ok := e.(*ast.KeyValueExpr)
			if !ok {
				return
			}
			switch nameOf(kv.Key) {
			case "Status":
				status = statuses[nameOf(kv.Value)]
			case "Type":
				typ = types[nameOf(kv.Value)]
			}
		}
		if status != 0 && typ != "" {
			answered[fmt.Sprintf("%d %s", status, typ)] = true
		}
	})
	return answered
}

// nameOf is the last name of an identifier, of this package or another.
func nameOf(e ast.Expr) string {
	switch x := e.(type) {
	case *ast.Ident:
		return x.Name
	case *ast.SelectorExpr:
		return x.Sel.Name
	}
	return ""
}

// TestTestsExist checks every test that a page names, subtests included.
func TestTestsExist(t *testing.T) {
	tests := map[string]bool{}
	for _, dir := range goDirs(t, "api", "cmd", "function", "hack", "internal", "test") {
		s := parseDir(t, dir, true)
		for base, functions := range s.functions() {
			if !strings.HasSuffix(base, "_test.go") {
				continue
			}
			for name, fn := range functions {
				tests[name] = true
				ast.Inspect(fn, func(n ast.Node) bool {
					if kv, ok := n.(*ast.KeyValueExpr); ok {
						if key, ok := kv.Key.(*ast.Ident); ok && key.Name == "name" {
							if sub, ok := text(kv.Value); ok {
								tests[name+"/"+sub] = true
							}
						}
					}
					return true
				})
			}
		}
	}
	named := 0
	for _, p := range pages(t) {
		for i, line := range p.prose() {
			for _, m := range code.FindAllStringSubmatch(line, -1) {
				if strings.HasPrefix(m[1], "Test") {
					if named++; !tests[m[1]] {
						t.Errorf("%s:%d: there is no test %s", p.path, i+1, m[1])
					}
				}
			}
		}
	}
	for _, row := range read(t, "docs/contracts.md").rows(t, "Function answers", "Dispatcher does", "Guarded by") {
		if !tests[row[2]] {
			t.Errorf("the row %q is guarded by no test", row[0])
		}
	}
	if named < 20 {
		t.Errorf("only %d tests are named", named)
	}
}

func TestFlags(t *testing.T) {
	var actual, documented []string
	walk(source{files: map[string]*ast.File{"local.go": parseDir(t, "cmd/weir", false).files["local.go"]}}, func(call *ast.CallExpr) {
		if !strings.HasSuffix(method(call), "Var") && !strings.HasSuffix(method(call), "VarP") {
			return
		}
		flag, _ := text(call.Args[1])
		fallback, ok := text(call.Args[len(call.Args)-2])
		switch {
		case flag == "compression" && !ok:
			fallback = record.DefaultCodec.String()
		case flag == "folder":
			flag, fallback = "folder, -f", "required"
		case !ok || fallback == "":
			fallback = "none"
		}
		actual = append(actual, "--"+flag+", default "+fallback)
	})
	const doc = "docs/operations.md"
	for _, row := range read(t, doc).rows(t, "Flag", "Default", "Meaning") {
		documented = append(documented, row[0]+", default "+row[1])
	}
	same(t, "flag", doc, documented, actual)
}

func TestEnvironment(t *testing.T) {
	var actual, documented []string
	for _, dir := range []string{"internal/app", "internal/app/controller", "internal/functions/orderdb", "internal/functions/orderwriter", "function"} {
		walk(parseDir(t, dir, false), func(call *ast.CallExpr) {
			if name := method(call); (name == "getenv" || name == "or") && len(call.Args) > 0 {
				if variable, ok := text(call.Args[0]); ok {
					actual = append(actual, variable)
				}
			}
		})
	}
	const doc = "docs/operations.md"
	for _, row := range read(t, doc).rows(t, "Variable", "Default", "Meaning") {
		documented = append(documented, row[0])
	}
	same(t, "variable", doc, documented, actual)
}

func TestLogMessages(t *testing.T) {
	logged := map[string]string{} // message → levels, "?" for one that is computed
	for _, dir := range goDirs(t, "internal", "function", "cmd", "services") {
		walk(parseDir(t, dir, false), func(call *ast.CallExpr) {
			switch level := method(call); level {
			case "Debug", "Info", "Warn", "Error":
				if len(call.Args) > 0 {
					if message, ok := text(call.Args[0]); ok {
						logged[message] += strings.ToLower(level) + " "
					}
				}
			case "DebugContext", "InfoContext", "WarnContext", "ErrorContext":
				if len(call.Args) > 1 {
					if message, ok := text(call.Args[1]); ok {
						logged[message] += strings.ToLower(strings.TrimSuffix(level, "Context")) + " "
					}
				}
			case "Log", "NewRecord": // the level is computed
				if len(call.Args) > 2 {
					if message, ok := text(call.Args[2]); ok {
						logged[message] += "? "
					}
				}
			case "LogAttrs":
				message, _ := text(call.Args[2])
				if sel, ok := call.Args[1].(*ast.SelectorExpr); ok {
					logged[message] += strings.ToLower(strings.TrimPrefix(sel.Sel.Name, "Level")) + " "
				} else {
					logged[message] += "? "
				}
			}
		})
	}
	for _, row := range read(t, "docs/operations.md").rows(t, "Message", "Level", "Meaning") {
		levels, ok := logged[row[0]]
		if !ok {
			t.Errorf("nothing logs %q", row[0])
		} else if !strings.Contains(levels, row[1]+" ") && !strings.Contains(levels, "?") {
			t.Errorf("%q is logged as %s, documented as %s", row[0], levels, row[1])
		}
	}
}
