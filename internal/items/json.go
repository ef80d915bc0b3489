package items

import (
	"errors"
	"strings"

	"github.com/weir-dev/weir/internal/jsontree"
)

// array are the items of a JSON array: its elements are found by their ends, and each is parsed by itself.
type array struct {
	w      *window
	max    int
	nested bool // in what is not read any further
	some   bool // an element has been read
}

// begin goes to the first element of the array at a path.
func (a *array) begin(path []string) error {
	c, err := a.w.peek()
	if errors.Is(err, errEnd) {
		return a.w.fail(ErrSyntax, "the object is empty: it must be JSON")
	}
	for i := 0; err == nil && i < len(path); i++ {
		if err = a.descend(path[i], c); err == nil {
			c, err = a.w.peek()
		}
		if errors.Is(err, ErrPointer) {
			err = a.w.fail(ErrPointer, "there is nothing at ItemsPointer: no %q", "/"+strings.Join(path[:i+1], "/"))
		}
	}
	switch {
	case errors.Is(err, errEnd):
		return a.w.fail(ErrSyntax, "the JSON ends early")
	case err != nil:
		return err
	case c == '[':
		a.w.skip(1)
		a.w.item = 0
		return nil
	case c == '{' || c == '"' || c == '-' || c >= '0' && c <= '9' || c == 't' || c == 'f' || c == 'n':
		return a.w.fail(ErrNotArray, "")
	default:
		return a.w.fail(ErrSyntax, "%q is no JSON", c)
	}
}

// next implements format.
func (a *array) next() (any, error) {
	w := a.w
	c, err := w.peek()
	if err == nil && c != ']' && a.some {
		if c != ',' {
			return nil, w.fail(ErrSyntax, "%q comes after an item, instead of a comma", c)
		}
		w.skip(1)
		if c, err = w.peek(); err == nil && c == ']' {
			return nil, w.fail(ErrSyntax, "no item comes after a comma")
		}
	}
	switch {
	case errors.Is(err, errEnd):
		return nil, w.fail(ErrSyntax, "the array ends early")
	case err != nil:
		return nil, err
	case c == ']':
		w.skip(1)
		return nil, a.end()
	}
	a.some = true
	text, err := w.value()
	if err != nil {
		return nil, err
	}
	v, err := w.parse(text, a.max)
	if err != nil {
		return nil, err
	}
	w.skip(len(text))
	return v, nil
}

// end is errEnd if nothing follows the array.
func (a *array) end() error {
	if a.nested {
		return errEnd
	}
	a.w.item = -1
	c, err := a.w.peek()
	if err == nil {
		return a.w.fail(ErrSyntax, "%q follows the end of the array", c)
	}
	return err
}

// descend goes to a member or an element of what begins with c. Of members with one name it takes the first, as it reads on
// only.
func (a *array) descend(token string, c byte) error {
	w := a.w
	wanted, isPlace := place(token)
	if c != '{' && (c != '[' || !isPlace) {
		return ErrPointer
	}
	object := c == '{'
	w.skip(1)
	for i := 0; ; i++ {
		c, err := w.peek()
		switch {
		case err != nil:
			return err
		case c == '}' || c == ']':
			return ErrPointer
		case i > 0 && c != ',':
			return w.fail(ErrSyntax, "%q comes instead of a comma", c)
		case i > 0:
			w.skip(1)
			if _, err = w.peek(); err != nil {
				return err
			}
		}
		here := i == wanted
		if object {
			name, err := w.name()
			if err != nil {
				return err
			}
			here = name == token
		}
		if here {
			return nil
		}
		if err := w.skipValue(); err != nil {
			return err
		}
	}
}

// peek skips blanks and returns what comes.
func (w *window) peek() (byte, error) {
	for {
		for i, c := range w.rest() {
			if !blank(c) {
				w.skip(i)
				return c, nil
			}
		}
		w.skip(len(w.rest()))
		if err := w.more(); err != nil {
			return 0, err
		}
	}
}

func blank(c byte) bool { return c == ' ' || c == '\n' || c == '\r' || c == '\t' }

// name takes the name of a member, and its colon.
func (w *window) name() (string, error) {
	text, err := w.value()
	if err != nil {
		return "", err
	}
	v, err := w.parse(text, w.limit)
	if err != nil {
		return "", err
	}
	name, ok := v.(string)
	if !ok {
		return "", w.fail(ErrSyntax, "the name of a member must be a text")
	}
	w.skip(len(text))
	c, err := w.peek()
	if err == nil && c != ':' {
		return "", w.fail(ErrSyntax, "%q comes after a name, instead of a colon", c)
	}
	if err == nil {
		w.skip(1)
		_, err = w.peek()
	}
	return name, err
}

// parse reads the text of an item, or of a name.
func (w *window) parse(text []byte, most int) (any, error) {
	v, err := jsontree.Parse(text)
	switch {
	case err != nil:
		return nil, w.fail(ErrSyntax, "it is no JSON: %v", err)
	case len(text) > most && jsontree.Size(v) > most: // parsed, it isn't longer
		return nil, w.tooLarge()
	}
	return v, nil
}

// value returns the text of the value that begins here. What is in it isn't looked at but for its end.
func (w *window) value() ([]byte, error) {
	var s scanner
	for seen := 0; ; {
		n, done := s.scan(w.rest()[seen:])
		seen += n
		if !done {
			err := w.more()
			if err == nil {
				continue
			}
			if err = s.end(w, err); err != nil {
				return nil, err
			}
		}
		switch {
		case seen > w.limit:
			return nil, w.tooLarge()
		case seen == 0:
			return nil, w.fail(ErrSyntax, "%q comes instead of a value", w.rest()[0])
		}
		return w.rest()[:seen], nil
	}
}

// skipValue goes past a value, however long it is.
func (w *window) skipValue() error {
	var s scanner
	for first := true; ; first = false {
		n, done := s.scan(w.rest())
		if done && first && n == 0 {
			return w.fail(ErrSyntax, "%q comes instead of a value", w.rest()[0])
		}
		w.skip(n)
		if done {
			return nil
		}
		if err := w.more(); err != nil {
			return s.end(w, err)
		}
	}
}

// scanner finds the end of a JSON value; whether it is one is left to the parser.
type scanner struct {
	depth  int
	text   bool // in a text
	escape bool // after a backslash in it
	word   bool // in a number, true, false or null
}

// scan goes on with b, of which it takes n bytes; done says that the value has ended with them. Of what is no value it takes
// none.
func (s *scanner) scan(b []byte) (n int, done bool) {
	for i := 0; i < len(b); i++ {
		c := b[i]
		switch {
		case s.escape:
			s.escape = false
		case s.text:
			for c != '"' && c != '\\' {
				if i++; i == len(b) {
					return i, false
				}
				c = b[i]
			}
			s.escape = c == '\\'
			s.text = s.escape
			if !s.text && s.depth == 0 {
				return i + 1, true
			}
		case c == '"' && !s.word:
			s.text = true
		case (c == '{' || c == '[') && !s.word:
			s.depth++
		case c == '}' || c == ']':
			if s.depth == 0 {
				return i, true
			}
			if s.depth--; s.depth == 0 {
				return i + 1, true
			}
		case s.depth > 0:
		case c == ',' || c == ':' || blank(c):
			return i, true
		default:
			s.word = true
		}
	}
	return len(b), false
}

// end is what the end of reading means: only a word may end with the text.
func (s *scanner) end(w *window, err error) error {
	switch {
	case !errors.Is(err, errEnd):
		return err
	case s.word:
		return nil
	case len(w.rest()) > w.limit:
		return w.tooLarge()
	default:
		return w.fail(ErrSyntax, "the JSON ends early")
	}
}
