package manifest

import "testing"

// TestPlainDuration: what is plain is answered with the right spelling, and nothing else is.
func TestPlainDuration(t *testing.T) {
	for text, want := range map[string]string{
		"4d": "96h", "1w": "168h", "1 day": "24h", "2 Weeks": "336h", "1.5d": "36h", "1d12h": "36h", "1 hour 30 minutes": "1h30m",
		"30 sec": "30s", "30secs": "30s", "5 min": "5m", "500 msec": "500ms", "10 hrs": "10h", "1D": "24h",
		// What Go reads, and what may mean anything.
		"96h": "", "1h30m": "", "0": "", "30": "", "": "", "d": "", "5M": "", "1 month": "", "1y": "", "4 ducks": "", "4d soon": "", "-4d": "", "P4D": "",
		"99999999999999w": "", "4d,": "",
	} {
		if got := plainDuration(text); got != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
}
