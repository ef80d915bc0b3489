package mediatype_test

import (
	"strings"
	"testing"

	"github.com/weir-dev/weir/internal/mediatype"
)

func TestRanges(t *testing.T) {
	for _, row := range []struct {
		text    string
		has     []string
		hasNot  []string
		maybeJS bool
	}{
		{"application/json", []string{"application/json", "Application/JSON; charset=utf-8", "application/json; q"}, []string{"", "application/json5", "text/json", "application/json, text/plain"}, true},
		{"Text/*", []string{"text/plain", "text/csv;header=present"}, []string{"text/", "text", "application/text"}, true},
		{"application/*+json", []string{"application/vnd.x+json"}, []string{"application/+json", "application/json", "text/x+json"}, true},
		{"image/png", []string{"image/png"}, []string{"image/*"}, false},
	} {
		r, err := mediatype.Parse(row.text)
		if err != nil || r.MayBeJSON() != row.maybeJS {
			t.Fatalf("%s: %v, %v", row.text, r.MayBeJSON(), err)
		}
		for want, list := range map[bool][]string{true: row.has, false: row.hasNot} {
			for _, contentType := range list {
				if media, ok := mediatype.Of(contentType); (ok && r.Has(media)) != want {
					t.Errorf("%s has %q: %v", row.text, contentType, !want)
				}
			}
		}
	}
}

func TestBadRanges(t *testing.T) {
	for _, bad := range []string{
		"", "json", "application/", "/json", "*/json", "*", "*/*", "text/*x", "text/x*", "text/*+", "a b/c", "a/b c", "a/b,c/d", "text/plain; charset=utf-8", "a/" + strings.Repeat("b", 127),
	} {
		if r, err := mediatype.Parse(bad); err == nil {
			t.Errorf("%q is taken as %s", bad, r)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("application/*+json", "application/vnd.x+json")
	f.Fuzz(func(t *testing.T, text, contentType string) {
		r, err := mediatype.Parse(text)
		if err != nil {
			return
		}
		if again, err := mediatype.Parse(string(r)); err != nil || again != r {
			t.Errorf("%q: %q, %v", text, again, err)
		}
		if media, ok := mediatype.Of(contentType); ok && strings.ToLower(contentType) == string(r) && !strings.Contains(text, "*") && !r.Has(media) {
			t.Errorf("%q does not have itself", text)
		}
	})
}
