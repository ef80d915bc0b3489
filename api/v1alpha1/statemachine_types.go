package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// StateMachine calls functions and queues in order, in parallel, with waits, retries and error handling, in the Amazon
// States Language. A running execution keeps the definition that it was started with.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:printcolumn:name="Type",type=string,JSONPath=`.spec.type`
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name="Message",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="Ready")].message`
// +kubebuilder:printcolumn:name="Class",type=string,priority=1,JSONPath=`.spec.class`
// +kubebuilder:printcolumn:name="By",type=string,priority=1,JSONPath=`.status.observedBy`
// +kubebuilder:printcolumn:name="Observed",type=date,JSONPath=`.status.observedAt`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:resource:shortName=wsm,categories=weir
// +kubebuilder:validation:XValidation:rule="self.metadata.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$') && self.metadata.name.size() <= 63",message="metadata.name must be a DNS-1123 label: at most 63 lower-case letters, digits and '-', no dots"
type StateMachine struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec StateMachineSpec `json:"spec"`
	// +optional
	Status StateMachineStatus `json:"status,omitempty"`
}

// StateMachineList is a list of StateMachine.
//
// +kubebuilder:object:root=true
type StateMachineList struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []StateMachine `json:"items"`
}

// StateMachineType is how executions run.
//
// +kubebuilder:validation:Enum=STANDARD;EXPRESS
type StateMachineType string

const (
	// StandardMachine has durable executions of up to a year.
	StandardMachine StateMachineType = "STANDARD"
	// ExpressMachine has executions in memory, of five minutes at most.
	ExpressMachine StateMachineType = "EXPRESS"
)

// StateMachineSpec is what the user wants of a StateMachine: exactly one of Definition and DefinitionString.
//
// +kubebuilder:validation:XValidation:rule="has(self.definition) != has(self.definitionString)",message="say exactly one of definition and definitionString"
type StateMachineSpec struct {
	// Class names the releases of Weir that may serve the resource: those whose controller.class it is. One of them does
	// (status.observedBy). Default weir.
	// +optional
	// +kubebuilder:default=weir
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`
	Class string `json:"class,omitempty"`
	// Type is STANDARD, durable, or EXPRESS, in memory. Default STANDARD.
	// +optional
	// +kubebuilder:default=STANDARD
	Type StateMachineType `json:"type,omitempty"`
	// Definition is in the Amazon States Language, such as {StartAt: Work, States: {Work: {Type: Task, Resource: report, End:
	// true}}}. A Task's Resource is the name or the Lambda ARN of a function, or an integration.
	// +optional
	// +kubebuilder:pruning:PreserveUnknownFields
	// +kubebuilder:validation:Type=object
	Definition *runtime.RawExtension `json:"definition,omitempty"`
	// DefinitionString is the same as a text that holds JSON, as it was exported from AWS.
	// +optional
	// +kubebuilder:validation:MaxLength=1048576
	DefinitionString string `json:"definitionString,omitempty"`
}

// StateMachineStatus is what the controller says about a StateMachine.
type StateMachineStatus struct {
	Status `json:",inline"`
	// StateMachineARN is what startExecution of another machine and programs of AWS's SDK call it.
	// +optional
	StateMachineARN string `json:"stateMachineArn,omitempty"`
}

// StateMachineReference names a StateMachine of the same namespace.
type StateMachineReference struct {
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`
	Name string `json:"name"`
}
