package main

import (
	"encoding/json"
	"fmt"

	"github.com/millrace-io/millrace/pipeline/expression"
	"github.com/millrace-io/millrace/pipeline/httpsend"
)

// print shows all that is known before a call.
func (t *trial) print() error {
	s := newPage(t.std.out)
	w := t.webhook
	if w.Condition != nil {
		hideSensitive(t.why.Condition, t.defs.Catalog, t.event.Type)
	}
	text, err := t.eventText()
	if err != nil {
		return err
	}
	lines := [][]cell{
		{{"Webhook ", dim}, {w.Webhook.Name, green}, {" to destination ", dim}, plain(w.Destination.Name)},
		{{t.origin() + " ", dim}, plain(text)},
	}
	if err := printLines(s, lines); err != nil {
		return err
	}
	if err := printWhy(s, t.why); err != nil {
		return err
	}
	if t.request != nil {
		if err := t.printRequest(s); err != nil {
			return err
		}
	}
	return printLines(s, t.remarks())
}

func printLines(s *screen, lines [][]cell) error {
	for _, l := range lines {
		if err := s.line(nil, l...); err != nil {
			return err
		}
	}
	return nil
}

// origin says where the event comes from.
func (t *trial) origin() string {
	switch {
	case t.given != nil:
		return "Event"
	case t.why.Fires:
		return "Event (generated)"
	}
	return fmt.Sprintf("Event (generated; it fires for none of the %d that were tried)", t.tried)
}

// eventText is the event as JSON, sensitive values left out.
func (t *trial) eventText() (string, error) {
	object, _ := describeEvent(t.event, t.defs.Catalog, nil)
	text, err := marshal(object)
	return string(text), err
}

func (t *trial) printRequest(s *screen) error {
	head := "Request"
	if !t.why.Fires {
		head = "Request, if it fired"
	}
	lines := [][]cell{{{head, dim}}, {plain("  " + t.request.Method + " " + t.request.URL)}}
	for _, h := range t.request.Header {
		lines = append(lines, []cell{plain("  " + h.Name + ": " + h.Value)})
	}
	if len(t.request.Body) > 0 {
		lines = append(lines, []cell{}, []cell{plain("  " + string(t.request.Body))})
	}
	return printLines(s, lines)
}

func (t *trial) remarks() (lines [][]cell) {
	for _, p := range t.problems {
		lines = append(lines, []cell{{"Problem: ", red}, plain(p)})
	}
	for _, n := range t.notes {
		lines = append(lines, []cell{{"Note: ", yellow}, plain(n)})
	}
	return lines
}

// testObject is a test as JSON.
type testObject struct {
	Webhook     string             `json:"webhook"`
	Destination string             `json:"destination"`
	Generated   bool               `json:"generated"`
	Event       eventObject        `json:"event"`
	Fires       bool               `json:"fires"`
	Why         string             `json:"why"`
	Condition   *expression.Clause `json:"condition,omitempty"`
	Request     *requestObject     `json:"request,omitempty"`
	Problems    []string           `json:"problems"`
	Notes       []string           `json:"notes"`
	Sent        *sentObject        `json:"sent,omitempty"`
}

type requestObject struct {
	Method  string          `json:"method"`
	URL     string          `json:"url"`
	Headers []headerObject  `json:"headers"`
	Body    json.RawMessage `json:"body,omitempty"`
}

type headerObject struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// sentObject is what came of a call.
type sentObject struct {
	Successful bool            `json:"successful"`
	Status     int             `json:"status,omitempty"`
	Outcome    string          `json:"outcome"`
	ErrorClass string          `json:"error_class,omitempty"`
	Error      string          `json:"error,omitempty"`
	Response   json.RawMessage `json:"response,omitempty"`
	LatencyMS  float64         `json:"latency_ms"`
	LookAt     string          `json:"look_at,omitempty"`
}

func (t *trial) object() testObject {
	if t.why.Condition != nil {
		hideSensitive(t.why.Condition, t.defs.Catalog, t.event.Type)
	}
	shown, _ := describeEvent(t.event, t.defs.Catalog, nil)
	o := testObject{
		Webhook: t.webhook.Webhook.Name, Destination: t.webhook.Destination.Name, Generated: t.given == nil,
		Event: shown, Fires: t.why.Fires, Why: t.why.Why, Condition: t.why.Condition,
		Problems: append([]string{}, t.problems...), Notes: append([]string{}, t.notes...),
	}
	if r := t.request; r != nil {
		o.Request = &requestObject{Method: r.Method, URL: r.URL, Body: asJSON(r.Body)}
		for _, h := range r.Header {
			o.Request.Headers = append(o.Request.Headers, headerObject{h.Name, h.Value})
		}
	}
	if t.result != nil {
		o.Sent = t.sent()
	}
	return o
}

func (t *trial) sent() *sentObject {
	r := t.result
	o := &sentObject{
		Successful: r.Outcome == httpsend.Success, Status: r.Status, Outcome: r.Outcome.String(), ErrorClass: string(r.Class),
		Response: asJSON(r.Response), LatencyMS: float64(r.Latency.Microseconds()) / 1000,
	}
	if !o.Successful {
		o.Error, o.LookAt = oneLine(r.Err), lookAt(r)
	}
	return o
}
