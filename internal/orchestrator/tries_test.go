package orchestrator

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/statelang"
)

// TestAgain: the log is told of a call that is tried for long, not of others, and not of each.
func TestAgain(t *testing.T) {
	var text bytes.Buffer
	o := &Orchestrator{cfg: Config{Log: slog.New(slog.NewTextHandler(&text, nil))}}
	tried := func(since time.Duration) context.Context {
		id := ID{Machine: catalog.Key{Namespace: "default", Name: "m"}, Name: "x"}
		e := statelang.Effect{State: "Pay", Resource: statelang.Resource{Kind: statelang.URL, Text: "http://nobody"}}
		return context.WithValue(t.Context(), tryingKey{}, trying{id, e, time.Now().Add(-since)})
	}
	o.again(tried(longTried/2), "busy")
	o.again(t.Context(), "no call")
	if text.Len() > 0 {
		t.Fatal(text.String())
	}
	for range 3 {
		o.again(tried(longTried), "refused")
	}
	if got := text.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, "state=Pay") || !strings.Contains(got, "reason=refused") || !strings.Contains(got, "execution=m:x") {
		t.Error(got)
	}
}
