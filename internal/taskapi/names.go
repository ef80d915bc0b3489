package taskapi

import (
	"encoding/base64"
	"errors"
	"fmt"
	"hash/fnv"
	"strings"
	"unicode/utf8"

	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/record"
	"github.com/weir-dev/weir/internal/stream"
)

// Names of state machines, activities and executions.
const (
	maxName = 80 // of any of them
	// DefaultNamespace is that of machines and activities that are given a bare name.
	DefaultNamespace = "default"
	// ARNPartition is where AWS has its partition: ours.
	ARNPartition = "weir"
)

var (
	errName          = errors.New("the name of a state machine or an activity has 1 to 80 letters, digits, - and _")
	errExecutionName = errors.New("the name of an execution has 1 to 80 characters, none of them a blank, a control character or one of <>{}[]?*\"#%\\^|~`$&,;:/")
	errExecutionID   = errors.New("an execution's id is MACHINE:NAME, or its ARN")
)

// ParseMachine reads NAME or NAMESPACE/NAME of a state machine, or its ARN.
func ParseMachine(text string) (catalog.Key, error) {
	return parse(text, "stateMachine", DefaultNamespace)
}

// ParseActivity is ParseMachine of an activity. A name without a namespace is in the one that is given, as is another's ARN.
func ParseActivity(text, namespace string) (catalog.Key, error) {
	return parse(text, "activity", namespace)
}

func parse(text, kind, namespace string) (catalog.Key, error) {
	if rest, ok := strings.CutPrefix(text, "arn:"); ok { // arn:PARTITION:states:REGION:NAMESPACE:KIND:NAME
		parts := strings.Split(rest, ":")
		if len(parts) < 6 || parts[1] != "states" || parts[4] != kind {
			return catalog.Key{}, fmt.Errorf("%q is no ARN of the kind %s", text, kind)
		}
		text = parts[5]
		if parts[0] == ARNPartition {
			text = parts[3] + "/" + text
		}
	}
	k := catalog.Key{Namespace: namespace, Name: text}
	if namespace, name, ok := strings.Cut(text, "/"); ok {
		k = catalog.Key{Namespace: namespace, Name: name}
	}
	if !token(k.Name) || !token(k.Namespace) {
		return k, errName
	}
	return k, nil
}

// MachineARN is a state machine's.
func MachineARN(k catalog.Key) string { return arn(k, "stateMachine") }

// ActivityARN is an activity's.
func ActivityARN(k catalog.Key) string { return arn(k, "activity") }

func arn(k catalog.Key, kind string) string {
	return "arn:" + ARNPartition + ":states::" + k.Namespace + ":" + kind + ":" + k.Name
}

// Text is a name in one word, as a subject and a key have it: NAMESPACE=NAME.
func Text(k catalog.Key) string { return k.Namespace + "=" + k.Name }

// KeyOf reads Text.
func KeyOf(text string) (k catalog.Key, ok bool) {
	k.Namespace, k.Name, ok = strings.Cut(text, "=")
	return k, ok && token(k.Namespace) && token(k.Name)
}

// ID names an execution.
type ID struct {
	Machine catalog.Key
	Name    string
}

// ParseID reads MACHINE:NAME, or an execution's ARN.
func ParseID(text string) (ID, error) {
	if rest, ok := strings.CutPrefix(text, "arn:"+ARNPartition+":states::"); ok {
		namespace, rest, _ := strings.Cut(rest, ":")
		rest, ok = strings.CutPrefix(rest, "execution:")
		if !ok {
			return ID{}, errExecutionID
		}
		text = namespace + "/" + rest
	}
	machine, name, ok := strings.Cut(text, ":")
	if !ok {
		return ID{}, errExecutionID
	}
	k, err := ParseMachine(machine)
	if err != nil {
		return ID{}, err
	}
	return ID{k, name}, CheckName(name)
}

// String is what the API calls the execution.
func (id ID) String() string {
	if id.Machine.Namespace == DefaultNamespace {
		return id.Machine.Name + ":" + id.Name
	}
	return id.Machine.String() + ":" + id.Name
}

// ARN is what the execution calls itself.
func (id ID) ARN() string {
	return "arn:" + ARNPartition + ":states::" + id.Machine.Namespace + ":execution:" + id.Machine.Name + ":" + id.Name
}

// CheckName says why a text is no name of an execution; nil if it is one.
func CheckName(name string) error {
	if n := utf8.RuneCountInString(name); n == 0 || n > maxName || !utf8.ValidString(name) ||
		strings.ContainsAny(name, " <>{}[]?*\"#%\\^|~`$&,;:/") || strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r >= 0x7f && r < 0xa0 }) {
		return errExecutionName
	}
	return nil
}

// ExecutionKind begins the key of an execution among its partition's states.
const ExecutionKind = "x-"

// Key is the execution's in its partition's states.
func (id ID) Key() string { return ExecutionKind + Text(id.Machine) + "." + nameToken(id.Name) }

// KeysOf is what the keys of all executions of a machine have in common, with a wildcard.
func KeysOf(machine catalog.Key) string { return ExecutionKind + Text(machine) + ".*" }

// Partition is the log that has the execution.
func (id ID) Partition() catalog.Key { return PartitionOf(id.Key()) }

// PartitionOf is the log that has a key.
func PartitionOf(key string) catalog.Key {
	h := fnv.New32a()
	_, _ = h.Write([]byte(key)) // a hash takes all
	return stream.MachinePartition(int(h.Sum32() % stream.MachinePartitions))
}

// IDOf reads a key of an execution; ok is false if it is another's.
func IDOf(key string) (id ID, ok bool) {
	machine, name, ok := strings.Cut(key, ".")
	machine, isExecution := strings.CutPrefix(machine, ExecutionKind)
	namespace, machine, hasName := strings.Cut(machine, "=")
	if !ok || !isExecution || !hasName {
		return ID{}, false
	}
	if coded, ok := strings.CutPrefix(name, "~"); ok {
		b, err := base64.RawURLEncoding.DecodeString(coded)
		if err != nil {
			return ID{}, false
		}
		name = string(b)
	} else if coded, ok := strings.CutPrefix(name, "="); ok {
		b, err := base64.RawURLEncoding.DecodeString(coded)
		if err != nil || len(b) != len(record.ID{}) {
			return ID{}, false
		}
		name = record.ID(b).String()
	}
	return ID{catalog.Key{Namespace: namespace, Name: machine}, name}, true
}

// nameToken is a name as a token of a subject. That of a UUID, which most have, is short: NATS has it in memory several times.
func nameToken(name string) string {
	if id, err := record.ParseID(name); err == nil && id.String() == name {
		return "=" + base64.RawURLEncoding.EncodeToString(id[:])
	}
	if token(name) {
		return name
	}
	return "~" + base64.RawURLEncoding.EncodeToString([]byte(name))
}

// token reports whether text may be a name that stands in a subject as it is.
func token(text string) bool {
	return text != "" && len(text) <= maxName && !strings.ContainsFunc(text, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_'
	})
}
