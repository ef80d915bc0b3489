package machinetest

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/weir-dev/weir/internal/jsontree"
)

// maxProblems bounds what is told of a file.
const maxProblems = 100

// fileReader reads what people have written, and collects their mistakes.
type fileReader struct {
	document Document
	problems []Problem
}

func (r *fileReader) problem(path, format string, args ...any) {
	if len(r.problems) < maxProblems {
		r.problems = append(r.problems, Problem{Line: r.document.Line(path), Path: path, Message: fmt.Sprintf(format, args...)})
	}
}

// object is an object in a file. Fields that nobody asks for are mistakes.
type object struct {
	r     *fileReader
	path  string
	o     *jsontree.Object
	known []string
}

func (r *fileReader) object(path string, v any) (*object, bool) {
	o, ok := v.(*jsontree.Object)
	if !ok {
		r.problem(path, "must be an object, not %s", show(v))
		return nil, false
	}
	return &object{r: r, path: path, o: o}, true
}

func (o *object) at(field string) string { return o.path + "/" + field }

func (o *object) problem(field, format string, args ...any) {
	path := o.path
	if field != "" {
		path = o.at(field)
	}
	o.r.problem(path, format, args...)
}

func (o *object) get(field string) (any, bool) {
	o.known = append(o.known, field)
	return o.o.Get(field)
}

func (o *object) text(field string) (string, bool) {
	v, ok := o.get(field)
	if !ok {
		return "", false
	}
	s, isText := v.(string)
	if !isText {
		o.problem(field, "must be a text, not %s", show(v))
	}
	return s, isText
}

// textOrNull is a text, or null, which is nil.
func (o *object) textOrNull(field string) (*string, bool) {
	if v, ok := o.o.Get(field); ok && v == nil {
		o.known = append(o.known, field)
		return nil, true
	}
	s, ok := o.text(field)
	if !ok {
		return nil, false
	}
	return &s, true
}

// yes is a field that is true if it is there.
func (o *object) yes(field string) bool {
	v, ok := o.get(field)
	if ok && v != true {
		o.problem(field, "must be true if it is there, not %s", show(v))
	}
	return ok
}

// expected is a field that may have markers.
func (o *object) expected(field string) (any, bool) {
	v, ok := o.get(field)
	if ok {
		if at, why := badMarker(o.at(field), v); why != "" {
			o.r.problem(at, "%s", why)
		}
	}
	return v, ok
}

// duration is a text such as 1m30s, or a number of seconds.
func (o *object) duration(field string) (time.Duration, bool) {
	v, ok := o.get(field)
	if !ok {
		return 0, false
	}
	if text, isText := v.(string); isText {
		if d, err := time.ParseDuration(text); err == nil && d >= 0 {
			return d, true
		}
	} else if n, isNumber := jsontree.Float(v); isNumber && n >= 0 && n < 1e9 {
		return time.Duration(n * float64(time.Second)), true
	}
	o.problem(field, "must be a duration such as 1m30s or 500ms, or a number of seconds, not %s", show(v))
	return 0, false
}

func (o *object) texts(field string) ([]string, bool) {
	v, ok := o.get(field)
	if !ok {
		return nil, false
	}
	list, isList := v.([]any)
	if !isList {
		o.problem(field, "must be a list of texts, not %s", show(v))
		return nil, false
	}
	texts := make([]string, 0, len(list))
	for i, e := range list {
		text, isText := e.(string)
		if !isText {
			o.problem(fmt.Sprintf("%s[%d]", field, i), "must be a text, not %s", show(e))
		}
		texts = append(texts, text)
	}
	return texts, true
}

// end reports the fields that nobody has asked for.
func (o *object) end(of string) {
	for field := range o.o.All() {
		if !slices.Contains(o.known, field) {
			o.problem(field, "is no field of %s: those are %s", of, strings.Join(o.known, ", "))
		}
	}
}
