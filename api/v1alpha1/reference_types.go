package v1alpha1

// FunctionProtocol is how a function is spoken to; the names are those that Knative has for ports.
//
// +kubebuilder:validation:Enum=http1;h2c
type FunctionProtocol string

const (
	// ProtocolHTTP1 is HTTP/1.1.
	ProtocolHTTP1 FunctionProtocol = "http1"
	// ProtocolH2C is HTTP/2 without TLS, by prior knowledge (RFC 9113, section 3.3).
	ProtocolH2C FunctionProtocol = "h2c"
)

// FunctionReference says where a function answers: exactly one of Name and URL.
//
// +kubebuilder:validation:XValidation:rule="has(self.name) != has(self.url)",message="say exactly one of name (a Knative Service of this namespace) and url"
// +kubebuilder:validation:XValidation:rule="!has(self.protocol) || has(self.url)",message="protocol is of a function given by url: a Knative Service names the port of its container h2c instead"
// +kubebuilder:validation:XValidation:rule="!has(self.protocol) || self.protocol != 'h2c' || !has(self.url) || !isURL(self.url) || url(self.url).getScheme() == 'http'",message="h2c is HTTP/2 without TLS: it needs an http URL"
type FunctionReference struct {
	// Name of a Knative Service in the same namespace.
	// +optional
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`
	Name string `json:"name,omitempty"`
	// URL of any other HTTP function, such as http://billing.internal:8080/orders.
	// +optional
	// +kubebuilder:validation:MaxLength=2048
	// +kubebuilder:validation:XValidation:rule="isURL(self) && url(self).getScheme() in ['http', 'https'] && url(self).getHost() != ''",message="must be an absolute http or https URL, such as http://billing.internal:8080/orders"
	URL string `json:"url,omitempty"`
	// Protocol is how the function at URL is spoken to: http1 is HTTP/1.1, the default; h2c is HTTP/2 by prior knowledge.
	// +optional
	Protocol FunctionProtocol `json:"protocol,omitempty"`
}
