package v1alpha1

import (
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// API is a set of HTTP routes that the gateway serves.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type API struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec APISpec `json:"spec"`
	// +optional
	Status Status `json:"status,omitempty"`
}

// APIList is a list of API.
//
// +kubebuilder:object:root=true
type APIList struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []API `json:"items"`
}

// APISpec is what the user wants of an API.
type APISpec struct {
	// Throttle limits the whole API: all routes together. None by default.
	// +optional
	Throttle *Throttle `json:"throttle,omitempty"`
	// +listType=map
	// +listMapKey=name
	Routes []Route `json:"routes"`
}

// Throttle is a token bucket.
type Throttle struct {
	// Rate is in requests a second; fractions such as 0.5 are allowed.
	Rate resource.Quantity `json:"rate"`
	// Burst is the bucket's size: how many requests may come at once.
	Burst int32 `json:"burst"`
}

// Route says what happens to the requests that match: exactly one of Queue and Function.
type Route struct {
	// Name is unique within the API.
	Name  string     `json:"name"`
	Match RouteMatch `json:"match"`
	// Throttle limits this route, within the API's own throttle. None by default.
	// +optional
	Throttle *Throttle `json:"throttle,omitempty"`
	// MaxBodyBytes bounds the request's body. Default 262144.
	// +optional
	MaxBodyBytes *resource.Quantity `json:"maxBodyBytes,omitempty"`
	// Schema is a JSON Schema (2020-12 unless $schema says another draft) of the request's body.
	// +optional
	// +kubebuilder:pruning:PreserveUnknownFields
	Schema *runtime.RawExtension `json:"schema,omitempty"`
	// Queue makes the route a buffered write: 202 once the request is durable in the queue.
	// +optional
	Queue *RouteQueue `json:"queue,omitempty"`
	// Function makes the route a synchronous call: the function's answer is the client's.
	// +optional
	Function *RouteFunction `json:"function,omitempty"`
}

// RouteMatch selects requests.
type RouteMatch struct {
	// Method is an HTTP method in capitals. GET matches HEAD too.
	Method string `json:"method"`
	// Path is a net/http.ServeMux path pattern without method and host, such as /orders/{id}.
	Path string `json:"path"`
}

// RouteQueue names the queue of a buffered write.
type RouteQueue struct {
	// Name of a Queue in the same namespace.
	Name string `json:"name"`
}

// RouteFunction names the function of a synchronous call.
type RouteFunction struct {
	FunctionReference `json:",inline"`
	// Timeout is how long the client waits at most before it gets a 504. Default 29s.
	// +optional
	Timeout *metav1.Duration `json:"timeout,omitempty"`
}
