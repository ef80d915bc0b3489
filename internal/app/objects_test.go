package app_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/weir-dev/weir/internal/app"
	"github.com/weir-dev/weir/internal/app/objects"
	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/testkit"
)

// noise is n bytes that can't be compressed, the same for the same seed.
func noise(seed byte, n int64) io.Reader {
	return io.LimitReader(rand.NewChaCha8([32]byte{seed}), n)
}

func all(t *testing.T, r io.Reader) string {
	t.Helper()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// raw makes a request that follows no redirect.
func (j *jobs) raw(method, url string, body io.Reader, size int64, header ...string) *http.Response {
	j.t.Helper()
	if strings.HasPrefix(url, "/") {
		url = j.url + url
	}
	req, err := http.NewRequestWithContext(j.t.Context(), method, url, body)
	if err != nil {
		j.t.Fatal(err)
	}
	req.ContentLength = size
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		j.t.Fatal(err)
	}
	j.t.Cleanup(func() { _ = resp.Body.Close() })
	return resp
}

// upload is what /uploads answers.
type upload struct {
	ID, Method, URL string
	Headers         map[string]string
	Expires         time.Time
}

func (j *jobs) askUpload(size int64, contentType string) upload {
	j.t.Helper()
	r := j.do("POST", "/weir/uploads", fmt.Sprintf(`{"path": "/reports", "size": %d, "contentType": %q}`, size, contentType))
	var u upload
	if err := json.Unmarshal([]byte(r.body), &u); err != nil || r.status != http.StatusCreated || time.Until(u.Expires) < 50*time.Minute {
		j.t.Fatalf("asked for an upload: %d %s", r.status, r.body)
	}
	return u
}

func (j *jobs) put(u upload, body io.Reader, size int64) {
	j.t.Helper()
	resp := j.raw(u.Method, u.URL, body, size, "Content-Type", u.Headers["Content-Type"])
	if resp.StatusCode != http.StatusOK || resp.Header.Get("Etag") == "" {
		j.t.Fatalf("uploaded: %d %s", resp.StatusCode, all(j.t, resp.Body))
	}
}

// TestLargeResult: a result that is too large for the state is reached by /result all the same, through a pre-signed URL.
func TestLargeResult(t *testing.T) {
	const size = 3<<20 + 17
	j := startJobs(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/csv")
		_, _ = io.Copy(w, noise(1, size))
	})
	path := j.submit("")
	j.release()
	r := j.until(path, "succeeded")
	if r.doc.Result == nil || r.doc.Result.Size != size || r.doc.Result.ContentType != "text/csv" || strings.Contains(r.body, "object") {
		t.Errorf("succeeded: %+v", r)
	}
	want := all(t, noise(1, size))
	if r := j.do("GET", path+"/result", ""); r.status != http.StatusOK || r.body != want || r.header.Get("Content-Type") != "text/csv" {
		t.Errorf("the result: %d, %d bytes, %v", r.status, len(r.body), r.header)
	}
	resp := j.raw("GET", path+"/result", nil, 0)
	location := resp.Header.Get("Location")
	if resp.StatusCode != http.StatusSeeOther || !strings.HasPrefix(location, "/weir/objects/") || resp.Header.Get("Cache-Control") != "no-store" {
		t.Fatalf("the result: %d %v", resp.StatusCode, resp.Header)
	}
	head := j.raw("HEAD", location, nil, 0)
	if head.StatusCode != http.StatusOK || head.ContentLength != size || head.Header.Get("Content-Disposition") != "attachment" {
		t.Errorf("HEAD: %d %v", head.StatusCode, head.Header)
	}
	for url, status := range map[string]int{location[:len(location)-1]: http.StatusNotFound, "/weir/objects/x": http.StatusNotFound} {
		if r := j.do("GET", url, ""); r.status != status || r.doc.Type != "https://weir.dev/problems/no-object" {
			t.Errorf("%s: %+v", url, r)
		}
	}
	if r := j.do("PUT", location, "x"); r.status != http.StatusNotFound {
		t.Errorf("written by a URL to read: %+v", r)
	}
	// A client that waits gets it too.
	if r := j.do("POST", "/reports", "", "Prefer", "wait=20"); r.status != http.StatusOK || r.body != want {
		t.Errorf("waited: %d, %d bytes", r.status, len(r.body))
	}
}

// TestResultTooLarge: a result without room fails the job with the reason, and leaves nothing.
func TestResultTooLarge(t *testing.T) {
	j := startJobs(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.Copy(w, noise(1, maxObject+1)) })
	path := j.submit("")
	j.release()
	r := j.until(path, "failed")
	if r.doc.Attempts != 1 || r.doc.Error == nil || !strings.Contains(r.doc.Error.Detail, "objects.maxBytes") {
		t.Errorf("failed: %+v", r)
	}
}

// TestBrokenResult: a function that breaks its answer off has failed, however much of it came.
func TestBrokenResult(t *testing.T) {
	j := startJobs(t, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.Copy(w, noise(1, 2<<20))
		panic(http.ErrAbortHandler)
	})
	path := j.submit("")
	j.release()
	if r := j.until(path, "failed"); r.doc.Attempts != 2 || r.doc.Error == nil || !strings.Contains(r.doc.Error.Detail, "broke") {
		t.Errorf("failed: %+v", r)
	}
}

// TestLargeResultOfCallback: a function that goes on after its answer may report a large result, twice if the answer
// to it was lost; a different one is refused, and the first stays.
func TestLargeResultOfCallback(t *testing.T) {
	const size = 1 << 20
	callbacks := make(chan string, 1)
	j := startJobs(t, func(w http.ResponseWriter, r *http.Request) {
		callbacks <- strings.TrimPrefix(r.Header.Get("Weir-Callback"), "http://"+r.Host)
		w.WriteHeader(http.StatusAccepted)
	})
	path := j.submit("")
	j.release()
	url := <-callbacks + "?status=succeeded"
	for _, c := range []struct {
		seed   byte
		size   int64 // the announced length; -1 if unknown
		status int
	}{{1, size, http.StatusNoContent}, {1, -1, http.StatusNoContent}, {2, size, http.StatusConflict}, {2, -1, http.StatusConflict}} {
		if resp := j.raw("POST", url, noise(c.seed, size), c.size, "Content-Type", "image/png"); resp.StatusCode != c.status {
			t.Errorf("reported %+v: %d %s", c, resp.StatusCode, all(t, resp.Body))
		}
	}
	if r := j.do("GET", path+"/result", ""); r.status != http.StatusOK || r.body != all(t, noise(1, size)) || r.header.Get("Content-Type") != "image/png" {
		t.Errorf("the result: %d, %d bytes, %v", r.status, len(r.body), r.header)
	}
	// A small one of unknown size is kept with the state.
	path = j.submit("")
	url = <-callbacks + "?status=succeeded"
	if resp := j.raw("POST", url, strings.NewReader("small"), -1); resp.StatusCode != http.StatusNoContent {
		t.Errorf("a small one: %d", resp.StatusCode)
	}
	if resp := j.raw("GET", path+"/result", nil, 0); resp.StatusCode != http.StatusOK || all(t, resp.Body) != "small" {
		t.Errorf("a small one: %d", resp.StatusCode)
	}
	path = j.submit("")
	url = <-callbacks + "?status=succeeded"
	if resp := j.raw("POST", url, noise(1, maxObject+1), -1); resp.StatusCode != http.StatusRequestEntityTooLarge {
		t.Errorf("too large: %d", resp.StatusCode)
	}
	if r := j.do("GET", path, ""); r.doc.Status != "running" {
		t.Errorf("after one that was too large: %+v", r)
	}
}

// TestCancelDuringResult: the result of a job that is cancelled while the function answers is dropped, and leaves nothing.
func TestCancelDuringResult(t *testing.T) {
	begun := make(chan struct{})
	j := startJobs(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(w, noise(1, 1<<20))
		_ = http.NewResponseController(w).Flush()
		close(begun)
		<-r.Context().Done()
	})
	path := j.submit("")
	j.release()
	<-begun
	if r := j.do("DELETE", path, ""); r.doc.Status != "cancelled" {
		t.Fatalf("cancelled: %+v", r)
	}
	if r := j.do("GET", path+"/result", ""); r.doc.Type != "https://weir.dev/problems/job-cancelled" {
		t.Errorf("the result: %+v", r)
	}
}

func TestUpload(t *testing.T) {
	const size = 2<<20 + 5
	type call struct {
		body   string
		header http.Header
		size   int64
	}
	calls := make(chan call, 1)
	j := startJobs(t, func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		calls <- call{string(b), r.Header, r.ContentLength}
		answer(w, http.StatusOK, "done")
	})
	u := j.askUpload(size, "text/csv")
	if r := j.do("POST", "/reports", "", "Weir-Input", u.ID); r.status != http.StatusNotFound || r.doc.Type != "https://weir.dev/problems/no-upload" {
		t.Errorf("submitted before the upload: %+v", r)
	}
	for what, resp := range map[string]*http.Response{
		"too short":    j.raw("PUT", u.URL, noise(1, size-1), size-1, "Content-Type", "text/csv"),
		"without size": j.raw("PUT", u.URL, noise(1, size), -1, "Content-Type", "text/csv"),
		"another type": j.raw("PUT", u.URL, noise(1, size), size, "Content-Type", "text/html"),
	} {
		if resp.StatusCode != http.StatusBadRequest {
			t.Errorf("%s: %d", what, resp.StatusCode)
		}
	}
	if r := j.do("GET", u.URL, ""); r.status != http.StatusNotFound {
		t.Errorf("read by a URL to write: %+v", r)
	}
	j.put(u, noise(1, size), size)
	path := j.submit("", "Weir-Input", u.ID)
	j.release()
	c := <-calls
	if c.body != all(t, noise(1, size)) || c.size != size || c.header.Get("Content-Type") != "text/csv" || c.header.Get("Ce-Id") == "" {
		t.Errorf("called with %d bytes, said %d, %v", len(c.body), c.size, c.header)
	}
	j.until(path, "succeeded")

	// Requests that are refused.
	for what, r := range map[string]jobReply{
		"a body too":       j.do("POST", "/reports", "x", "Weir-Input", u.ID),
		"no id":            j.do("POST", "/reports", "", "Weir-Input", "../x y"),
		"too large":        j.do("POST", "/weir/uploads", fmt.Sprintf(`{"path":"/reports","size":%d}`, maxObject+1)),
		"no size":          j.do("POST", "/weir/uploads", `{"path":"/reports","size":-1}`),
		"no such route":    j.do("POST", "/weir/uploads", `{"path":"/nothing","size":1}`),
		"no path":          j.do("POST", "/weir/uploads", `{"size":1}`),
		"a URL":            j.do("POST", "/weir/uploads", `{"path":"http://a/reports","size":1}`),
		"no JSON":          j.do("POST", "/weir/uploads", `x`),
		"a bad type":       j.do("POST", "/weir/uploads", `{"path":"/reports","size":1,"contentType":"text/csv\n"}`),
		"a huge question":  j.do("POST", "/weir/uploads", `{"path":"`+strings.Repeat("x", 10_000)+`","size":1}`),
		"a GET of uploads": j.do("GET", "/weir/uploads", ""),
	} {
		if r.status < 400 || r.status >= 500 || r.doc.Type == "" {
			t.Errorf("%s: %+v", what, r)
		}
	}

	// The same key and the same bytes are the same job, whatever upload they came by.
	keyed := func(seed byte) jobReply {
		u := j.askUpload(1000, "text/csv")
		j.put(u, noise(seed, 1000), 1000)
		return j.do("POST", "/reports", "", "Weir-Input", u.ID, "Idempotency-Key", "once")
	}
	first := keyed(1)
	<-calls
	if second := keyed(1); second.doc.ID != first.doc.ID || first.status != http.StatusAccepted {
		t.Errorf("the same bytes: %+v, then %+v", first, second)
	}
	if other := keyed(2); other.status != http.StatusUnprocessableEntity {
		t.Errorf("other bytes: %+v", other)
	}
}

// TestReplacedUpload: a job is of the bytes that were there when it was submitted, or fails.
func TestReplacedUpload(t *testing.T) {
	j := startJobs(t, func(http.ResponseWriter, *http.Request) { t.Error("called") })
	u := j.askUpload(1000, "")
	j.put(u, noise(1, 1000), 1000)
	path := j.submit("", "Weir-Input", u.ID)
	j.put(u, noise(2, 1000), 1000)
	j.release()
	if r := j.until(path, "failed"); r.doc.Error == nil || !strings.Contains(r.doc.Error.Detail, "that was uploaded is not there") {
		t.Errorf("failed: %+v", r)
	}
}

// TestEarlyAnswer: a function needn't read its input.
func TestEarlyAnswer(t *testing.T) {
	j := startJobs(t, func(w http.ResponseWriter, _ *http.Request) { answer(w, http.StatusUnprocessableEntity, "not that") })
	u := j.askUpload(8<<20, "")
	j.put(u, noise(1, 8<<20), 8<<20)
	path := j.submit("", "Weir-Input", u.ID)
	j.release()
	if r := j.until(path, "failed"); r.doc.Error == nil || r.doc.Error.Status != http.StatusUnprocessableEntity {
		t.Errorf("failed: %+v", r)
	}
}

// TestGigabyte: an input of 1 GiB goes from the client to the function, and as a result of 1 GiB back, with flat memory,
// in this one process with all servers. With the race detector, or -short, it is less.
func TestGigabyte(t *testing.T) {
	size := int64(1 << 30)
	if testing.Short() || testkit.Race {
		size = 128 << 20
	}
	const most = 256 << 20 // the NATS server's caches are among it
	change := func(c *catalog.Catalog) {
		c.Queues[0].Objects.MaxBytes, c.Mappings[0].MaxResultBytes, c.APIs[0].Routes[0].MaxUpload = 4*size, 4*size, size
		c.Mappings[0].Timeout = 10 * time.Minute
	}
	j := startJobsOf(t, func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).EnableFullDuplex()
		w.Header().Set("Content-Type", r.Header.Get("Content-Type"))
		if _, err := io.Copy(w, r.Body); err != nil {
			t.Error(err)
		}
	}, nil, change)
	j.release()
	heap := testkit.PeakHeap()
	sent, got := sha256.New(), sha256.New()
	at := time.Now()
	lap := func() string {
		d := time.Since(at)
		at = time.Now()
		return fmt.Sprintf("%.0f MB/s", float64(size)/1e6/d.Seconds())
	}
	u := j.askUpload(size, "application/x-tar")
	j.put(u, io.TeeReader(noise(1, size), sent), size)
	up := lap()
	path := j.submit("", "Weir-Input", u.ID)
	var r jobReply
	for deadline := time.Now().Add(10 * time.Minute); r.doc.Status != "succeeded" && time.Now().Before(deadline); {
		if r = j.do("GET", path, "", "Prefer", "wait=20", "If-None-Match", r.header.Get("Etag")); r.doc.Status == "failed" {
			t.Fatalf("%+v", r)
		}
	}
	through := lap()
	resp := j.raw("GET", j.raw("GET", path+"/result", nil, 0).Header.Get("Location"), nil, 0)
	n, err := io.Copy(got, resp.Body)
	if err != nil || n != size || resp.ContentLength != size || resp.Header.Get("Content-Type") != "application/x-tar" {
		t.Errorf("%d bytes came back of %d, %v, %v", n, size, resp.Header, err)
	}
	if !bytes.Equal(sent.Sum(nil), got.Sum(nil)) {
		t.Error("other bytes came back")
	}
	down := lap()
	peak := heap()
	t.Logf("%d MiB: up %s, through the function and back into the store %s, down %s; peak heap %d MiB", size>>20, up, through, down, peak>>20)
	if peak > most {
		t.Errorf("the heap rose to %d MiB", peak>>20)
	}
}

// TestExpiredObject: an address that is good leads to nothing once the object is gone, and says so.
func TestExpiredObject(t *testing.T) {
	j := startJobs(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.Copy(w, noise(1, 1<<20)) })
	path := j.submit("")
	j.release()
	j.until(path, "succeeded")
	location := j.raw("GET", path+"/result", nil, 0).Header.Get("Location")
	if err := j.conn.DeleteQueue(t.Context(), j.queue); err != nil {
		t.Fatal(err)
	}
	if err := j.conn.EnsureQueue(t.Context(), j.cat.Queues[0], 1); err != nil {
		t.Fatal(err)
	}
	if r := j.do("GET", location, ""); r.status != http.StatusGone || r.doc.Type != "https://weir.dev/problems/object-gone" {
		t.Errorf("gone: %+v", r)
	}
}

// TestObjectsInS3: the same with objects in S3, whose pre-signed URLs lead there.
func TestObjectsInS3(t *testing.T) {
	const size = 12 << 20 // two parts
	server := testkit.S3(t, "../..")
	cfg, err := app.FromEnv(func(name string) string {
		return map[string]string{
			"WEIR_NATS_URL": "nats://127.0.0.1:1", "WEIR_S3_ENDPOINT": server.Endpoint, "WEIR_S3_BUCKET": server.Bucket,
			"WEIR_S3_PREFIX": "weir/", "WEIR_S3_CREDENTIALS_FILE": server.CredentialsFile,
		}[name]
	})
	if err != nil {
		t.Fatal(err)
	}
	store, err := objects.Open(cfg, "test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(store.Close)
	j := startJobsOf(t, func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).EnableFullDuplex()
		w.Header().Set("Content-Type", r.Header.Get("Content-Type"))
		if _, err := io.Copy(w, r.Body); err != nil {
			t.Error(err)
		}
	}, store, func(c *catalog.Catalog) { c.Queues[0].Objects.MaxBytes = 0 }) // as the controller does
	j.release()
	u := j.askUpload(size, "text/csv")
	if !strings.HasPrefix(u.URL, server.Endpoint+"/"+server.Bucket+"/weir/default/reports/u-") {
		t.Errorf("upload to %s", u.URL)
	}
	if resp := j.raw("PUT", u.URL, noise(1, 10), 10, "Content-Type", "text/csv"); resp.StatusCode != http.StatusForbidden {
		t.Errorf("S3 took another length: %d", resp.StatusCode)
	}
	j.put(u, noise(1, size), size)
	path := j.submit("", "Weir-Input", u.ID)
	if r := j.until(path, "succeeded"); r.doc.Result == nil || r.doc.Result.Size != size {
		t.Errorf("succeeded: %+v", r)
	}
	location := j.raw("GET", path+"/result", nil, 0).Header.Get("Location")
	if !strings.HasPrefix(location, server.Endpoint) {
		t.Errorf("the result is at %s", location)
	}
	if r := j.raw("GET", location, nil, 0); r.StatusCode != http.StatusOK || r.Header.Get("Content-Type") != "text/csv" || all(t, r.Body) != all(t, noise(1, size)) {
		t.Errorf("the result: %d %v", r.StatusCode, r.Header)
	}
}
