package manifest

import (
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/weir-dev/weir/api/v1alpha1"
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

// plainDuration returns how a duration is written that Go doesn't read although its meaning is plain: 96h for 4d, 90m for
// "1 hour 30 minutes". It returns "" for any other text, and for what Go reads.
func plainDuration(text string) string {
	if _, err := time.ParseDuration(text); err == nil || len(text) > maxSuggestLen {
		return ""
	}
	var sum float64
	parts := durationPart.FindAllStringSubmatch(text, -1)
	for _, p := range parts {
		n, err := strconv.ParseFloat(p[1], 64)
		unit := unitOf(p[2])
		if err != nil || unit == 0 {
			return ""
		}
		sum += n * float64(unit)
	}
	if len(parts) == 0 || strings.TrimSpace(durationPart.ReplaceAllString(text, "")) != "" || sum >= math.MaxInt64 {
		return ""
	}
	return v1alpha1.FormatDuration(time.Duration(math.Round(sum)))
}

// durationPart is a number and its unit.
var durationPart = regexp.MustCompile(`([0-9]+(?:\.[0-9]+)?)\s*(\p{L}+)\s*`)

// unitOf is how long a unit is, by its letter, its short form or its name; 0 if it is none. Months and years are none: they have
// no length of their own. Nor is M, which may be a month or a minute.
func unitOf(name string) time.Duration {
	if name == "M" {
		return 0
	}
	name = strings.ToLower(name)
	for unit, names := range map[time.Duration][]string{
		time.Nanosecond:    {"ns", "nanosecond"},
		time.Microsecond:   {"us", "µs", "μs", "microsecond"},
		time.Millisecond:   {"ms", "msec", "millisecond"},
		time.Second:        {"s", "sec", "second"},
		time.Minute:        {"m", "min", "minute"},
		time.Hour:          {"h", "hr", "hour"},
		24 * time.Hour:     {"d", "day"},
		7 * 24 * time.Hour: {"w", "wk", "week"},
	} {
		if slices.Contains(names, name) || slices.Contains(names[1:], strings.TrimSuffix(name, "s")) {
			return unit
		}
	}
	return 0
}
