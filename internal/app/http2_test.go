package app_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
)

// TestJobsByHTTP2: waits, events, uploads and large results, all over one connection by prior knowledge.
func TestJobsByHTTP2(t *testing.T) {
	j := startJobs(t, func(w http.ResponseWriter, r *http.Request) {
		if body, _ := io.ReadAll(r.Body); string(body) == "large" {
			_, _ = io.Copy(w, noise(1, 1<<20))
		}
	})
	only := new(http.Protocols)
	only.SetUnencryptedHTTP2(true)
	client := &http.Client{Transport: &http.Transport{Protocols: only}}
	t.Cleanup(client.CloseIdleConnections)
	do := func(method, path, body string, header ...string) (*http.Response, string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, j.url+path, strings.NewReader(body))
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
		text, err := io.ReadAll(resp.Body)
		if err != nil || resp.ProtoMajor != 2 {
			t.Fatalf("%s %s: %s, %v", method, path, resp.Proto, err)
		}
		return resp, string(text)
	}
	resp, _ := do("POST", "/reports", "small")
	path := resp.Header.Get("Operation-Location")
	events := make(chan string)
	go func() {
		_, text := do("GET", path+"/events", "") // it ends with the job
		events <- text
	}()
	waited := make(chan int)
	go func() {
		resp, _ := do("GET", path+"/result", "", "Prefer", "wait=20")
		waited <- resp.StatusCode
	}()
	j.release()
	if status := <-waited; status != http.StatusOK {
		t.Errorf("waited: %d", status)
	}
	if text := <-events; !strings.Contains(text, `"status":"succeeded"`) {
		t.Errorf("events: %s", text)
	}
	_, text := do("POST", "/weir/uploads", fmt.Sprintf(`{"path": "/reports", "size": %d}`, 5))
	u := decode[upload](t, text)
	if resp, text := do(u.Method, u.URL, "large", "Content-Type", u.Headers["Content-Type"]); resp.StatusCode != http.StatusOK {
		t.Errorf("uploaded: %s %s", resp.Status, text)
	}
	if resp, text := do("POST", "/reports", "", "Weir-Input", u.ID, "Prefer", "wait=20"); resp.StatusCode != http.StatusOK || len(text) != 1<<20 {
		t.Errorf("a large result: %s, %d bytes", resp.Status, len(text))
	}
	if resp, text := do("GET", path+"/socket", ""); resp.StatusCode != http.StatusNotImplemented || !strings.Contains(text, "no-websocket") {
		t.Errorf("a socket: %s %s", resp.Status, text)
	}
}

func decode[T any](t *testing.T, text string) (v T) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatal(err)
	}
	return v
}
