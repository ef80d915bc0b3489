package v1alpha1

import "time"

// Defaults of an event source mapping.
const (
	DefaultBatchMaxRecords     = 100
	DefaultBatchMaxBytes       = 4 << 20
	DefaultBatchWindow         = time.Duration(0)
	DefaultMappingTimeout      = time.Minute
	DefaultHeartbeat           = time.Minute
	DefaultRetryMaxAttempts    = 5
	DefaultRetryInitialBackoff = time.Second
	DefaultRetryMaxBackoff     = 5 * time.Minute
	DefaultRetryMaxAge         = 6 * time.Hour
)

// Default fills in what the user left out. It is idempotent. It leaves MaxConcurrency alone: that
// default comes from the Knative Service, which package manifest knows.
func (m *EventSourceMapping) Default() {
	m.Spec.Class = m.ClassOf()
	s := &m.Spec
	defaultInt32(&s.Batch.MaxRecords, DefaultBatchMaxRecords)
	defaultQuantity(&s.Batch.MaxBytes, DefaultBatchMaxBytes)
	defaultDuration(&s.Batch.Window, DefaultBatchWindow)
	defaultDuration(&s.Timeout, DefaultMappingTimeout)
	defaultDuration(&s.Heartbeat, DefaultHeartbeat)
	defaultInt32(&s.Retry.MaxAttempts, DefaultRetryMaxAttempts)
	defaultDuration(&s.Retry.InitialBackoff, DefaultRetryInitialBackoff)
	defaultDuration(&s.Retry.MaxBackoff, DefaultRetryMaxBackoff)
	defaultDuration(&s.Retry.MaxAge, DefaultRetryMaxAge)
}
