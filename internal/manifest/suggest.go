package manifest

import (
	"fmt"
	"slices"
	"strings"
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
		if d := distance(got, w); d < bestDist {
			best, bestDist = w, d
		}
	}
	return best
}

// distance is Levenshtein's: how many bytes to insert, delete or change.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
