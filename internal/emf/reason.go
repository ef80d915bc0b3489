package emf

import (
	"errors"
	"math/bits"
)

var (
	errTrailing  = errors.New("text after the object")
	errNotString = errors.New("a member's name is no string")
)

// Reasons is a set of why something of a line is in no metric.
type Reasons uint16

// The reasons.
const (
	Malformed         Reasons = 1 << iota // no JSON, or CloudWatchMetrics is no array
	TooLong                               // longer than MaxLineBytes
	BadDirective                          // a directive lacks what it must have, or has it of a wrong type or length
	TooManyMetrics                        // a directive with more than 100
	TooManyDimensions                     // a dimension set with more than 30
	TooManyValues                         // an array with more than 100
	NoMetric                              // a metric refers to a member that isn't there
	NoDimension                           // a dimension set does
	BadValue                              // a metric's value is no number, or none that CloudWatch takes
	BadDimension                          // a dimension's value is empty, too long, or neither string nor number
	TooManySeries                         // its values are in the series of the overflow, without dimensions
	TooManyNames                          // one metric more than there may be
	SumTooLarge                           // the sum of the series' whole numbers would be past what the SDK adds up
)

// tooManySources is no reason to drop anything.
const tooManySources Reasons = 1 << 15

// reasonCount is how many there are; the words of the metric weir.emf.dropped are in the order of the bits.
const reasonCount = 13

// String is the word of a single reason.
func (r Reasons) String() string {
	return [reasonCount]string{
		"malformed", "too-long", "directive", "too-many-metrics", "too-many-dimensions", "too-many-values",
		"missing-metric", "missing-dimension", "value", "dimension", "series-limit", "metric-limit", "sum-limit",
	}[bits.TrailingZeros16(uint16(r))]
}
