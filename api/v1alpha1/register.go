package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// GroupVersion is weir.dev/v1alpha1.
var GroupVersion = schema.GroupVersion{Group: "weir.dev", Version: "v1alpha1"}

var (
	// The names below are those that Kubernetes tooling expects.

	// SchemeBuilder collects what AddToScheme adds.
	SchemeBuilder = runtime.NewSchemeBuilder(addKnownTypes)
	// AddToScheme registers the types of this package in a scheme, such as a Kubernetes client's.
	AddToScheme = SchemeBuilder.AddToScheme
)

func addKnownTypes(s *runtime.Scheme) error {
	s.AddKnownTypes(GroupVersion,
		&API{}, &APIList{},
		&Queue{}, &QueueList{},
		&EventSourceMapping{}, &EventSourceMappingList{},
		&StateMachine{}, &StateMachineList{},
	)
	metav1.AddToGroupVersion(s, GroupVersion)
	return nil
}
