package e2e_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/weir-dev/weir/test/traces"
)

const (
	weirNamespace   = "weir-system"
	sampleNamespace = "default"
	// patience is how long to wait for what must come; a cold pod on two busy cores takes a while.
	patience = 3 * time.Minute
	poll     = 200 * time.Millisecond
)

// environment is how the cluster is reached and what is installed into it; see hack/e2e.sh.
type environment struct {
	root   string // of the repository
	images string // E2E_IMAGES: where Weir's images are, such as ko.local/weir
	tag    string // E2E_TAG
	// Images of others; empty means the chart's and the sample's own.
	nats, postgres, pgbouncer       string
	natsExporter, pgbouncerExporter string
	natsReplicas                    string            // E2E_NATS_REPLICAS: 3, instead of the values' 1
	natsService                     string            // NATS' Service: another after its move
	onNode                          bool              // E2E_ON_NODE: this process sees the node's processes
	collector                       *traces.Collector // of what clients have traced; nil if pods can't reach this process
}

func fromEnv() (environment, error) {
	root, err := filepath.Abs("../..") // hack/e2e.sh gives E2E_KUBECONFIG as an absolute path
	e := environment{
		root: root, images: os.Getenv("E2E_IMAGES"), tag: os.Getenv("E2E_TAG"),
		nats: os.Getenv("E2E_NATS_IMAGE"), postgres: os.Getenv("E2E_POSTGRES_IMAGE"), pgbouncer: os.Getenv("E2E_PGBOUNCER_IMAGE"),
		natsExporter: os.Getenv("E2E_NATS_EXPORTER_IMAGE"), pgbouncerExporter: os.Getenv("E2E_PGBOUNCER_EXPORTER_IMAGE"),
		natsReplicas: os.Getenv("E2E_NATS_REPLICAS"), natsService: "weir-nats", onNode: os.Getenv("E2E_ON_NODE") != "",
	}
	if err == nil && (e.images == "" || e.tag == "") {
		err = errors.New("E2E_IMAGES and E2E_TAG say where Weir's images are: run `make e2e`")
	}
	return e, err
}

// stages are Weir's own services, by the folders of their mains.
func (e environment) stages() []string {
	mains, _ := filepath.Glob(filepath.Join(e.root, "services", "*", "main.go")) // the pattern is well formed
	for i, main := range mains {
		mains[i] = filepath.Base(filepath.Dir(main))
	}
	return mains
}

func (e environment) image(name string) string { return e.images + "/" + name + ":" + e.tag }

// tool runs a program of bin/ and returns its standard output.
func (e environment) tool(ctx context.Context, input, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(e.root, "bin", name), args...)
	cmd.Dir = e.root
	cmd.Env = append(os.Environ(), "KUBECONFIG="+os.Getenv("E2E_KUBECONFIG"))
	cmd.Stdin = strings.NewReader(input)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("%s %s: %w\n%s%s", name, strings.Join(args, " "), err, stdout.String(), stderr.String())
	}
	return stdout.String(), nil
}

func (e environment) kubectl(ctx context.Context, args ...string) (string, error) {
	return e.tool(ctx, "", "kubectl", args...)
}

// kubectl fails the test when the command fails.
func kubectl(t testing.TB, args ...string) string {
	t.Helper()
	out, err := env.kubectl(t.Context(), args...)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(out)
}

// apply applies manifests to the sample's namespace.
func apply(t testing.TB, manifests string) {
	t.Helper()
	if _, err := env.tool(t.Context(), manifests, "kubectl", "-n", sampleNamespace, "apply", "-f", "-"); err != nil {
		t.Fatal(err)
	}
}

// deleteAfter deletes an object of the sample's namespace when the test has ended, and waits until it is gone.
func deleteAfter(t testing.TB, kind, name string) {
	t.Helper()
	t.Cleanup(func() { // the test's own context is over then
		_, err := env.kubectl(context.Background(), "-n", sampleNamespace, "delete", "--ignore-not-found", "--timeout=60s", kind, name)
		if err != nil {
			t.Error(err)
		}
	})
}

// get decodes an object of the cluster.
func get[T any](t testing.TB, args ...string) T {
	t.Helper()
	var v T
	if err := json.Unmarshal([]byte(kubectl(t, append([]string{"get", "-o", "json"}, args...)...)), &v); err != nil {
		t.Fatal(err)
	}
	return v
}

// eventually waits until cond returns "", and fails with what it said last.
func eventually(t testing.TB, what string, cond func() string) time.Duration {
	t.Helper()
	return within(t, patience, what, cond)
}

func within(t testing.TB, limit time.Duration, what string, cond func() string) time.Duration {
	t.Helper()
	start := time.Now()
	tick := time.NewTicker(poll)
	defer tick.Stop()
	for {
		why := cond()
		if why == "" {
			return time.Since(start)
		}
		if time.Since(start) > limit {
			t.Fatalf("waited %s in vain until %s: %s", limit, what, why)
		}
		select {
		case <-tick.C:
		case <-t.Context().Done():
			t.Fatal(t.Context().Err())
		}
	}
}

// condition is what people read in a status.
type condition struct {
	Type, Status, Reason, Message string
	ObservedGeneration            int64
}

type resource struct {
	Metadata struct {
		Name, Namespace   string
		Generation        int64
		DeletionTimestamp *time.Time
	}
	Status struct {
		ObservedGeneration int64
		MaxConcurrency     int
		Conditions         []condition
	}
}

// ready returns the condition Ready of o if it is of the current generation.
func (o resource) ready() condition {
	for _, c := range o.Status.Conditions {
		if c.Type == "Ready" && (c.ObservedGeneration == 0 || c.ObservedGeneration == o.Metadata.Generation) {
			return c
		}
	}
	return condition{Status: "Unknown", Reason: "no condition of this generation"}
}

// waitReady waits until every resource named is Ready.
func waitReady(t testing.TB, names ...string) {
	t.Helper()
	for _, name := range names {
		eventually(t, name+" is Ready", func() string {
			if c := get[resource](t, "-n", sampleNamespace, name).ready(); c.Status != "True" {
				return c.Reason + ": " + c.Message
			}
			return ""
		})
	}
}

// forward runs `kubectl port-forward` until the test ends and returns the local address.
func forward(t testing.TB, namespace, target string, port int) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), filepath.Join(env.root, "bin", "kubectl"), "-n", namespace, "port-forward", target, fmt.Sprintf(":%d", port))
	cmd.Env = append(os.Environ(), "KUBECONFIG="+os.Getenv("E2E_KUBECONFIG"))
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	address := make(chan string, 1)
	go func() { // ends with the process
		var seen []byte
		buf := make([]byte, 1024)
		said := false
		for {
			n, err := stdout.Read(buf)
			if seen = append(seen, buf[:n]...); !said {
				if m := forwarding.FindSubmatch(seen); m != nil {
					address <- "127.0.0.1:" + string(m[1])
					said = true
				}
			}
			if err != nil {
				if !said {
					close(address)
				}
				return
			}
		}
	}()
	select {
	case a, ok := <-address:
		if !ok {
			t.Fatalf("port-forward of %s: %s", target, stderr.String())
		}
		return a
	case <-time.After(30 * time.Second):
		t.Fatalf("port-forward of %s says nothing", target)
		return ""
	}
}

var forwarding = regexp.MustCompile(`Forwarding from 127\.0\.0\.1:(\d+)`)

// database is a pool straight to the sample's PostgreSQL.
func database(t testing.TB) *pgxpool.Pool {
	t.Helper()
	address := forward(t, sampleNamespace, "svc/postgres", 5432)
	db, err := pgxpool.New(t.Context(), "postgres://orders:for-development-only@"+address+"/orders?sslmode=disable")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Close)
	return db
}

// count is the first column of the only row of a query.
func count(t testing.TB, db *pgxpool.Pool, sql string, args ...any) int {
	t.Helper()
	var n *int
	if err := db.QueryRow(t.Context(), sql, args...).Scan(&n); err != nil && !errors.Is(err, pgx.ErrNoRows) {
		t.Fatal(err)
	}
	if n == nil {
		return 0
	}
	return *n
}

// post posts one order and returns the answer.
func post(t testing.TB, url, body string) (status int, answer string, took time.Duration) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	start := time.Now()
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b), time.Since(start)
}

// report is the loader's.
type report struct {
	Sent     int
	Statuses map[string]int
	Errors   map[string]int
	Accepted []int
	Slowest  float64 `json:"slowestSeconds"`
	Problems []string
}

func (r report) String() string {
	return fmt.Sprintf("%d sent, answers %v, without an answer %v, slowest %.2f s, problems %v", r.Sent, r.Statuses, r.Errors, r.Slowest, r.Problems)
}

// loader is a pod that posts orders.
type loader struct {
	t   testing.TB
	run string
	url string
}

const loaderPod = `
apiVersion: v1
kind: Pod
metadata: {name: %[1]s, labels: {app: loader}}
spec:
  restartPolicy: Never
  terminationGracePeriodSeconds: 1
  automountServiceAccountToken: false
  securityContext: {runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}}
  containers:
  - name: loader
    image: %[2]s
    args: [-url, %[3]q, -run, %[1]q, -rate, "%[4]d", -n, "%[5]d", -c, "%[6]d", -pad, "%[7]d"]
    readinessProbe: {httpGet: {path: /report, port: 8080}, periodSeconds: 1}
    securityContext: {allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}}
`

// startLoad posts orders to path of the gateway: rate a second, limit in all (0 means until stop).
func startLoad(t testing.TB, run, path string, rate, limit, conns int) *loader {
	t.Helper()
	return startLargeLoad(t, run, path, rate, limit, conns, 0)
}

// startLargeLoad is startLoad with orders that are pad bytes larger.
func startLargeLoad(t testing.TB, run, path string, rate, limit, conns, pad int) *loader {
	t.Helper()
	url := "http://weir-gateway." + weirNamespace + ".svc.cluster.local" + path
	apply(t, fmt.Sprintf(loaderPod, run, env.image("loader"), url, rate, limit, conns, pad))
	deleteAfter(t, "pod", run)
	kubectl(t, "-n", sampleNamespace, "wait", "--for=condition=Ready", "pod/"+run, "--timeout=120s")
	l := &loader{t: t, run: run, url: "http://" + forward(t, sampleNamespace, "pod/"+run, 8080)}
	return l
}

func (l *loader) call(method, path string) report {
	l.t.Helper()
	req, err := http.NewRequestWithContext(l.t.Context(), method, l.url+path, http.NoBody)
	if err != nil {
		l.t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		l.t.Fatal(err)
	}
	defer resp.Body.Close()
	var r report
	if err := json.NewDecoder(resp.Body).Decode(&r); err != nil {
		l.t.Fatal(err)
	}
	return r
}

func (l *loader) report() report { l.t.Helper(); return l.call(http.MethodGet, "/report") }
func (l *loader) stop() report   { l.t.Helper(); return l.call(http.MethodPost, "/stop") }

// sends waits until n more orders were sent.
func (l *loader) sends(n int) {
	l.t.Helper()
	goal := l.report().Sent + n
	eventually(l.t, fmt.Sprintf("%d more orders are sent", n), func() string {
		if r := l.report(); r.Sent < goal {
			return r.String()
		}
		return ""
	})
}

// wantAll checks that each accepted order of run becomes a row, once, and that no dead letter is in its queue.
func wantAll(t testing.TB, db *pgxpool.Pool, queue, run string, r report) {
	t.Helper()
	want := len(r.Accepted)
	took := eventually(t, "all accepted orders are rows", func() string {
		if n := count(t, db, `SELECT count(DISTINCT customer) FROM orders WHERE sku = $1 AND customer = ANY($2)`, run, indexes(r.Accepted)); n != want {
			return fmt.Sprintf("%d of %d", n, want)
		}
		return ""
	})
	if twice := count(t, db, `SELECT count(*) - count(DISTINCT customer) FROM orders WHERE sku = $1`, run); twice != 0 {
		t.Errorf("%d orders are rows twice", twice)
	}
	if dead := dead(t, queue); dead != 0 {
		t.Errorf("%d dead letters", dead)
	}
	t.Logf("%s: %s; all %d accepted are rows, once each, %s after the end", run, r, want, took.Round(time.Millisecond))
}

func indexes(n []int) []string {
	s := make([]string, len(n))
	for i, v := range n {
		s[i] = fmt.Sprint(v)
	}
	return s
}
