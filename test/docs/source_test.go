package docs_test

import (
	"errors"
	"go/ast"
	"go/constant"
	"go/parser"
	"go/token"
	"go/types"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// source is the Go source of a folder, parsed but not fully checked: what it imports is not needed.
type source struct {
	fset  *token.FileSet
	files map[string]*ast.File // by base name
}

// parseDir reads the .go files of a folder, its tests too if it is asked to.
func parseDir(t testing.TB, dir string, tests bool) source {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(root, dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	s := source{token.NewFileSet(), map[string]*ast.File{}}
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") && !tests {
			continue
		}
		f, err := parser.ParseFile(s.fset, name, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		s.files[filepath.Base(name)] = f
	}
	return s
}

// goDirs are the folders with Go files below tops.
func goDirs(t testing.TB, tops ...string) []string {
	t.Helper()
	var out []string
	for _, top := range tops {
		err := filepath.WalkDir(filepath.Join(root, top), func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.IsDir() || d.Name() == "testdata" {
				return err
			}
			names, err := filepath.Glob(filepath.Join(path, "*.go"))
			if err != nil || len(names) == 0 {
				return err
			}
			rel, err := filepath.Rel(root, path)
			out = append(out, filepath.ToSlash(rel))
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return out
}

// onlyTime imports a package time with its durations, and nothing else.
type onlyTime struct{ time *types.Package }

func newOnlyTime(t testing.TB) onlyTime {
	t.Helper()
	const text = `package time
type Duration int64
const (
	Nanosecond Duration = 1
	Microsecond = 1000 * Nanosecond
	Millisecond = 1000 * Microsecond
	Second = 1000 * Millisecond
	Minute = 60 * Second
	Hour = 60 * Minute
)`
	fset := token.NewFileSet()
	f, err := parser.ParseFile(fset, "time.go", text, 0)
	if err != nil {
		t.Fatal(err)
	}
	pkg, err := new(types.Config).Check("time", fset, []*ast.File{f}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return onlyTime{pkg}
}

func (i onlyTime) Import(path string) (*types.Package, error) {
	if path == "time" {
		return i.time, nil
	}
	return nil, errors.New("not needed")
}

// constants are the package's constants by file and name, as far as they need no other package but time.
func (s source) constants(t testing.TB) map[string]map[string]constant.Value {
	t.Helper()
	var files []*ast.File
	for _, f := range s.files {
		files = append(files, f)
	}
	conf := types.Config{Importer: newOnlyTime(t), Error: func(error) {}} // without its imports nothing else is whole
	pkg, _ := conf.Check("p", s.fset, files, nil)
	out := map[string]map[string]constant.Value{}
	for _, name := range pkg.Scope().Names() {
		if c, ok := pkg.Scope().Lookup(name).(*types.Const); ok && c.Val().Kind() != constant.Unknown {
			file := filepath.Base(s.fset.Position(c.Pos()).Filename)
			if out[file] == nil {
				out[file] = map[string]constant.Value{}
			}
			out[file][name] = c.Val()
		}
	}
	return out
}

// functions are the names of the functions by file: "f", or "T.f" for a method.
func (s source) functions() map[string]map[string]*ast.FuncDecl {
	out := map[string]map[string]*ast.FuncDecl{}
	for base, f := range s.files {
		out[base] = map[string]*ast.FuncDecl{}
		for _, d := range f.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok {
				out[base][receiver(fn)+fn.Name.Name] = fn
			}
		}
	}
	return out
}

func receiver(fn *ast.FuncDecl) string {
	if fn.Recv == nil {
		return ""
	}
	typ := fn.Recv.List[0].Type
	if star, ok := typ.(*ast.StarExpr); ok {
		typ = star.X
	}
	if generic, ok := typ.(*ast.IndexExpr); ok {
		typ = generic.X
	}
	if id, ok := typ.(*ast.Ident); ok {
		return id.Name + "."
	}
	return ""
}

// text is the value of a string literal.
func text(e ast.Expr) (string, bool) {
	lit, ok := e.(*ast.BasicLit)
	if !ok || lit.Kind != token.STRING {
		return "", false
	}
	s, err := strconv.Unquote(lit.Value)
	return s, err == nil
}

// walk calls f with every node of the package of type N.
func walk[N ast.Node](s source, f func(N)) {
	for _, file := range s.files {
		ast.Inspect(file, func(n ast.Node) bool {
			if n, ok := n.(N); ok {
				f(n)
			}
			return true
		})
	}
}

// method is the name of the function or method that is called.
func method(call *ast.CallExpr) string {
	switch f := call.Fun.(type) {
	case *ast.SelectorExpr:
		return f.Sel.Name
	case *ast.Ident:
		return f.Name
	}
	return ""
}
