package blob

import (
	"fmt"
	"maps"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"

	"github.com/weir-dev/weir/internal/testkit"
)

// newS3 is a store in an S3 server of the test's own.
func newS3(t testing.TB) *S3 {
	t.Helper()
	server := testkit.S3(t, "../..")
	s, err := NewS3(S3Config{Endpoint: server.Endpoint, Bucket: server.Bucket, Prefix: "test/", CredentialsFile: server.CredentialsFile}, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// uploads counts the broken uploads that S3 holds.
func uploads(t *testing.T, s *S3) (n int) {
	t.Helper()
	for u := range s.core.ListIncompleteUploads(t.Context(), s.cfg.Bucket, "", true) {
		if u.Err != nil {
			t.Fatal(u.Err)
		}
		n++
	}
	return n
}

func TestS3Expire(t *testing.T) {
	s := newS3(t)
	for _, key := range []string{"a", "b"} {
		put(t, s, key, "x")
	}
	if _, err := s.core.NewMultipartUpload(t.Context(), s.cfg.Bucket, s.prefix(queue)+"c", minio.PutObjectOptions{}); err != nil {
		t.Fatal(err)
	}
	other := queue
	other.Name = "orders-2" // whose name begins like the queue's
	if _, err := s.Put(t.Context(), other, "a", "", strings.NewReader("x"), 1); err != nil {
		t.Fatal(err)
	}
	if n, err := s.Expire(t.Context(), queue, time.Hour); n != 0 || err != nil {
		t.Errorf("removed %d, %v", n, err)
	}
	s.now = func() time.Time { return time.Now().Add(time.Hour + time.Minute) }
	if n, err := s.Expire(t.Context(), queue, time.Hour); n != 3 || err != nil {
		t.Errorf("removed %d, %v; want 3", n, err)
	}
	if n := uploads(t, s); n != 0 {
		t.Errorf("%d uploads are left", n)
	}
	if _, err := s.Stat(t.Context(), other, "a"); err != nil {
		t.Errorf("another queue's object: %v", err)
	}
}

func TestS3Presigned(t *testing.T) {
	s := newS3(t)
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	do := func(p Presigned, change func(r *http.Request), body string) (int, http.Header, string) {
		r, err := http.NewRequestWithContext(t.Context(), p.Method, p.URL, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		maps.Copy(r.Header, p.Headers)
		change(r)
		resp, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		var b strings.Builder
		if _, err := fmt.Fprint(&b, readAll(t, resp.Body)); err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, resp.Header, b.String()
	}
	same := func(*http.Request) {}
	p, err := s.PresignPut(t.Context(), queue, "input", "text/plain", 5, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	for what, refused := range map[string]struct {
		change func(*http.Request)
		body   string
	}{
		"too long":       {same, "123456"},
		"too short":      {same, "1234"},
		"another type":   {func(r *http.Request) { r.Header.Set("Content-Type", "text/html") }, "12345"},
		"another method": {func(r *http.Request) { r.Method = http.MethodDelete }, "12345"},
		"another key":    {func(r *http.Request) { r.URL.Path += "2" }, "12345"},
	} {
		if status, _, _ := do(p, refused.change, refused.body); status < 400 {
			t.Errorf("%s: %d", what, status)
		}
	}
	if _, err := s.Stat(t.Context(), queue, "input"); err == nil {
		t.Error("a refused upload was stored")
	}
	if status, _, body := do(p, same, "12345"); status != 200 {
		t.Fatalf("%d %s", status, body)
	}
	if p, err = s.PresignGet(t.Context(), queue, "input", time.Minute); err != nil {
		t.Fatal(err)
	}
	if status, h, body := do(p, same, ""); status != 200 || body != "12345" || h.Get("Content-Type") != "text/plain" || h.Get("Content-Disposition") != "attachment" {
		t.Errorf("%d %q %v", status, body, h)
	}
}

func TestS3ConfigSaysWhatToDo(t *testing.T) {
	good := S3Config{Endpoint: "https://s3.example.com", Bucket: "weir", Prefix: "a/", CredentialsFile: "f"}
	if err := good.Validate(); err != nil {
		t.Fatal(err)
	}
	for field, c := range map[string]func(*S3Config){
		"Endpoint":        func(c *S3Config) { c.Endpoint = "s3.example.com" },
		"PublicEndpoint":  func(c *S3Config) { c.PublicEndpoint = "https://user:pw@host" },
		"Bucket":          func(c *S3Config) { c.Bucket = "A_b" },
		"Prefix":          func(c *S3Config) { c.Prefix = "/a" },
		"CredentialsFile": func(c *S3Config) { c.CredentialsFile = "" },
	} {
		bad := good
		c(&bad)
		if err := bad.Validate(); err == nil || !strings.Contains(err.Error(), "S3 "+field+":") {
			t.Errorf("%s: %v", field, err)
		}
	}
}
