package testkit

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/weir-dev/weir/internal/childproc"
)

// S3Server says how to reach an S3 server.
type S3Server struct {
	Endpoint        string // http://…
	Bucket          string
	CredentialsFile string
}

// S3 starts an S3 server on a folder of the test's own, which ends with the test. root leads to the project's folder,
// where hack/tools/s3 has built it.
func S3(t testing.TB, root string) S3Server {
	t.Helper()
	binary := Tool(t, root, "s3", "versitygw")
	dir := t.TempDir()
	const bucket = "weir-objects"
	for _, sub := range []string{filepath.Join("data", bucket), "meta"} { // a folder of its data is a bucket
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(binary, //nolint:noctx // ended at the end of the test
		"--port", address, "--access", "weir", "--secret", "weir-secret", "--quiet",
		"posix", "--sidecar", filepath.Join(dir, "meta"), filepath.Join(dir, "data"))
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, t.Output(), t.Output()
	p, err := childproc.Start(cmd, syscall.SIGKILL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.Signal(syscall.SIGKILL)
		<-p.Done()
	})
	file := filepath.Join(dir, "credentials")
	if err := os.WriteFile(file, []byte("[default]\naws_access_key_id = weir\naws_secret_access_key = weir-secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	Eventually(t, "the S3 server is there", func() bool {
		conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", address)
		if err == nil {
			_ = conn.Close()
		}
		return err == nil
	})
	return S3Server{Endpoint: "http://" + address, Bucket: bucket, CredentialsFile: file}
}
