package e2e_test

import (
	"bytes"
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// testSkaffold: `skaffold run` builds the images with ko, pushes them, and installs chart and sample with them.
func testSkaffold(t *testing.T) {
	registry, base := os.Getenv("E2E_REGISTRY"), os.Getenv("E2E_BASE_IMAGE")
	if registry == "" {
		t.Skip("E2E_REGISTRY is not set: there is no registry to push to")
	}
	home := t.TempDir()
	config := filepath.Join(home, "config")
	if err := os.WriteFile(config, []byte("global:\n  collect-metrics: false\n  survey: {disable-prompt: true}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), filepath.Join(env.root, "bin", "skaffold"), "run", "--profile", "kind", "--default-repo", registry)
	cmd.Dir = env.root
	cmd.Env = append(os.Environ(), goEnv(t)...)
	cmd.Env = append(cmd.Env,
		"KUBECONFIG="+os.Getenv("E2E_KUBECONFIG"), "PATH="+filepath.Join(env.root, "bin")+":"+os.Getenv("PATH"), "HOME="+home,
		"SKAFFOLD_CONFIG="+config, "SKAFFOLD_CACHE_FILE="+filepath.Join(home, "cache"), "SKAFFOLD_UPDATE_CHECK=false", "SKAFFOLD_INTERACTIVE=false",
	)
	if base != "" {
		cmd.Env = append(cmd.Env, "KO_DEFAULTBASEIMAGE="+base)
	}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	start := time.Now()
	if err := cmd.Run(); err != nil {
		t.Fatalf("skaffold run: %v\n%s", err, out.String())
	}
	t.Logf("skaffold run: %s", time.Since(start).Round(time.Second))
	waitSample(t)
	for _, component := range env.stages() {
		image := kubectl(t, "-n", weirNamespace, "get", "deploy", "weir-"+component, "-o", "jsonpath={.spec.template.spec.containers[0].image}")
		if !strings.HasPrefix(image, registry+"/") {
			t.Errorf("the %s runs %s", component, image)
		}
	}
	gateway := "http://" + forward(t, weirNamespace, "svc/weir-gateway", 80)
	db := database(t)
	status, answer, _ := post(t, gateway+"/orders", `{"sku":"skaffold","quantity":1,"customer":"ada"}`)
	if status != http.StatusAccepted {
		t.Fatalf("POST /orders: %d %s", status, answer)
	}
	eventually(t, "the order is a row", func() string {
		if count(t, db, `SELECT count(*) FROM orders WHERE sku = 'skaffold'`) == 0 {
			return "no row"
		}
		return ""
	})
}

// goEnv keeps Go's folders where they are although HOME is another.
func goEnv(t testing.TB) []string {
	t.Helper()
	names := []string{"GOPATH", "GOCACHE", "GOMODCACHE"}
	out, err := exec.CommandContext(t.Context(), "go", append([]string{"env", "-json"}, names...)...).Output()
	if err != nil {
		t.Fatal(err)
	}
	var values map[string]string
	if err := json.Unmarshal(out, &values); err != nil {
		t.Fatal(err)
	}
	var vars []string
	for _, name := range names {
		vars = append(vars, name+"="+values[name])
	}
	return vars
}
