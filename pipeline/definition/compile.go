package definition

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/millrace-io/millrace/pipeline/condition"
	"github.com/millrace-io/millrace/pipeline/event"
	"github.com/millrace-io/millrace/pipeline/expression"
	"github.com/millrace-io/millrace/pipeline/mapping"
)

// Compiled is a webhook in force, ready to run. Nothing in it changes.
type Compiled struct {
	Webhook     *Webhook             // with the defaults filled in
	Condition   *condition.Condition // nil: it always fires
	Mapping     *mapping.Mapping
	URL         *mapping.URL // nil unless it depends on the event
	Destination *Destination // with the defaults filled in
}

// issue is something wrong with a definition, found after its syntax: where it
// is as a path of keys and indexes, and the place within a text that is code.
type issue struct {
	path    []string
	line    int // from 1; 0: the whole value
	column  int
	message string
	warning bool
	lacks   Key // what it refers to and is not there
}

// String gives the issue for where there is no file: "properties.2.expr 1:5: …".
func (i issue) String() string {
	where := strings.Join(i.path, ".")
	if i.line > 0 {
		where += fmt.Sprintf(" %d:%d", i.line, i.column)
	}
	if where == "" {
		return i.message
	}
	return where + ": " + i.message
}

// issues collects what is wrong.
type issues []issue

func (is *issues) add(path []string, format string, args ...any) {
	*is = append(*is, issue{path: path, message: fmt.Sprintf(format, args...)})
}

func (is *issues) warn(path []string, format string, args ...any) {
	*is = append(*is, issue{path: path, message: fmt.Sprintf(format, args...), warning: true})
}

// addExpression adds the errors of an expression, each with its place.
func (is *issues) addExpression(path []string, err error) {
	all := expression.All(err)
	for _, e := range all {
		*is = append(*is, issue{path: path, line: e.Line, column: e.Column, message: e.Message})
	}
	if len(all) == 0 && err != nil {
		is.add(path, "%v", err)
	}
}

// err is what makes the definition unusable, or nil.
func (is issues) err() error {
	var errs []error
	for _, i := range is {
		if !i.warning {
			errs = append(errs, errors.New(i.String()))
		}
	}
	return errors.Join(errs...)
}

func at(path ...string) []string { return path }

// compileWebhook prepares a webhook. The result is nil if there is an issue that
// is no warning.
func compileWebhook(w *Webhook, catalog *event.Catalog, destinations map[string]*Destination) (*Compiled, issues) {
	var is issues
	*w = w.withDefaults()
	scope := w.scope(catalog, &is)
	out := &Compiled{Webhook: w}
	out.Condition = w.compileCondition(scope, &is)
	m, problems := mapping.Compile(w.mappingProperties(), scope)
	out.Mapping = m
	for _, p := range problems {
		path := at("properties", strconv.Itoa(p.Index), p.Key)
		is.addExpression(slices.DeleteFunc(path, func(s string) bool { return s == "" }), p.Err)
	}
	w.checkSecrets(&is)
	w.checkTests(&is)
	out.compileDestination(destinations, scope, &is)
	if is.err() != nil {
		return nil, is
	}
	return out, is
}

// scope is what the webhook's expressions may name.
func (w *Webhook) scope(catalog *event.Catalog, is *issues) expression.Scope {
	for i, name := range w.Event {
		path := at("event", strconv.Itoa(i))
		if slices.Contains(w.Event[:i], name) {
			is.add(path, "found the event type %s twice", name)
		}
		if _, ok := catalog.EventType(name); !ok {
			*is = append(*is, issue{
				path: path, warning: true, lacks: Key{KindEventType, name},
				message: fmt.Sprintf("the event type %s is not in the catalog, so its properties are not checked%s",
					name, expression.DidYouMean(name, namesOfTypes(catalog))),
			})
		}
	}
	props, aliases, err := catalog.Scope(w.Event...)
	if err != nil {
		is.add(at("event"), "%v", err)
	}
	return expression.Scope{Types: props, Aliases: aliases}
}

func namesOfTypes(catalog *event.Catalog) []string {
	var names []string
	for _, t := range catalog.Types() {
		names = append(names, t.Name)
	}
	return names
}

func (w *Webhook) compileCondition(scope expression.Scope, is *issues) *condition.Condition {
	switch {
	case len(w.Conditions) == 0 && w.Condition == "":
		return nil
	case len(w.Conditions) == 0:
		c, warnings, err := condition.Compile(w.Condition, scope)
		is.addExpression(at("condition"), err)
		for _, warning := range warnings {
			*is = append(*is, issue{path: at("condition"), line: warning.Line, column: warning.Column, message: warning.Message, warning: true})
		}
		return c
	case w.Condition != "":
		is.add(at("conditions"), "found both condition and conditions, expected one of them")
		return nil
	default:
		return w.compileRows(scope, is)
	}
}

// compileRows compiles the rows. Each makes one line of an expression, so what
// is wrong with a line is wrong with a row.
func (w *Webhook) compileRows(scope expression.Scope, is *issues) *condition.Condition {
	text, err := condition.FromRows(w.rows(), scope)
	if err != nil {
		is.addRows(err)
		return nil
	}
	c, warnings, err := condition.Compile(text, scope)
	for _, e := range expression.All(err) {
		is.add(at("conditions", strconv.Itoa(e.Line-1)), "%s", e.Message)
	}
	for _, warning := range warnings {
		is.warn(at("conditions", strconv.Itoa(warning.Line-1)), "%s", warning.Message)
	}
	return c
}

// addRows adds the errors of rows, each at the key of its row.
func (is *issues) addRows(err error) {
	if many, ok := err.(interface{ Unwrap() []error }); ok {
		for _, e := range many.Unwrap() {
			is.addRows(e)
		}
		return
	}
	if row, ok := errors.AsType[*condition.RowError](err); ok {
		is.add(at("conditions", strconv.Itoa(row.Index), row.Key), "%v", row.Err)
		return
	}
	is.add(at("conditions"), "%v", err)
}

func (w *Webhook) rows() []condition.Row {
	rows := make([]condition.Row, len(w.Conditions))
	for i, r := range w.Conditions {
		rows[i] = condition.Row{Join: r.Join, Property: r.Property, Operator: r.Operator, Value: valueOf(r.Value)}
	}
	return rows
}

func (w *Webhook) mappingProperties() []mapping.Property {
	out := make([]mapping.Property, len(w.Properties))
	for i, p := range w.Properties {
		out[i] = mapping.Property{From: p.From, As: p.As, Name: p.Name, Value: p.Value, Expr: p.Expr, Required: p.Required}
	}
	return out
}

// checkSecrets refuses what looks like a reference to a secret: nobody would look
// it up, and it would be sent as it is written.
func (w *Webhook) checkSecrets(is *issues) {
	for i, p := range w.Properties {
		for key, text := range map[string]string{"value": string(p.Value), "expr": p.Expr} {
			if strings.Contains(text, "${env:") || strings.Contains(text, "${file:") || strings.Contains(text, "${sealed:") {
				is.add(at("properties", strconv.Itoa(i), key), "found a reference to a secret, which only a destination may have: auth: {type: property} puts one into the body")
			}
		}
	}
}

func (w *Webhook) checkTests(is *issues) {
	for i, t := range w.Tests {
		if t.Fires != nil && !*t.Fires && t.Body != nil {
			is.add(at("tests", strconv.Itoa(i), "body"), "found a body for an event on which the webhook must not fire")
		}
	}
}

// compileDestination ties the webhook to its destination: the URL's expressions
// see this webhook's properties, and GET has no room for nested ones.
func (c *Compiled) compileDestination(destinations map[string]*Destination, scope expression.Scope, is *issues) {
	name := c.Webhook.Destination
	d, ok := destinations[name]
	if !ok {
		names := slices.Collect(maps.Keys(destinations))
		*is = append(*is, issue{
			path: at("destination"), lacks: Key{KindDestination, name},
			message: fmt.Sprintf("found the unknown destination %q%s", name, expression.DidYouMean(name, names)),
		})
		return
	}
	c.Destination = d
	url, err := mapping.CompileURL(d.Request.URL, scope)
	if err != nil {
		is.add(at("destination"), "the URL of destination %q can't be made of these events: %v", name, err)
	} else if url.Dynamic() {
		c.URL = url
	}
	c.checkContract(scope, is)
	c.checkAuthProperty(scope, is)
	if d.Request.Method == http.MethodGet && c.Mapping != nil {
		if err := c.Mapping.Flat(); err != nil {
			is.add(at("properties"), "destination %q is called with GET: %v", name, err)
		}
	}
}

// checkAuthProperty says whether there is room for the property that the
// destination's authentication adds.
func (c *Compiled) checkAuthProperty(scope expression.Scope, is *issues) {
	w, auth := c.Webhook, c.Destination.Auth
	if auth.Type != AuthProperty || len(w.Properties) == 0 || c.Mapping == nil {
		return
	}
	props := append(w.mappingProperties(), mapping.Property{Name: auth.Name, Value: json.RawMessage(`""`)})
	_, problems := mapping.Compile(props, scope)
	for _, p := range problems {
		is.add(at("properties"), "destination %q puts a secret under %q: %v", c.Destination.Name, auth.Name, p.Err)
	}
}
