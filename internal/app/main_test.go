package app_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"log/slog"
	"maps"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"go.uber.org/goleak"

	"github.com/weir-dev/weir/internal/app"
	"github.com/weir-dev/weir/internal/stream"
	"github.com/weir-dev/weir/internal/testkit"
	"github.com/weir-dev/weir/internal/testkit/processes"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// natsConf is NATS as a cluster has it: TLS, and a user for each part with no more rights than it needs, which are those
// that the chart gives (rightsOf).
const natsConf = `
server_name: test
listen: "127.0.0.1:-1"
jetstream { store_dir: %q, sync_interval: always }
tls { cert_file: %q, key_file: %q }
authorization {
  users = [
%s  ]
}
`

// rightsOf is where the chart has the rights of a user of NATS.
func rightsOf(user string) string {
	return filepath.Join("..", "..", "charts", "weir", "files", "nats", user+".conf")
}

// secureNATS is a server with that configuration.
type secureNATS struct {
	t    *testing.T
	dir  string
	srv  *server.Server
	pass map[string]string // by user, as the server wants it
}

func newSecureNATS(t *testing.T) *secureNATS {
	t.Helper()
	s := &secureNATS{t: t, dir: t.TempDir(), pass: map[string]string{}}
	users, err := filepath.Glob(rightsOf("*"))
	if err != nil || len(users) == 0 {
		t.Fatalf("the chart has no users of NATS: %v", err)
	}
	for _, user := range users {
		user = strings.TrimSuffix(filepath.Base(user), ".conf")
		s.pass[user] = rand.Text()
		s.tell(user, s.pass[user])
	}
	s.certify("ca.pem", "cert.pem", "key.pem")
	s.configure()
	opts, err := server.ProcessConfigFile(s.path("nats.conf"))
	if err != nil {
		t.Fatal(err)
	}
	opts.NoLog, opts.NoSigs = true, true
	if s.srv, err = server.NewServer(opts); err != nil {
		t.Fatal(err)
	}
	s.srv.Start()
	t.Cleanup(func() { s.srv.Shutdown(); s.srv.WaitForShutdown() })
	if !s.srv.ReadyForConnections(testkit.Patience) {
		t.Fatal("NATS does not start")
	}
	return s
}

func (s *secureNATS) path(name string) string { return filepath.Join(s.dir, name) }

func (s *secureNATS) write(name, content string) {
	s.t.Helper()
	if err := os.WriteFile(s.path(name), []byte(content), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// tell writes the password file of user, which ends with a newline as an editor's does.
func (s *secureNATS) tell(user, password string) { s.write(user+".password", password+"\n") }

// configure writes the server's configuration.
func (s *secureNATS) configure() {
	var users strings.Builder
	for _, user := range slices.Sorted(maps.Keys(s.pass)) {
		rights, err := os.ReadFile(rightsOf(user))
		if err != nil {
			s.t.Fatal(err)
		}
		fmt.Fprintf(&users, "    { user: %s, password: %q, permissions: {\n%s    } }\n", user, s.pass[user], rights)
	}
	s.write("nats.conf", fmt.Sprintf(natsConf, s.path("jetstream"), s.path("cert.pem"), s.path("key.pem"), users.String()))
}

// rotate makes password the one that the server wants of user, whose connections it drops.
func (s *secureNATS) rotate(user, password string) {
	s.t.Helper()
	s.pass[user] = password
	s.configure()
	if err := s.srv.Reload(); err != nil {
		s.t.Fatal(err)
	}
}

// certify makes a CA, and a certificate by it for loopback.
func (s *secureNATS) certify(ca, cert, key string) {
	s.t.Helper()
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		s.t.Fatal(err)
	}
	caCert := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "weir CA of " + s.t.Name()}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	caDER, err := x509.CreateCertificate(rand.Reader, caCert, caCert, &caKey.PublicKey, caKey)
	if err != nil {
		s.t.Fatal(err)
	}
	leafKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		s.t.Fatal(err)
	}
	leafDER, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(2), NotBefore: caCert.NotBefore, NotAfter: caCert.NotAfter,
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"localhost"},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, caCert, &leafKey.PublicKey, caKey)
	if err != nil {
		s.t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(leafKey)
	if err != nil {
		s.t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{
		ca: {Type: "CERTIFICATE", Bytes: caDER}, cert: {Type: "CERTIFICATE", Bytes: leafDER}, key: {Type: "PRIVATE KEY", Bytes: keyDER},
	} {
		s.write(name, string(pem.EncodeToMemory(block)))
	}
}

// config is what a service of user has in its environment, and more of it.
func (s *secureNATS) config(user string, more ...string) (app.Config, *logged) {
	s.t.Helper()
	env := map[string]string{
		"WEIR_NATS_URL": "nats://" + s.srv.Addr().String(), "WEIR_NATS_USER": user, "WEIR_NATS_PASSWORD_FILE": s.path(user + ".password"),
		"WEIR_NATS_CA_FILE": s.path("ca.pem"), "WEIR_INSTANCE": user + "-0", "WEIR_LISTEN": "127.0.0.1:0", "WEIR_HEALTH_LISTEN": app.HealthOff,
	}
	for i := 0; i < len(more); i += 2 {
		env[more[i]] = more[i+1]
	}
	cfg, err := app.FromEnv(func(name string) string { return env[name] })
	if err != nil {
		s.t.Fatal(err)
	}
	log := new(logged)
	cfg.Log = slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	s.t.Cleanup(func() {
		if s.t.Failed() {
			s.t.Logf("the log of %s:\n%s", user, log)
		}
	})
	return cfg, log
}

// connect connects as user until the test ends, and waits until the connection is there.
func (s *secureNATS) connect(user string) (*stream.Conn, *logged) {
	s.t.Helper()
	cfg, log := s.config(user)
	conn := s.dial(cfg)
	testkit.Eventually(s.t, user+" is connected", func() bool { return conn.Ready() == nil })
	return conn, log
}

func (s *secureNATS) dial(cfg app.Config) *stream.Conn {
	s.t.Helper()
	conn, err := stream.Connect(cfg.NATS.Stream(cfg.Instance, cfg.Log))
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(conn.Close)
	return conn
}

// logged is a log that the test can read.
type logged struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func (l *logged) says(words string) bool {
	return strings.Contains(strings.ToLower(l.String()), strings.ToLower(words))
}

// freePort is an address on loopback that nobody listens at, outside of the range from which the kernel hands ports out.
func freePort(t *testing.T) string {
	t.Helper()
	return fmt.Sprintf("127.0.0.1:%d", processes.FreePort(t))
}
