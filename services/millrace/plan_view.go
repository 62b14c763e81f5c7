package main

import (
	"encoding/json"

	"github.com/millrace-io/millrace/pipeline/definition"
)

// planObject is a plan as JSON.
type planObject struct {
	Changes   []changeObject      `json:"changes"`
	Unchanged int                 `json:"unchanged"`
	Problems  definition.Problems `json:"problems"`
	Offset    *int64              `json:"offset,omitempty"` // from which the changes are in force; none: nothing was written
}

type changeObject struct {
	Op     string             `json:"op"` // add, modify or remove
	Kind   definition.Kind    `json:"kind"`
	Name   string             `json:"name"`
	From   json.RawMessage    `json:"from,omitempty"` // what is in force
	To     json.RawMessage    `json:"to,omitempty"`
	Fields []definition.Field `json:"fields,omitempty"` // what differs
}

var ops = map[definition.Op]string{definition.Add: "add", definition.Modify: "modify", definition.Remove: "remove"}

// planOf describes a plan, which is nil where the problems say why there is none.
func planOf(plan *definition.Plan, problems definition.Problems) planObject {
	o := planObject{Changes: []changeObject{}, Problems: append(definition.Problems{}, problems...)}
	if plan == nil {
		return o
	}
	o.Unchanged = plan.Unchanged
	for _, c := range plan.Changes {
		change := changeObject{Op: ops[c.Op], Kind: c.Key.Kind, Name: c.Key.Name, Fields: c.Fields}
		if c.From != nil {
			change.From = c.From.Spec
		}
		if c.To != nil {
			change.To = c.To.Spec
		}
		o.Changes = append(o.Changes, change)
	}
	return o
}
