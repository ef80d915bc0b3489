// Package mediatype says which media types (RFC 9110, section 8.3.1) are in a list of them.
//
// Invariants: case and parameters make no difference.
//
// May import: the standard library and httpguts.
package mediatype

import (
	"errors"
	"mime"
	"strings"

	"golang.org/x/net/http/httpguts"
)

// MaxLength bounds the text of a Range, in bytes.
const MaxLength = 128

// Range is a media type such as application/json, all subtypes of a type such as text/*, or those of a type with a suffix
// (RFC 6839) such as application/*+json. It is in lower case.
type Range string

// Parse reads a range.
func Parse(text string) (Range, error) {
	kind, sub, ok := strings.Cut(text, "/")
	if rest, found := strings.CutPrefix(sub, "*+"); found {
		sub = rest
	} else if sub == "*" {
		sub = "x"
	}
	switch {
	case strings.Contains(text, ";"):
		return "", errors.New("must have no parameters: they make no difference; write such as text/plain")
	case text == "*/*":
		return "", errors.New("takes every media type: leave the list out for that")
	case !ok, len(text) > MaxLength, strings.Contains(kind+sub, "*"), !httpguts.ValidHeaderFieldName(kind), !httpguts.ValidHeaderFieldName(sub):
		return "", errors.New("must be a media type such as application/json, text/* or application/*+json")
	}
	return Range(strings.ToLower(text)), nil
}

// Has reports whether media, as Of returns it, is in the range.
func (r Range) Has(media string) bool {
	prefix, suffix, wild := strings.Cut(string(r), "*")
	if !wild {
		return media == prefix
	}
	return len(media) > len(prefix)+len(suffix) && strings.HasPrefix(media, prefix) && strings.HasSuffix(media, suffix)
}

// MayBeJSON reports whether the range has a type of JSON.
func (r Range) MayBeJSON() bool {
	return r.Has("application/json") || strings.HasSuffix(string(r), "+json") || strings.HasSuffix(string(r), "/*")
}

// Of returns the media type of a Content-Type in lower case; ok is false if it has none.
func Of(contentType string) (media string, ok bool) {
	media, _, err := mime.ParseMediaType(contentType)
	if err != nil && !errors.Is(err, mime.ErrInvalidMediaParameter) || !strings.Contains(media, "/") {
		return "", false
	}
	return media, true
}
