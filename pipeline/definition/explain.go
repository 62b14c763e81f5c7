package definition

import (
	"fmt"

	"github.com/millrace-io/millrace/pipeline"
	"github.com/millrace-io/millrace/pipeline/condition"
	"github.com/millrace-io/millrace/pipeline/event"
	"github.com/millrace-io/millrace/pipeline/expression"
)

// Explanation is why a webhook fires for an event, or why it does not.
type Explanation struct {
	Fires bool
	Why   string // in words: "its condition does not hold"
	// Condition is what each clause says, also where the event's type, system or
	// environment is not the webhook's; nil where the webhook has none.
	Condition *expression.Clause
}

// Explain says whether the webhook fires for an event, and why. The catalog is
// that of the snapshot it is from. Whether it is paused does not count.
func (c *Compiled) Explain(e *pipeline.Event, catalog *event.Catalog) (*Explanation, error) {
	out := &Explanation{}
	out.Fires, out.Why = c.fires(e)
	if c.Condition == nil {
		return out, nil
	}
	w := c.Webhook
	var err error
	if len(w.Conditions) > 0 {
		out.Condition, err = condition.ExplainRows(w.rows(), w.scope(catalog, &issues{}), e)
	} else {
		out.Condition, err = condition.Explain(w.Condition, w.scope(catalog, &issues{}), e)
	}
	if err != nil {
		return nil, fmt.Errorf("explaining webhook %q: %w", w.Name, err)
	}
	return out, nil
}

// Suggest gives what events of the webhook's types may hold to make it fire,
// likely ones first; see expression.Suggest.
func (c *Compiled) Suggest(catalog *event.Catalog) ([]expression.Suggestion, error) {
	if c.Condition == nil {
		return nil, nil
	}
	return expression.Suggest(c.Condition.String(), c.Webhook.scope(catalog, &issues{}))
}
