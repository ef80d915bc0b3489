package orchestrator

import (
	"crypto/sha256"
	"encoding/base64"
	"strconv"

	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/jsontree"
	"github.com/weir-dev/weir/internal/taskapi"
)

// ID names an execution.
type ID = taskapi.ID

// Kinds of keys in a partition's states, besides executions (taskapi.ExecutionKind).
const (
	definitionKind = "d"
	registryKind   = "m"
)

// chunkKey is where sealed lines of an execution are.
func chunkKey(id ID, n int) string {
	return "c" + strconv.Itoa(n) + "-" + id.Key()[len(taskapi.ExecutionKind):]
}

// definitionKey is where a definition is kept beside the executions that began with it.
func definitionKey(text []byte) string {
	sum := sha256.Sum256(text)
	return definitionKind + "." + base64.RawURLEncoding.EncodeToString(sum[:16])
}

// registryKey is where a machine that was put is kept, in partition 0.
func registryKey(k catalog.Key) string { return registryKind + "." + taskapi.Text(k) }

func marshal(v any) ([]byte, error) { return jsontree.Marshal(v) }
