package telemetry

import (
	"fmt"
	"reflect"
	"strings"

	"go.opentelemetry.io/otel/metric"
)

// Metrics are the instruments of Millrace, one field each. The tag says all
// there is to know: name and unit in OpenTelemetry's form (Prometheus gets
// millrace_attempts_total, …_seconds), labels in the order in which values are
// given, and the help text. A new metric is a field here and a line in
// testdata/metrics.golden, which `go test -update` writes.
type Metrics struct {
	EventsRead         *Counter `metric:"millrace.events.read" unit:"{event}" help:"Records read from the event topics."`
	EventsUnwanted     *Counter `metric:"millrace.events.unwanted" unit:"{event}" help:"Events whose type no webhook wants."`
	Matches            *Counter `metric:"millrace.matches" unit:"{match}" labels:"webhook" help:"Events for which a webhook fires."`
	MatchesSkipped     *Counter `metric:"millrace.matches.skipped" unit:"{match}" labels:"webhook" help:"Events for which a webhook would have fired, had it not been paused."`
	ConditionFailures  *Counter `metric:"millrace.condition.failures" unit:"{failure}" labels:"webhook" help:"Conditions that could not be evaluated for an event, so that the webhook did not fire."`
	PropertyMismatches *Counter `metric:"millrace.property.mismatches" unit:"{value}" labels:"type,property" help:"Property values that contradict the catalog and could not be converted."`

	DeliveriesProduced *Counter `metric:"millrace.deliveries.produced" unit:"{delivery}" labels:"lane" help:"Deliveries handed to the sinks."`
	MappingFailures    *Counter `metric:"millrace.mapping.failures" unit:"{failure}" labels:"webhook" help:"Deliveries that became dead letters because their property mapping failed."`

	Attempts            *Counter   `metric:"millrace.attempts" unit:"{attempt}" labels:"destination,outcome" help:"HTTP requests made, by what came of them."`
	AttemptDuration     *Histogram `metric:"millrace.attempt.duration" unit:"s" labels:"destination" buckets:"seconds" help:"Time from the start of an HTTP request to the end of its response."`
	AttemptsInFlight    *UpDown    `metric:"millrace.attempts.in_flight" unit:"{attempt}" labels:"destination" help:"HTTP requests under way."`
	TokenFetches        *Counter   `metric:"millrace.token.fetches" unit:"{fetch}" labels:"result" help:"Fetches of access tokens for destinations, by result: given, refused or failed."`
	DeliveriesEnded     *Counter   `metric:"millrace.deliveries.ended" unit:"{delivery}" labels:"destination,ending" help:"Deliveries that ended, by how."`
	DeliveriesDelayed   *Counter   `metric:"millrace.deliveries.delayed" unit:"{delivery}" labels:"tier,why" help:"Deliveries put off to a later time."`
	BreakersOpen        *UpDown    `metric:"millrace.breakers.open" unit:"{breaker}" labels:"destination" help:"1 while the breaker of a destination holds its deliveries back."`
	DestinationsStopped *Gauge     `metric:"millrace.destinations.stopped" unit:"{destination}" labels:"status" help:"Destinations that are not called until somebody resumes them, by status: paused or disabled."`
	DeadLetters         *Counter   `metric:"millrace.dead_letters" unit:"{record}" labels:"role,reason" help:"Records that could not go on."`
	Transactions        *Counter   `metric:"millrace.transactions" unit:"{transaction}" labels:"role,result" help:"Kafka transactions, by result: committed or aborted."`
	TransactionRecords  *Histogram `metric:"millrace.transaction.records" unit:"{record}" labels:"role" buckets:"records" help:"Records read that one committed transaction covers."`
	StageRebuilds       *Counter   `metric:"millrace.stage.rebuilds" unit:"{rebuild}" labels:"role" help:"Times a role had to build its Kafka session again."`
	Spans               *Counter   `metric:"millrace.spans" unit:"{span}" labels:"result" help:"Spans of traces, by result: exported, or lost as the receiver was away or too slow."`

	DefinitionsOffset *Gauge `metric:"millrace.definitions.offset" unit:"{offset}" labels:"role" help:"Offset of the definitions in force."`
	DefinitionsBroken *Gauge `metric:"millrace.definitions.broken" unit:"{definition}" labels:"role" help:"Definitions in force that this role can't use."`
}

// instrument is what every kind of instrument has.
type instrument interface {
	create(metric.Meter, reflect.StructTag) error
}

// newMetrics builds every field of Metrics from its tag.
func newMetrics(meter metric.Meter) (*Metrics, error) {
	m := &Metrics{}
	v := reflect.ValueOf(m).Elem()
	for i := range v.NumField() {
		field := v.Type().Field(i)
		made := reflect.New(field.Type.Elem())
		if err := made.Interface().(instrument).create(meter, field.Tag); err != nil {
			return nil, fmt.Errorf("making metric %s: %w", field.Name, err)
		}
		v.Field(i).Set(made)
	}
	return m, nil
}

// labelsOf returns the names of the labels in a tag.
func labelsOf(tag reflect.StructTag) []string {
	if tag.Get("labels") == "" {
		return nil
	}
	return strings.Split(tag.Get("labels"), ",")
}
