package v1alpha1

// FunctionReference says where a function answers: exactly one of Name and URL.
//
// +kubebuilder:validation:XValidation:rule="has(self.name) != has(self.url)",message="say exactly one of name (a Knative Service of this namespace) and url"
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
}
