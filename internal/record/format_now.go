//go:build !weirnext

package record

// What a later version adds: nothing, in this one. See format_next.go.

func knownLater(uint64) bool { return false }

func (r *Record) readLater() {}

func (r *Record) writeLater() []extension { return r.unknown }
