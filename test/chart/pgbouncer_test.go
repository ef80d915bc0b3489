package chart_test

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/weir-dev/weir/internal/functions/orderapi"
	"github.com/weir-dev/weir/internal/functions/orderdb"
	"github.com/weir-dev/weir/internal/functions/orderwriter"
	queryfunction "github.com/weir-dev/weir/internal/functions/query"
	"github.com/weir-dev/weir/internal/functions/report"
	"github.com/weir-dev/weir/internal/localdb"
	"github.com/weir-dev/weir/internal/manifest"
	"github.com/weir-dev/weir/internal/testkit"
	"github.com/weir-dev/weir/internal/testkit/processes"
)

// TestPgBouncer starts the PgBouncer of this machine with the rendered files in front of a real PostgreSQL.
func TestPgBouncer(t *testing.T) {
	ctx := t.Context()
	db, err := localdb.Start(ctx, localdb.Config{Fast: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	direct, err := url.Parse(db.DirectURL())
	if err != nil {
		t.Fatal(err)
	}
	password, _ := direct.User.Password()
	docs := render(t, fmt.Sprintf(`
pgbouncer:
  enabled: true
  databases:
  - {name: orders, host: %q, port: %s, dbname: %s, poolSize: 3, reservePool: 1, poolMode: transaction, maxDbConnections: 4}
  defaultPoolSize: 2
  maxClientConn: 50
  auth: {users: [{name: %s, password: %q}, {name: weir-exporter, password: only-reads}]}
  exporter: {enabled: true}
  adminUsers: [%s]
  extraConfig: {tcp_keepidle: 60}
`, direct.Hostname(), direct.Port(), strings.Trim(direct.Path, "/"), direct.User.Username(), password, direct.User.Username()))

	// PgBouncer may not run as root, and another user can't get into a test's folder.
	dir, err := os.MkdirTemp("", "weir-chart-") //nolint:usetesting // see above
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	port := processes.FreePort(t)
	ini := strings.NewReplacer(
		"/etc/pgbouncer/auth", dir, "listen_addr = 0.0.0.0", "listen_addr = 127.0.0.1", "listen_port = 6432", fmt.Sprintf("listen_port = %d", port),
	).Replace(get[corev1.ConfigMap](t, docs, "weir-pgbouncer").Data["pgbouncer.ini"])
	for name, data := range map[string][]byte{
		"pgbouncer.ini": []byte(ini), "userlist.txt": get[corev1.Secret](t, docs, "weir-pgbouncer-auth").Data["userlist.txt"],
	} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(ctx, pgbouncer(t), filepath.Join(dir, "pgbouncer.ini"))
	log := new(errorLog)
	cmd.Stderr = log
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	if os.Geteuid() == 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: 65534, Gid: 65534}
	}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGINT) }
	cmd.WaitDelay = testkit.Patience
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()

	target := url.URL{Scheme: "postgres", User: direct.User, Host: fmt.Sprintf("127.0.0.1:%d", port), Path: "/orders", RawQuery: "sslmode=disable"}
	query := func(database, sql string) (string, error) {
		to := target
		to.Path = "/" + database
		cfg, err := pgx.ParseConfig(to.String())
		if err != nil {
			return "", err
		}
		cfg.DefaultQueryExecMode = pgx.QueryExecModeSimpleProtocol
		cfg.RuntimeParams = map[string]string{"extra_float_digits": "3"} // drivers send it; it must be let pass
		qctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		conn, err := pgx.ConnectConfig(qctx, cfg)
		if err != nil {
			return "", err
		}
		defer func() { _ = conn.Close(context.WithoutCancel(qctx)) }()
		rows, err := conn.Query(qctx, sql)
		if err != nil {
			return "", err
		}
		defer rows.Close()
		var out strings.Builder
		for _, f := range rows.FieldDescriptions() {
			fmt.Fprintf(&out, "%s ", f.Name)
		}
		fmt.Fprintln(&out)
		for rows.Next() {
			values, err := rows.Values()
			if err != nil {
				return "", err
			}
			fmt.Fprintln(&out, values...)
		}
		return out.String(), rows.Err()
	}
	testkit.Eventually(t, "PgBouncer answers", func() bool {
		select {
		case err := <-ended:
			t.Fatalf("PgBouncer ended: %v\n%s\n%s", err, log, ini)
		default:
		}
		out, err := query("orders", "select 'through'")
		return err == nil && strings.HasSuffix(out, "\nthrough\n")
	})
	if out, err := query("pgbouncer", "show databases"); err != nil || !strings.Contains(out, "orders") || !strings.Contains(out, "transaction") {
		t.Errorf("show databases: %q, %v", out, err)
	}
	if out, err := query("pgbouncer", "show config"); err != nil || !strings.Contains(out, "max_client_conn 50 ") || !strings.Contains(out, "auth_type scram-sha-256 ") {
		t.Errorf("show config: %q, %v", out, err)
	}
	if strings.Contains(log.String(), "unrecognized") || strings.Contains(log.String(), "ERROR") {
		t.Errorf("PgBouncer complains:\n%s", log)
	}
	exporter := get[appsv1.Deployment](t, docs, "weir-pgbouncer").Spec.Template.Spec.Containers[1]
	runExporter(t, docs, exporter, "pgbouncer_", "6432", strconv.Itoa(port))
	target.User = url.UserPassword("weir-exporter", "only-reads")
	if _, err := query("pgbouncer", "show pools"); err != nil {
		t.Errorf("the exporter's user may not read: %v", err)
	}
	for _, forbidden := range []string{"pause", "reload", "set max_client_conn = 1"} {
		if _, err := query("pgbouncer", forbidden); err == nil {
			t.Errorf("the exporter's user may %s", forbidden)
		}
	}
	if _, err := query("orders", "select 1"); err == nil {
		t.Error("the exporter's user gets into the database")
	}
	target.User = url.UserPassword(direct.User.Username(), "wrong")
	if _, err := query("orders", "select 1"); err == nil {
		t.Error("a wrong password was taken")
	}
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Errorf("PgBouncer's end: %v\n%s", err, log)
	}
}

// TestTimeoutsFit holds the timeouts to the rule of docs/operations.md, wherever they are set: PgBouncer and the server
// answer before the function gives up, and the function before its callers do.
func TestTimeoutsFit(t *testing.T) {
	if orderdb.QueueTimeout != localdb.QueryWaitSeconds*time.Second {
		t.Errorf("orderdb.QueueTimeout is %v, and weir local's query_wait_timeout %d s", orderdb.QueueTimeout, localdb.QueryWaitSeconds)
	}
	waits := func(file string) (most, least time.Duration) {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var values struct {
			PgBouncer struct{ QueryWaitTimeout, ShortestClientWait int }
		}
		if err := yaml.Unmarshal(data, &values); err != nil {
			t.Fatal(err)
		}
		return time.Duration(values.PgBouncer.QueryWaitTimeout) * time.Second, time.Duration(values.PgBouncer.ShortestClientWait) * time.Second
	}
	queue, least := waits(chart + "/values.yaml")
	if queue != orderdb.QueueTimeout {
		t.Errorf("orderdb.QueueTimeout is %v, and the chart's queryWaitTimeout %v", orderdb.QueueTimeout, queue)
	}
	for _, file := range []string{"../../deploy/k8s/kind/values.yaml", "../../deploy/k8s/production/values.yaml"} {
		if own, ownLeast := waits(file); own != 0 || ownLeast != 0 {
			t.Errorf("%s has timeouts of its own: queryWaitTimeout %v, shortestClientWait %v", file, own, ownLeast)
		}
	}

	bundle, err := manifest.LoadDir("../../deploy/k8s/orders", manifest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	patience := map[string]time.Duration{} // of a function's most impatient caller
	shorter := func(function string, timeout time.Duration) {
		if d, ok := patience[function]; !ok || timeout < d {
			patience[function] = timeout
		}
	}
	for _, s := range bundle.Services {
		shorter(s.Name, s.Timeout)
	}
	for _, m := range bundle.Catalog.Mappings {
		if m.Machine == nil { // the orchestrator answers at once; its tasks wait as long as they say
			shorter(m.Function.Name, m.Timeout)
		}
	}
	for _, api := range bundle.Catalog.APIs {
		for _, r := range api.Routes {
			if r.Function != nil {
				shorter(r.Function.Function.Name, r.Function.Timeout)
			}
		}
	}
	samples := map[string]struct{ statement, call, before time.Duration }{
		"order-api":    {statement: orderapi.StatementTimeout, call: orderapi.CallTimeout},
		"order-writer": {statement: orderwriter.StatementTimeout, call: orderwriter.CallTimeout},
		"report":       {statement: report.StatementTimeout, call: report.CallTimeout, before: report.MaxSeconds * time.Second},
		"query":        {statement: queryfunction.StatementTimeout, call: queryfunction.CallTimeout},
	}
	for name, s := range samples {
		if left := s.call - s.statement - orderdb.Margin; left < least {
			t.Errorf("%s leaves %v for PgBouncer's queue, below the chart's shortestClientWait, %v", name, left, least)
		}
		if d := s.before + s.call; d >= patience[name] {
			t.Errorf("%s may take %v, and a caller waits %v", name, d, patience[name])
		}
	}
	if len(patience) != len(samples) {
		t.Errorf("the manifests have %d functions: %v", len(patience), patience)
	}
}

// pgbouncer finds the program; Debian keeps it out of users' PATH.
func pgbouncer(t *testing.T) string {
	t.Helper()
	for _, name := range []string{"pgbouncer", "/usr/sbin/pgbouncer", "/opt/homebrew/bin/pgbouncer", "/usr/local/bin/pgbouncer"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	t.Fatal("PgBouncer is not installed: run make deps")
	return ""
}

// TestPgBouncerConfig holds what is written only when it was asked for.
func TestPgBouncerConfig(t *testing.T) {
	plain := get[corev1.ConfigMap](t, render(t, pgbouncerOn), "weir-pgbouncer").Data["pgbouncer.ini"]
	for _, want := range []string{
		"orders = host=postgres.default.svc port=5432 dbname=orders\n",
		"reports = host=other.example.com port=5433 dbname=r user=reader pool_size=3 reserve_pool=1 pool_mode=session max_db_connections=4\n",
		"\npool_mode = transaction\n", "\nauth_type = scram-sha-256\n", "\nignore_startup_parameters = extra_float_digits\n", "\nunix_socket_dir =\n",
	} {
		if !strings.Contains(plain+"\n", want) {
			t.Errorf("%q is not in\n%s", want, plain)
		}
	}
	for _, no := range []string{"max_prepared_statements", "auth_user", "admin_users", "tls_ca_file", "client_tls_key_file", "e+"} {
		if strings.Contains(plain, no) {
			t.Errorf("%s is in\n%s", no, plain)
		}
	}
	if got := string(get[corev1.Secret](t, render(t, pgbouncerOn), "weir-pgbouncer-auth").Data["userlist.txt"]); got != "\"orders\" \"pass\"\"word\"\n" {
		t.Errorf("userlist.txt is %q", got)
	}
	full := get[corev1.ConfigMap](t, render(t, matrix["pgbouncer with all"]), "weir-pgbouncer").Data["pgbouncer.ini"]
	for _, want := range []string{
		"\n* = host=10.0.0.1 port=5432\n", "\nmax_prepared_statements = 100\n", "\nmax_client_conn = 2000000\n", "\nauth_user = pgbouncer\n",
		"\nstats_users = stats,more\n", "\ntcp_keepidle = 60\n", "\nserver_tls_ca_file = /etc/pgbouncer/server-tls/ca.crt\n",
		"\nclient_tls_key_file = /etc/pgbouncer/client-tls/tls.key\n",
	} {
		if !strings.Contains(full+"\n", want) {
			t.Errorf("%q is not in\n%s", want, full)
		}
	}
}
