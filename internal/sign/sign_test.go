package sign

import (
	"testing"
	"time"
)

func TestRing(t *testing.T) {
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	if _, _, ok := (Ring{}).Sign(start, "x"); ok {
		t.Error("a ring without keys signs")
	}
	ring, changed, err := Ring{}.Rotate(start)
	if err != nil || !changed || len(ring.Keys) != 1 {
		t.Fatal(ring, changed, err)
	}
	first, mac, ok := ring.Sign(start, "job", []byte("a"), []byte("b"))
	if !ok {
		t.Fatal("the first key is of use at once: nobody could sign before")
	}
	for _, bad := range []struct {
		what    string
		purpose string
		message [][]byte
	}{
		{"another purpose", "url", [][]byte{[]byte("a"), []byte("b")}},
		{"another message", "job", [][]byte{[]byte("a"), []byte("c")}},
		{"another cut", "job", [][]byte{[]byte("ab")}},
		{"fewer parts", "job", [][]byte{[]byte("a")}},
	} {
		if ring.Verify(first, mac[:], bad.purpose, bad.message...) {
			t.Errorf("%s: verified", bad.what)
		}
	}
	if ring.Verify(first, mac[:MACBytes-1], "job", []byte("a"), []byte("b")) || ring.Verify(first+1, mac[:], "job", []byte("a"), []byte("b")) {
		t.Error("a cut code, or another key, verified")
	}

	later := start.Add(RotateEvery)
	if _, changed, _ := ring.Rotate(later.Add(-time.Second)); changed {
		t.Error("rotated too early")
	}
	ring, changed, err = ring.Rotate(later)
	if err != nil || !changed || len(ring.Keys) != 2 {
		t.Fatal(ring, changed, err)
	}
	if key, _, _ := ring.Sign(later.Add(ActivateAfter-time.Second), "job"); key != first {
		t.Error("signed with a key that others may not know yet")
	}
	if key, _, _ := ring.Sign(later.Add(ActivateAfter), "job"); key == first {
		t.Error("the new key is not used")
	}
	if key, again, _ := ring.Sign(start, "job", []byte("a"), []byte("b")); key != first || again != mac {
		t.Error("what was signed at a time is signed otherwise after a rotation")
	}
	if !ring.Verify(first, mac[:], "job", []byte("a"), []byte("b")) {
		t.Error("what the former key signed does not verify")
	}

	now := later
	for range 100 {
		now = now.Add(RotateEvery)
		if ring, _, err = ring.Rotate(now); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(ring.Keys); n > 27 {
		t.Errorf("%d keys are kept", n)
	}
	if oldest := now.Sub(ring.Keys[0].Created); oldest > KeepKeys || oldest < KeepKeys-RotateEvery {
		t.Errorf("the oldest key is %s old", oldest)
	}
}

// TestTextsAreNoFlags: people give the texts to commands.
func TestTextsAreNoFlags(t *testing.T) {
	for range 1_000 {
		ring, _, err := Ring{}.Rotate(time.Now())
		if err != nil {
			t.Fatal(err)
		}
		if text, ok := ring.Seal(time.Now(), "job", []byte("body")); !ok || text[0] == '-' {
			t.Fatalf("%q, %v", text, ok)
		}
	}
}
