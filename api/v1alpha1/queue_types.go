package v1alpha1

import (
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Queue is a durable buffer with a dead-letter queue.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type Queue struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// +optional
	Spec QueueSpec `json:"spec,omitempty"`
	// +optional
	Status Status `json:"status,omitempty"`
}

// QueueList is a list of Queue.
//
// +kubebuilder:object:root=true
type QueueList struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []Queue `json:"items"`
}

// QueueOrdering says in which order records leave a queue.
//
// +kubebuilder:validation:Enum=none
type QueueOrdering string

const (
	// OrderingNone is best effort: records leave about in the order in which they came.
	OrderingNone QueueOrdering = "none"
	// orderingKey is in the design but not built yet: Validate refuses it by name.
	orderingKey QueueOrdering = "key"
)

// QueueSpec is what the user wants of a Queue.
type QueueSpec struct {
	// Ordering is none, the default.
	// +optional
	Ordering QueueOrdering `json:"ordering,omitempty"`
	// MaxAge is how long a record may stay. Default 96h.
	// +optional
	MaxAge *metav1.Duration `json:"maxAge,omitempty"`
	// MaxBytes bounds the queue on disk. When it is full the gateway answers 503 and nothing is
	// dropped. Default 10Gi.
	// +optional
	MaxBytes *resource.Quantity `json:"maxBytes,omitempty"`
	// +optional
	DeadLetter DeadLetter `json:"deadLetter,omitempty"`
}

// DeadLetter is the queue of the records that could not be delivered.
type DeadLetter struct {
	// MaxAge is how long a dead-lettered record is kept. Default 336h.
	// +optional
	MaxAge *metav1.Duration `json:"maxAge,omitempty"`
}
