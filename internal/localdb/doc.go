// Package localdb runs a private PostgreSQL with a PgBouncer in front of it,
// for `make run` and for tests: real servers, in a folder of their own, on
// loopback ports of their own, never the system's cluster.
//
// Invariants:
//
//   - Data in Config.Dir survives restarts. The data folder appears by a
//     rename after initdb is through, so an initdb that was killed is redone
//     and never mistaken for data.
//   - fsync, full_page_writes and synchronous_commit are on, in tests as well:
//     what the tests show about lost orders would mean nothing otherwise.
//   - PostgreSQL and PgBouncer end with the process that started them: by
//     Stop, and on Linux also when that process is killed (Pdeathsig). Where
//     one is left over all the same, the next Start finds it by its pid file
//     in this folder, and touches no other process.
//   - Neither runs as root: root starts them as the system user "postgres".
//   - One DB a folder at a time: a lock on Dir is held until Stop.
//   - Passwords are real (SCRAM), generated, and in files of mode 0600.
//
// It may import pgx and the standard library; of Weir childproc and filelock.
package localdb
