package value

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/weir-dev/weir/function"
)

const space = " \t\r\n" // JSON's

// parsePointer splits a JSON Pointer into its tokens, unescaped. An empty one means the whole text, which has a value
// only if it is a scalar.
func parsePointer(p string) ([]string, error) {
	if p == "" {
		return nil, nil
	}
	if p[0] != '/' {
		return nil, fmt.Errorf("body:%s is no JSON Pointer: it must begin with '/', such as body:/customer", p)
	}
	tokens := strings.Split(p[1:], "/")
	for i, t := range tokens {
		for rest := t; ; {
			_, after, found := strings.Cut(rest, "~")
			if !found {
				break
			}
			if rest = after; after == "" || after[0] != '0' && after[0] != '1' {
				return nil, fmt.Errorf("body:%s is no JSON Pointer: '~' stands for itself as ~0, and for '/' as ~1", p)
			}
		}
		tokens[i] = strings.ReplaceAll(strings.ReplaceAll(t, "~1", "/"), "~0", "~")
	}
	return tokens, nil
}

// lookUp returns the scalar at the pointer.
func lookUp(text []byte, pointer []string) (value string, ok bool, err error) {
	text = bytes.Trim(text, space)
	for _, token := range pointer {
		switch {
		case len(text) == 0:
			return "", false, nil
		case text[0] == '{':
			text, err = member(text, token)
		case text[0] == '[':
			text, err = element(text, token)
		default:
			return "", false, nil
		}
		if err != nil {
			return "", false, err
		}
	}
	return scalar(text)
}

// member returns the value of an object's member; empty when there is none.
func member(text []byte, name string) (found []byte, err error) {
	twice := false
	err = function.Members(text, func(n, v []byte) error {
		if string(n) == name {
			twice = twice || found != nil
			found = v
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("the body is not valid JSON: %w", err)
	}
	if twice {
		return nil, fmt.Errorf("the member %.40q is there twice", name)
	}
	return found, nil
}

// element returns an array's element; empty when there is none.
func element(text []byte, index string) ([]byte, error) {
	n, err := strconv.Atoi(index)
	if err != nil || n < 0 || index != strconv.Itoa(n) { // RFC 6901, section 4: no leading zeros
		return nil, nil //nolint:nilerr // there is no such element
	}
	d := jsontext.NewDecoder(bytes.NewBuffer(text)) // a *bytes.Buffer is read in place
	if _, err := d.ReadToken(); err != nil {
		return nil, invalid(err)
	}
	var found []byte
	for i := 0; d.PeekKind() != jsontext.KindEndArray; i++ {
		v, err := d.ReadValue()
		if err != nil {
			return nil, invalid(err)
		}
		if i == n {
			found = bytes.Clone(v) // valid only until the decoder's next read
		}
	}
	if _, err := d.ReadToken(); err != nil {
		return nil, invalid(err)
	}
	if _, err := d.ReadToken(); !errors.Is(err, io.EOF) {
		return nil, invalid(errors.New("there is more after the value"))
	}
	return found, nil
}

func invalid(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("the body is not valid JSON: %w", err)
}

// scalar returns the text of a value that is neither null, an object nor an array.
func scalar(text []byte) (string, bool, error) {
	if len(text) == 0 {
		return "", false, nil
	}
	switch c := text[0]; {
	case !utf8.Valid(text):
		return "", false, invalid(errors.New("a string is not valid UTF-8"))
	case c == '{' || c == '[' || string(text) == "null":
		return "", false, nil
	case c == '"' && bytes.IndexByte(text, '\\') < 0 && len(text) > 1 && bytes.IndexByte(text[1:], '"') == len(text)-2:
		return string(text[1 : len(text)-1]), true, nil
	case c == '"':
		var s string
		if err := json.Unmarshal(text, &s); err != nil {
			return "", false, invalid(err)
		}
		return s, true, nil
	case !json.Valid(text): // the whole body, of a media type that isn't JSON
		return "", false, invalid(errors.New("it is no value"))
	}
	return string(text), true, nil
}
