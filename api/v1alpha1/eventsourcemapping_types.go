package v1alpha1

import (
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// EventSourceMapping moves records from a queue to a function, in batches, with capped concurrency; or starts an execution
// of a StateMachine for each.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:printcolumn:name="Queue",type=string,JSONPath=`.spec.queue`
// +kubebuilder:printcolumn:name="Calls",type=integer,JSONPath=`.status.calls`
// +kubebuilder:printcolumn:name="Cap",type=integer,JSONPath=`.status.maxConcurrency`
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name="Message",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="Ready")].message`
// +kubebuilder:printcolumn:name="Class",type=string,priority=1,JSONPath=`.spec.class`
// +kubebuilder:printcolumn:name="By",type=string,priority=1,JSONPath=`.status.observedBy`
// +kubebuilder:printcolumn:name="Observed",type=date,JSONPath=`.status.observedAt`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:resource:shortName=esm,categories=weir
// +kubebuilder:validation:XValidation:rule="self.metadata.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$') && self.metadata.name.size() <= 63",message="metadata.name must be a DNS-1123 label: at most 63 lower-case letters, digits and '-', no dots"
type EventSourceMapping struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec EventSourceMappingSpec `json:"spec"`
	// +optional
	Status EventSourceMappingStatus `json:"status,omitempty"`
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

// EventSourceMappingSpec is what the user wants of an EventSourceMapping: exactly one of Function and StateMachine.
//
// +kubebuilder:validation:XValidation:rule="has(self.function) != has(self.stateMachine)",message="say where the records go: exactly one of function and stateMachine"
// +kubebuilder:validation:XValidation:rule="!has(self.function) || has(self.function.name) || has(self.maxConcurrency)",message="maxConcurrency is missing: a function given by url has no Service to take the cap from; say how many calls may run at once, such as maxConcurrency: 10"
type EventSourceMappingSpec struct {
	// Class names the releases of Weir that may serve the resource: those whose controller.class it is. One of them does
	// (status.observedBy). Default weir.
	// +optional
	// +kubebuilder:default=weir
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`
	Class string `json:"class,omitempty"`
	// Queue is the name of a Queue in the same namespace.
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`
	Queue string `json:"queue"`
	// Function gets the records.
	// +optional
	Function *FunctionReference `json:"function,omitempty"`
	// StateMachine gets an execution for each record: its name is the record's id, its input the body. A job has ended when
	// its execution has, and is not attempted again then: the machine's own Retry is for that.
	// +optional
	StateMachine *StateMachineReference `json:"stateMachine,omitempty"`
	// +optional
	// +kubebuilder:default={}
	Batch Batch `json:"batch,omitempty"`
	// MaxConcurrency caps the calls in flight, in the whole cluster. Default: containerConcurrency ×
	// max-scale of the Knative Service. Of a StateMachine these are starts; executions that
	// run are not counted. Default 100 then.
	// +optional
	// +kubebuilder:validation:Minimum=1
	MaxConcurrency *int32 `json:"maxConcurrency,omitempty"`
	// Timeout of one call. Default 60s.
	// +optional
	// +kubebuilder:default="60s"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:Pattern=`^(0|([0-9]+(\.[0-9]+)?(ns|us|µs|ms|s|m|h))+)$`
	// +kubebuilder:validation:XValidation:rule="self.matches('[0-9] *[dDwW]') || duration(self) >= duration('100ms') && duration(self) <= duration('15m')",message="must be between 100ms and 15m"
	// +kubebuilder:validation:XValidation:rule="!self.matches('[0-9] *[dDwW]')",message="days and weeks are no units: write hours, such as 96h for 4d"
	Timeout *metav1.Duration `json:"timeout,omitempty"`
	// Heartbeat is for jobs whose function answers 202 and goes on: the attempt has failed when it reports nothing for
	// so long. Default 60s. An execution of a StateMachine needs none.
	// +optional
	// +kubebuilder:default="60s"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:Pattern=`^(0|([0-9]+(\.[0-9]+)?(ns|us|µs|ms|s|m|h))+)$`
	// +kubebuilder:validation:XValidation:rule="self.matches('[0-9] *[dDwW]') || duration(self) >= duration('1s') && duration(self) <= duration('24h')",message="must be between 1s and 24h"
	// +kubebuilder:validation:XValidation:rule="!self.matches('[0-9] *[dDwW]')",message="days and weeks are no units: write hours, such as 96h for 4d"
	Heartbeat *metav1.Duration `json:"heartbeat,omitempty"`
	// +optional
	// +kubebuilder:default={}
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
	// +kubebuilder:default=100
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=10000
	MaxRecords *int32 `json:"maxRecords,omitempty"`
	// MaxBytes bounds the sum of the records' bodies. Default 4Mi.
	// +optional
	// +kubebuilder:default="4Mi"
	// +kubebuilder:validation:XValidation:rule="quantity(string(self)).isInteger() && quantity(string(self)).compareTo(quantity('1Ki')) >= 0 && quantity(string(self)).compareTo(quantity('32Mi')) <= 0",message="must be a whole number of bytes between 1Ki and 32Mi"
	MaxBytes *resource.Quantity `json:"maxBytes,omitempty"`
	// Window is how long the first record waits for company. Default 0s: not at all.
	// +optional
	// +kubebuilder:default="0s"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:Pattern=`^(0|([0-9]+(\.[0-9]+)?(ns|us|µs|ms|s|m|h))+)$`
	// +kubebuilder:validation:XValidation:rule="self.matches('[0-9] *[dDwW]') || duration(self) >= duration('0s') && duration(self) <= duration('5m')",message="must be between 0s and 5m"
	// +kubebuilder:validation:XValidation:rule="!self.matches('[0-9] *[dDwW]')",message="days and weeks are no units: write hours, such as 96h for 4d"
	Window *metav1.Duration `json:"window,omitempty"`
}

// Retry is the policy for counted failures; a throttled call never counts.
//
// +kubebuilder:validation:XValidation:rule="!has(self.initialBackoff) || !has(self.maxBackoff) || self.initialBackoff.matches('[0-9] *[dDwW]') || self.maxBackoff.matches('[0-9] *[dDwW]') || duration(self.initialBackoff) <= duration(self.maxBackoff)",message="maxBackoff must not be below initialBackoff"
type Retry struct {
	// MaxAttempts before a record is dead-lettered, the first one included. Default 5.
	// +optional
	// +kubebuilder:default=5
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=1000
	MaxAttempts *int32 `json:"maxAttempts,omitempty"`
	// InitialBackoff is the wait after the first failure; it doubles up to MaxBackoff. Default 1s.
	// +optional
	// +kubebuilder:default="1s"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:Pattern=`^(0|([0-9]+(\.[0-9]+)?(ns|us|µs|ms|s|m|h))+)$`
	// +kubebuilder:validation:XValidation:rule="self.matches('[0-9] *[dDwW]') || duration(self) >= duration('1ms') && duration(self) <= duration('24h')",message="must be between 1ms and 24h"
	// +kubebuilder:validation:XValidation:rule="!self.matches('[0-9] *[dDwW]')",message="days and weeks are no units: write hours, such as 96h for 4d"
	InitialBackoff *metav1.Duration `json:"initialBackoff,omitempty"`
	// MaxBackoff defaults to 5m.
	// +optional
	// +kubebuilder:default="5m"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:Pattern=`^(0|([0-9]+(\.[0-9]+)?(ns|us|µs|ms|s|m|h))+)$`
	// +kubebuilder:validation:XValidation:rule="self.matches('[0-9] *[dDwW]') || duration(self) >= duration('1ms') && duration(self) <= duration('24h')",message="must be between 1ms and 24h"
	// +kubebuilder:validation:XValidation:rule="!self.matches('[0-9] *[dDwW]')",message="days and weeks are no units: write hours, such as 96h for 4d"
	MaxBackoff *metav1.Duration `json:"maxBackoff,omitempty"`
	// MaxAge of a failed record: an older one is dead-lettered. Default 6h.
	// +optional
	// +kubebuilder:default="6h"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:Pattern=`^(0|([0-9]+(\.[0-9]+)?(ns|us|µs|ms|s|m|h))+)$`
	// +kubebuilder:validation:XValidation:rule="self.matches('[0-9] *[dDwW]') || duration(self) >= duration('1ms') && duration(self) <= duration('8760h')",message="must be between 1ms and 8760h"
	// +kubebuilder:validation:XValidation:rule="!self.matches('[0-9] *[dDwW]')",message="days and weeks are no units: write hours, such as 96h for 4d"
	MaxAge *metav1.Duration `json:"maxAge,omitempty"`
	// PermanentStatuses are the HTTP statuses of the function after which a record gets no further attempt. Default: 4xx but
	// 404, 408, 409, 421, 423, 425 and 429.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=100
	// +kubebuilder:validation:items:Minimum=400
	// +kubebuilder:validation:items:Maximum=599
	// +kubebuilder:validation:XValidation:rule="!(429 in self) && !(503 in self)",message="429 and 503 mean not now: no attempt is counted for them"
	PermanentStatuses []int32 `json:"permanentStatuses,omitempty"`
}

// EventSourceMappingStatus is what the controller says about an EventSourceMapping.
type EventSourceMappingStatus struct {
	Status `json:",inline"`
	// MaxConcurrency is the cap that holds: the mapping's own, or that of its Knative Service.
	// +optional
	MaxConcurrency int32 `json:"maxConcurrency,omitempty"`
	// Calls are in flight, as of when the queue's depth was looked at (status.depth.observedAt of the Queue).
	// +optional
	Calls int32 `json:"calls"`
	// FunctionURL is where the records are sent; of a StateMachine to the orchestrator.
	// +optional
	FunctionURL string `json:"functionURL,omitempty"`
}
