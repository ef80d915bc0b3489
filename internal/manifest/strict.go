package manifest

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// maxListedFields bounds how many known fields a message lists (a PodSpec has forty).
const maxListedFields = 12

// problem is a mistake in the shape of a document.
type problem struct {
	path, msg string
}

// strictly compares a JSON value with the Go type that it is to be decoded into, and returns every
// unknown field and wrong type with its path, and the value without them. The decoders of the standard
// library and of sigs.k8s.io/json stop at the first wrong type and do not say where in a list it was.
func strictly(v any, t reflect.Type) (any, []problem) {
	c := checker{}
	clean, ok := c.value(v, t, "")
	if !ok {
		clean = nil
	}
	return clean, c.problems
}

type checker struct {
	problems []problem
}

func (c *checker) fail(path, format string, args ...any) {
	c.problems = append(c.problems, problem{path, fmt.Sprintf(format, args...)})
}

// value returns v without what does not fit t; ok says whether anything of v fits.
func (c *checker) value(v any, t reflect.Type, path string) (clean any, ok bool) {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if v == nil {
		return nil, true
	}
	if reflect.PointerTo(t).Implements(reflect.TypeFor[json.Unmarshaler]()) {
		return v, c.unmarshaler(v, t, path)
	}
	switch t.Kind() {
	case reflect.Struct:
		if m, ok := v.(map[string]any); ok {
			return c.object(m, t, path), true
		}
		c.fail(path, "must be a mapping (field: value), not %s", describe(v))
	case reflect.Map:
		if m, ok := v.(map[string]any); ok {
			return c.mapping(m, t, path), true
		}
		c.fail(path, "must be a mapping (key: value), not %s", describe(v))
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Uint8 {
			break // base64 text
		}
		if list, ok := v.([]any); ok {
			return c.list(list, t, path), true
		}
		c.fail(path, "must be a list (- item), not %s", describe(v))
	case reflect.Interface:
		return v, true
	default:
		return v, c.scalar(v, t, path)
	}
	if t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Uint8 {
		return v, c.decodes(v, t, path, "must be base64 text")
	}
	return nil, false
}

func (c *checker) object(m map[string]any, t reflect.Type, path string) map[string]any {
	fields := jsonFields(t)
	clean := make(map[string]any, len(m))
	for _, name := range sortedKeys(m) {
		p := join(path, name)
		ft, known := fields[name]
		if !known {
			c.fail(p, "unknown field%s", hint(name, fields))
			continue
		}
		if v, ok := c.value(m[name], ft, p); ok {
			clean[name] = v
		}
	}
	return clean
}

func (c *checker) mapping(m map[string]any, t reflect.Type, path string) map[string]any {
	clean := make(map[string]any, len(m))
	for _, key := range sortedKeys(m) {
		if v, ok := c.value(m[key], t.Elem(), path+"["+key+"]"); ok {
			clean[key] = v
		}
	}
	return clean
}

// list replaces a bad item by null, so that the indexes of those after it still hold.
func (c *checker) list(list []any, t reflect.Type, path string) []any {
	clean := make([]any, len(list))
	for i, item := range list {
		if v, ok := c.value(item, t.Elem(), path+"["+strconv.Itoa(i)+"]"); ok {
			clean[i] = v
		}
	}
	return clean
}

func (c *checker) unmarshaler(v any, t reflect.Type, path string) bool {
	want := ""
	switch t {
	case reflect.TypeFor[metav1.Duration]():
		want = `must be a duration with its unit, such as "500ms", "30s" or "5m"`
		if s, ok := v.(string); ok {
			if right := plainDuration(s); right != "" {
				c.fail(path, "%s, not %s; write %q", want, describe(v), right)
				return false
			}
		}
	case reflect.TypeFor[resource.Quantity]():
		want = `must be a number, if you like with a suffix: 262144, "256Ki", "4Mi"`
		if s, ok := v.(string); ok && !cheapQuantity(s) {
			c.fail(path, "%s, not %s", want, describe(v))
			return false
		}
	}
	return c.decodes(v, t, path, want)
}

// cheapQuantity refuses numbers that nobody means and that resource.Quantity takes very long for: a minute for
// "1e-99999999". TestQuantityBomb guards it.
func cheapQuantity(s string) bool {
	const maxLen, maxExponent = 40, 30
	if len(s) > maxLen {
		return false
	}
	i := strings.IndexAny(s, "eE")
	if i < 0 {
		return true
	}
	exp, err := strconv.Atoi(s[i+1:])
	if err != nil {
		return !errors.Is(err, strconv.ErrRange) // a suffix, such as 1Ei, or not a quantity
	}
	return -maxExponent <= exp && exp <= maxExponent
}

func (c *checker) scalar(v any, t reflect.Type, path string) bool {
	want := ""
	switch t.Kind() {
	case reflect.String:
		want = "must be text"
		if _, ok := v.(json.Number); ok {
			want = "must be text: put it in quotes"
		} else if _, ok := v.(bool); ok {
			want = "must be text: put it in quotes"
		}
	case reflect.Bool:
		want = "must be true or false"
	case reflect.Int, reflect.Int32, reflect.Int64, reflect.Int8, reflect.Int16,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		want = "must be a whole number"
	case reflect.Float32, reflect.Float64:
		want = "must be a number"
	}
	return c.decodes(v, t, path, want)
}

// decodes tries the decoder itself on a value that has no fields of its own.
func (c *checker) decodes(v any, t reflect.Type, path, want string) bool {
	raw, err := json.Marshal(v)
	if err == nil {
		err = json.Unmarshal(raw, reflect.New(t).Interface())
	}
	switch {
	case err == nil:
		return true
	case want != "":
		c.fail(path, "%s, not %s", want, describe(v))
	default:
		c.fail(path, "%s, not %s", err, describe(v))
	}
	return false
}

// jsonFields returns a struct's fields by their JSON names, those of inlined structs included.
func jsonFields(t reflect.Type) map[string]reflect.Type {
	fields := map[string]reflect.Type{}
	for f := range t.Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case name == "-":
		case name == "" && f.Anonymous:
			ft := f.Type
			if ft.Kind() == reflect.Pointer {
				ft = ft.Elem()
			}
			if ft.Kind() == reflect.Struct {
				for n, t := range jsonFields(ft) {
					if _, outer := fields[n]; !outer {
						fields[n] = t
					}
				}
			}
		case !f.IsExported():
		case name == "":
			fields[f.Name] = f.Type
		default:
			fields[name] = f.Type
		}
	}
	return fields
}

func hint(name string, fields map[string]reflect.Type) string {
	known := sortedKeys(fields)
	if s := didYouMean(name, known); s != "" {
		return s
	}
	if len(known) <= maxListedFields {
		return "; known here: " + strings.Join(known, ", ")
	}
	return "; remove it"
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// describe writes v for a message.
func describe(v any) string {
	switch v := v.(type) {
	case nil:
		return "nothing"
	case map[string]any:
		return "a mapping"
	case []any:
		return "a list"
	case string:
		if len(v) > maxSuggestLen {
			v = strings.ToValidUTF8(v[:maxSuggestLen], "") + "…"
		}
		return strconv.Quote(v)
	default:
		return fmt.Sprint(v)
	}
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
