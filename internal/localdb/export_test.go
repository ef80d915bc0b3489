package localdb

// CommandLine is for tests that watch processes.
var CommandLine = commandLine
