package v1alpha1

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/weir-dev/weir/internal/mediatype"
	"github.com/weir-dev/weir/internal/ownpath"
	"github.com/weir-dev/weir/internal/schema"
	"github.com/weir-dev/weir/internal/value"
)

const (
	// MaxBufferedBodyBytes bounds the body of a buffered write: a message of the stream holds 1 MiB at
	// most, of which the record's own headers and the block's frame need their share.
	MaxBufferedBodyBytes = 768 << 10
	// MaxFunctionBodyBytes bounds the body of a synchronous call, as Amazon API Gateway does: the
	// gateway holds it in memory to validate it.
	MaxFunctionBodyBytes = 10 << 20
	// MaxRoutes bounds one API.
	MaxRoutes = 1000
	// MaxSchemaBytes bounds one route's schema.
	MaxSchemaBytes = 256 << 10
)

// Reserved reports whether path, a route's, is Weir's own.
func Reserved(path string) bool { return ownpath.Reserved(path) }

// methods a route can match; CONNECT and TRACE are not for APIs.
func methods() []string {
	return []string{
		http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut,
		http.MethodPatch, http.MethodDelete, http.MethodOptions,
	}
}

// bodyMethods are those whose requests carry something to store or to check.
func bodyMethods() []string {
	return []string{http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete}
}

// CheckSchema compiles source.
func CheckSchema(source []byte) error {
	_, err := schema.Compile(source)
	return err
}

// Validate returns every mistake in a, with its field and the fix. It expects a defaulted API.
func (a *API) Validate() field.ErrorList { return a.ValidateWith(CheckSchema) }

// ValidateWith is Validate with a check that may know a schema's result already, and returns what its author must change:
// to compile one takes a millisecond.
func (a *API) ValidateWith(check func([]byte) error) field.ErrorList {
	spec := field.NewPath("spec")
	errs := validateMeta(&a.ObjectMeta)
	errs = append(errs, validateThrottle(a.Spec.Throttle, spec.Child("throttle"))...)

	errs = append(errs, a.Spec.CORS.validate(spec.Child("cors"))...)
	routes := spec.Child("routes")
	switch n := len(a.Spec.Routes); {
	case n == 0:
		errs = append(errs, field.Required(routes, "add at least one route"))
	case n > MaxRoutes:
		return append(errs, field.TooMany(routes, n, MaxRoutes))
	}
	names := map[string]bool{}
	for i := range a.Spec.Routes {
		r, p := &a.Spec.Routes[i], routes.Index(i)
		errs = append(errs, r.validate(p, check)...)
		if r.Name != "" && names[r.Name] {
			errs = append(errs, field.Duplicate(p.Child("name"), r.Name))
		}
		names[r.Name] = true
	}
	return errs
}

func (r *Route) validate(p *field.Path, check func([]byte) error) field.ErrorList {
	errs := validateName(r.Name, p.Child("name"))
	errs = append(errs, r.Match.validate(p.Child("match"))...)
	errs = append(errs, validateThrottle(r.Throttle, p.Child("throttle"))...)
	errs = append(errs, r.validateTarget(p)...)
	errs = append(errs, r.validateAttributes(p)...)

	hasBody := slices.Contains(bodyMethods(), r.Match.Method)
	known := slices.Contains(methods(), r.Match.Method)
	if r.Schema != nil {
		if known && !hasBody {
			errs = append(errs, field.Forbidden(p.Child("schema"), fmt.Sprintf(
				"a %s request has no body to check: remove the schema, or use %s",
				r.Match.Method, strings.Join(bodyMethods(), ", "))))
		}
		errs = append(errs, validateSchema(r.Schema, p.Child("schema"), check)...)
	}
	if r.ContentTypes != nil {
		if known && !hasBody {
			errs = append(errs, field.Forbidden(p.Child("contentTypes"), fmt.Sprintf(
				"a %s request has no body: remove contentTypes, or use %s", r.Match.Method, strings.Join(bodyMethods(), ", "))))
		}
		errs = append(errs, r.validateContentTypes(p.Child("contentTypes"))...)
	}
	if (r.Queue != nil || r.Job != nil) && known && !hasBody {
		errs = append(errs, field.NotSupported(p.Child("match", "method"), r.Match.Method, bodyMethods()))
	}
	return errs
}

// MaxContentTypes bounds a route's list of them.
const MaxContentTypes = 32

func (r *Route) validateContentTypes(p *field.Path) field.ErrorList {
	var errs field.ErrorList
	switch n := len(r.ContentTypes); {
	case n == 0:
		return append(errs, field.Required(p, "name a media type such as application/json, or leave contentTypes out to take all"))
	case n > MaxContentTypes:
		return append(errs, field.TooMany(p, n, MaxContentTypes))
	}
	seen := map[mediatype.Range]bool{}
	for i, text := range r.ContentTypes {
		switch taken, err := mediatype.Parse(text); {
		case err != nil:
			errs = append(errs, field.Invalid(p.Index(i), text, err.Error()))
		case seen[taken]:
			errs = append(errs, field.Duplicate(p.Index(i), text))
		case r.Schema != nil && !taken.MayBeJSON():
			errs = append(errs, field.Invalid(p.Index(i), text, "no body of it is JSON, which the route's schema asks for: remove it, or the schema"))
		default:
			seen[taken] = true
		}
	}
	return errs
}

// Bounds of a route's attributes.
const (
	MaxAttributes    = 32
	maxAttributeName = 20 // CloudEvents asks producers to keep to it
)

// attributesOfEvents are those that a route can't name: CloudEvents' own, and those that every event has. Weir's own
// begin with attributePrefix.
func attributesOfEvents() []string {
	return []string{
		"id", "source", "specversion", "type", "datacontenttype", "dataschema", "subject", "time", "data", "traceparent", "tracestate",
	}
}

const attributePrefix = "weir"

func (r *Route) validateAttributes(p *field.Path) field.ErrorList {
	var errs field.ErrorList
	if r.Function != nil && (len(r.Attributes) > 0 || len(r.Required) > 0) {
		return append(errs, field.Forbidden(p.Child("attributes"), "attributes are of events: a synchronous call has the request itself; remove attributes and required"))
	}
	if n := len(r.Attributes); n > MaxAttributes {
		return append(errs, field.TooMany(p.Child("attributes"), n, MaxAttributes))
	}
	wildcards := wildcardsOf(r.Match.Path)
	for _, name := range slices.Sorted(maps.Keys(r.Attributes)) {
		at, source := p.Child("attributes").Key(name), string(r.Attributes[name])
		if err := checkAttributeName(name); err != nil {
			errs = append(errs, field.Invalid(at, name, err.Error()))
		}
		e, err := value.Parse(source)
		if err != nil {
			errs = append(errs, field.Invalid(at, source, err.Error()))
			continue
		}
		if wildcard, needed := e.Wildcard(); needed && !slices.Contains(wildcards, wildcard) {
			hint := "it has no wildcard"
			if len(wildcards) > 0 {
				hint = "it has " + strings.Join(wildcards, ", ")
			}
			errs = append(errs, field.Invalid(at, source, fmt.Sprintf("the route's path %s has no wildcard {%s}: %s", r.Match.Path, wildcard, hint)))
		}
	}
	for i, name := range r.Required {
		if _, ok := r.Attributes[name]; !ok {
			errs = append(errs, field.NotFound(p.Child("required").Index(i), name))
		}
	}
	return errs
}

func checkAttributeName(name string) error {
	if name == "" || len(name) > maxAttributeName || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789") != "" {
		return fmt.Errorf("must have 1 to %d lower-case letters and digits, as CloudEvents asks", maxAttributeName)
	}
	if slices.Contains(attributesOfEvents(), name) || strings.HasPrefix(name, attributePrefix) {
		return fmt.Errorf("is an attribute that events have already, or begins with %q: choose another name", attributePrefix)
	}
	return nil
}

// wildcardsOf returns the names of the wildcards of a path pattern.
func wildcardsOf(path string) []string {
	var names []string
	for part := range strings.SplitSeq(path, "/") {
		name, ok := strings.CutPrefix(part, "{")
		if !ok {
			continue
		}
		name = strings.TrimSuffix(strings.TrimSuffix(name, "}"), "...")
		if name != "$" {
			names = append(names, name)
		}
	}
	return names
}

func (r *Route) validateTarget(p *field.Path) field.ErrorList {
	var errs field.ErrorList
	var targets []string
	for _, t := range []struct {
		name string
		set  bool
	}{{"queue", r.Queue != nil}, {"job", r.Job != nil}, {"function", r.Function != nil}} {
		if t.set {
			targets = append(targets, t.name)
		}
	}
	switch len(targets) {
	case 0:
		errs = append(errs, field.Required(p, "say where the requests go: queue, job or function"))
	case 1:
	default:
		errs = append(errs, field.Forbidden(p.Child(targets[1]), targets[0]+" is set too: keep one of queue, job and function"))
	}
	if r.Queue != nil {
		errs = append(errs, validateName(r.Queue.Name, p.Child("queue", "name"))...)
	}
	if r.Job != nil {
		errs = append(errs, r.Job.validateTarget(p.Child("job"))...)
		errs = append(errs, r.validateUpload(p)...)
	}
	if r.Queue != nil || r.Job != nil {
		if e := validateBytes(r.MaxBodyBytes, 1, MaxBufferedBodyBytes, p.Child("maxBodyBytes")); e != nil {
			e[0].Detail += ": a message of the queue's stream holds at most 1Mi; send larger bodies to a function"
			errs = append(errs, e...)
		}
	} else {
		errs = append(errs, validateBytes(r.MaxBodyBytes, 1, MaxFunctionBodyBytes, p.Child("maxBodyBytes"))...)
	}
	errs = append(errs, validateCount(r.MaxDepth, MaxDepth, p.Child("maxDepth"))...)
	if r.Function != nil {
		errs = append(errs, validateFunction(&r.Function.FunctionReference, p.Child("function"))...)
		errs = append(errs, validateDuration(r.Function.Timeout, MinTimeout, MaxTimeout, p.Child("function", "timeout"))...)
	}
	return errs
}

func (j *RouteJob) validateTarget(p *field.Path) field.ErrorList {
	switch {
	case j.StateMachine == "":
		return validateName(j.Queue, p.Child("queue"))
	case j.Queue != "":
		return field.ErrorList{field.Forbidden(p.Child("stateMachine"), "queue is set too: keep one of the two")}
	case j.MaxUploadBytes != nil:
		return field.ErrorList{field.Forbidden(p.Child("maxUploadBytes"), "an execution's input is the request's body: remove it")}
	}
	return validateName(j.StateMachine, p.Child("stateMachine"))
}

func (r *Route) validateUpload(p *field.Path) field.ErrorList {
	upload := p.Child("job", "maxUploadBytes")
	switch {
	case r.Job.MaxUploadBytes == nil:
		return nil
	case r.Schema != nil:
		return field.ErrorList{field.Forbidden(upload, "what is uploaded is not checked against a schema: remove schema or maxUploadBytes")}
	}
	return validateBytes(r.Job.MaxUploadBytes, 0, maxQueueBytes, upload)
}

func (m *RouteMatch) validate(p *field.Path) field.ErrorList {
	var errs field.ErrorList
	if m.Method == "" {
		errs = append(errs, field.Required(p.Child("method"), "say one of "+strings.Join(methods(), ", ")))
	} else if !slices.Contains(methods(), m.Method) {
		errs = append(errs, field.NotSupported(p.Child("method"), m.Method, methods()))
	}
	if m.Host != "" {
		if err := CheckHost(m.Host); err != nil {
			errs = append(errs, field.Invalid(p.Child("host"), m.Host, err.Error()))
		}
	}
	if err := checkPattern(m.Path); err != nil {
		errs = append(errs, field.Invalid(p.Child("path"), m.Path, err.Error()))
	}
	return errs
}

// Pattern is the net/http.ServeMux pattern of the requests.
func (m *RouteMatch) Pattern() string { return m.Method + " " + m.Host + m.Path }

// CheckHost says what is wrong with a name of a host, or an IPv4 address, as a route has it.
func CheckHost(host string) error {
	switch {
	case strings.HasPrefix(host, "*"):
		return errors.New("must be one host, such as shop.example: add a route for each")
	case strings.Contains(host, ":"):
		return errors.New("must be a host alone, such as shop.example: no scheme, no port")
	case host != strings.ToLower(host):
		return errors.New("must be in lower case: requests match in any case")
	case len(validation.IsDNS1123Subdomain(host)) > 0:
		return errors.New("must be the name of a host, such as shop.example")
	}
	return nil
}

// checkPattern asks ServeMux itself, because the gateway matches with it.
func checkPattern(path string) (err error) {
	switch {
	case !strings.HasPrefix(path, "/"):
		return errors.New("must start with '/' (no method, no host), such as /orders/{id}")
	case strings.ContainsAny(path, " \t\r\n?#"):
		return errors.New("must be a path alone: no spaces, query or fragment")
	case Reserved(path):
		return errors.New("is Weir's own, as all below " + ownpath.Prefix + "; choose another path")
	}
	defer func() {
		if r := recover(); r != nil {
			// "parsing "GET /a/{": at offset 7: bad wildcard segment": the user wrote only the path.
			msg := fmt.Sprint(r)
			if _, after, ok := strings.Cut(msg, ": at offset "); ok {
				if _, reason, ok := strings.Cut(after, ": "); ok {
					msg = reason
				}
			}
			err = fmt.Errorf("must be a net/http.ServeMux pattern such as /orders/{id}: %s", msg)
		}
	}()
	http.NewServeMux().Handle(http.MethodGet+" "+path, http.NotFoundHandler())
	return nil
}

func validateSchema(raw *runtime.RawExtension, p *field.Path, check func([]byte) error) field.ErrorList {
	if len(raw.Raw) > MaxSchemaBytes {
		return field.ErrorList{field.TooLong(p, "", MaxSchemaBytes)}
	}
	if err := check(raw.Raw); err != nil {
		return field.ErrorList{field.Invalid(p, field.OmitValueType{}, err.Error())}
	}
	return nil
}
