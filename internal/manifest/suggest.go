package manifest

import (
	"fmt"
	"slices"
	"strings"

	"github.com/weir-dev/weir/internal/spelling"
)

// maxSuggestLen bounds the words that are compared: the distance costs the product of their lengths.
const maxSuggestLen = 64

// didYouMean returns `; did you mean "x"?` for the known word nearest to got, or "" if none is near.
func didYouMean(got string, known []string) string {
	if w := nearest(got, known); w != "" {
		return fmt.Sprintf("; did you mean %q?", w)
	}
	return ""
}

// nearest returns the known word that differs from got by capitals only or by about a third of its
// letters at most.
func nearest(got string, known []string) string {
	if got == "" || len(got) > maxSuggestLen {
		return ""
	}
	best, bestDist := "", max(1, len(got)/3)+1
	for _, w := range slices.Sorted(slices.Values(known)) {
		if strings.EqualFold(w, got) {
			return w
		}
		if len(w) > maxSuggestLen {
			continue
		}
		if d := spelling.Distance(got, w); d < bestDist {
			best, bestDist = w, d
		}
	}
	return best
}
