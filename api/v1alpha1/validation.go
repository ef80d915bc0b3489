package v1alpha1

import (
	"fmt"
	"net/url"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/weir-dev/weir/internal/egress"
)

const (
	// MinTimeout is the shortest timeout of a function call: less is surely a wrong unit.
	MinTimeout = 100 * time.Millisecond
	// MaxTimeout is the longest, as AWS Lambda has it.
	MaxTimeout = 15 * time.Minute
	// maxRate of a throttle, in requests a second: more is no limit.
	maxRate = 10_000_000
)

// validateMeta checks that names and namespaces are DNS-1123 labels: they become parts of stream names, where a dot
// would separate two parts.
func validateMeta(m *metav1.ObjectMeta) field.ErrorList {
	p := field.NewPath("metadata")
	errs := validateName(m.Name, p.Child("name"))
	if m.Namespace != "" {
		errs = append(errs, validateName(m.Namespace, p.Child("namespace"))...)
	}
	return errs
}

func validateName(name string, p *field.Path) field.ErrorList {
	if name == "" {
		return field.ErrorList{field.Required(p, "give it a name of lower-case letters, digits and '-'")}
	}
	if len(validation.IsDNS1123Label(name)) > 0 {
		return field.ErrorList{field.Invalid(p, name,
			"must be a DNS-1123 label: at most 63 lower-case letters, digits and '-', no dots, a letter or digit first and last")}
	}
	return nil
}

func validateFunction(f *FunctionReference, p *field.Path) field.ErrorList {
	errs := validateTarget(f, p)
	switch protocol := p.Child("protocol"); {
	case f.Protocol == "":
	case f.Protocol != ProtocolHTTP1 && f.Protocol != ProtocolH2C:
		errs = append(errs, field.NotSupported(protocol, f.Protocol, []FunctionProtocol{ProtocolHTTP1, ProtocolH2C}))
	case f.Name != "":
		errs = append(errs, field.Forbidden(protocol,
			"it is of a function given by url: remove it, and name the port of the Service's container h2c instead"))
	case f.Protocol == ProtocolH2C && len(errs) == 0 && !strings.HasPrefix(strings.ToLower(f.URL), "http:"):
		errs = append(errs, field.Invalid(protocol, f.Protocol, "h2c is HTTP/2 without TLS: it needs an http url; give one, or remove protocol"))
	}
	return errs
}

// validateTarget checks Name and URL.
func validateTarget(f *FunctionReference, p *field.Path) field.ErrorList {
	switch {
	case f.Name == "" && f.URL == "":
		return field.ErrorList{field.Required(p, "say name (a Knative Service of this namespace) or url")}
	case f.Name != "" && f.URL != "":
		return field.ErrorList{field.Invalid(p.Child("url"), f.URL, "name is set too: keep one of name and url")}
	case f.Name != "":
		return validateName(f.Name, p.Child("name"))
	}
	u, err := url.Parse(f.URL)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Hostname() == "" || u.User != nil || u.Fragment != "" {
		return field.ErrorList{field.Invalid(p.Child("url"), f.URL,
			"must be an absolute http or https URL without user and fragment, such as http://billing.internal:8080/orders")}
	}
	if egress.IsMetadataService(u.Hostname()) {
		return field.ErrorList{field.Invalid(p.Child("url"), f.URL, "is a cloud's metadata service, which hands out the credentials of the machine: it is no function")}
	}
	return nil
}

func validateThrottle(t *Throttle, p *field.Path) field.ErrorList {
	if t == nil {
		return nil
	}
	var errs field.ErrorList
	switch {
	case t.Rate.Sign() <= 0:
		errs = append(errs, field.Invalid(p.Child("rate"), t.Rate.String(),
			"must be greater than 0 requests a second; remove throttle for no limit"))
	case t.Rate.CmpInt64(maxRate) > 0:
		errs = append(errs, field.Invalid(p.Child("rate"), t.Rate.String(),
			fmt.Sprintf("must be at most %d requests a second; remove throttle for no limit", maxRate)))
	}
	if t.Burst < 1 {
		errs = append(errs, field.Invalid(p.Child("burst"), t.Burst, "must be at least 1: a bucket of none lets nothing through"))
	}
	return errs
}

// validateDuration checks that d is between lo and hi, both allowed. A nil d is one that Default would fill in.
func validateDuration(d *metav1.Duration, lo, hi time.Duration, p *field.Path) field.ErrorList {
	if d == nil || (d.Duration >= lo && d.Duration <= hi) {
		return nil
	}
	return field.ErrorList{field.Invalid(p, d.Duration.String(), "must be between "+FormatDuration(lo)+" and "+FormatDuration(hi))}
}

// validateBytes checks that q is a whole number of bytes between lo and hi, both allowed.
func validateBytes(q *resource.Quantity, lo, hi int64, p *field.Path) field.ErrorList {
	if q == nil {
		return nil
	}
	v := q.Value()
	if v < lo || v > hi || resource.NewQuantity(v, resource.BinarySI).Cmp(*q) != 0 {
		return field.ErrorList{field.Invalid(p, q.String(), "must be a whole number of bytes between "+byteSize(lo)+" and "+byteSize(hi))}
	}
	return nil
}

func validateCount(n *int32, hi int32, p *field.Path) field.ErrorList {
	if n == nil || (*n >= 1 && *n <= hi) {
		return nil
	}
	return field.ErrorList{field.Invalid(p, *n, fmt.Sprintf("must be between 1 and %d", hi))}
}

// FormatDuration writes 5m, where time.Duration writes 5m0s: as people write it in the YAML.
func FormatDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

func byteSize(n int64) string { return resource.NewQuantity(n, resource.BinarySI).String() }
