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
// +kubebuilder:printcolumn:name="Drained",type=string,JSONPath=`.status.conditions[?(@.type=="Drained")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name="Message",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="Ready")].message`
// +kubebuilder:printcolumn:name="Records",type=integer,JSONPath=`.status.depth.records`
// +kubebuilder:printcolumn:name="Oldest",type=string,JSONPath=`.status.depth.oldestAge`
// +kubebuilder:printcolumn:name="In-Flight",type=integer,JSONPath=`.status.depth.inFlight`
// +kubebuilder:printcolumn:name="Retrying",type=integer,JSONPath=`.status.depth.retrying`
// +kubebuilder:printcolumn:name="Dead",type=integer,JSONPath=`.status.depth.dead`
// +kubebuilder:printcolumn:name="MaxBytes",type=string,priority=1,JSONPath=`.spec.maxBytes`
// +kubebuilder:printcolumn:name="Class",type=string,priority=1,JSONPath=`.spec.class`
// +kubebuilder:printcolumn:name="By",type=string,priority=1,JSONPath=`.status.observedBy`
// +kubebuilder:printcolumn:name="Observed",type=date,JSONPath=`.status.observedAt`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:resource:shortName=wq,categories=weir
// +kubebuilder:validation:XValidation:rule="self.metadata.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$') && self.metadata.name.size() <= 63",message="metadata.name must be a DNS-1123 label: at most 63 lower-case letters, digits and '-', no dots"
type Queue struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// +optional
	// +kubebuilder:default={}
	Spec QueueSpec `json:"spec,omitempty"`
	// +optional
	Status QueueStatus `json:"status,omitempty"`
}

// QueueStatus is what the controller says about a Queue.
type QueueStatus struct {
	Status `json:",inline"`
	// Depth is what the queue held lately. It is written when it has changed, at most every half minute.
	// +optional
	Depth *QueueDepth `json:"depth,omitempty"`
}

// QueueDepth is what a queue holds, in records, as weir.queue.* of the metrics and weir queue list say.
type QueueDepth struct {
	// Records wait for their first attempt, or are in it.
	Records int64 `json:"records"`
	// Uncertainty is how far Records may be off.
	// +optional
	Uncertainty int64 `json:"uncertainty,omitempty"`
	// Retrying wait for a later attempt, or are in it.
	Retrying int64 `json:"retrying"`
	// InFlight are those of Records and Retrying that a dispatcher has in its hands: in a call, or waiting for one.
	// +optional
	InFlight int64 `json:"inFlight"`
	// Dead are dead letters.
	Dead int64 `json:"dead"`
	// Bytes at NATS: of all of them.
	Bytes int64 `json:"bytes"`
	// OldestAge is how long ago the block of the oldest of Records was stored.
	OldestAge metav1.Duration `json:"oldestAge"`
	// Owned says whether a dispatcher works on the queue.
	Owned bool `json:"owned"`
	// ObservedAt is when this was so.
	ObservedAt metav1.Time `json:"observedAt"`
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
//
// +kubebuilder:validation:XValidation:rule="!has(self.results) || !has(self.results.maxAge) || !has(self.maxAge) || self.maxAge.matches('[0-9] *[dDwW]') || self.results.maxAge.matches('[0-9] *[dDwW]') || duration(self.results.maxAge) >= duration(self.maxAge)",message="results.maxAge must not be below maxAge: a job without a state counts as queued as long as it may be in the queue"
type QueueSpec struct {
	// Class names the releases of Weir that may serve the resource: those whose controller.class it is. One of them does
	// (status.observedBy). It can't be changed: another release has another NATS, and the records would stay in this one's. Default weir.
	// +optional
	// +kubebuilder:default=weir
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="can't be changed: the records are in the NATS of the release that serves it now; make another Queue of the other class"
	Class string `json:"class,omitempty"`
	// Ordering is none, the default.
	// +optional
	// +kubebuilder:default=none
	Ordering QueueOrdering `json:"ordering,omitempty"`
	// MaxAge is how long a record may wait for its first attempt: an older one is dead-lettered as expired. Default 96h.
	// +optional
	// +kubebuilder:default="96h"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:Pattern=`^(0|([0-9]+(\.[0-9]+)?(ns|us|µs|ms|s|m|h))+)$`
	// +kubebuilder:validation:XValidation:rule="self.matches('[0-9] *[dDwW]') || duration(self) >= duration('1m') && duration(self) <= duration('8760h')",message="must be between 1m and 8760h"
	// +kubebuilder:validation:XValidation:rule="!self.matches('[0-9] *[dDwW]')",message="days and weeks are no units: write hours, such as 96h for 4d"
	MaxAge *metav1.Duration `json:"maxAge,omitempty"`
	// MaxBytes bounds the queue on disk. When it is full the gateway answers 503 and nothing is
	// dropped. Default 10Gi.
	// +optional
	// +kubebuilder:default="10Gi"
	// +kubebuilder:validation:XValidation:rule="quantity(string(self)).isInteger() && quantity(string(self)).compareTo(quantity('8Mi')) >= 0 && quantity(string(self)).compareTo(quantity('64Ti')) <= 0",message="must be a whole number of bytes between 8Mi and 64Ti"
	MaxBytes *resource.Quantity `json:"maxBytes,omitempty"`
	// +optional
	// +kubebuilder:default={}
	DeadLetter DeadLetter `json:"deadLetter,omitempty"`
	// Results is for queues that job routes write to.
	// +optional
	// +kubebuilder:default={}
	Results Results `json:"results,omitempty"`
	// Objects is for the same queues.
	// +optional
	// +kubebuilder:default={}
	Objects Objects `json:"objects,omitempty"`
}

// Objects is where what is too large for a message is kept: results of more than 256 KiB, and uploaded inputs. Each is
// kept for a day longer than an outcome.
type Objects struct {
	// MaxBytes bounds them on disk, in NATS; one may take half of it. When there is no room for one, the upload is
	// refused, or the attempt whose result it is has failed. In S3 half of it bounds each of them, and a quota of the
	// bucket is to bound all. Default 4Gi.
	// +optional
	// +kubebuilder:default="4Gi"
	// +kubebuilder:validation:XValidation:rule="quantity(string(self)).isInteger() && quantity(string(self)).compareTo(quantity('8Mi')) >= 0 && quantity(string(self)).compareTo(quantity('64Ti')) <= 0",message="must be a whole number of bytes between 8Mi and 64Ti"
	MaxBytes *resource.Quantity `json:"maxBytes,omitempty"`
}

// Results is where the states and results of a queue's jobs are kept.
type Results struct {
	// MaxAge is how long a job's outcome is kept, from its last change on. Not below the queue's own maxAge, which is
	// the default.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:Pattern=`^(0|([0-9]+(\.[0-9]+)?(ns|us|µs|ms|s|m|h))+)$`
	// +kubebuilder:validation:XValidation:rule="self.matches('[0-9] *[dDwW]') || duration(self) >= duration('1m') && duration(self) <= duration('8760h')",message="must be between 1m and 8760h"
	// +kubebuilder:validation:XValidation:rule="!self.matches('[0-9] *[dDwW]')",message="days and weeks are no units: write hours, such as 96h for 4d"
	MaxAge *metav1.Duration `json:"maxAge,omitempty"`
	// MaxBytes bounds the outcomes on disk. When it is reached no job of the queue can end, so the queue stands still
	// until outcomes are old enough to go; nothing is lost. Default 4Gi.
	// +optional
	// +kubebuilder:default="4Gi"
	// +kubebuilder:validation:XValidation:rule="quantity(string(self)).isInteger() && quantity(string(self)).compareTo(quantity('8Mi')) >= 0 && quantity(string(self)).compareTo(quantity('64Ti')) <= 0",message="must be a whole number of bytes between 8Mi and 64Ti"
	MaxBytes *resource.Quantity `json:"maxBytes,omitempty"`
}

// DeadLetter is the queue of the records that could not be delivered.
type DeadLetter struct {
	// MaxAge is how long a dead-lettered record is kept. Default 336h.
	// +optional
	// +kubebuilder:default="336h"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:Pattern=`^(0|([0-9]+(\.[0-9]+)?(ns|us|µs|ms|s|m|h))+)$`
	// +kubebuilder:validation:XValidation:rule="self.matches('[0-9] *[dDwW]') || duration(self) >= duration('1m') && duration(self) <= duration('8760h')",message="must be between 1m and 8760h"
	// +kubebuilder:validation:XValidation:rule="!self.matches('[0-9] *[dDwW]')",message="days and weeks are no units: write hours, such as 96h for 4d"
	MaxAge *metav1.Duration `json:"maxAge,omitempty"`
}
