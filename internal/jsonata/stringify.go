package jsonata

import (
	"encoding/json"
	"math"
	"strings"

	"github.com/weir-dev/weir/internal/jsontree"
)

// stringify is $string of what is no string: JSON text, with 15 significant digits and with functions as empty strings.
func (s *state) stringify(v any, pretty bool) (string, error) {
	switch w := v.(type) {
	case *Function:
		return "", nil
	case float64, json.Number:
		f, _ := number(w)
		if math.IsNaN(f) || math.IsInf(f, 0) {
			return "", failValue("D3001", f)
		}
		return numberText(rounded15(f)), nil
	case *array:
		if w.outer && len(w.items) > 0 {
			v = w.items[0]
		}
	}
	w := &writer{s: s, pretty: pretty}
	if err := w.value(v, 0); err != nil {
		return "", err
	}
	return string(w.out), s.spell(len(w.out) - w.counted)
}

type writer struct {
	s       *state
	pretty  bool
	out     []byte
	counted int
}

func (w *writer) value(v any, depth int) error {
	if depth > maxData {
		return fail("D1011")
	}
	if len(w.out)-w.counted > 1<<16 { // counted on the way, because blanks and shared parts can make much of little
		if err := w.s.spell(len(w.out) - w.counted); err != nil {
			return err
		}
		w.counted = len(w.out)
	}
	if err := w.s.work(1); err != nil {
		return err
	}
	switch v := v.(type) {
	case nil, Nothing:
		w.out = append(w.out, "null"...)
	case bool:
		w.out, _ = jsontree.Append(w.out, v)
	case string:
		w.text(v)
	case *Function:
		w.out = append(w.out, `""`...)
	case float64, json.Number:
		f, is, err := numeric(v)
		if err != nil {
			return err
		}
		if !is {
			w.out = append(w.out, "null"...)
			return nil
		}
		w.out = jsontree.AppendFloat(w.out, rounded15(f))
	case *tuple:
		return w.value(v.object(), depth)
	case *jsontree.Object:
		return w.object(v, depth)
	default:
		items, _ := elements(v)
		return w.list(items, depth)
	}
	return nil
}

func (w *writer) list(items []any, depth int) error {
	w.out = append(w.out, '[')
	for i, item := range items {
		if i > 0 {
			w.out = append(w.out, ',')
		}
		w.line(depth + 1)
		if err := w.value(item, depth+1); err != nil {
			return err
		}
	}
	if len(items) > 0 {
		w.line(depth)
	}
	w.out = append(w.out, ']')
	return nil
}

func (w *writer) object(o *jsontree.Object, depth int) error {
	o = ordered(o)
	w.out = append(w.out, '{')
	for i := range o.Len() {
		key, v := o.At(i)
		if i > 0 {
			w.out = append(w.out, ',')
		}
		w.line(depth + 1)
		w.text(key)
		w.out = append(w.out, ':')
		if w.pretty {
			w.out = append(w.out, ' ')
		}
		if err := w.value(v, depth+1); err != nil {
			return err
		}
	}
	if o.Len() > 0 {
		w.line(depth)
	}
	w.out = append(w.out, '}')
	return nil
}

func (w *writer) line(depth int) {
	if w.pretty {
		w.out = append(w.out, '\n')
		w.out = append(w.out, strings.Repeat("  ", depth)...)
	}
}

// text writes a string; a half of a pair is escaped.
func (w *writer) text(s string) {
	from := len(w.out)
	w.out = jsontree.AppendString(w.out, s)
	if !strings.Contains(s, "\xed") {
		return
	}
	written := string(w.out[from:])
	w.out = w.out[:from]
	for written != "" {
		if isSurrogateAt(written) {
			const digits = "0123456789abcdef"
			r, _ := decode(written)
			w.out = append(w.out, '\\', 'u', digits[r>>12&15], digits[r>>8&15], digits[r>>4&15], digits[r&15])
			written = written[3:]
			continue
		}
		_, size := decode(written)
		w.out = append(w.out, written[:size]...)
		written = written[size:]
	}
}

// clone is the deep copy that $clone makes by way of $string: numbers lose digits, functions become empty strings. The objects
// that it makes are noted in own, if that is not nil.
func (s *state) clone(v any, own map[*jsontree.Object]bool, depth int) (any, error) {
	if depth > maxData {
		return nil, fail("D1011")
	}
	if err := s.work(1); err != nil {
		return nil, err
	}
	switch v := v.(type) {
	case *Function:
		return "", nil
	case Nothing:
		return nil, nil
	case float64, json.Number:
		f, is, err := numeric(v)
		if err != nil || !is {
			return nil, err
		}
		return rounded15(f), nil
	case *tuple:
		return s.clone(v.object(), own, depth)
	case *jsontree.Object:
		o := ordered(v)
		made := jsontree.NewObject(o.Len())
		if own != nil {
			own[made] = true
		}
		for i := range o.Len() {
			key, member := o.At(i)
			c, err := s.clone(member, own, depth+1)
			if err != nil {
				return nil, err
			}
			made.Set(key, c)
		}
		return made, s.grow(o.Len())
	}
	if a, is := v.(*array); is && a.outer && depth == 0 {
		v = a.items[0]
	}
	items, is := elements(v)
	if !is {
		return v, nil
	}
	made := make([]any, len(items))
	for i, item := range items {
		var err error
		if made[i], err = s.clone(item, own, depth+1); err != nil {
			return nil, err
		}
	}
	return made, s.grow(len(items))
}
