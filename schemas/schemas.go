// Package schemas holds the data formats that others rely on: the Avro schemas
// of what goes into and comes out of Kafka, and the catalog of event types.
package schemas

import _ "embed" // for the files

// EventAvro is the Avro schema that producers register to write events in the
// Confluent wire format.
//
//go:embed event.avsc
var EventAvro string

// AttemptAvro is the Avro schema of the attempts topic's values.
//
//go:embed attempt.avsc
var AttemptAvro string

// Catalog is the catalog of event types that Millrace comes with, in YAML.
//
//go:embed catalog.yaml
var Catalog []byte

// OperatorCatalog is the catalog of the operator events, in the same form.
//
//go:embed operator.yaml
var OperatorCatalog []byte
