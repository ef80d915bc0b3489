package chart_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/clusterjob"
	"github.com/weir-dev/weir/internal/record"
	"github.com/weir-dev/weir/internal/stream"
	"github.com/weir-dev/weir/internal/testkit"
	"github.com/weir-dev/weir/internal/testkit/processes"
)

var lameDuckDuration = regexp.MustCompile(`(?m)^lame_duck_duration: "(.*)"$`)

// natsLameDuck is how long NATS takes to end after preStop.
func natsLameDuck(t *testing.T, docs []typed) time.Duration {
	t.Helper()
	for _, c := range all[corev1.ConfigMap](docs) {
		if m := lameDuckDuration.FindStringSubmatch(c.Data["nats.conf"]); m != nil {
			d, err := time.ParseDuration(m[1])
			if err != nil {
				t.Fatal(err)
			}
			return d
		}
	}
	t.Fatal("no nats.conf says its lame_duck_duration")
	return 0
}

// natsSet is what the chart renders of NATS, as files and environment of servers on this machine.
type natsSet struct {
	dir     string // holds tls/ and the users' password files
	conf    string
	env     []corev1.EnvVar
	secrets map[string]map[string][]byte
	hosts   []string // of the replicas, with the cluster port, as the chart renders them
	servers []*server.Server
}

// newNATSSet renders the chart. own are Secrets that the values name.
func newNATSSet(t *testing.T, values string, own map[string]map[string][]byte) *natsSet {
	t.Helper()
	docs := render(t, values)
	set := get[appsv1.StatefulSet](t, docs, "weir-nats")
	c := set.Spec.Template.Spec.Containers[0]
	if !slices.Equal(c.Args, []string{"--config", "/etc/nats/config/nats.conf", "--name", "$(POD_NAME)"}) {
		t.Fatal("NATS is started with", c.Args)
	}
	n := &natsSet{dir: t.TempDir(), env: c.Env, secrets: own, conf: get[corev1.ConfigMap](t, docs, "weir-nats").Data["nats.conf"]}
	if n.secrets == nil {
		n.secrets = map[string]map[string][]byte{}
	}
	for _, s := range all[corev1.Secret](docs) {
		n.secrets[s.Name] = s.Data
	}
	for i := range *set.Spec.Replicas {
		n.hosts = append(n.hosts, fmt.Sprintf("weir-nats-%d.weir-nats-headless.%s.svc:6222", i, namespace))
	}
	if tls := n.secrets["weir-nats-tls"]; tls != nil {
		for name, data := range tls {
			n.write(t, filepath.Join("tls", name), data)
		}
	}
	for _, v := range set.Spec.Template.Spec.Volumes {
		if v.Secret != nil && v.Secret.SecretName != "weir-nats-tls" {
			t.Fatal("NATS mounts", v.Secret.SecretName)
		}
	}
	return n
}

func (n *natsSet) write(t *testing.T, name string, data []byte) string {
	t.Helper()
	path := filepath.Join(n.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

var reference = regexp.MustCompile(`\$\(([A-Z0-9_]+)\)`)

// setenv sets the container's environment as the kubelet does: $(NAME) stands for an earlier variable, and what it
// brings is not looked at again.
func (n *natsSet) setenv(t *testing.T, pod string) {
	t.Helper()
	set := map[string]string{}
	for _, e := range n.env {
		v := reference.ReplaceAllStringFunc(e.Value, func(s string) string { return set[s[2:len(s)-1]] })
		switch {
		case e.ValueFrom == nil:
		case e.ValueFrom.FieldRef != nil:
			v = pod
		default:
			data, ok := n.secrets[e.ValueFrom.SecretKeyRef.Name][e.ValueFrom.SecretKeyRef.Key]
			if !ok {
				t.Fatalf("Secret %s has no key %s", e.ValueFrom.SecretKeyRef.Name, e.ValueFrom.SecretKeyRef.Key)
			}
			v = string(data)
		}
		set[e.Name] = v
	}
	for name, v := range set {
		if name != "GOMEMLIMIT" {
			t.Setenv(name, v)
		}
	}
}

// start runs a server for each replica with the rendered configuration; only ports and paths are others.
func (n *natsSet) start(t *testing.T) {
	t.Helper()
	peers, ports := make([]string, len(n.hosts)), []int(nil)
	for i := range peers {
		ports = append(ports, processes.FreePort(t, ports...))
		peers[i] = fmt.Sprintf("127.0.0.1:%d", ports[i])
	}
	for i := range n.hosts {
		name := fmt.Sprintf("weir-nats-%d", i)
		n.setenv(t, name)
		for j, host := range n.hosts {
			if v := os.Getenv(fmt.Sprintf("WEIR_ROUTE_%d", j)); v != "" {
				if !strings.Contains(v, host) {
					t.Fatalf("route %d is not to %s", j, host)
				}
				t.Setenv(fmt.Sprintf("WEIR_ROUTE_%d", j), strings.ReplaceAll(v, host, peers[j]))
			}
		}
		conf := strings.NewReplacer(
			"http_port: 8222", "http_port: -1", "port: 4222", "port: -1", "port: 6222", fmt.Sprintf("port: %d", ports[i]),
			`"/data"`, fmt.Sprintf("%q", filepath.Join(n.dir, name)), "/etc/nats/tls", filepath.Join(n.dir, "tls"), "/run/nats", n.dir,
		).Replace(n.conf)
		for j, host := range n.hosts {
			conf = strings.ReplaceAll(conf, host, peers[j])
		}
		opts, err := server.ProcessConfigFile(n.write(t, name+".conf", []byte(conf)))
		if err != nil {
			t.Fatalf("%v in\n%s", err, conf)
		}
		opts.ServerName, opts.Host, opts.HTTPHost, opts.Cluster.Host = name, "127.0.0.1", "127.0.0.1", ""
		if len(n.hosts) > 1 {
			opts.Cluster.Host = "127.0.0.1"
		}
		opts.NoSigs, opts.LogFile, opts.PidFile = true, filepath.Join(n.dir, name+".log"), ""
		srv, err := server.NewServer(opts)
		if err != nil {
			t.Fatal(err)
		}
		srv.ConfigureLogger()
		srv.Start()
		t.Cleanup(func() {
			srv.Shutdown()
			srv.WaitForShutdown()
		})
		n.servers = append(n.servers, srv)
	}
	for _, srv := range n.servers {
		if !srv.ReadyForConnections(testkit.Patience) {
			log, _ := os.ReadFile(filepath.Join(n.dir, srv.Name()+".log"))
			t.Fatalf("%s is not ready:\n%s", srv.Name(), log)
		}
	}
	testkit.Eventually(t, "JetStream is there", func() bool {
		return !slices.ContainsFunc(n.servers, func(s *server.Server) bool { return s.Healthz(nil).Status != "ok" })
	})
}

func (n *natsSet) url() string {
	var urls []string
	for _, s := range n.servers {
		urls = append(urls, "tls://"+s.Addr().String())
	}
	return strings.Join(urls, ",")
}

// errorLog is a log that can be read.
type errorLog struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *errorLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *errorLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// connect is how the services connect: by files. What NATS denies fails the test.
func (n *natsSet) connect(t *testing.T, secret, user string) *stream.Conn {
	t.Helper()
	log := new(errorLog)
	c, err := stream.Connect(stream.Config{
		URL: n.url(), User: user, PasswordFile: n.write(t, user+".password", n.secrets[secret][user+"-password"]),
		CAFile: filepath.Join(n.dir, "tls", "ca.crt"), Name: user, Log: slog.New(slog.NewTextHandler(log, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Close()
		if said := log.String(); strings.Contains(strings.ToLower(said), "permissions violation") {
			t.Errorf("NATS denied %s what it must be able to do:\n%s", user, said)
		}
	})
	if err := c.WaitUpFor(t.Context(), testkit.Patience); err != nil {
		t.Fatalf("%s: %v\n%s", user, err, log)
	}
	return c
}

func orders(name string) catalog.Queue {
	return catalog.Queue{
		Key: catalog.Key{Namespace: "default", Name: name}, MaxAge: time.Hour, MaxBytes: 64 << 20, DeadLetterMaxAge: time.Hour,
	}
}

// work does what each of Weir's services, `weir dlq` and the lists of queues and mappings do.
func (n *natsSet) work(t *testing.T, secret string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*testkit.Patience)
	defer cancel()
	must := func(what string, err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	replicas := len(n.servers)
	controller, gateway := n.connect(t, secret, "controller"), n.connect(t, secret, "gateway")
	dispatcher, operator := n.connect(t, secret, "dispatcher"), n.connect(t, secret, "operator")

	q := orders("orders")
	must("controller: leases", controller.EnsureLeases(ctx, replicas))
	must("controller: queue", controller.EnsureQueue(ctx, q, replicas))
	must("controller: a second queue", controller.EnsureQueue(ctx, orders("gone"), replicas))
	must("controller: close it", controller.CloseQueue(ctx, orders("gone").Key))
	must("controller: delete it", controller.DeleteQueue(ctx, orders("gone").Key))
	must("controller: publish", controller.PublishCatalog(ctx, &catalog.Catalog{Queues: []catalog.Queue{q}}, replicas, nil))
	published, err := controller.Catalog(ctx)
	must("controller: read the catalog", err)
	must("controller: publish again", controller.PublishCatalog(ctx, &catalog.Catalog{Queues: []catalog.Queue{q, orders("more")}}, replicas, published))

	for _, user := range stageNames() {
		wctx, stop := context.WithCancel(ctx)
		var queues int
		must(user+": watch the catalog", n.connect(t, secret, user).WatchCatalog(wctx, func(cat *catalog.Catalog) {
			queues = len(cat.Queues)
			stop()
		}))
		stop()
		if queues != 2 {
			t.Fatalf("%s: the catalog has %d queues", user, queues)
		}
	}

	w := gateway.NewWriter(q.Key, record.S2)
	wctx, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { w.Run(wctx) })
	defer func() { stop(); wg.Wait() }()
	id, err := record.NewID()
	must("id", err)
	must("gateway: write", w.Append(ctx, &record.Record{ID: id, Time: time.Now(), Source: "test", Body: []byte("{}")}))

	lease, err := dispatcher.TryLease(ctx, "queue.default.orders", "test")
	must("dispatcher: lease", err)
	leases := make(chan stream.LeaseState, 64) // those that are renewed meanwhile
	wg.Go(func() {
		_ = dispatcher.WatchLeases(wctx, func(l *stream.LeaseState) {
			if l != nil {
				leases <- *l
			}
		})
	})
	told := func(want stream.LeaseState) {
		t.Helper()
		patience := time.After(testkit.Patience)
		for {
			select {
			case l := <-leases:
				if l == want {
					return
				}
			case <-patience:
				t.Fatalf("the dispatcher was not told of %+v", want)
			}
		}
	}
	told(stream.LeaseState{Name: "queue.default.orders", Owner: "test"})
	reader, err := dispatcher.OpenReader(ctx, q.Key)
	must("dispatcher: reader", err)
	defer reader.Close()
	d := next(t, reader)
	must("dispatcher: extend", d.InProgress())
	must("dispatcher: delay", dispatcher.Delay(ctx, q.Key, stream.AtOnce(time.Now()), d.Records))
	must("dispatcher: settle", d.Ack())
	d = next(t, reader)
	if !d.Retry {
		t.Error("the record was not put back by a schedule")
	}
	dead := d.Records[0]
	dead.Failure = &record.Failure{Time: time.Now(), Reason: "test"}
	must("dispatcher: dead-letter", dispatcher.DeadLetter(ctx, q.Key, stream.Refused, []record.Record{dead}))
	must("dispatcher: settle", d.Ack())
	testkit.Eventually(t, "what is settled can be removed", func() bool {
		_, err := dispatcher.PurgeSettled(ctx, q.Key)
		must("dispatcher: purge", err)
		s, err := dispatcher.Status(ctx, q.Key)
		must("dispatcher: status", err)
		return s.Empty() && s.QueueBytes == 0 && s.Dead == 1
	})
	reader.Close()
	lease.Release()
	told(stream.LeaseState{Name: "queue.default.orders"})
	if replicas > 1 { // of one, internal/stream has tests
		gone := n.connect(t, secret, "dispatcher")
		_, err := gone.TryLease(ctx, "queue.default.orders", "gone")
		must("dispatcher: lease", err)
		gone.Close()
		told(stream.LeaseState{Name: "queue.default.orders", Expired: true})
	}

	moved := 0
	must("operator: redrive", operator.Redrive(ctx, q.Key, 0, func(n int) { moved = n }))
	if moved != 1 {
		t.Errorf("operator: %d dead letters were moved", moved)
	}
	must("dispatcher: dead-letter", dispatcher.DeadLetter(ctx, q.Key, stream.Refused, []record.Record{dead}))
	if purged, err := operator.PurgeDead(ctx, q.Key); err != nil || purged != 1 {
		t.Errorf("operator: purged %d, %v", purged, err)
	}

	// weir queue list and weir mapping list.
	unserve, err := dispatcher.ServeTally(q.Key, func() stream.Tally { return stream.Tally{Exact: true, Work: &stream.Work{Calls: 3}} })
	must("dispatcher: serve its tally", err)
	defer unserve()
	testkit.Eventually(t, "the operator sees the dispatcher at work", func() bool {
		keys, err := operator.QueueKeys(ctx)
		must("operator: list queues", err)
		all, err := operator.Catalog(ctx)
		must("operator: read the catalog", err)
		depth, err := operator.Depth(ctx, q.Key)
		must("operator: depth", err)
		work, owned, err := operator.Work(ctx, q.Key)
		must("operator: work", err)
		return len(keys) == 1 && len(all.Catalog.Queues) == 2 && depth.Owned && owned && work != nil && work.Calls == 3
	})
}

func next(t *testing.T, s *stream.Reader) *stream.Delivery {
	t.Helper()
	patience := time.After(testkit.Patience)
	for {
		select {
		case p := <-s.Pulls():
			p.Begin(16, nil)
		case d := <-s.Deliveries():
			return d
		case <-s.Done():
			t.Fatal("the reader ended:", s.Err())
		case <-patience:
			t.Fatal("no delivery")
		}
	}
}

// TestNATSUsers starts NATS with the rendered configuration and holds that each user can do what it must, and
// nothing more.
func TestNATSUsers(t *testing.T) {
	n := newNATSSet(t, ``, nil)
	n.start(t)
	if js := n.servers[0].JetStreamConfig(); !js.SyncAlways || js.MaxStore != 45<<30 {
		t.Errorf("sync always: %t, max_file_store %d", js.SyncAlways, js.MaxStore)
	}
	n.work(t, "weir-nats-auth")
	stop, err := n.connect(t, "weir-nats-auth", "controller").ServeAsks(stream.ClusterJobs(), func(context.Context, string, []byte) ([]byte, error) { return []byte("made"), nil })
	if err != nil {
		t.Fatal(err)
	}
	if answer, err := n.connect(t, "weir-nats-auth", "orchestrator").Ask(t.Context(), stream.ClusterJobs(), clusterjob.AskRun, nil); string(answer) != "made" {
		t.Errorf("the controller's answer to the orchestrator: %q, %v", answer, err)
	}
	stop()

	users := map[string]rights{
		"operator": {
			denied:  offLimits,
			deaf:    []string{">", "other", "$SYS.>", "_INBOX_controller.>"},
			allowed: []string{"weir.x", "$JS.API.STREAM.INFO." + ordersStream},
			hears:   []string{"$JS.EVENT.>", "_INBOX_operator.a.>"},
		},
	}
	for name, s := range stages {
		users[name] = s.rights
	}
	for user, c := range users {
		for _, subject := range slices.Concat(c.denied, c.allowed) {
			denied := n.denied(t, user, func(nc *nats.Conn) error { return nc.Publish(subject, nil) })
			if want := slices.Contains(c.denied, subject); denied != want {
				t.Errorf("%s: publish to %s: denied is %t, want %t", user, subject, denied, want)
			}
		}
		for _, subject := range slices.Concat(c.deaf, c.hears) {
			denied := n.denied(t, user, func(nc *nats.Conn) error {
				_, err := nc.SubscribeSync(subject)
				return err
			})
			if want := slices.Contains(c.deaf, subject); denied != want {
				t.Errorf("%s: subscribe to %s: denied is %t, want %t", user, subject, denied, want)
			}
		}
	}
	// All of it was in vain.
	if s, err := n.connect(t, "weir-nats-auth", "controller").Status(t.Context(), orders("orders").Key); err != nil || s.Pending != 1 {
		t.Errorf("the queue holds %d blocks, want the redriven one; %v", s.Pending, err)
	}
}

// denied does one thing on a connection of its own and tells whether NATS denied it.
func (n *natsSet) denied(t *testing.T, user string, do func(*nats.Conn) error) bool {
	t.Helper()
	nc, err := nats.Connect(n.url(), nats.UserInfo(user, string(n.secrets["weir-nats-auth"][user+"-password"])),
		nats.RootCAs(filepath.Join(n.dir, "tls", "ca.crt")), nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	if err := errors.Join(do(nc), nc.Flush()); err != nil {
		t.Fatal(err)
	}
	// The server's refusal came before its answer to Flush.
	return errors.Is(nc.LastError(), nats.ErrPermissionViolation)
}

// TestNATSStrangers holds that nobody gets in without a password of the Secret, or gets out of TLS.
func TestNATSStrangers(t *testing.T) {
	n := newNATSSet(t, ``, nil)
	n.start(t)
	ca := nats.RootCAs(filepath.Join(n.dir, "tls", "ca.crt"))
	gateway := string(n.secrets["weir-nats-auth"]["gateway-password"])
	for name, opts := range map[string][]nats.Option{
		"no user":             {ca},
		"a wrong password":    {ca, nats.UserInfo("gateway", "wrong")},
		"an empty password":   {ca, nats.UserInfo("gateway", "")},
		"another's password":  {ca, nats.UserInfo("controller", gateway)},
		"the cluster's user":  {ca, nats.UserInfo("cluster", string(n.secrets["weir-nats-auth"]["cluster-password"]))},
		"the system's CAs":    {nats.UserInfo("gateway", gateway)},
		"another server name": {ca, nats.UserInfo("gateway", gateway), nats.Secure(&tls.Config{ServerName: "nats.example.com", MinVersion: tls.VersionTLS12})},
	} {
		if nc, err := nats.Connect(n.url(), opts...); err == nil {
			nc.Close()
			t.Errorf("%s: connected", name)
		}
	}
	conn, err := net.Dial("tcp", n.servers[0].Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(testkit.Patience)); err != nil {
		t.Fatal(err)
	}
	_, err = fmt.Fprintf(conn, "CONNECT {\"user\":\"gateway\",\"pass\":%q}\r\nPING\r\n", gateway)
	if err != nil {
		t.Fatal(err)
	}
	answer := new(bytes.Buffer)
	_, _ = answer.ReadFrom(conn) // until NATS closes it
	if strings.Contains(answer.String(), "PONG") {
		t.Error("NATS spoke with a client in plain text")
	}
}

// TestNATSPasswords holds that a password of one's own may hold what NATS' configuration takes for its own.
func TestNATSPasswords(t *testing.T) {
	auth := map[string][]byte{
		"controller-password": []byte(`12345`),
		"gateway-password":    []byte(`$HOME "x" \n #{[}]; // $(POD_NAME) , = : @ true`),
		"dispatcher-password": []byte(`$2a$11$notAHashButLooksLikeOne`),
		"operator-password":   []byte(`1e5Kb`),
	}
	for _, name := range stageNames() {
		if auth[name+"-password"] == nil {
			auth[name+"-password"] = []byte(`true`)
		}
	}
	n := newNATSSet(t, `nats: {auth: {existingSecret: mine}}`, map[string]map[string][]byte{"mine": auth})
	if n.secrets["weir-nats-auth"] != nil {
		t.Error("a Secret of generated passwords is rendered though there is one of one's own")
	}
	n.start(t)
	// bcrypt's prefix makes a hash of it, as in any configuration of NATS: the README says so.
	for _, user := range append(stageNames(), "operator") {
		if user != "dispatcher" {
			n.connect(t, "mine", user)
		}
	}
}

// TestNATSCluster starts three servers with the rendered routes, certificate and passwords.
func TestNATSCluster(t *testing.T) {
	n := newNATSSet(t, `nats: {replicas: 3}`, nil)
	n.start(t)
	if peers := n.servers[0].NumRoutes(); peers == 0 {
		t.Error("no route was made")
	}
	n.work(t, "weir-nats-auth")
}

// TestNATSCertificate holds that the certificate is for every name by which NATS is reached.
func TestNATSCertificate(t *testing.T) {
	n := newNATSSet(t, `nats: {replicas: 3, tls: {extraNames: [nats.example.com]}}`, nil)
	read := func(secret, key string) *x509.Certificate {
		block, _ := pem.Decode(n.secrets[secret][key])
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	cert, ca := read("weir-nats-tls", "tls.crt"), read("weir-nats-ca", "tls.crt")
	if !bytes.Equal(n.secrets["weir-nats-tls"]["ca.crt"], n.secrets["weir-nats-ca"]["tls.crt"]) {
		t.Error("the clients are given another CA")
	}
	roots := x509.NewCertPool()
	roots.AddCert(ca)
	names := []string{"weir-nats", "weir-nats.weir-system.svc", "weir-nats.weir-system.svc.cluster.local", "localhost", "127.0.0.1", "nats.example.com"}
	for _, host := range n.hosts {
		name, _, _ := strings.Cut(host, ":")
		names = append(names, name)
	}
	for _, name := range names {
		for _, usage := range []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth} {
			if _, err := cert.Verify(x509.VerifyOptions{DNSName: name, Roots: roots, KeyUsages: []x509.ExtKeyUsage{usage}}); err != nil {
				t.Error(err)
			}
		}
	}
	if left := time.Until(cert.NotAfter); left < 9*365*24*time.Hour {
		t.Error("the certificate is valid for", left)
	}
}

// TestNATSOtherConfigurations holds that NATS takes what else can be rendered.
func TestNATSOtherConfigurations(t *testing.T) {
	n := newNATSSet(t, matrix["nats lazy sync"], nil)
	n.start(t)
	if js := n.servers[0].JetStreamConfig(); js.SyncAlways || js.SyncInterval != 2*time.Minute || js.MaxStore != 20e9 {
		t.Errorf("sync always: %t, every %s, max_file_store %d", js.SyncAlways, js.SyncInterval, js.MaxStore)
	}
	newNATSSet(t, matrix["nats plain"], nil).start(t)
}
