package pipeline

import "strings"

// OperatorPrefix begins the types of operator events: what Millrace itself has
// to tell. Users can't add event types under it.
const OperatorPrefix = "millrace."

// The operator events. Webhooks take them like any other.
const (
	DestinationPaused        = OperatorPrefix + "destination_paused"
	DestinationDisabled      = OperatorPrefix + "destination_disabled"
	DestinationBreakerOpened = OperatorPrefix + "destination_breaker_opened"
	DestinationDeadLetters   = OperatorPrefix + "destination_dead_letters"
)

// IsOperator says whether an event type is that of an operator event. What
// becomes of a delivery of one raises none: else a destination that can't be
// told of its own trouble would be told of that for ever.
func IsOperator(eventType string) bool { return strings.HasPrefix(eventType, OperatorPrefix) }
