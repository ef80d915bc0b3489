package v1alpha1

import (
	"math"
	"net/http"
	"time"

	"k8s.io/apimachinery/pkg/util/validation/field"
)

const (
	minHeartbeat = time.Second
	maxHeartbeat = 24 * time.Hour

	// maxBatchRecords and maxBatchWindow are AWS Lambda's.
	maxBatchRecords = 10000
	maxBatchWindow  = 5 * time.Minute
	minBatchBytes   = 1 << 10
	// maxBatchBytes bounds what the dispatcher holds in memory for one call.
	maxBatchBytes  = 32 << 20
	maxAttempts    = 1000
	minBackoff     = time.Millisecond
	maxBackoff     = 24 * time.Hour
	maxConcurrency = math.MaxInt32
)

// Validate returns every mistake in m, with its field and the fix. It expects a defaulted
// EventSourceMapping.
func (m *EventSourceMapping) Validate() field.ErrorList {
	s, spec := &m.Spec, field.NewPath("spec")
	errs := validateMeta(&m.ObjectMeta)
	errs = append(errs, validateName(s.Queue, spec.Child("queue"))...)
	errs = append(errs, m.validateTarget(spec)...)

	batch := spec.Child("batch")
	errs = append(errs, validateCount(s.Batch.MaxRecords, maxBatchRecords, batch.Child("maxRecords"))...)
	errs = append(errs, validateBytes(s.Batch.MaxBytes, minBatchBytes, maxBatchBytes, batch.Child("maxBytes"))...)
	errs = append(errs, validateDuration(s.Batch.Window, 0, maxBatchWindow, batch.Child("window"))...)

	errs = append(errs, validateCount(s.MaxConcurrency, maxConcurrency, spec.Child("maxConcurrency"))...)
	errs = append(errs, validateDuration(s.Timeout, MinTimeout, MaxTimeout, spec.Child("timeout"))...)
	errs = append(errs, validateDuration(s.Heartbeat, minHeartbeat, maxHeartbeat, spec.Child("heartbeat"))...)
	return append(errs, s.Retry.validate(spec.Child("retry"))...)
}

func (m *EventSourceMapping) validateTarget(spec *field.Path) field.ErrorList {
	switch s := &m.Spec; {
	case s.Function != nil && s.StateMachine != nil:
		return field.ErrorList{field.Forbidden(spec.Child("stateMachine"), "function is set too: keep one of the two")}
	case s.Function != nil:
		return validateFunction(s.Function, spec.Child("function"))
	case s.StateMachine != nil:
		return validateName(s.StateMachine.Name, spec.Child("stateMachine", "name"))
	}
	return field.ErrorList{field.Required(spec.Child("function"), "say where the records go: function, or stateMachine")}
}

func (r *Retry) validate(p *field.Path) field.ErrorList {
	errs := validateCount(r.MaxAttempts, maxAttempts, p.Child("maxAttempts"))
	errs = append(errs, validateDuration(r.InitialBackoff, minBackoff, maxBackoff, p.Child("initialBackoff"))...)
	errs = append(errs, validateDuration(r.MaxBackoff, minBackoff, maxBackoff, p.Child("maxBackoff"))...)
	errs = append(errs, validateDuration(r.MaxAge, minBackoff, maxQueueAge, p.Child("maxAge"))...)
	seen := map[int32]bool{}
	for i, s := range r.PermanentStatuses {
		at := p.Child("permanentStatuses").Index(i)
		switch {
		case s < 400 || s > 599:
			errs = append(errs, field.Invalid(at, s, "must be between 400 and 599"))
		case s == http.StatusTooManyRequests || s == http.StatusServiceUnavailable:
			errs = append(errs, field.Invalid(at, s, "429 and 503 mean not now: no attempt is counted for them"))
		case seen[s]:
			errs = append(errs, field.Duplicate(at, s))
		}
		seen[s] = true
	}
	if len(errs) == 0 && r.InitialBackoff != nil && r.MaxBackoff != nil && r.MaxBackoff.Duration < r.InitialBackoff.Duration {
		errs = append(errs, field.Invalid(p.Child("maxBackoff"), r.MaxBackoff.Duration.String(),
			"must not be below initialBackoff, which is "+FormatDuration(r.InitialBackoff.Duration)))
	}
	return errs
}
