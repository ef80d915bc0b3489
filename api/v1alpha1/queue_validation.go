package v1alpha1

import (
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/util/validation/field"
)

const (
	minQueueAge = time.Minute
	maxQueueAge = 365 * 24 * time.Hour
	// minQueueBytes holds a few of the stream's largest messages (1 MiB each): a smaller queue could be
	// too small for a single write.
	minQueueBytes = 8 << 20
	maxQueueBytes = 64 << 40
)

// Validate returns every mistake in q, with its field and the fix. It expects a defaulted Queue.
func (q *Queue) Validate() field.ErrorList {
	spec := field.NewPath("spec")
	errs := validateMeta(&q.ObjectMeta)
	switch q.Spec.Ordering {
	case OrderingNone:
	case orderingKey:
		errs = append(errs, field.Invalid(spec.Child("ordering"), q.Spec.Ordering,
			"ordered queues are not supported yet; use ordering: none"))
	default:
		errs = append(errs, field.NotSupported(spec.Child("ordering"), q.Spec.Ordering, []QueueOrdering{OrderingNone}))
	}
	errs = append(errs, validateDuration(q.Spec.MaxAge, minQueueAge, maxQueueAge, spec.Child("maxAge"))...)
	errs = append(errs, validateBytes(q.Spec.MaxBytes, minQueueBytes, maxQueueBytes, spec.Child("maxBytes"))...)
	errs = append(errs, validateDuration(q.Spec.DeadLetter.MaxAge, minQueueAge, maxQueueAge, spec.Child("deadLetter", "maxAge"))...)
	results := spec.Child("results")
	var ages field.ErrorList
	if *q.Spec.Results.MaxAge != *q.Spec.MaxAge { // else it is the default, and any mistake is reported
		ages = validateDuration(q.Spec.Results.MaxAge, minQueueAge, maxQueueAge, results.Child("maxAge"))
	}
	if len(ages) == 0 && q.Spec.Results.MaxAge.Duration < q.Spec.MaxAge.Duration {
		ages = append(ages, field.Invalid(results.Child("maxAge"), FormatDuration(q.Spec.Results.MaxAge.Duration), fmt.Sprintf(
			"must not be below maxAge, which is %s: a job without a state counts as queued as long as it may be in the queue", FormatDuration(q.Spec.MaxAge.Duration))))
	}
	errs = append(errs, ages...)
	errs = append(errs, validateBytes(q.Spec.Results.MaxBytes, minQueueBytes, maxQueueBytes, results.Child("maxBytes"))...)
	return append(errs, validateBytes(q.Spec.Objects.MaxBytes, minQueueBytes, maxQueueBytes, spec.Child("objects", "maxBytes"))...)
}
