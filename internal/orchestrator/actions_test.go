package orchestrator

import (
	"slices"
	"testing"

	"github.com/weir-dev/weir/internal/integration"
	"github.com/weir-dev/weir/internal/statelang"
)

// TestActionsHaveCallers: what a definition may name can be called, and waited for where it may be.
func TestActionsHaveCallers(t *testing.T) {
	for _, a := range integration.Actions() {
		known, ok := callerOf(a.Service, a.Action)
		waits := slices.Contains(a.Patterns, statelang.RunToEnd) || slices.Contains(a.Patterns, statelang.RunToEnd2)
		if !ok || known.call == nil || waits != (known.await != nil) || known.end != nil && !waits {
			t.Errorf("%s:%s, with %v, has the caller %+v", a.Service, a.Action, a.Patterns, known)
		}
	}
	if _, ok := callerOf("aws-sdk:rdsdata", "beginTransaction"); ok {
		t.Error("what is not served has a caller")
	}
}
