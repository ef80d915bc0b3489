// Package machinegraph draws state machines as SVG: layered from above to below (Sugiyama, Tagawa and Toda, 1981), with the
// machines in Parallel and Map states inside of their boxes.
//
// Invariants: the same machine gives the same bytes. Every text of a definition is escaped.
//
// May import: statelang and the standard library.
package machinegraph
