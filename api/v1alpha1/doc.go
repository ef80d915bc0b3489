// Package v1alpha1 holds the Kubernetes API types of Weir's resources, group weir.dev: [API], [Queue]
// and [EventSourceMapping]. The same objects come from YAML files (weir local) and from a cluster.
//
// Each kind has three files: <kind>_types.go is its shape, <kind>_defaults.go fills what the user left
// out, <kind>_validation.go refuses what is wrong. Default and Validate look at one object alone: what
// depends on a second object (a reference, a Knative Service's timeout) is package manifest's to check.
// Validate expects a defaulted object and names every mistake with its field and the fix.
//
// May import: k8s.io/apimachinery, the JSON Schema library, and of Weir what judges a single value (internal/arch_test.go).
//
// +kubebuilder:object:generate=true
// +groupName=weir.dev
package v1alpha1
