package chaos_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/weir-dev/weir/internal/testkit"
)

// TestOneReport asks for a report as the README does: a job with progress, and its result.
func TestOneReport(t *testing.T) {
	w := newWeir(t, manifests(t))
	w.up()
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	do := func(method, path, body string, header ...string) (int, string, string) {
		t.Helper()
		req, err := http.NewRequestWithContext(context.Background(), method, "http://"+w.addr+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		for i := 0; i < len(header); i += 2 {
			req.Header.Set(header[i], header[i+1])
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(b), resp.Header.Get("ETag")
	}
	if status, body, _ := do("POST", "/orders", `{"sku": "book-42"}`, "Content-Type", "application/json"); status != http.StatusAccepted {
		t.Fatalf("%d %s", status, body)
	}
	testkit.Eventually(t, "the order is a row", func() bool {
		_, body, _ := do("GET", "/orders?limit=1", "")
		return strings.Contains(body, "sku")
	})
	if status, body, _ := do("POST", "/reports", `{"format": "xml"}`, "Content-Type", "application/json"); status != http.StatusBadRequest {
		t.Errorf("an unknown format: %d %s", status, body)
	}

	type state struct {
		Status   string
		Progress *struct{ Percent float64 }
		Links    struct{ Self string }
	}
	var s state
	_, body, tag := do("POST", "/reports", `{"seconds": 3, "rows": 5, "format": "json"}`, "Content-Type", "application/json")
	if err := json.Unmarshal([]byte(body), &s); err != nil || s.Status != "queued" {
		t.Fatalf("%v: %s", err, body)
	}
	job, progress := s.Links.Self, false
	testkit.Eventually(t, "the report is made", func() bool {
		var status int
		if status, body, tag = do("GET", job, "", "Prefer", "wait=5", "If-None-Match", tag); status != http.StatusOK {
			return false
		}
		if err := json.Unmarshal([]byte(body), &s); err != nil {
			t.Fatalf("%v: %s", err, body)
		}
		progress = progress || s.Progress != nil && s.Progress.Percent > 0
		return s.Status == "succeeded"
	})
	if !progress {
		t.Error("it never said how far it was")
	}
	var rows []struct{ Row int }
	status, body, _ := do("GET", job+"/result", "")
	if err := json.Unmarshal([]byte(body), &rows); err != nil || status != http.StatusOK || len(rows) != 5 || rows[4].Row != 5 {
		t.Errorf("%d %v: %s", status, err, body)
	}
}
