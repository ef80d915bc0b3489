//go:build weirnext

package record

import "slices"

// With the build tag weirnext this is the version after this one, for the tests of rolling updates
// (TestRollingUpdate of test/chaos, testRollingUpdate of test/e2e): it writes a field that this version doesn't know into each record, shows it to the
// function as an attribute, and marks one record in eight with something that must be known.
const (
	keyNext     = 100 << 1
	keyMustKnow = 101<<1 | required

	nextAttribute = "weirnext"
)

func knownLater(key uint64) bool { return key == keyMustKnow }

func (r *Record) readLater() {
	for _, e := range r.unknown {
		if e.key == keyNext {
			r.Attributes = append(slices.Clip(r.Attributes), Attribute{nextAttribute, string(e.data)})
		}
	}
}

func (r *Record) writeLater() []extension {
	for _, e := range r.unknown {
		if e.key == keyNext {
			return r.unknown // it was written before
		}
	}
	if r.Attempts > 0 {
		return r.unknown // the version before wrote it first
	}
	later := append(slices.Clone(r.unknown), extension{keyNext, []byte("yes")})
	if r.ID[15]%8 == 0 {
		later = append(later, extension{keyMustKnow, nil})
	}
	return later
}
