// Package integration knows which resources a task of a state machine may name, so that a definition is judged alike wherever
// it is read: by the orchestrator, which calls them, by the controller and by weir.
//
// Invariant: what Supports lets pass the orchestrator can call, and nothing else (its tests hold it).
//
// May import: statelang.
package integration

import (
	"fmt"
	"slices"
	"strings"

	"github.com/weir-dev/weir/internal/statelang"
)

// Action is an action of a service that a state may call directly, and the patterns in which it may.
type Action struct {
	Service, Action string
	Patterns        []statelang.Pattern
}

// Names of activities, as package taskapi takes them.
const (
	maxActivityName = 161
	nameChars       = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_/" // NAMESPACE/NAME names another namespace
)

// Actions are all of them.
func Actions() []Action {
	once := []statelang.Pattern{statelang.RequestResponse}
	reported := []statelang.Pattern{statelang.RequestResponse, statelang.WaitForTaskToken}
	return []Action{
		{"lambda", "invoke", reported},
		{"sqs", "sendMessage", reported},
		{"states", "startExecution", []statelang.Pattern{
			statelang.RequestResponse, statelang.RunToEnd, statelang.RunToEnd2, statelang.WaitForTaskToken,
		}},
		{"batch", "submitJob", []statelang.Pattern{statelang.RequestResponse, statelang.RunToEnd}},
		{"http", "invoke", once},
		{"jobs", "waitForListener", once}, // arn:weir:states:::jobs:…
		{"jobs", "sendToListener", once},
		{"s3", "getObject", once},
		{"s3", "putObject", once},
		{"aws-sdk:s3", "getObject", once},
		{"aws-sdk:s3", "putObject", once},
		{"dynamodb", "getItem", once},
		{"dynamodb", "putItem", once},
		{"dynamodb", "updateItem", once},
		{"dynamodb", "deleteItem", once},
		{"aws-sdk:dynamodb", "getItem", once},
		{"aws-sdk:dynamodb", "putItem", once},
		{"aws-sdk:dynamodb", "updateItem", once},
		{"aws-sdk:dynamodb", "deleteItem", once},
		{"rds-data", "executeStatement", once},
		{"aws-sdk:rdsdata", "executeStatement", once},
		{"aws-sdk:sfn", "startExecution", once},
		{"aws-sdk:sfn", "sendTaskSuccess", once},
		{"aws-sdk:sfn", "sendTaskFailure", once},
		{"aws-sdk:sfn", "sendTaskHeartbeat", once},
	}
}

// Supports says why a resource can't be called; nil if it can.
func Supports(r statelang.Resource) error {
	switch r.Kind {
	case statelang.Function, statelang.URL:
		return nil
	case statelang.Activity:
		if len(r.Name) > maxActivityName || strings.Trim(r.Name, nameChars) != "" {
			return fmt.Errorf("%q: the name of an activity has letters, digits, - and _", r.Name)
		}
		return nil
	}
	actions := Actions()
	i := slices.IndexFunc(actions, func(a Action) bool { return a.Service == r.Service && a.Action == r.Action })
	if i < 0 {
		return fmt.Errorf("%s is not served: a function by its name, its ARN or its URL, or an integration that docs/state-machines.md lists", r.Text)
	}
	if !slices.Contains(actions[i].Patterns, r.Pattern) {
		return fmt.Errorf("%s:%s does not know the pattern .%s", r.Service, r.Action, r.Pattern)
	}
	return nil
}

// FunctionOf is the name of the function that a state calls, as far as its definition tells: empty if it calls none, one by its
// URL, or one that its data name.
func FunctionOf(s *statelang.State) string {
	r, _ := s.Resource()
	switch {
	case r.Kind == statelang.Function:
		return r.Name
	case r.Kind == statelang.Integration && r.Service == "lambda":
		v, _ := s.Argument("FunctionName")
		text, _ := v.(string)
		return NameAfter(":function:", text)
	}
	return ""
}

// NameAfter is the name in an ARN, which follows mark there, or in NAME:ALIAS.
func NameAfter(mark, text string) string {
	if _, rest, ok := strings.Cut(text, mark); ok {
		text = rest
	}
	name, _, _ := strings.Cut(text, ":")
	return name
}
