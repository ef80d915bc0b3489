package ownpath_test

import (
	"strings"
	"testing"

	"github.com/weir-dev/weir/internal/ownpath"
)

func TestParseBase(t *testing.T) {
	for _, good := range []string{"", "/shop", "/a/b-c/d.e/_f~1", "/" + strings.Repeat("a", 255)} {
		b, err := ownpath.ParseBase(good)
		if err != nil || b.Of(ownpath.Uploads) != good+"/weir/uploads" {
			t.Errorf("%s: %s, %v", good, b, err)
		}
	}
	for _, bad := range []string{
		"/", "shop", "/shop/", "//shop", "/a//b", "/a/../b", "/.", "/a/.", "/a?b", "/a#b", "/a b", "/a%20b", "/{a}", "/\"", "/ä", "https://shop.example/a", "/" + strings.Repeat("a", 256),
	} {
		if b, err := ownpath.ParseBase(bad); err == nil {
			t.Errorf("%q is taken as %s", bad, b)
		}
	}
}
