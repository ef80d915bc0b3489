package controller

import (
	"strings"
	"testing"
)

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
