package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
)

// TestQueueList: what the command prints is what the queue holds.
func TestQueueList(t *testing.T) {
	s, _ := letters(t, 3, 2)
	list := func(args ...string) (string, error) {
		var out bytes.Buffer
		cmd := newRoot()
		cmd.SetOut(&out)
		cmd.SetArgs(append([]string{"queue", "list", "--nats", s.URL()}, args...))
		err := cmd.ExecuteContext(t.Context())
		return out.String(), err
	}
	table, err := list()
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(table), "\n")
	if len(lines) != 2 || !strings.HasPrefix(lines[1], "default    orders  0        0         5 ") || !strings.HasSuffix(lines[1], "none") {
		t.Errorf("%s", table)
	}
	text, err := list("--json", "-n", "default", "orders")
	var q listed
	if err != nil || json.Unmarshal([]byte(text), &q) != nil || q.Name != "orders" || q.Dead["refused"] != 5 || q.Owned || q.Records != 0 {
		t.Errorf("%v %s", err, text)
	}
	if _, err := list("-n", "other"); err == nil {
		t.Error("a namespace without queues is no error")
	}
}
