package controller

import (
	"strings"
	"testing"

	"github.com/weir-dev/weir/internal/controller"
)

func TestWebhookListen(t *testing.T) {
	of := func(v string) (controller.Config, error) {
		return fromEnv(func(name string) string {
			if name == "WEIR_WEBHOOK_LISTEN" {
				return v
			}
			return environment("")(name)
		})
	}
	if c, err := of(""); err != nil || c.Webhook != nil {
		t.Errorf("by default %+v, %v", c.Webhook, err)
	}
	if c, err := of("[::1]:9443"); err != nil || *c.Webhook != (controller.Webhook{Host: "::1", Port: 9443, Certs: "/var/run/secrets/weir/webhook"}) {
		t.Errorf("%+v, %v", c.Webhook, err)
	}
	for _, v := range []string{"9443", ":0", ":http", ":65536"} {
		if _, err := of(v); err == nil || !strings.Contains(err.Error(), "WEIR_WEBHOOK_LISTEN") {
			t.Errorf("%q: %v", v, err)
		}
	}
}

func TestExecutionsMaxBytes(t *testing.T) {
	for v, want := range map[string]int64{"": 1 << 30, "0": 0, "64Mi": 64 << 20, "2G": 2e9} {
		c, err := fromEnv(environment(v))
		if err != nil || c.MachineBytes != want {
			t.Errorf("%q: %d, %v; want %d", v, c.MachineBytes, err, want)
		}
	}
	for _, v := range []string{"63Mi", "-1", "much"} {
		if _, err := fromEnv(environment(v)); err == nil || !strings.Contains(err.Error(), "WEIR_EXECUTIONS_MAX_BYTES") {
			t.Errorf("%q: %v", v, err)
		}
	}
}

func environment(maxBytes string) func(string) string {
	return func(name string) string {
		switch name {
		case "WEIR_EXECUTIONS_MAX_BYTES":
			return maxBytes
		case "WEIR_RELEASE":
			return "weir-system/weir"
		}
		return ""
	}
}
