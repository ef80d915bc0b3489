package blob

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

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
		"Endpoint":       func(c *S3Config) { c.Endpoint = "s3.example.com" },
		"PublicEndpoint": func(c *S3Config) { c.PublicEndpoint = "https://user:pw@host" },
		"Bucket":         func(c *S3Config) { c.Bucket = "A_b" },
		"Prefix":         func(c *S3Config) { c.Prefix = "/a" },
	} {
		bad := good
		c(&bad)
		if err := bad.Validate(); err == nil || !strings.Contains(err.Error(), "S3 "+field+":") {
			t.Errorf("%s: %v", field, err)
		}
	}
}

// withoutIdentity takes what this machine may have of an identity out of the test's environment.
func withoutIdentity(t *testing.T) {
	t.Helper()
	for _, name := range []string{
		"AWS_ACCESS_KEY_ID", "AWS_ACCESS_KEY", "AWS_SECRET_ACCESS_KEY", "AWS_SECRET_KEY", "AWS_SESSION_TOKEN", "AWS_REGION",
		"AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_ROLE_ARN", "AWS_ROLE_SESSION_NAME", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
		"AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_CONTAINER_AUTHORIZATION_TOKEN", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
	} {
		t.Setenv(name, "")
	}
}

// TestS3WithoutAFile: without a file of credentials they are those of the environment, or of the container, and objects are
// stored with them. What is refused is said.
func TestS3WithoutAFile(t *testing.T) {
	server := testkit.S3(t, "../..")
	put := func() error {
		s, err := NewS3(S3Config{Endpoint: server.Endpoint, Bucket: server.Bucket}, time.Now)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		_, err = s.Put(t.Context(), queue, "a", "", strings.NewReader("x"), 1)
		return err
	}
	withoutIdentity(t)
	t.Setenv("AWS_ACCESS_KEY_ID", "weir")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "weir-secret")
	if err := put(); err != nil {
		t.Errorf("with keys in the environment: %v", err)
	}

	withoutIdentity(t)
	answer := http.StatusOK
	container := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(answer)
		_, _ = fmt.Fprintf(w, `{"AccessKeyId": "weir", "SecretAccessKey": "weir-secret", "Expiration": %q}`, time.Now().Add(time.Hour).Format(time.RFC3339))
	}))
	t.Cleanup(container.Close)
	t.Setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", container.URL)
	if err := put(); err != nil {
		t.Errorf("with the container's: %v", err)
	}
	answer = http.StatusTeapot
	if err := put(); !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "418") {
		t.Errorf("refused credentials: %v", err)
	}
}

// TestWebIdentity: the token of a Kubernetes service account is exchanged for temporary credentials of its role.
func TestWebIdentity(t *testing.T) {
	withoutIdentity(t)
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("a-token"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("AWS_WEB_IDENTITY_TOKEN_FILE", token)
	t.Setenv("AWS_ROLE_ARN", "arn:aws:iam::1:role/weir")
	asked := make(chan url.Values, 1)
	sts := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := r.ParseForm(); err != nil {
			t.Error(err)
		}
		asked <- r.Form
		_, _ = fmt.Fprintf(w, `<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleWithWebIdentityResult><Credentials>
			<AccessKeyId>id</AccessKeyId><SecretAccessKey>secret</SecretAccessKey><SessionToken>session</SessionToken><Expiration>%s</Expiration>
			</Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>`, time.Now().Add(time.Hour).UTC().Format(time.RFC3339))
	}))
	t.Cleanup(sts.Close)
	got, err := ambient(sts.URL).GetWithContext(&credentials.CredContext{Client: http.DefaultClient})
	if err != nil || got.AccessKeyID != "id" || got.SecretAccessKey != "secret" || got.SessionToken != "session" {
		t.Fatalf("%+v, %v", got, err)
	}
	form := <-asked
	if form.Get("Action") != "AssumeRoleWithWebIdentity" || form.Get("WebIdentityToken") != "a-token" || form.Get("RoleArn") != "arn:aws:iam::1:role/weir" {
		t.Errorf("asked %v", form)
	}
}
