package blob

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/sign"
)

// TokenPath is where the gateway serves pre-signed URLs: TokenPath + token.
const TokenPath = "/objects/"

// The ways in which a text is no token of use.
var (
	// ErrNoToken means that a text is no token that was ever given.
	ErrNoToken = errors.New("blob: no such token")
	// ErrExpired means that the token's time is over.
	ErrExpired = errors.New("blob: the URL has expired")
)

// Permit is what a token permits, until Expires.
type Permit struct {
	Method      string // GET or PUT
	Queue       catalog.Key
	Key         string
	ContentType string // of PUT: exactly this; may be empty
	Size        int64  // of PUT: exactly so many bytes
	Expires     time.Time
}

// A token, before base64url:
//
//	key      4 bytes: the id of the signing key
//	method   1 byte: 1 GET, 2 PUT
//	expires  8 bytes: Unix seconds
//	size     8 bytes
//	text     namespace, name, key, content type: each its length in 1 byte, and itself
//	code    15 bytes: of all between it and key
//
// So what it permits is in it, and is read without looking anything up.
const (
	purposeToken = "object"
	fixedBytes   = 1 + 8 + 8
	maxText      = 255
	maxToken     = sign.KeyIDBytes + fixedBytes + 4*(1+maxText) + sign.MACBytes

	methodGet = 1
	methodPut = 2
)

func presignToken(ring sign.Ring, now time.Time, p Permit, expiry time.Duration) (Presigned, error) {
	if err := errors.Join(check(p.Key, p.ContentType), checkExpiry(expiry)); err != nil {
		return Presigned{}, err
	}
	if p.Size < 0 {
		return Presigned{}, errors.New("blob: an object has no negative size")
	}
	p.Expires = now.Add(expiry).Truncate(time.Second).UTC()
	token, err := p.token(ring, now)
	if err != nil {
		return Presigned{}, err
	}
	return Presigned{Method: p.Method, URL: TokenPath + token, Headers: p.headers(), Expires: p.Expires}, nil
}

// headers are what the client must send.
func (p Permit) headers() http.Header {
	h := http.Header{}
	if p.Method == http.MethodPut {
		h.Set("Content-Length", strconv.FormatInt(p.Size, 10))
		if p.ContentType != "" {
			h.Set("Content-Type", p.ContentType)
		}
	}
	return h
}

func (p Permit) token(ring sign.Ring, now time.Time) (string, error) {
	method := byte(methodGet)
	if p.Method == http.MethodPut {
		method = methodPut
	}
	body := append(make([]byte, 0, maxToken), method)
	body = binary.BigEndian.AppendUint64(body, uint64(p.Expires.Unix()))
	body = binary.BigEndian.AppendUint64(body, uint64(p.Size))
	for _, text := range []string{p.Queue.Namespace, p.Queue.Name, p.Key, p.ContentType} {
		if len(text) > maxText {
			return "", errors.New("blob: a name of more than " + strconv.Itoa(maxText) + " bytes")
		}
		body = append(append(body, byte(len(text))), text...)
	}
	key, mac, ok := ring.Sign(now, purposeToken, body)
	if !ok {
		return "", ErrNoKeys
	}
	out := append(binary.BigEndian.AppendUint32(nil, key), body...)
	return base64.RawURLEncoding.EncodeToString(append(out, mac[:]...)), nil
}

// ParseToken returns what a token permits, ErrNoToken, or ErrExpired for one that was good until some time before now.
// The code is compared in constant time, and before anything else is read.
func ParseToken(text string, ring sign.Ring, now time.Time) (Permit, error) {
	if len(text) > base64.RawURLEncoding.EncodedLen(maxToken) {
		return Permit{}, ErrNoToken
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(text)
	// Line breaks are skipped in decoding: one token has one text.
	if err != nil || len(text) != base64.RawURLEncoding.EncodedLen(len(b)) || len(b) < sign.KeyIDBytes+fixedBytes+sign.MACBytes {
		return Permit{}, ErrNoToken
	}
	key, body, mac := binary.BigEndian.Uint32(b), b[sign.KeyIDBytes:len(b)-sign.MACBytes], b[len(b)-sign.MACBytes:]
	if !ring.Verify(key, mac, purposeToken, body) {
		return Permit{}, ErrNoToken
	}
	p := Permit{
		Method:  http.MethodGet,
		Expires: time.Unix(int64(binary.BigEndian.Uint64(body[1:])), 0).UTC(),
		Size:    int64(binary.BigEndian.Uint64(body[9:])),
	}
	if body[0] == methodPut {
		p.Method = http.MethodPut
	}
	rest := body[fixedBytes:]
	for _, text := range []*string{&p.Queue.Namespace, &p.Queue.Name, &p.Key, &p.ContentType} {
		if len(rest) == 0 || len(rest) < 1+int(rest[0]) {
			return Permit{}, ErrNoToken
		}
		*text, rest = string(rest[1:1+int(rest[0])]), rest[1+int(rest[0]):]
	}
	if !now.Before(p.Expires) {
		return Permit{}, ErrExpired
	}
	return p, nil
}
