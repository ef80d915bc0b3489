package orchestrator

import (
	"slices"
	"testing"

	"github.com/weir-dev/weir/internal/integration"
	"github.com/weir-dev/weir/internal/statelang"
)

// TestCallers: what a definition may name can be called, and waited for where its pattern says so; nothing else.
func TestCallers(t *testing.T) {
	for _, a := range integration.Actions() {
		known, ok := callerOf(a.Service, a.Action)
		if !ok || known.call == nil {
			t.Errorf("%s:%s has no caller", a.Service, a.Action)
		}
		if waits := slices.Contains(a.Patterns, statelang.RunToEnd); waits != (known.await != nil) {
			t.Errorf("%s:%s: to wait for the end is %v, and can be done is %v", a.Service, a.Action, waits, known.await != nil)
		}
	}
	for _, other := range []string{"beginTransaction", "batchExecuteStatement"} {
		if _, ok := callerOf("aws-sdk:rdsdata", other); ok {
			t.Errorf("%s has a caller", other)
		}
	}
}
