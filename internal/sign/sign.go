// Package sign holds the keys that Weir signs with: ids of jobs, callbacks, URLs. What is signed can be verified
// without a lookup.
//
// Invariants: what was signed at a time verifies as long as the ring keeps the key of that time, which Rotate
// does for KeepKeys; a key is signed with only after every process had ActivateAfter to learn of it.
//
// May import: the standard library only.
package sign

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"slices"
	"time"
)

// Times of a ring.
const (
	RotateEvery   = 30 * 24 * time.Hour
	ActivateAfter = 10 * time.Minute
	// KeepKeys is longer than the validity of anything that is signed: a job may wait a year in its queue, and
	// its result may be kept for another.
	KeepKeys = 25 * 30 * 24 * time.Hour
)

// KeyIDBytes and MACBytes are the lengths of what Sign returns.
const (
	KeyIDBytes = 4
	MACBytes   = 15
)

const secretBytes = 32

// Key is one secret.
type Key struct {
	ID      uint32    `json:"id"`
	Secret  []byte    `json:"secret"` // 32 bytes
	Created time.Time `json:"created"`
}

// Ring is all keys that are in use, the oldest first. It is immutable. The zero value has no keys: it signs nothing.
type Ring struct {
	Keys []Key `json:"keys"`
}

// Rotate returns r with a new key if its newest is older than RotateEvery, or if it has none, and without those older
// than KeepKeys; changed is false when there was nothing to do. It fails only when the system has no randomness.
func (r Ring) Rotate(now time.Time) (rotated Ring, changed bool, err error) {
	if n := len(r.Keys); n > 0 && now.Sub(r.Keys[n-1].Created) < RotateEvery {
		return r, false, nil
	}
	k := Key{Secret: make([]byte, secretBytes), Created: now.UTC().Truncate(time.Second)}
	var id [KeyIDBytes]byte
	for unique := false; !unique; {
		if _, err := rand.Read(id[:]); err != nil {
			return r, false, err
		}
		// Without its first bit, so that no text begins with "-", which command lines take for a flag.
		k.ID = binary.BigEndian.Uint32(id[:]) >> 1
		unique = !slices.ContainsFunc(r.Keys, func(other Key) bool { return other.ID == k.ID })
	}
	if _, err := rand.Read(k.Secret); err != nil {
		return r, false, err
	}
	kept := slices.DeleteFunc(slices.Clone(r.Keys), func(old Key) bool { return now.Sub(old.Created) > KeepKeys })
	return Ring{Keys: append(kept, k)}, true, nil
}

// at is the key to sign with at a time: the newest that every process knows by then, or else the oldest.
func (r Ring) at(t time.Time) *Key {
	for i := range slices.Backward(r.Keys) {
		if k := &r.Keys[i]; !k.Created.Add(ActivateAfter).After(t) {
			return k
		}
	}
	if len(r.Keys) > 0 {
		return &r.Keys[0]
	}
	return nil
}

// Sign returns the id of the key of time t and the message's MAC under it. The same ring, time and message give the
// same MAC. purpose keeps a MAC for one thing from being valid for another. ok is false when the ring has no keys.
func (r Ring) Sign(t time.Time, purpose string, message ...[]byte) (key uint32, mac [MACBytes]byte, ok bool) {
	k := r.at(t)
	if k == nil {
		return 0, mac, false
	}
	return k.ID, k.mac(purpose, message), true
}

// Verify reports whether mac was made by Sign with the key.
func (r Ring) Verify(key uint32, mac []byte, purpose string, message ...[]byte) bool {
	for i := range r.Keys {
		if k := &r.Keys[i]; k.ID == key {
			want := k.mac(purpose, message)
			return hmac.Equal(mac, want[:])
		}
	}
	return false
}

// mac is HMAC-SHA-256, cut (RFC 2104, section 5), over parts whose lengths are part of it.
func (k *Key) mac(purpose string, message [][]byte) (out [MACBytes]byte) {
	h := hmac.New(sha256.New, k.Secret)
	part := func(p []byte) {
		var n [8]byte
		binary.BigEndian.PutUint64(n[:], uint64(len(p)))
		h.Write(n[:])
		h.Write(p)
	}
	part([]byte(purpose))
	for _, p := range message {
		part(p)
	}
	copy(out[:], h.Sum(nil))
	return out
}
