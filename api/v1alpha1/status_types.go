package v1alpha1

import (
	"cmp"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	// ConditionReady is of every kind: the resource works as its spec says, or why it doesn't.
	ConditionReady = "Ready"
	// ConditionDrained is of a Queue, and of an API with routes that fill queues: somebody takes the records out, or why nobody
	// does. Records are taken in meanwhile, and expire.
	ConditionDrained = "Drained"
	// SharedQueueFinalizer was that of all releases, before each had its own ([QueueFinalizer]).
	SharedQueueFinalizer = "weir.dev/queue"
	// DefaultClass is the class of resources that name none, and of releases that name none.
	DefaultClass = "weir"
	// DropRecordsAnnotation with the value "true" lets a Queue be deleted with the records that it holds.
	DropRecordsAnnotation = "weir.dev/drop-records"
)

// QueueFinalizer keeps a Queue that is being deleted until its streams are gone from a release's NATS.
func QueueFinalizer(releaseNamespace, release string) string {
	return release + "." + releaseNamespace + ".weir.dev/queue"
}

// Status is what the controller says about a resource.
type Status struct {
	// ObservedBy is the release of Weir that serves the resource, as NAMESPACE/NAME. Others leave it alone, also those of the
	// same class.
	// +optional
	ObservedBy string `json:"observedBy,omitempty"`
	// ObservedAt is when that release's controller looked at it lately. It is written anew every ten minutes: an older one
	// means that nobody does any more, and the rest of the status is what was so then.
	// +optional
	ObservedAt *metav1.Time `json:"observedAt,omitempty"`
	// ObservedGeneration is the metadata.generation that Conditions speak of.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// GetStatus is the same for every kind.
func (a *API) GetStatus() *Status { return &a.Status.Status }

// GetStatus is the same for every kind.
func (q *Queue) GetStatus() *Status { return &q.Status.Status }

// GetStatus is the same for every kind.
func (m *EventSourceMapping) GetStatus() *Status { return &m.Status.Status }

// GetStatus is the same for every kind.
func (m *StateMachine) GetStatus() *Status { return &m.Status.Status }

// ClassOf is the class of the releases that may serve the resource.
func (a *API) ClassOf() string { return classOf(a.Spec.Class) }

// ClassOf is the same for every kind.
func (q *Queue) ClassOf() string { return classOf(q.Spec.Class) }

// ClassOf is the same for every kind.
func (m *EventSourceMapping) ClassOf() string { return classOf(m.Spec.Class) }

// ClassOf is the same for every kind.
func (m *StateMachine) ClassOf() string { return classOf(m.Spec.Class) }

func classOf(class string) string { return cmp.Or(class, DefaultClass) }
