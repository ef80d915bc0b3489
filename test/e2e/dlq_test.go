package e2e_test

import (
	"encoding/base64"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// dlq runs weir dlq as an operator does, through a port-forward, and returns its standard output.
func dlq(t testing.TB, verb, queue string) string {
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
	out, err := env.tool(t.Context(), "", "weir", "dlq", verb, queue,
		"--nats", "tls://"+forward(t, weirNamespace, "svc/"+env.natsService, 4222), "--nats-user", "operator",
		"--nats-password-file", secret("weir-nats-auth", "operator-password", "password"), "--nats-ca", secret("weir-nats-tls", "ca.crt", "ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// dead is the number of dead letters of a queue.
func dead(t testing.TB, queue string) int {
	t.Helper()
	lines := strings.Split(strings.TrimSpace(dlq(t, "list", queue)), "\n")
	if strings.Contains(lines[0], "no dead letters") {
		return 0
	}
	return len(lines) - 1
}
