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
// +kubebuilder:printcolumn:name="Routes",type=integer,JSONPath=`.status.routes`
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Drained",type=string,JSONPath=`.status.conditions[?(@.type=="Drained")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name="Message",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="Ready")].message`
// +kubebuilder:printcolumn:name="Class",type=string,priority=1,JSONPath=`.spec.class`
// +kubebuilder:printcolumn:name="By",type=string,priority=1,JSONPath=`.status.observedBy`
// +kubebuilder:printcolumn:name="Observed",type=date,JSONPath=`.status.observedAt`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:resource:shortName=wapi,categories=weir
// +kubebuilder:validation:XValidation:rule="self.metadata.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$') && self.metadata.name.size() <= 63",message="metadata.name must be a DNS-1123 label: at most 63 lower-case letters, digits and '-', no dots"
type API struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec APISpec `json:"spec"`
	// +optional
	Status APIStatus `json:"status,omitempty"`
}

// APIStatus is what the controller says about an API.
type APIStatus struct {
	Status `json:",inline"`
	// Routes are how many are served.
	// +optional
	Routes int32 `json:"routes,omitempty"`
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

// APISpec is what the user wants of an API. What rules over each of a thousand routes would cost the API server too
// much, quantities above all, the controller checks and says in the status.
//
// +kubebuilder:validation:XValidation:rule="!has(self.throttle) || quantity(string(self.throttle.rate)).isGreaterThan(quantity('0')) && quantity(string(self.throttle.rate)).compareTo(quantity('10M')) <= 0",message="throttle.rate must be greater than 0 and at most 10M requests a second; remove throttle for no limit"
type APISpec struct {
	// Class names the releases of Weir that may serve the resource: those whose controller.class it is. One of them does
	// (status.observedBy). Default weir.
	// +optional
	// +kubebuilder:default=weir
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`
	Class string `json:"class,omitempty"`
	// Throttle limits the whole API: all routes together. None by default.
	// +optional
	Throttle *Throttle `json:"throttle,omitempty"`
	// CORS lets pages of other origins use the API, and Weir's own paths. By default none may.
	// +optional
	CORS *CORS `json:"cors,omitempty"`
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=1000
	Routes []Route `json:"routes"`
}

// CORS says which pages of other origins may use an API (WHATWG Fetch, section 3.2). What Weir's own headers need is
// allowed and exposed without being named.
//
// +kubebuilder:validation:XValidation:rule="!has(self.credentials) || !self.credentials || !self.origins.exists(o, o == '*')",message="with credentials the origins must be named: remove '*', or credentials"
type CORS struct {
	// Origins are the pages' origins, such as https://shop.example, with at most one * in it, as in https://*.shop.example;
	// or * for all.
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MaxLength=253
	Origins []string `json:"origins"`
	// Methods of requests. By default those of the API's routes.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:items:MaxLength=16
	Methods []string `json:"methods,omitempty"`
	// Headers are those that requests may have beyond Weir's own, such as Authorization.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MaxLength=128
	Headers []string `json:"headers,omitempty"`
	// ExposeHeaders are those of answers that pages may read beyond Weir's own.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MaxLength=128
	ExposeHeaders []string `json:"exposeHeaders,omitempty"`
	// Credentials lets requests have cookies and client certificates.
	// +optional
	Credentials bool `json:"credentials,omitempty"`
	// MaxAge is how long a browser may remember what it was told. Default 10m.
	// +optional
	// +kubebuilder:default="10m"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:Pattern=`^(0|([0-9]+(\.[0-9]+)?(ns|us|µs|ms|s|m|h))+)$`
	// +kubebuilder:validation:XValidation:rule="self.matches('[0-9] *[dDwW]') || duration(self) >= duration('0s') && duration(self) <= duration('24h')",message="must be between 0s and 24h"
	// +kubebuilder:validation:XValidation:rule="!self.matches('[0-9] *[dDwW]')",message="days and weeks are no units: write hours, such as 96h for 4d"
	MaxAge *metav1.Duration `json:"maxAge,omitempty"`
}

// Throttle is a token bucket.
type Throttle struct {
	// Rate is in requests a second; fractions such as 0.5 are allowed.
	Rate resource.Quantity `json:"rate"`
	// Burst is the bucket's size: how many requests may come at once.
	// +kubebuilder:validation:Minimum=1
	Burst int32 `json:"burst"`
}

// Route says what happens to the requests that match: exactly one of Queue, Job and Function.
//
// +kubebuilder:validation:XValidation:rule="(has(self.queue) ? 1 : 0) + (has(self.job) ? 1 : 0) + (has(self.function) ? 1 : 0) == 1",message="say where the requests go: exactly one of queue, job and function"
// +kubebuilder:validation:XValidation:rule="!has(self.queue) && !has(self.job) || self.match.method in ['POST', 'PUT', 'PATCH', 'DELETE']",message="a buffered write or a job needs a method whose requests have a body: POST, PUT, PATCH or DELETE"
// +kubebuilder:validation:XValidation:rule="!has(self.schema) || !has(self.job) || !has(self.job.maxUploadBytes)",message="what is uploaded is not checked against a schema: remove schema or job.maxUploadBytes"
// +kubebuilder:validation:XValidation:rule="!has(self.function) || !has(self.attributes) && !has(self.required)",message="attributes are of events: a synchronous call has the request itself; remove attributes and required"
// +kubebuilder:validation:XValidation:rule="!has(self.contentTypes) || self.match.method in ['POST', 'PUT', 'PATCH', 'DELETE']",message="a request of this method has no body: remove contentTypes, or use POST, PUT, PATCH or DELETE"
// +kubebuilder:validation:XValidation:rule="!has(self.schema) || self.match.method in ['POST', 'PUT', 'PATCH', 'DELETE']",message="a request of this method has no body to check: remove the schema, or use POST, PUT, PATCH or DELETE"
type Route struct {
	// Name is unique within the API.
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`
	Name  string     `json:"name"`
	Match RouteMatch `json:"match"`
	// Throttle limits this route, within the API's own throttle. None by default.
	// +optional
	Throttle *Throttle `json:"throttle,omitempty"`
	// MaxBodyBytes bounds the request's body. Default 262144.
	// +optional
	// +kubebuilder:default="256Ki"
	MaxBodyBytes *resource.Quantity `json:"maxBodyBytes,omitempty"`
	// ContentTypes are the media types that a body may have, such as application/json, text/* or application/*+json: any
	// other is refused with 415. Case and parameters make no difference. By default all may be sent.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:items:MaxLength=128
	ContentTypes []string `json:"contentTypes,omitempty"`
	// MaxDepth bounds how deeply the objects and arrays of a JSON body are nested. Default 128.
	// +optional
	// +kubebuilder:default=128
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=1000
	MaxDepth *int32 `json:"maxDepth,omitempty"`
	// Schema is a JSON Schema (2020-12 unless $schema says another draft) of the request's body.
	// +optional
	// +kubebuilder:pruning:PreserveUnknownFields
	// +kubebuilder:validation:Type=object
	Schema *runtime.RawExtension `json:"schema,omitempty"`
	// Attributes name values of the request that travel with its event as CloudEvents extension attributes, such as
	// {customer: path.id, tenant: header.X-Tenant, lang: query.lang, sku: "body:/sku"}. A name has at most 20 lower-case
	// letters and digits. Of buffered writes and jobs.
	// +optional
	// +kubebuilder:validation:MaxProperties=32
	Attributes map[string]AttributeSource `json:"attributes,omitempty"`
	// Required are the attributes without which a request is refused.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:items:MaxLength=20
	Required []string `json:"required,omitempty"`
	// Queue makes the route a buffered write: 202 once the request is durable in the queue.
	// +optional
	Queue *RouteQueue `json:"queue,omitempty"`
	// Job makes the route an asynchronous request: 202 with the job's address once the request is durable; the
	// client asks there for the outcome.
	// +optional
	Job *RouteJob `json:"job,omitempty"`
	// Function makes the route a synchronous call: the function's answer is the client's.
	// +optional
	Function *RouteFunction `json:"function,omitempty"`
}

// AttributeSource says where an attribute's value comes from: path.NAME, query.NAME, header.NAME or body:/json/pointer.
//
// +kubebuilder:validation:MaxLength=256
// +kubebuilder:validation:Pattern=`^(path\..+|query\..+|header\..+|body:.*)$`
type AttributeSource string

// RouteMatch selects requests.
type RouteMatch struct {
	// Method is an HTTP method in capitals. GET matches HEAD too.
	// +kubebuilder:validation:Enum=GET;HEAD;POST;PUT;PATCH;DELETE;OPTIONS
	Method string `json:"method"`
	// Host is that of the requests, in lower case and without a port, such as shop.example. By default requests to every host
	// match, unless another route of theirs names the host: it goes first.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`
	Host string `json:"host,omitempty"`
	// Path is a net/http.ServeMux path pattern without method and host, such as /orders/{id}.
	// +kubebuilder:validation:MaxLength=1024
	// +kubebuilder:validation:Pattern=`^/[^ \t\r\n?#]*$`
	// +kubebuilder:validation:XValidation:rule="!self.startsWith('/weir/') && self != '/weir'",message="is Weir's own, as all below /weir/; choose another path"
	Path string `json:"path"`
}

// RouteQueue names the queue of a buffered write.
type RouteQueue struct {
	// Name of a Queue in the same namespace.
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`
	Name string `json:"name"`
}

// RouteJob says who does the work of an asynchronous request: exactly one of Queue and StateMachine.
//
// +kubebuilder:validation:XValidation:rule="has(self.queue) != has(self.stateMachine)",message="say who does the work: exactly one of queue and stateMachine"
// +kubebuilder:validation:XValidation:rule="!has(self.stateMachine) || !has(self.maxUploadBytes)",message="an execution's input is the request's body: remove maxUploadBytes"
type RouteJob struct {
	// Queue is the name of a Queue in the same namespace. The function of its mapping does the work, one call for
	// each job, whatever the mapping's batch says: a job's result is the answer to its own call.
	// +optional
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`
	Queue string `json:"queue,omitempty"`
	// StateMachine is the name of a StateMachine in the same namespace that one EventSourceMapping starts: the jobs wait in
	// that mapping's queue. The job's result is the output of its execution.
	// +optional
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`
	StateMachine string `json:"stateMachine,omitempty"`
	// MaxUploadBytes lets clients upload inputs of up to this size before they submit (POST /weir/uploads), instead of a
	// body. Nobody checks them against a schema. Default 0: no uploads.
	// +optional
	MaxUploadBytes *resource.Quantity `json:"maxUploadBytes,omitempty"`
}

// RouteFunction names the function of a synchronous call.
type RouteFunction struct {
	FunctionReference `json:",inline"`
	// Timeout is how long the client waits at most before it gets a 504. Default 29s.
	// +optional
	// +kubebuilder:default="29s"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:Pattern=`^(0|([0-9]+(\.[0-9]+)?(ns|us|µs|ms|s|m|h))+)$`
	// +kubebuilder:validation:XValidation:rule="self.matches('[0-9] *[dDwW]') || duration(self) >= duration('100ms') && duration(self) <= duration('15m')",message="must be between 100ms and 15m"
	// +kubebuilder:validation:XValidation:rule="!self.matches('[0-9] *[dDwW]')",message="days and weeks are no units: write hours, such as 96h for 4d"
	Timeout *metav1.Duration `json:"timeout,omitempty"`
}
