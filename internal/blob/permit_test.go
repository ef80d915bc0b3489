package blob

import (
	"bytes"
	"encoding/base64"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/ownpath"
	"github.com/weir-dev/weir/internal/sign"
)

func testRing(t *testing.T, now time.Time) sign.Ring {
	t.Helper()
	ring, _, err := sign.Ring{}.Rotate(now)
	if err != nil {
		t.Fatal(err)
	}
	return ring
}

func testPermit(t *testing.T, ring sign.Ring, now time.Time) (string, Permit) {
	t.Helper()
	p := Permit{Method: "PUT", Queue: queue, Key: "input", ContentType: "text/plain", Size: 5}
	signed, err := presign(ring, now, p, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	p.Expires = signed.Expires
	return strings.TrimPrefix(signed.URL, ownpath.Objects), p
}

func TestToken(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	ring := testRing(t, now)
	text, want := testPermit(t, ring, now)
	if p, err := ParsePermit(text, ring, now); err != nil || p != want {
		t.Fatalf("got %+v, %v; want %+v", p, err, want)
	}
	if _, err := ParsePermit(text, ring, want.Expires.Add(-time.Nanosecond)); err != nil {
		t.Errorf("in its last moment: %v", err)
	}
	if _, err := ParsePermit(text, ring, want.Expires); !errors.Is(err, ErrExpired) {
		t.Errorf("past its time: %v", err)
	}

	b, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 8 * len(b) {
		b[i/8] ^= 1 << (i % 8)
		if p, err := ParsePermit(base64.RawURLEncoding.EncodeToString(b), ring, now); !errors.Is(err, ErrNoPermit) {
			t.Fatalf("bit %d flipped: %+v, %v", i, p, err)
		}
		b[i/8] ^= 1 << (i % 8)
	}
	for i := range text { // bits that are in no byte, too
		for bit := range 8 {
			changed := []byte(text)
			changed[i] ^= 1 << bit
			if _, err := ParsePermit(string(changed), ring, now); !errors.Is(err, ErrNoPermit) {
				t.Fatalf("character %d bit %d flipped: %v", i, bit, err)
			}
		}
	}
	for _, bad := range []string{"", "x", text[1:], text[:len(text)-1], text + "A", text + "\n", text[:9] + "\n" + text[9:], strings.Repeat("A", 1<<20)} {
		if _, err := ParsePermit(bad, ring, now); !errors.Is(err, ErrNoPermit) {
			t.Errorf("%.20q: %v", bad, err)
		}
	}
	if _, err := ParsePermit(text, sign.Ring{}, now); !errors.Is(err, ErrNoPermit) {
		t.Errorf("without keys: %v", err)
	}
	if _, err := presign(sign.Ring{}, now, want, time.Minute); !errors.Is(err, ErrNoKeys) {
		t.Errorf("signed without keys: %v", err)
	}
	for _, expiry := range []time.Duration{0, -time.Hour, MaxExpiry + 1} {
		if _, err := presign(ring, now, want, expiry); err == nil {
			t.Errorf("signed for %s", expiry)
		}
	}
}

// TestPermitOutlivesRotation: what a key signed is good after the next one has come.
func TestPermitOutlivesRotation(t *testing.T) {
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	ring := testRing(t, start)
	now := start.Add(sign.RotateEvery)
	text, _ := testPermit(t, ring, now)
	ring, changed, err := ring.Rotate(now)
	if err != nil || !changed {
		t.Fatal(changed, err)
	}
	if _, err := ParsePermit(text, ring, now); err != nil {
		t.Errorf("after a rotation: %v", err)
	}
	after, _ := testPermit(t, ring, now.Add(sign.ActivateAfter))
	if _, err := ParsePermit(after, ring, now.Add(sign.ActivateAfter)); err != nil || after[:5] == text[:5] {
		t.Errorf("with the new key: %v", err)
	}
	if _, err := ParsePermit(text, sign.Ring{Keys: ring.Keys[1:]}, now); !errors.Is(err, ErrNoPermit) {
		t.Errorf("its key is gone: %v", err)
	}
}

func TestPermitCheck(t *testing.T) {
	request := func(method, contentType, body string) *http.Request {
		r := httptest.NewRequestWithContext(t.Context(), method, "/", strings.NewReader(body))
		r.Header.Set("Content-Type", contentType)
		return r
	}
	unknown := request("PUT", "text/plain", "12345")
	unknown.ContentLength = -1
	put, get := Permit{Method: "PUT", ContentType: "text/plain", Size: 5}, Permit{Method: "GET"}
	for _, c := range []struct {
		what string
		p    Permit
		r    *http.Request
		want error
	}{
		{"the body", put, request("PUT", "text/plain", "12345"), nil},
		{"a longer one", put, request("PUT", "text/plain", "123456"), ErrLength},
		{"a shorter one", put, request("PUT", "text/plain", "1234"), ErrLength},
		{"chunked", put, unknown, ErrLength},
		{"another type", put, request("PUT", "text/html", "12345"), ErrContentType},
		{"GET with PUT's", put, request("GET", "", ""), ErrMethod},
		{"HEAD with PUT's", put, request("HEAD", "", ""), ErrMethod},
		{"GET", get, request("GET", "", ""), nil},
		{"HEAD", get, request("HEAD", "", ""), nil},
		{"PUT with GET's", get, request("PUT", "text/plain", "12345"), ErrMethod},
		{"DELETE", get, request("DELETE", "", ""), ErrMethod},
	} {
		if err := c.p.Check(c.r); !errors.Is(err, c.want) || c.want == nil && err != nil {
			t.Errorf("%s: %v", c.what, err)
		}
	}
}

func TestWrite(t *testing.T) {
	s := newNATS(t, catalog.Objects{MaxAge: time.Hour, MaxBytes: roomy})
	put(t, s, "a", "<script>")
	for _, method := range []string{"GET", "HEAD"} {
		o, err := s.Open(t.Context(), queue, "a")
		if err != nil {
			t.Fatal(err)
		}
		w := httptest.NewRecorder()
		err = errors.Join(o.Write(w, httptest.NewRequestWithContext(t.Context(), method, "/", nil)), o.Close())
		want := map[string]string{
			"Content-Length": "8", "Content-Type": "text/plain", "X-Content-Type-Options": "nosniff",
			"Content-Disposition": "attachment", "Etag": `"` + o.ETag + `"`,
		}
		for k, v := range want {
			if got := w.Header().Get(k); got != v {
				t.Errorf("%s %s: %q, want %q", method, k, got, v)
			}
		}
		if body := w.Body.String(); err != nil || w.Code != 200 || (method == "GET") != (body == "<script>") {
			t.Errorf("%s: %d %q %v", method, w.Code, body, err)
		}
	}
}

// TestPartsAndConditions: a download that broke goes on where it was, across chunks, and what a client has is not sent
// again.
func TestPartsAndConditions(t *testing.T) {
	s := newNATS(t, catalog.Objects{MaxAge: time.Hour, MaxBytes: roomy})
	text := make([]byte, 3<<20+123)
	for i := range text {
		text[i] = byte(i * 7 / 5)
	}
	info := put(t, s, "a", string(text))
	etag, size := `"`+info.ETag+`"`, len(text)
	for _, row := range []struct {
		header     []string
		status     int
		from, to   int // of the body
		rangeShown string
	}{
		{[]string{"Range", "bytes=0-99"}, 206, 0, 100, "bytes 0-99/3145851"},
		{[]string{"Range", "bytes=1048570-2097160"}, 206, 1048570, 2097161, "bytes 1048570-2097160/3145851"},
		{[]string{"Range", "bytes=3000000-"}, 206, 3000000, size, "bytes 3000000-3145850/3145851"},
		{[]string{"Range", "bytes=-5"}, 206, size - 5, size, "bytes 3145846-3145850/3145851"},
		{[]string{"Range", "bytes=0-1,5-6"}, 200, 0, size, ""},
		{[]string{"Range", "bytes=3145851-"}, 416, 0, 0, "bytes */3145851"},
		{[]string{"Range", "lines=1-2"}, 416, 0, 0, ""},
		{[]string{"Range", "bytes=5-9", "If-Range", etag}, 206, 5, 10, "bytes 5-9/3145851"},
		{[]string{"Range", "bytes=5-9", "If-Range", `"other"`}, 200, 0, size, ""},
		{[]string{"If-None-Match", etag}, 304, 0, 0, ""},
		{[]string{"If-None-Match", `"other", W/` + etag}, 304, 0, 0, ""},
		{[]string{"If-None-Match", `"other"`}, 200, 0, size, ""},
		{[]string{"If-Match", etag}, 200, 0, size, ""},
		{[]string{"If-Match", `"other"`}, 412, 0, 0, ""},
	} {
		o, err := s.Open(t.Context(), queue, "a")
		if err != nil {
			t.Fatal(err)
		}
		req := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", http.NoBody)
		for i := 0; i < len(row.header); i += 2 {
			req.Header.Set(row.header[i], row.header[i+1])
		}
		w := httptest.NewRecorder()
		err = errors.Join(o.Write(w, req), o.Close())
		if err != nil || w.Code != row.status || row.rangeShown != "" && w.Header().Get("Content-Range") != row.rangeShown {
			t.Errorf("%q: %d, range %q, %v", row.header, w.Code, w.Header().Get("Content-Range"), err)
		}
		if row.status < 300 && !bytes.Equal(w.Body.Bytes(), text[row.from:row.to]) {
			t.Errorf("%q: %d bytes, not those from %d to %d", row.header, w.Body.Len(), row.from, row.to)
		}
		if (row.status == 304) != (w.Body.Len() == 0 && row.status == 304) {
			t.Errorf("%q: a body of %d bytes", row.header, w.Body.Len())
		}
	}
}

func FuzzParsePermit(f *testing.F) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	f.Add("AAAA")
	ring, _, err := sign.Ring{}.Rotate(now)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if _, err := ParsePermit(text, ring, now); !errors.Is(err, ErrNoPermit) {
			t.Error(err)
		}
	})
}
