package main

import (
	"fmt"
	"strings"

	"github.com/millrace-io/millrace/pipeline"
	"github.com/millrace-io/millrace/pipeline/definition"
	"github.com/millrace-io/millrace/pipeline/event"
	"github.com/millrace-io/millrace/pipeline/expression"
)

// hideSensitive takes out of an explanation the values of properties that the
// catalog calls sensitive, and what is made of them.
func hideSensitive(c *expression.Clause, catalog *event.Catalog, eventType string) {
	known := kindsOf(catalog, eventType)
	sensitive := func(v expression.Value) bool {
		if v.Property {
			return known.of(v.Name).sensitive
		}
		for _, name := range v.Of {
			if known.of(name).sensitive {
				return true
			}
		}
		return false
	}
	for clause := range c.All {
		for i, v := range clause.Values {
			if !sensitive(v) {
				continue
			}
			clause.Values[i].Value = "***"
			if clause.Error != "" {
				clause.Error = "failed on a sensitive value"
			}
		}
	}
}

// answers are what clauses are shown to say.
var answers = map[expression.Answer]cell{
	expression.Holds:      {"yes", green},
	expression.HoldsNot:   {"no", red},
	expression.Failed:     {"failed", red},
	expression.NotReached: {"-", dim},
}

// groups are how clauses with parts are shown.
var groups = map[expression.Kind]string{expression.And: "all of", expression.Or: "one of", expression.Not: "not"}

// printWhy shows whether a webhook fires and what each clause says.
func printWhy(s *screen, why *definition.Explanation) error {
	verdict := cell{"It fires: ", green}
	if !why.Fires {
		verdict = cell{"It does not fire: ", red}
	}
	if err := s.line(nil, verdict, plain(why.Why)); err != nil || why.Condition == nil {
		return err
	}
	return printClause(s, why.Condition, 0)
}

func printClause(s *screen, c *expression.Clause, depth int) error {
	const width = 8
	answer := answers[c.Answer]
	answer.text = fmt.Sprintf("  %-*s", width, answer.text)
	indent := strings.Repeat("  ", depth)
	if c.Kind != expression.Test {
		if err := s.line(nil, answer, plain(indent+groups[c.Kind])); err != nil {
			return err
		}
		for _, p := range c.Parts {
			if err := printClause(s, p, depth+1); err != nil {
				return err
			}
		}
		return nil
	}
	line := []cell{answer, plain(indent + c.Text)}
	for i, v := range c.Values {
		between := ", "
		if i == 0 {
			between = "    "
		}
		line = append(line, plain(between), describeValue(v))
	}
	if c.Error != "" {
		line = append(line, plain("    "), cell{c.Error, red})
	}
	return s.line(nil, line...)
}

// describeValue says what a clause looked at.
func describeValue(v expression.Value) cell {
	if v.Missing {
		return cell{v.Name + " is missing", yellow}
	}
	text := v.Name + " is " + asText(v.Value)
	if !fits(v.Value, v.Type) {
		return cell{text + fmt.Sprintf(" (the catalog says %s)", v.Type), yellow}
	}
	return cell{text, cyan}
}

// fits says whether a value is of a type; anything is where there is none.
func fits(v any, t pipeline.Type) bool {
	switch v.(type) {
	case string:
		return t == "" || t == pipeline.String || t == pipeline.Date
	case bool:
		return t == "" || t == pipeline.Boolean
	case int64:
		return t == "" || t == pipeline.Integer || t == pipeline.Number
	case float64:
		return t == "" || t == pipeline.Number
	}
	return true
}
