// Package definition holds what users define: event types, webhooks and
// destinations. It reads them from YAML and JSON and reports every mistake with
// its place; compiles what is in force into an immutable Snapshot, which the
// roles run on; plans a change before it is made; and keeps definitions in the
// definitions topic, one writer at a time.
//
// The way of a definition: Parse gives Definitions, Check compiles them against
// a Snapshot, NewPlan compares them with it, Store.Apply writes the plan, Live
// follows the topic and has the newest Snapshot.
package definition
