package v1alpha1

import (
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// EventSourceMapping moves records from a queue to a function, in batches, with capped concurrency.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:printcolumn:name="Queue",type=string,JSONPath=`.spec.queue`
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type EventSourceMapping struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec EventSourceMappingSpec `json:"spec"`
	// +optional
	Status Status `json:"status,omitempty"`
}

// EventSourceMappingList is a list of EventSourceMapping.
//
// +kubebuilder:object:root=true
type EventSourceMappingList struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []EventSourceMapping `json:"items"`
}

// EventSourceMappingSpec is what the user wants of an EventSourceMapping.
type EventSourceMappingSpec struct {
	// Queue is the name of a Queue in the same namespace.
	Queue    string            `json:"queue"`
	Function FunctionReference `json:"function"`
	// +optional
	Batch Batch `json:"batch,omitempty"`
	// MaxConcurrency caps the calls in flight, in the whole cluster. Default: containerConcurrency ×
	// max-scale of the Knative Service (package manifest resolves it).
	// +optional
	MaxConcurrency *int32 `json:"maxConcurrency,omitempty"`
	// Timeout of one call. Default 60s.
	// +optional
	Timeout *metav1.Duration `json:"timeout,omitempty"`
	// +optional
	Retry Retry `json:"retry,omitempty"`
	// BisectOnError halves a batch that failed as a whole, down to the record that does the harm.
	// Default false.
	// +optional
	BisectOnError bool `json:"bisectOnError,omitempty"`
}

// Batch bounds one call. A batch is complete at the first bound that is met.
type Batch struct {
	// MaxRecords is at most 10000. Default 100.
	// +optional
	MaxRecords *int32 `json:"maxRecords,omitempty"`
	// MaxBytes bounds the sum of the records' bodies. Default 4Mi.
	// +optional
	MaxBytes *resource.Quantity `json:"maxBytes,omitempty"`
	// Window is how long the first record waits for company. Default 0s: not at all.
	// +optional
	Window *metav1.Duration `json:"window,omitempty"`
}

// Retry is the policy for counted failures; a throttled call never counts.
type Retry struct {
	// MaxAttempts before a record is dead-lettered, the first one included. Default 5.
	// +optional
	MaxAttempts *int32 `json:"maxAttempts,omitempty"`
	// InitialBackoff is the wait after the first failure; it doubles up to MaxBackoff. Default 1s.
	// +optional
	InitialBackoff *metav1.Duration `json:"initialBackoff,omitempty"`
	// MaxBackoff defaults to 5m.
	// +optional
	MaxBackoff *metav1.Duration `json:"maxBackoff,omitempty"`
	// MaxAge of a failed record: an older one is dead-lettered. Default 6h.
	// +optional
	MaxAge *metav1.Duration `json:"maxAge,omitempty"`
}
