package jobapi

import (
	"net/http"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestPreferences: quoted text is no list, and a wait of any length is a wait.
func TestPreferences(t *testing.T) {
	for text, want := range map[string]Preferences{
		"respond-async, wait=20":             {async: true, Wait: 20 * time.Second},
		`wait="5"; x="a;b,c", respond-async`: {async: true, Wait: 5 * time.Second},
		`note="hello, wait=7, you", wait=3`:  {Wait: 3 * time.Second},
		`note="a \" , wait=7", wait=3`:       {Wait: 3 * time.Second},
		"wait=99999999999999999999999":       {Wait: maxWait},
		"wait=4294967296":                    {Wait: maxWait},
		"wait=-1, wait=2":                    {Wait: 2 * time.Second},
		"wait=soon":                          {},
		`"respond-async"`:                    {},
	} {
		if got := ReadPreferences(http.Header{"Prefer": {text}}); got != want {
			t.Errorf("%s: %+v, want %+v", text, got, want)
		}
	}
}
