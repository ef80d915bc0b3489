package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

const (
	// ConditionReady is the one condition of every kind: the resource works as its spec says, or why it doesn't.
	ConditionReady = "Ready"
	// QueueFinalizer keeps a Queue that is being deleted until its streams are gone.
	QueueFinalizer = "weir.dev/queue"
	// DropRecordsAnnotation with the value "true" lets a Queue be deleted with the records that it holds.
	DropRecordsAnnotation = "weir.dev/drop-records"
)

// Status is what the controller says about a resource.
type Status struct {
	// ObservedGeneration is the metadata.generation that Conditions speak of.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// GetStatus is the same for every kind.
func (a *API) GetStatus() *Status { return &a.Status }

// GetStatus is the same for every kind.
func (q *Queue) GetStatus() *Status { return &q.Status.Status }

// GetStatus is the same for every kind.
func (m *EventSourceMapping) GetStatus() *Status { return &m.Status.Status }

// GetStatus is the same for every kind.
func (m *StateMachine) GetStatus() *Status { return &m.Status.Status }
