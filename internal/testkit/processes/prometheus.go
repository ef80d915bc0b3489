package processes

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/weir-dev/weir/internal/testkit"
)

// Prometheus starts a real one with a configuration in YAML, and args besides, on loopback. root is the checkout. It returns once
// Prometheus is ready.
func Prometheus(t testing.TB, root string, config []byte, args ...string) testkit.Prometheus {
	t.Helper()
	dir, address := t.TempDir(), fmt.Sprintf("127.0.0.1:%d", FreePort(t))
	file := filepath.Join(dir, "prometheus.yaml")
	if err := os.WriteFile(file, config, 0o600); err != nil {
		t.Fatal(err)
	}
	p := testkit.Prometheus{URL: "http://" + address, Client: &http.Client{Transport: &http.Transport{}, Timeout: 10 * time.Second}}
	t.Cleanup(p.Client.CloseIdleConnections)
	c := Start(t, "prometheus", testkit.Tool(t, root, "prometheus", "prometheus"), nil, append([]string{
		"--config.file=" + file, "--storage.tsdb.path=" + filepath.Join(dir, "data"), "--web.listen-address=" + address, "--log.level=warn",
	}, args...)...)
	testkit.Eventually(t, "Prometheus is ready", func() bool {
		if c.Ended() {
			t.Fatalf("Prometheus ended (%s) with\n%s", c.State(), config)
		}
		_, err := p.Get(t.Context(), "/-/ready", nil)
		return err == nil
	})
	return p
}
