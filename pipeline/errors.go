package pipeline

import (
	"errors"
	"fmt"
	"time"
)

// Reason says in one word why something became a dead letter. Reasons are
// stable: they are labels of metrics and values of filters.
type Reason string

// The reasons for a dead letter.
const (
	Undecodable        Reason = "undecodable"         // the record is no event
	TooLarge           Reason = "too_large"           // does not fit its topic or the destination's max_body
	Panicked           Reason = "panic"               // the stage panicked on it
	Refused            Reason = "refused"             // Kafka refuses the record for good
	MappingFailed      Reason = "mapping_failed"      // a property mapping's expression failed
	PropertyMissing    Reason = "property_missing"    // a required property is missing
	ContractBroken     Reason = "contract_broken"     // the body breaks the contract of the destination's preset
	InvalidRequest     Reason = "invalid_request"     // no request can be made of it (URL, header)
	FinalResponse      Reason = "final_response"      // the destination said no, for good
	AttemptsUsed       Reason = "attempts_used"       // every attempt failed
	ExpiredDelivery    Reason = "expired"             // older than the webhook's max_age
	BrokenEnvelope     Reason = "broken_envelope"     // a work record whose header can't be read
	UnusableDefinition Reason = "unusable_definition" // this version can't use the webhook or the destination
)

// PermanentError is a failure that trying again does not mend.
type PermanentError struct {
	Reason Reason
	Err    error
}

// Permanent wraps err so that the record becomes a dead letter for that reason.
func Permanent(reason Reason, err error) error { return &PermanentError{reason, err} }

func (e *PermanentError) Error() string { return fmt.Sprintf("%s: %v", e.Reason, e.Err) }

// Unwrap returns the cause.
func (e *PermanentError) Unwrap() error { return e.Err }

// RetryAfterError is a failure that may be gone after a while.
type RetryAfterError struct {
	After time.Duration
	Err   error
}

// RetryAfter wraps err so that the record is tried again after d, not earlier.
func RetryAfter(d time.Duration, err error) error { return &RetryAfterError{d, err} }

func (e *RetryAfterError) Error() string { return fmt.Sprintf("%v (again in %v)", e.Err, e.After) }

// Unwrap returns the cause.
func (e *RetryAfterError) Unwrap() error { return e.Err }

// IsPermanent returns the PermanentError in err's chain, if there is one.
func IsPermanent(err error) (*PermanentError, bool) {
	p, ok := errors.AsType[*PermanentError](err)
	return p, ok
}
