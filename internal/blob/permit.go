package blob

import (
	"encoding/binary"
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/ownpath"
	"github.com/weir-dev/weir/internal/sign"
)

// Errors of ParsePermit.
var (
	// ErrNoPermit means that a text is no permit that was ever issued.
	ErrNoPermit = errors.New("blob: no such permit")
	// ErrExpired means that the permit's time is over.
	ErrExpired = errors.New("blob: the URL has expired")
)

// Permit is what the holder of its text may do, until Expires.
type Permit struct {
	Method      string // GET or PUT
	Queue       catalog.Key
	Key         string
	ContentType string // of PUT: exactly this; may be empty
	Size        int64  // of PUT: exactly so many bytes
	Expires     time.Time
}

// The body of its text (sign.Sealed):
//
//	method   1 byte: 1 GET, 2 PUT
//	expires  8 bytes: Unix seconds
//	size     8 bytes
//	text     namespace, name, key, content type: each its length in 1 byte, and itself
//
// So a permit is self-contained: it is checked without looking anything up.
const (
	purposePermit = "object"
	fixedBytes    = 1 + 8 + 8
	maxText       = 255
	maxPermit     = fixedBytes + 4*(1+maxText)

	methodGet = 1
	methodPut = 2
)

func presign(ring sign.Ring, now time.Time, p Permit, expiry time.Duration) (Presigned, error) {
	if err := errors.Join(check(p.Key, p.ContentType), checkExpiry(expiry)); err != nil {
		return Presigned{}, err
	}
	if p.Size < 0 {
		return Presigned{}, errors.New("blob: an object has no negative size")
	}
	p.Expires = now.Add(expiry).Truncate(time.Second).UTC()
	text, err := p.text(ring, now)
	if err != nil {
		return Presigned{}, err
	}
	return Presigned{Method: p.Method, URL: ownpath.Objects + text, Headers: p.headers(), Expires: p.Expires}, nil
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

func (p Permit) text(ring sign.Ring, now time.Time) (string, error) {
	method := byte(methodGet)
	if p.Method == http.MethodPut {
		method = methodPut
	}
	body := append(make([]byte, 0, maxPermit), method)
	body = binary.BigEndian.AppendUint64(body, uint64(p.Expires.Unix()))
	body = binary.BigEndian.AppendUint64(body, uint64(p.Size))
	for _, text := range []string{p.Queue.Namespace, p.Queue.Name, p.Key, p.ContentType} {
		if len(text) > maxText {
			return "", errors.New("blob: a name of more than " + strconv.Itoa(maxText) + " bytes")
		}
		body = append(append(body, byte(len(text))), text...)
	}
	text, ok := ring.Seal(now, purposePermit, body)
	if !ok {
		return "", ErrNoKeys
	}
	return text, nil
}

// ParsePermit returns the permit of a text, ErrNoPermit, or ErrExpired for one that was valid until before now. The MAC
// is compared in constant time, and before anything else is parsed.
func ParsePermit(text string, ring sign.Ring, now time.Time) (Permit, error) {
	t, ok := sign.Unseal(text, fixedBytes, maxPermit)
	if !ok || !t.Verify(ring, purposePermit) {
		return Permit{}, ErrNoPermit
	}
	body := t.Body
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
			return Permit{}, ErrNoPermit
		}
		*text, rest = string(rest[1:1+int(rest[0])]), rest[1+int(rest[0]):]
	}
	if !now.Before(p.Expires) {
		return Permit{}, ErrExpired
	}
	return p, nil
}
