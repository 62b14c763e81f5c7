package condition

import (
	"fmt"
	"strings"

	"github.com/millrace-io/millrace/pipeline"
	"github.com/millrace-io/millrace/pipeline/expression"
)

// Explain says clause by clause why a condition holds for an event or not. Its
// first clause holds exactly where Match is true, and failed where Match gives
// an error. The error is that of Compile.
func Explain(text string, s expression.Scope, e *pipeline.Event) (*expression.Clause, error) {
	return expression.Explain(text, s, &expression.Input{Event: e})
}

// ExplainRows is Explain for rows: their clauses are shown as they were chosen,
// and Line is the number of the row. The error is that of FromRows.
func ExplainRows(rows []Row, s expression.Scope, e *pipeline.Event) (*expression.Clause, error) {
	text, err := FromRows(rows, s)
	if err != nil {
		return nil, err
	}
	c, err := Explain(text, s, e)
	if err != nil {
		return nil, err
	}
	asRows(c, rows)
	return c, nil
}

// asRows puts rows in the place of the expressions that were made of them.
func asRows(c *expression.Clause, rows []Row) {
	c.Column = 1
	if c.Kind == expression.Test { // FromRows writes a line for each row
		c.Text = rows[c.Line-1].String()
		return
	}
	var parts []string
	for _, p := range c.Parts {
		asRows(p, rows)
		parts = append(parts, p.Text)
	}
	c.Text = strings.Join(parts, fmt.Sprintf(" %s ", c.Kind))
}

// String gives the row as it was chosen: "walk_thru_id equals 12345".
func (r Row) String() string {
	op, ok := rowOperators[r.Operator]
	text := r.Property + " " + r.Operator
	if !ok || op.takes == noValue {
		return text
	}
	value, err := op.operand(r.Value)
	if err != nil {
		value = fmt.Sprint(r.Value)
	}
	return text + " " + value
}
