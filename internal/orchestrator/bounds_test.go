package orchestrator

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	sdkmetric "go.opentelemetry.io/otel/sdk/metric"

	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/statelang"
	"github.com/weir-dev/weir/internal/stream"
	"github.com/weir-dev/weir/internal/taskapi"
	"github.com/weir-dev/weir/internal/telemetry"
	"github.com/weir-dev/weir/internal/testkit"
)

// TestMeasuredMachinesAreBounded: the state machines past maxMeasured are one together, and nothing is lost.
func TestMeasuredMachinesAreBounded(t *testing.T) {
	reader := sdkmetric.NewManualReader()
	meters := sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader))
	defer func() { _ = meters.Shutdown(context.Background()) }()
	x, err := newMetrics(telemetry.Providers{Meters: meters}, func() int { return 0 })
	if err != nil {
		t.Fatal(err)
	}
	const more = 50
	for range 2 {
		for n := range maxMeasured + more {
			x.of(catalog.Key{Namespace: "default", Name: fmt.Sprint("m", n)}).started(statelang.Standard)
		}
	}
	for _, err := range []error{errCrowded(), &stream.RefusedError{Code: taskapi.CodeFull}, &stream.RefusedError{Code: CodeExists}, errors.New("x"), nil} {
		x.answered(askStart, err)
		x.answered(askStop, err)
	}
	got := testkit.Series(t, reader)
	machines := 0
	for k := range got {
		if strings.HasPrefix(k, "weir.executions.started{") {
			machines++
		}
	}
	if other := got["weir.executions.started{weir.execution.type=standard,weir.state_machine=other}"]; machines != maxMeasured+1 || other != 2*more {
		t.Errorf("%d series, other is %v", machines, other)
	}
	if got["weir.executions.refused{weir.reason=busy}"] != 1 || got["weir.executions.refused{weir.reason=full}"] != 1 {
		t.Errorf("%v", got)
	}
	off, err := newMetrics(telemetry.Providers{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	off.answered(askStart, errCrowded())
	nobody := off.of(catalog.Key{Namespace: "default", Name: "m"})
	nobody.started(statelang.Standard)
	nobody.attempt("function")(cut)
	nobody.writing()(nil)
}
