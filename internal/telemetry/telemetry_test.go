package telemetry

import (
	"bytes"
	"strings"
	"testing"
)

func TestValidTraceParent(t *testing.T) {
	const good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	for s, want := range map[string]bool{
		good:                      true,
		"":                        false,
		good[:54]:                 false,
		good + "x":                false,
		good + "-x":               false, // version 00 has no more fields
		"01" + good[2:]:           true,
		"01" + good[2:] + "-more": true,
		"01" + good[2:] + "more":  false,
		"ff" + good[2:]:           false,
		strings.ToUpper(good):     false,
		"00-00000000000000000000000000000000-b7ad6b7169203331-01":   false,
		"00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01":   false,
		"01" + good[2:] + "-" + strings.Repeat("a", MaxTraceParent): false,
		strings.Replace(good, "-", "_", 1):                          false,
	} {
		if got := ValidTraceParent(s); got != want {
			t.Errorf("%q: %t, want %t", s, got, want)
		}
	}
}

func TestNewLines(t *testing.T) {
	var b bytes.Buffer
	lines, err := NewLines(&b, "json", "warn")
	if err != nil {
		t.Fatal(err)
	}
	log := lines.Logger(nil)
	log.Info("no")
	log.Warn("yes", "a", 1)
	if s := b.String(); strings.Contains(s, "no") || !strings.Contains(s, `"a":1`) {
		t.Error(s)
	}
	for _, bad := range [][2]string{{"xml", "info"}, {"json", "loud"}} {
		if _, err := NewLines(&b, bad[0], bad[1]); err == nil {
			t.Errorf("%v is taken", bad)
		}
	}
}
