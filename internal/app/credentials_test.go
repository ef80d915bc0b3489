package app_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/weir-dev/weir/internal/app"
	"github.com/weir-dev/weir/internal/stream"
	"github.com/weir-dev/weir/internal/testkit"
)

func TestARotatedPasswordNeedsNoRestart(t *testing.T) {
	s := newSecureNATS(t)
	conn, log := s.connect("gateway")
	live := conn.Live()
	s.rotate("gateway", "another")
	<-live.Done() // the server has dropped it
	testkit.Eventually(t, "the log says why it is away", func() bool { return log.says("authorization violation") })
	if err := conn.WaitUpFor(t.Context(), time.Millisecond); !errors.Is(err, stream.ErrUnavailable) || !strings.Contains(strings.ToLower(err.Error()), "authorization") {
		t.Errorf("%v, want the reason", err)
	}
	s.tell("gateway", "another")
	testkit.Eventually(t, "it is back", func() bool { return conn.Ready() == nil })
	if n := strings.Count(strings.ToLower(log.String()), "authorization violation"); n > 4 {
		t.Errorf("the log says it %d times", n)
	}
}

func TestAWrongCAIsSaidAndMended(t *testing.T) {
	s := newSecureNATS(t)
	s.certify("other.pem", "other-cert.pem", "other-key.pem")
	cfg, log := s.config("gateway", "WEIR_NATS_CA_FILE", s.path("other.pem"))
	conn := s.dial(cfg)
	testkit.Eventually(t, "the log says what is wrong", func() bool { return log.says("certificate signed by unknown authority") })
	if err := conn.WaitUpFor(t.Context(), time.Millisecond); err == nil || !strings.Contains(err.Error(), "unknown authority") {
		t.Errorf("%v, want the reason", err)
	}
	// The right password is written: the connection comes up without a restart.
	s.certify("other.pem", "cert.pem", "key.pem")
	if err := s.srv.Reload(); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, "it is connected", func() bool { return conn.Ready() == nil })

	// And back while it is connected: a connection that is lost then doesn't come back before the password is right
	// again.
	live := conn.Live()
	s.certify("other.pem", "other-cert.pem", "other-key.pem")
	s.rotate("gateway", "another")
	s.tell("gateway", "another")
	<-live.Done()
	testkit.Eventually(t, "the log says it again", func() bool {
		_, after, _ := strings.Cut(log.String(), "disconnected from NATS")
		return strings.Contains(after, "unknown authority")
	})
}

func TestConnectNamesWhatIsWrong(t *testing.T) {
	s := newSecureNATS(t)
	for _, row := range []struct {
		name   string
		change func(*app.NATS)
		want   string
	}{
		{"no password file", func(n *app.NATS) { n.PasswordFile = s.path("missing") }, "missing"},
		{"an empty password", func(n *app.NATS) { s.write("empty", "\n"); n.PasswordFile = s.path("empty") }, "empty"},
		{"credentials twice", func(n *app.NATS) { n.URL = "nats://a:secret@127.0.0.1:1" }, "leave one of them out"},
		{"no CA file", func(n *app.NATS) { n.CAFile = s.path("missing") }, "missing"},
		{"a CA file that is none", func(n *app.NATS) { n.CAFile = s.path("nats.conf") }, "nats.conf"},
		{"a user alone", func(n *app.NATS) { n.PasswordFile = "" }, "both or neither"},
	} {
		cfg, _ := s.config("gateway")
		row.change(&cfg.NATS)
		conn, err := stream.Connect(cfg.NATS.Stream("x", cfg.Log))
		if err == nil {
			conn.Close()
		}
		if err == nil || !strings.Contains(err.Error(), row.want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v, want %q", row.name, err, row.want)
		}
	}
}

func TestFromEnvNamesWhatIsWrong(t *testing.T) {
	for _, row := range []struct {
		env  map[string]string
		want string
	}{
		{map[string]string{}, "WEIR_NATS_URL"},
		{map[string]string{"WEIR_NATS_USER": "a"}, "WEIR_NATS_PASSWORD_FILE"},
		{map[string]string{"WEIR_NATS_PASSWORD_FILE": "/a"}, "WEIR_NATS_USER"},
		{map[string]string{"WEIR_DRAIN_TIMEOUT": "soon"}, "WEIR_DRAIN_TIMEOUT"},
		{map[string]string{"WEIR_DRAIN_TIMEOUT": "-1s"}, "WEIR_DRAIN_TIMEOUT"},
		{map[string]string{"WEIR_MEMORY": "64Mi"}, "WEIR_MEMORY"},
		{map[string]string{"WEIR_MEMORY": "9000000TiB"}, "WEIR_MEMORY"},
		{map[string]string{"WEIR_COMPRESSION": "rar"}, "WEIR_COMPRESSION"},
		{map[string]string{"WEIR_H2C": "yes"}, "WEIR_H2C"},
		{map[string]string{"WEIR_BATCH": "true"}, "WEIR_BATCH"},
		{map[string]string{"WEIR_PATH_PREFIX": "/shop/"}, "WEIR_PATH_PREFIX"},
		{map[string]string{"WEIR_LOG_LEVEL": "loud"}, "WEIR_LOG_LEVEL"},
	} {
		if len(row.env) > 0 {
			row.env["WEIR_NATS_URL"] = "nats://x:4222"
		}
		if _, err := app.FromEnv(func(name string) string { return row.env[name] }); err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%v: %v, want %s", row.env, err, row.want)
		}
	}
	cfg, err := app.FromEnv(func(name string) string {
		return map[string]string{"WEIR_NATS_URL": "nats://x:4222", "WEIR_DRAIN_TIMEOUT": "40s"}[name]
	})
	if err != nil || cfg.DrainTimeout != 40*time.Second || cfg.HealthListen != ":8081" || cfg.Listen != ":8080" || cfg.NATSSync != "" {
		t.Errorf("%+v, %v", cfg, err)
	}
}
