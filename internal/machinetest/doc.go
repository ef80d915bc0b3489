// Package machinetest tests state machines before they are deployed: definitions are read from files with the lines of their
// fields, executions run against mocks on a simulated clock, their histories become trees, and test files say what is expected
// of them and how much of a machine they reach.
//
// Invariants: there is no I/O and no real clock: the same machine, mocks and input give the same outcome, byte for byte. Every
// run ends: its steps, its states and the size of files are bounded, and what exceeds a bound is an error that says so.
//
// May import: statelang, jsontree, a parser of YAML, and the standard library.
package machinetest
