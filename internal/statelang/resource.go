package statelang

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
)

// Resource is what a task calls.
type Resource struct {
	Text string // as in the definition
	Kind ResourceKind
	// Name is the function's or the activity's name, without qualifiers.
	Name string
	// Service and Action name an integration, such as "sqs" and "sendMessage", or "aws-sdk:s3" and "getObject".
	Service, Action string
	Pattern         Pattern
}

// ResourceKind says how a resource is called.
type ResourceKind string

// Kinds of resources.
const (
	Function    ResourceKind = "function"    // by its name
	URL         ResourceKind = "url"         // a function by its address
	Integration ResourceKind = "integration" // of a service
	Activity    ResourceKind = "activity"    // workers ask for it
)

// Pattern is what an integration waits for (user guide, "Service integration patterns").
type Pattern string

// Patterns of integrations.
const (
	RequestResponse  Pattern = ""                 // its answer
	RunToEnd         Pattern = "sync"             // the end of what it started
	RunToEnd2        Pattern = "sync:2"           // the same; the result is JSON and not a text
	WaitForTaskToken Pattern = "waitForTaskToken" // that somebody reports with the token
)

// Waits reports whether the task goes on after the integration's answer.
func (r Resource) Waits() bool { return r.Pattern != RequestResponse || r.Kind == Activity }

// parseResource reads a resource: an ARN of Lambda, Step Functions or an activity, in any partition, region and account; a
// URL; or a bare name of a function.
func parseResource(text string) (Resource, error) {
	r := Resource{Text: text}
	switch {
	case text == "":
		return r, fmt.Errorf("is empty")
	case strings.HasPrefix(text, "http://"), strings.HasPrefix(text, "https://"):
		u, err := url.Parse(text)
		if err != nil || u.Host == "" {
			return r, fmt.Errorf("%q is no URL", text)
		}
		r.Kind = URL
		return r, nil
	case !strings.HasPrefix(text, "arn:"):
		// A name, or what a tool that deploys will put in its place, such as ${functionArn}.
		r.Kind, r.Name = Function, text[strings.LastIndexByte(text, ':')+1:]
		if r.Name == "" {
			return r, fmt.Errorf("%q names nothing after its last colon", text)
		}
		return r, nil
	}
	parts := strings.SplitN(text, ":", 6) // arn:partition:service:region:account:rest
	if len(parts) < 6 || parts[5] == "" {
		return r, fmt.Errorf("%q is no ARN: it has too few parts", text)
	}
	rest := parts[5]
	switch service := parts[2]; {
	case service == "lambda":
		name, ok := strings.CutPrefix(rest, "function:")
		name, qualifier, qualified := strings.Cut(name, ":")
		if !ok || name == "" || qualified && qualifier == "" {
			return r, fmt.Errorf("%q is no ARN of a function: arn:aws:lambda:REGION:ACCOUNT:function:NAME, or NAME:ALIAS", text)
		}
		r.Kind, r.Name = Function, name
	case service == "states" && parts[3] == "" && parts[4] == "":
		return parseIntegration(r, rest)
	case service == "states" && strings.HasPrefix(rest, "activity:"):
		r.Kind, r.Name = Activity, strings.TrimPrefix(rest, "activity:")
		if r.Name == "" {
			return r, fmt.Errorf("%q names no activity", text)
		}
	default:
		r.Kind, r.Name = Function, rest[strings.LastIndexByte(rest, ':')+1:]
		if r.Name == "" {
			return r, fmt.Errorf("%q names nothing after its last colon", text)
		}
	}
	return r, nil
}

func parseIntegration(r Resource, rest string) (Resource, error) {
	r.Kind = Integration
	base, pattern, has := strings.Cut(rest, ".")
	i := strings.LastIndexByte(base, ':')
	if i <= 0 || i == len(base)-1 {
		return r, fmt.Errorf("%q names no action of a service: arn:aws:states:::SERVICE:ACTION", r.Text)
	}
	r.Service, r.Action, r.Pattern = base[:i], base[i+1:], Pattern(pattern)
	if has && !slices.Contains([]Pattern{RunToEnd, RunToEnd2, WaitForTaskToken}, r.Pattern) {
		return r, fmt.Errorf("%q has the unknown pattern %q: sync, sync:2 or waitForTaskToken", r.Text, pattern)
	}
	return r, nil
}
