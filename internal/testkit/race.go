//go:build race

package testkit

// Race reports whether the race detector is on: it makes some sizes too large.
const Race = true
