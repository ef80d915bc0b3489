package orchestrator

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/weir-dev/weir/internal/jsontree"
	"github.com/weir-dev/weir/internal/statelang"
)

// errInProgress is what the function query says of a call that an attempt of a former owner is still at.
const errInProgress = "Weir.CallInProgress"

// executeStatement is rds-data:executeStatement, as the SDK integration aws-sdk:rdsdata spells it: ResourceArn ends with the name of
// a function of the machine's namespace, such as the sample's query, which gets all parameters and answers as the Data API does.
// Connections to a database are a function's, whose Service caps them; the orchestrators have none.
func (o *Orchestrator) executeStatement(ctx context.Context, id ID, e statelang.Effect) statelang.Event {
	input, _ := e.Input.(*jsontree.Object)
	arn, _ := textOf(input, "ResourceArn")
	name := arn[strings.LastIndexByte(arn, ':')+1:]
	if name == "" {
		return failed("RdsData.BadRequestException", "executeStatement needs a ResourceArn: the name of the function that runs statements, or an ARN that ends with it")
	}
	f, ok := o.cfg.Function(id.Machine.Namespace, name)
	if !ok {
		return failed("RdsData.DatabaseNotFoundException", fmt.Sprintf("there is no function %q in the namespace %s, which ResourceArn names", name, id.Machine.Namespace))
	}
	var event statelang.Event
	for range tries(ctx, time.Second, maxBackoff) {
		event = o.function(ctx, id, e, f, input)
		if event.Kind != statelang.Failed || event.Failure.Error == nil || *event.Failure.Error != errInProgress {
			break
		}
		o.again(ctx, errInProgress)
		event = statelang.Event{}
	}
	if event.Kind == statelang.Failed && event.Failure.Error != nil && *event.Failure.Error == errFunctionFailed {
		event.Failure.Error = new("RdsData.RdsDataException") // as the SDK integration calls what has no name of its own
	}
	return event
}
