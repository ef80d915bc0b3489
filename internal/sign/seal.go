package sign

import (
	"encoding/base64"
	"encoding/binary"
	"time"
)

// Sealed is a text that was parsed, and is not verified yet. All ids and addresses that Weir issues are such texts.
// Before base64url without padding:
//
//	key    4 bytes: the id of the signing key
//	body   what it says
//	code  15 bytes: the MAC of the context and body, for one purpose
//
// The context is what both sides know, such as the name of a queue: it is signed and not in the text.
type Sealed struct {
	Body []byte

	key  uint32
	code []byte
}

// Seal returns the text, signed with the key of time at. The same ring, time and parts give the same text. ok is false
// when the ring has no keys.
func (r Ring) Seal(at time.Time, purpose string, body []byte, context ...[]byte) (text string, ok bool) {
	key, mac, ok := r.Sign(at, purpose, append(context, body)...)
	if !ok {
		return "", false
	}
	p := binary.BigEndian.AppendUint32(make([]byte, 0, KeyIDBytes+len(body)+MACBytes), key)
	p = append(p, body...)
	return base64.RawURLEncoding.EncodeToString(append(p, mac[:]...)), true
}

// Unseal reads a text whose body has least to most bytes. ok is false when Seal can't have written it: one body has one
// text, so line breaks, which decoding would skip, and stray bits are refused.
func Unseal(text string, least, most int) (s Sealed, ok bool) {
	const frame = KeyIDBytes + MACBytes
	if len(text) < base64.RawURLEncoding.EncodedLen(frame+least) || len(text) > base64.RawURLEncoding.EncodedLen(frame+most) {
		return Sealed{}, false
	}
	p, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil || len(text) != base64.RawURLEncoding.EncodedLen(len(p)) {
		return Sealed{}, false
	}
	end := len(p) - MACBytes
	return Sealed{Body: p[KeyIDBytes:end:end], key: binary.BigEndian.Uint32(p), code: p[end:]}, true
}

// Verify reports whether Seal has written the text, with a key of the ring and this purpose and context.
func (s Sealed) Verify(r Ring, purpose string, context ...[]byte) bool {
	return r.Verify(s.key, s.code, purpose, append(context, s.Body)...)
}
