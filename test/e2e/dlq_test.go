package e2e_test

import (
	"encoding/base64"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// dead is the number of dead letters of a queue, asked for as an operator does: weir dlq through a port-forward.
func dead(t testing.TB, queue string) int {
	t.Helper()
	folder := t.TempDir()
	secret := func(name, key, file string) string {
		t.Helper()
		data, err := base64.StdEncoding.DecodeString(kubectl(t, "-n", weirNamespace, "get", "secret", name, "-o", "jsonpath={.data."+strings.ReplaceAll(key, ".", `\.`)+"}"))
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(folder, file)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	out, err := env.tool(t.Context(), "", "weir", "dlq", "list", queue,
		"--nats", "tls://"+forward(t, weirNamespace, "svc/weir-nats", 4222), "--nats-user", "operator",
		"--nats-password-file", secret("weir-nats-auth", "operator-password", "password"), "--nats-ca", secret("weir-nats-tls", "ca.crt", "ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if strings.Contains(lines[0], "no dead letters") {
		return 0
	}
	return len(lines) - 1
}
