package v1alpha1

import "time"

const (
	// DefaultQueueMaxAge is four days, as Amazon SQS keeps messages.
	DefaultQueueMaxAge = 96 * time.Hour
	// DefaultQueueMaxBytes bounds a queue on disk.
	DefaultQueueMaxBytes = 10 << 30
	// DefaultDeadLetterMaxAge is two weeks: people must have time to look.
	DefaultDeadLetterMaxAge = 336 * time.Hour
	// DefaultResultsMaxBytes bounds the outcomes of a queue's jobs on disk.
	DefaultResultsMaxBytes = 4 << 30
	// DefaultObjectsMaxBytes bounds a queue's objects on disk.
	DefaultObjectsMaxBytes = 4 << 30
)

// Default fills in what the user left out. It is idempotent.
func (q *Queue) Default() {
	q.Spec.Class = q.ClassOf()
	if q.Spec.Ordering == "" {
		q.Spec.Ordering = OrderingNone
	}
	defaultDuration(&q.Spec.MaxAge, DefaultQueueMaxAge)
	defaultQuantity(&q.Spec.MaxBytes, DefaultQueueMaxBytes)
	defaultDuration(&q.Spec.DeadLetter.MaxAge, DefaultDeadLetterMaxAge)
	defaultDuration(&q.Spec.Results.MaxAge, q.Spec.MaxAge.Duration)
	defaultQuantity(&q.Spec.Results.MaxBytes, DefaultResultsMaxBytes)
	defaultQuantity(&q.Spec.Objects.MaxBytes, DefaultObjectsMaxBytes)
}
