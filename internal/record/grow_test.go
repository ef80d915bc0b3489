package record

import (
	"bytes"
	"errors"
	"reflect"
	"testing"
)

// block is one of the records, with codec None.
func block(t *testing.T, rs ...Record) []byte {
	t.Helper()
	var b Builder
	for i := range rs {
		if err := b.Append(&rs[i]); err != nil {
			t.Fatal(err)
		}
	}
	return b.AppendBlock(nil, None)
}

// TestFormatsGrow: what a later version has added is kept through a retry by this one, and held if it must be known.
func TestFormatsGrow(t *testing.T) {
	plain := Record{Source: "/s", Body: []byte("plain")}
	later := Record{Source: "/s", Body: []byte("later"), unknown: []extension{{20 << 1, []byte("new")}, {21 << 1, []byte{}}}}
	rs, err := Decode(block(t, plain, later, plain))
	if err != nil || len(rs) != 3 {
		t.Fatal(len(rs), err)
	}
	rs[1].Attempts++
	rs[1].Failure = &Failure{Reason: "500"}
	again, err := Decode(block(t, rs...))
	if err != nil || !reflect.DeepEqual(again[1].unknown, later.unknown) {
		t.Errorf("after a retry the record has %v (%v), want %v", again[1].unknown, err, later.unknown)
	}

	for name, held := range map[string]Record{
		"required":                {Source: "/s", unknown: []extension{{20<<1 | required, []byte("new")}}},
		"known, but now required": {Source: "/s", unknown: []extension{{keyAge | required, []byte("x")}}},
	} {
		if rs, err := Decode(block(t, plain, held, plain)); !errors.Is(err, ErrUnsupported) || rs != nil {
			t.Errorf("%s: %d records, %v; want ErrUnsupported", name, len(rs), err)
		}
	}
	next := block(t, plain)
	next[2] = format + 1
	if _, err := Decode(next); !errors.Is(err, ErrUnsupported) {
		t.Errorf("the next format: %v", err)
	}
	// A flag that isn't known, and a known extension that is longer than known.
	for what, change := range map[string]func(p []byte) []byte{
		"flag": func(p []byte) []byte { p[0] |= 0x40; return p },
		"longer": func(p []byte) []byte {
			return bytes.Replace(p, []byte{1, keyRedrives, 1, 7}, []byte{1, keyRedrives, 2, 7, 7}, 1)
		},
	} {
		b := Builder{payload: change(appendRecord(nil, &Record{Source: "/s", Redrives: 7})), count: 1}
		if _, err := Decode(b.AppendBlock(nil, None)); !errors.Is(err, ErrUnsupported) {
			t.Errorf("%s: %v, want ErrUnsupported", what, err)
		}
	}
	// A block that is damaged as well is not held for ever.
	b := Builder{payload: appendRecord(nil, &Record{Source: "/s", unknown: []extension{{20<<1 | required, []byte("new")}}}), count: 1}
	b.payload = b.payload[:len(b.payload)-1]
	if _, err := Decode(b.AppendBlock(nil, None)); !errors.Is(err, ErrCorrupt) {
		t.Errorf("cut off: %v, want ErrCorrupt", err)
	}
}
