package statelang

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/weir-dev/weir/internal/jsonpath"
	"github.com/weir-dev/weir/internal/jsontree"
)

// fields reads the fields of one state, or of an object in it, in the state's query language.
type fields struct {
	node     *node
	p        *parser
	b        *builder
	state    *State
	language Language
	prefix   string // of the names of fields in errors of executions, such as "ItemReader/"
}

func (f *fields) jsonata() bool { return f.language == JSONata }

// in is the fields of an object in the state.
func (f *fields) in(field string) (*fields, bool) {
	n, ok := f.node.child(field)
	if !ok {
		return nil, false
	}
	return &fields{node: n, p: f.p, b: f.b, state: f.state, language: f.language, prefix: f.prefix + field + "/"}, true
}

// flows reads InputPath and OutputPath; in JSONata there are none.
func (f *fields) flows() {
	if f.jsonata() {
		return
	}
	f.state.inputPath = f.flow("InputPath")
	f.state.outputPath = f.flow("OutputPath")
}

func (f *fields) flow(field string) flow {
	v, ok := f.node.get(field)
	if !ok {
		return flow{}
	}
	if v == nil {
		return flow{none: true}
	}
	return flow{path: f.pathOf(field, v)}
}

// output reads Output, which only JSONata has.
func (f *fields) output() {
	if f.jsonata() {
		f.state.output = f.value("Output")
	}
}

// place is a ResultPath: by default the whole; null keeps what there was.
type place struct {
	none bool
	path *jsonpath.Path
}

func (f *fields) resultPath() place {
	const field = "ResultPath"
	v, ok := f.node.get(field)
	if !ok {
		return place{}
	}
	if v == nil {
		return place{none: true}
	}
	text, isText := v.(string)
	if !isText {
		f.node.problem(field, "must be a reference path such as $.result, or null, not %s", kindOf(v))
		return place{}
	}
	p, err := jsonpath.Parse(text)
	switch {
	case err != nil:
		f.node.problem(field, "%q is no JSONPath: %v", text, err)
	case !p.Reference() || p.Root().Kind != jsonpath.Input:
		f.node.problem(field, "%q is no reference path: it may have only names and places of an array, such as $.result or $.list[0]", text)
	default:
		return place{path: p}
	}
	return place{}
}

// pathOf is a value that must be a JSONPath.
func (f *fields) pathOf(field string, v any) *pathExpr {
	text, isText := v.(string)
	if !isText {
		f.node.problem(field, "must be a JSONPath such as $.order, not %s", kindOf(v))
		return nil
	}
	p, err := jsonpath.Parse(text)
	if err != nil {
		f.node.problem(field, "%q is no JSONPath: %v", text, err)
		return nil
	}
	return &pathExpr{field: f.prefix + field, path: p}
}

// path is a field that must be a JSONPath if it is there.
func (f *fields) path(field string) *pathExpr {
	v, ok := f.node.get(field)
	if !ok {
		return nil
	}
	return f.pathOf(field, v)
}

// pathOrCall is the same, or a call of an intrinsic function.
func (f *fields) pathOrCall(field string) expr {
	v, ok := f.node.get(field)
	if !ok {
		return nil
	}
	if text, isText := v.(string); isText && strings.HasPrefix(text, intrinsicPrefix) {
		c, err := parseIntrinsic(text, f.prefix+field)
		if err != nil {
			f.node.problem(field, "%q is no call of an intrinsic function: %v", text, err)
		}
		return c
	}
	if p := f.pathOf(field, v); p != nil {
		return p
	}
	return nil
}

// template is a field that is a payload template of JSONPath: names that end with .$ have paths or calls.
func (f *fields) template(field string) expr {
	v, ok := f.node.get(field)
	if !ok {
		return nil
	}
	return f.templateOf(field, v)
}

func (f *fields) templateOf(field string, v any) expr {
	switch v := v.(type) {
	case *jsontree.Object:
		o := objectExpr{}
		dynamic := false
		for key, value := range v.All() {
			at := field + "/" + key
			short, isPath := strings.CutSuffix(key, ".$")
			if isPath && v.Has(short) {
				f.node.problem(at, "there is a %q, too: only one of them may be there", short)
			}
			var x expr
			if isPath {
				dynamic = true
				x = f.dynamic(at, key, value)
			} else {
				x = f.templateOf(at, value)
			}
			o.keys, o.values = append(o.keys, short), append(o.values, x)
		}
		if !dynamic && allLiteral(o.values) {
			return literal{v}
		}
		return o
	case []any:
		return arrayOf(v, field, f.templateOf)
	}
	return literal{v}
}

// arrayOf is an array in the field, whose items of makes; a literal if they all are.
func arrayOf(v []any, field string, of func(field string, v any) expr) expr {
	a := make(arrayExpr, len(v))
	for i, value := range v {
		a[i] = of(fmt.Sprintf("%s[%d]", field, i), value)
	}
	if allLiteral(a) {
		return literal{v}
	}
	return a
}

func allLiteral(parts []expr) bool {
	return !slices.ContainsFunc(parts, func(x expr) bool {
		_, isLiteral := x.(literal)
		return !isLiteral
	})
}

// dynamic is the value of a name that ends with .$.
func (f *fields) dynamic(at, key string, v any) expr {
	text, isText := v.(string)
	switch {
	case !isText:
		f.node.problem(at, "must be a JSONPath or a call of an intrinsic function, not %s: its name ends with .$", kindOf(v))
	case strings.HasPrefix(text, "$"):
		p, err := jsonpath.Parse(text)
		if err == nil {
			return &pathExpr{field: key, path: p}
		}
		f.node.problem(at, "%q is no JSONPath: %v", text, err)
	case strings.HasPrefix(text, intrinsicPrefix):
		c, err := parseIntrinsic(text, key)
		if err == nil {
			return c
		}
		f.node.problem(at, "%q is no call of an intrinsic function: %v", text, err)
	default:
		f.node.problem(at, "%q is neither a JSONPath, which begins with $, nor a call such as States.Format('{}', $.name)", text)
	}
	return literal{nil}
}

// value is a field of JSONata: texts between {% and %} are expressions.
func (f *fields) value(field string) expr {
	v, ok := f.node.get(field)
	if !ok {
		return nil
	}
	return f.valueOf(field, v)
}

func (f *fields) valueOf(field string, v any) expr {
	switch v := v.(type) {
	case string:
		query, ok := isQuery(v)
		if !ok {
			if strings.HasPrefix(v, "{%") {
				f.node.problem(field, "%q begins with {%% and does not end with %%}", v)
			}
			return literal{v}
		}
		return f.query(field, query)
	case *jsontree.Object:
		o := objectExpr{}
		for key, value := range v.All() {
			o.keys, o.values = append(o.keys, key), append(o.values, f.valueOf(field+"/"+key, value))
		}
		if allLiteral(o.values) {
			return literal{v}
		}
		return o
	case []any:
		return arrayOf(v, field, f.valueOf)
	}
	return literal{v}
}

// query compiles a JSONata expression.
func (f *fields) query(field, text string) expr {
	q, err := compileQuery(text)
	if err != nil {
		f.node.problem(field, "the JSONata expression %q is wrong: %v", text, err)
		return literal{nil}
	}
	return &queryExpr{field: f.prefix + field, text: text, query: q}
}

// number is a field that is a whole number, or in JSONata an expression; in JSONPath it may be in fieldPath instead.
func (f *fields) number(field string, least, most float64, whole bool) expr {
	pathField := field + "Path"
	if !f.jsonata() {
		f.node.oneOf(field, pathField)
		if p := f.path(pathField); p != nil {
			return p
		}
	}
	v, ok := f.node.get(field)
	if !ok {
		return nil
	}
	if text, isText := v.(string); isText && f.jsonata() {
		if query, ok := isQuery(text); ok {
			return f.query(field, query)
		}
	}
	n, isNumber := jsontree.Float(v)
	if whole {
		_, isNumber = wholeNumber(v)
	}
	if !isNumber || n < least || n > most {
		kind := "number"
		if whole {
			kind = "whole number"
		}
		f.node.problem(field, "must be a %s from %v to %v, not %s", kind, shown(least), shown(most), shown(v))
		return nil
	}
	return literal{v}
}

// assign reads Assign.
func (f *fields) assign(into *[]assignment) {
	v, ok := f.node.get("Assign")
	if !ok {
		return
	}
	obj, isObject := v.(*jsontree.Object)
	if !isObject {
		f.node.problem("Assign", "must be an object, not %s", kindOf(v))
		return
	}
	for key, value := range obj.All() {
		at := "Assign/" + key
		name, isPath := key, false
		var x expr
		if f.jsonata() {
			x = f.valueOf(at, value)
		} else if name, isPath = strings.CutSuffix(key, ".$"); isPath {
			x = f.dynamic(at, at, value)
		} else {
			x = f.templateOf(at, value)
		}
		if why := badVariable(name); why != "" {
			f.node.problem(at, "%s", why)
		}
		*into = append(*into, assignment{name, x})
	}
}

// badVariable says what is wrong with the name of a variable; empty if nothing is.
func badVariable(name string) string {
	switch {
	case name == "":
		return "the name of a variable must not be empty"
	case name == "states":
		return "states is no name for a variable: it is what JSONata finds the state's data in"
	case utf8.RuneCountInString(name) > maxNameChars:
		return fmt.Sprintf("the name of a variable has at most %d characters", maxNameChars)
	case strings.ContainsAny(name, " .[]()'\"$\\,{}%"):
		return fmt.Sprintf("%q is no name for a variable: letters, digits, _ and -", name)
	}
	return ""
}

// wholeNumber is the integer that v is, however it is written.
func wholeNumber(v any) (int64, bool) {
	if n, ok := v.(json.Number); ok {
		if i, err := n.Int64(); err == nil {
			return i, true
		}
	}
	f, ok := jsontree.Float(v)
	if !ok || f != math.Trunc(f) || f < -(1<<63) || f >= 1<<63 {
		return 0, false
	}
	return int64(f), true
}
