// Package condition decides which webhooks an event fires. A condition is an
// expression over one event; a Set finds the webhooks whose condition holds
// without evaluating all of them, and always gives the answer that evaluating
// all of them would give.
package condition

import (
	"fmt"

	"github.com/millrace-io/millrace/pipeline"
	"github.com/millrace-io/millrace/pipeline/expression"
)

// Condition is a compiled condition. It is immutable and safe for concurrent use.
type Condition struct {
	text    string
	program *expression.Program
}

// Compile checks and compiles a condition: an expression that is true or false.
// The error is an *expression.Error or several: see expression.All.
func Compile(text string, s expression.Scope) (*Condition, []expression.Warning, error) {
	p, warnings, err := expression.Compile(text, s)
	if err != nil {
		return nil, nil, err
	}
	if t := p.Type(); t != "" && t != pipeline.Boolean {
		return nil, nil, &expression.Error{Line: 1, Column: 1, Message: fmt.Sprintf("a condition is true or false; this one is of type %s", t)}
	}
	c := &Condition{text, p}
	if p.Constant() {
		warnings = append(warnings, c.constant())
	}
	return c, warnings, nil
}

// constant warns of a condition that looks at nothing of the event.
func (c *Condition) constant() expression.Warning {
	w := expression.Warning{Line: 1, Column: 1, Message: "the condition looks at nothing of the event: it never fires"}
	switch fires, err := c.Match(&pipeline.Event{}); {
	case err != nil:
		w.Message = fmt.Sprintf("the condition looks at nothing of the event and always fails: %v", err)
	case fires:
		w.Message = "the condition looks at nothing of the event: it always fires"
	}
	return w
}

// Match says whether the condition holds for an event. The error, an
// *expression.Error, says why it can't be told; then the webhook does not fire.
func (c *Condition) Match(e *pipeline.Event) (bool, error) {
	v, err := c.program.Run(&expression.Input{Event: e})
	holds, _ := v.(bool)
	return holds, err
}

// Properties returns the names of the properties that it reads, sorted.
func (c *Condition) Properties() []string { return c.program.Properties() }

// String returns the text it was compiled from.
func (c *Condition) String() string { return c.text }
