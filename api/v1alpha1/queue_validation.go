package v1alpha1

import (
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
	return append(errs, validateDuration(q.Spec.DeadLetter.MaxAge, minQueueAge, maxQueueAge, spec.Child("deadLetter", "maxAge"))...)
}
