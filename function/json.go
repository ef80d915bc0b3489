package function

import (
	"encoding/json"
	"errors"
	"fmt"
)

// maxDepth is the nesting that encoding/json accepts.
const maxDepth = 10000

// scanner walks over JSON text once, checking it fully and copying nothing. It accepts exactly what
// encoding/json does (held by FuzzParseBatch); going through encoding/json instead would walk over
// an event's data twice and costs five times as much (BenchmarkParseBatch).
type scanner struct {
	b []byte
	i int
}

var errEnd = errors.New("unexpected end of JSON")

func (s *scanner) fail(what string) error {
	if s.i >= len(s.b) {
		return errEnd
	}
	return fmt.Errorf("byte %d: %s", s.i, what)
}

// peek returns the next byte, 0 at the end.
func (s *scanner) peek() byte {
	if s.i < len(s.b) {
		return s.b[s.i]
	}
	return 0
}

func (s *scanner) take(c byte) bool {
	if s.i < len(s.b) && s.b[s.i] == c {
		s.i++
		return true
	}
	return false
}

func (s *scanner) space() {
	for s.i < len(s.b) && white[s.b[s.i]] {
		s.i++
	}
}

// white marks the bytes that may stand between tokens. A table, so that space is inlined: it is called thrice a value.
var white = [256]bool{' ': true, '\t': true, '\n': true, '\r': true} //nolint:gochecknoglobals // a constant table

// end checks that nothing follows.
func (s *scanner) end() error {
	s.space()
	if s.i < len(s.b) {
		return s.fail("text after the end of the JSON value")
	}
	return nil
}

// value walks over any value and returns its text. depth is that of the enclosing value.
func (s *scanner) value(depth int) ([]byte, error) {
	start := s.i
	if err := s.skip(depth); err != nil {
		return nil, err
	}
	return s.b[start:s.i:s.i], nil
}

func (s *scanner) skip(depth int) error {
	switch c := s.peek(); c {
	case '{':
		return s.skipObject(depth + 1)
	case '[':
		return s.skipArray(depth + 1)
	case '"':
		_, _, err := s.str()
		return err
	case 't':
		return s.literal("true")
	case 'f':
		return s.literal("false")
	case 'n':
		return s.literal("null")
	default:
		return s.number()
	}
}

func (s *scanner) skipObject(depth int) error {
	if depth > maxDepth {
		return s.fail("nested too deeply")
	}
	s.i++
	s.space()
	if s.take('}') {
		return nil
	}
	for {
		if _, _, err := s.str(); err != nil {
			return err
		}
		s.space()
		if !s.take(':') {
			return s.fail("expected : after a name")
		}
		s.space()
		if err := s.skip(depth); err != nil {
			return err
		}
		s.space()
		if s.take('}') {
			return nil
		}
		if !s.take(',') {
			return s.fail("expected , or } after a value")
		}
		s.space()
	}
}

func (s *scanner) skipArray(depth int) error {
	if depth > maxDepth {
		return s.fail("nested too deeply")
	}
	s.i++
	s.space()
	if s.take(']') {
		return nil
	}
	for {
		if err := s.skip(depth); err != nil {
			return err
		}
		s.space()
		if s.take(']') {
			return nil
		}
		if !s.take(',') {
			return s.fail("expected , or ] after a value")
		}
		s.space()
	}
}

// Members walks once over a JSON object and calls visit for each of its members, in their order:
// the name without quotes and escapes, the value as JSON text. name is valid only during the call,
// value as long as object is. An error of visit ends the walk and is returned; so is an error in the
// JSON, which is checked as fully as by encoding/json.
//
// It is for functions that need a few members of large objects: decoding a struct with three fields
// from a 1 KiB order takes encoding/json five times as long (BenchmarkMembers).
func Members(object []byte, visit func(name, value []byte) error) error {
	s := scanner{b: object}
	s.space()
	if !s.take('{') {
		return s.fail("not an object")
	}
	s.space()
	if s.take('}') {
		return s.end()
	}
	for {
		name, plain, err := s.str()
		if err != nil {
			return err
		}
		if !plain {
			decoded, err := unquote(name, false)
			if err != nil {
				return err
			}
			name = []byte(decoded)
		}
		s.space()
		if !s.take(':') {
			return s.fail("expected : after a name")
		}
		s.space()
		value, err := s.value(1)
		if err != nil {
			return err
		}
		if err := visit(name, value); err != nil {
			return err
		}
		s.space()
		if s.take('}') {
			return s.end()
		}
		if !s.take(',') {
			return s.fail("expected , or } after a value")
		}
		s.space()
	}
}

// special marks the bytes at which a string's plain run ends.
var special = func() (t [256]bool) { //nolint:gochecknoglobals // a constant table
	for c := range 0x20 {
		t[c] = true
	}
	t['"'], t['\\'] = true, true
	return t
}()

// str walks over a string and returns what stands between its quotes; plain is true if that is the
// string's content as it is: ASCII, nothing escaped.
func (s *scanner) str() (raw []byte, plain bool, err error) {
	if !s.take('"') {
		return nil, false, s.fail("expected a string")
	}
	b, i, start := s.b, s.i, s.i
	plain = true
	var seen byte // all bytes or'ed together: the top bit tells of anything beyond ASCII
	for i < len(b) {
		c := b[i]
		if !special[c] {
			seen |= c
			i++
			continue
		}
		switch c {
		case '"':
			s.i = i + 1
			return b[start:i], plain && seen < 0x80, nil
		case '\\':
			plain = false
			n := escape(b[i:])
			if n == 0 {
				s.i = i
				return nil, false, s.fail("invalid escape in a string")
			}
			i += n
		default:
			s.i = i
			return nil, false, s.fail("control character in a string")
		}
	}
	s.i = i
	return nil, false, errEnd
}

// escape returns the length of the escape sequence at the start of b, 0 if it is none.
func escape(b []byte) int {
	if len(b) < 2 {
		return 0
	}
	switch b[1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return 2
	case 'u':
		if len(b) < 6 {
			return 0
		}
		for _, c := range b[2:6] {
			if (c < '0' || c > '9') && (c < 'a' || c > 'f') && (c < 'A' || c > 'F') {
				return 0
			}
		}
		return 6
	}
	return 0
}

func (s *scanner) literal(word string) error {
	if len(s.b)-s.i < len(word) || string(s.b[s.i:s.i+len(word)]) != word {
		return s.fail("invalid literal")
	}
	s.i += len(word)
	return nil
}

func (s *scanner) number() error {
	s.take('-')
	switch {
	case s.take('0'):
	case s.digits() > 0:
	default:
		return s.fail("expected a value")
	}
	if s.take('.') && s.digits() == 0 {
		return s.fail("expected digits after the decimal point")
	}
	if s.take('e') || s.take('E') {
		if !s.take('+') {
			s.take('-')
		}
		if s.digits() == 0 {
			return s.fail("expected digits in the exponent")
		}
	}
	return nil
}

func (s *scanner) digits() int {
	start := s.i
	for s.i < len(s.b) && s.b[s.i] >= '0' && s.b[s.i] <= '9' {
		s.i++
	}
	return s.i - start
}

// unquote returns the content of a string from what stands between its quotes.
func unquote(raw []byte, plain bool) (string, error) {
	if plain {
		return string(raw), nil
	}
	quoted := make([]byte, 0, len(raw)+2)
	quoted = append(append(append(quoted, '"'), raw...), '"')
	var out string
	if err := json.Unmarshal(quoted, &out); err != nil {
		return "", fmt.Errorf("a string: %w", err)
	}
	return out, nil
}
