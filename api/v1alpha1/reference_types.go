package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// FunctionReference says where a function answers: exactly one of Name and URL.
type FunctionReference struct {
	// Name of a Knative Service in the same namespace.
	// +optional
	Name string `json:"name,omitempty"`
	// URL of any other HTTP function, such as http://billing.internal:8080/orders.
	// +optional
	URL string `json:"url,omitempty"`
}

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
