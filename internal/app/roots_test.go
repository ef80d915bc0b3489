package app_test

import (
	"crypto/x509"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/weir-dev/weir/internal/invoke"
	"github.com/weir-dev/weir/internal/record"
	"github.com/weir-dev/weir/internal/telemetry"
	"github.com/weir-dev/weir/internal/testkit"
)

// TestRootsWithoutASystem: a process of an image without CA files trusts the roots that are linked in.
func TestRootsWithoutASystem(t *testing.T) {
	const inside = "WEIR_TEST_WITHOUT_ROOTS"
	if os.Getenv(inside) != "" {
		pool, err := x509.SystemCertPool()
		if err != nil || pool.Equal(x509.NewCertPool()) {
			t.Fatalf("no roots at all: %v", err)
		}
		return
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run", "^TestRootsWithoutASystem$")
	cmd.Env = append(os.Environ(), inside+"=1", "SSL_CERT_FILE="+t.TempDir()+"/none", "SSL_CERT_DIR="+t.TempDir())
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestAFunctionOfAnUnknownCA: nothing is lost by it, and what is said names the certificate.
func TestAFunctionOfAnUnknownCA(t *testing.T) {
	fn := httptest.NewUnstartedServer(http.NotFoundHandler())
	fn.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo) // it logs the handshakes that fail
	fn.StartTLS()
	defer fn.Close()
	caller := invoke.NewCaller(1, telemetry.Providers{})
	defer caller.Close()
	id, err := record.NewID()
	if err != nil {
		t.Fatal(err)
	}
	o := caller.Call(t.Context(), invoke.Batch{URL: fn.URL, Records: []*record.Record{{ID: id, Time: time.Now()}}, Single: true, Timeout: testkit.Patience})
	if o.Class != invoke.NotNow || o.Status != 0 || !strings.Contains(o.Reason, "certificate signed by unknown authority") {
		t.Errorf("%+v", o)
	}
	var failure error
	h, err := caller.Forward(invoke.Hop{Base: fn.URL, Failed: func(w http.ResponseWriter, _ *http.Request, err error) {
		failure = err
		w.WriteHeader(http.StatusServiceUnavailable)
	}})
	if err != nil {
		t.Fatal(err)
	}
	h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", http.NoBody))
	if failure == nil || !strings.Contains(failure.Error(), invoke.ErrNotReached.Error()) || !strings.Contains(failure.Error(), "unknown authority") {
		t.Errorf("%v", failure)
	}
}
