package main

import (
	"fmt"
	"strconv"
	"time"

	"github.com/millrace-io/millrace/pipeline/event"
	"github.com/millrace-io/millrace/pipeline/expression"
)

// under says which definitions it is explained under.
func (q *inquiry) under() string {
	switch {
	case q.atMatch:
		return fmt.Sprintf("the definitions in force at its match (offset %d)", q.then.Offset)
	case !q.matchedAt.IsZero():
		return fmt.Sprintf("the definitions that its delivery was made under (offset %d), since its match is not kept any more", q.then.Offset)
	}
	return fmt.Sprintf("the newest definitions (offset %d), since no match of it is kept", q.then.Offset)
}

func (q *inquiry) print() error {
	s := newPage(q.std.out)
	object, _ := describeEvent(q.event, q.then.Catalog, nil)
	text, err := marshal(object)
	if err != nil {
		return err
	}
	lines := [][]cell{
		{{"Event ", dim}, plain(string(text))},
		{{"Lies at ", dim}, plain(place(&q.record) + ", written " + stamped(q.record.Time))},
		{{"Under ", dim}, plain(q.under())},
	}
	if err := printLines(s, lines); err != nil {
		return err
	}
	if err := q.printVerdict(s); err != nil {
		return err
	}
	lines = nil
	if !q.matchedAt.IsZero() {
		lines = append(lines, []cell{{"Matched ", dim}, plain(stamped(q.matchedAt))})
	}
	for _, a := range q.attempts {
		lines = append(lines, attemptLine(a))
	}
	at := q.where()
	lines = append(lines, []cell{{"Delivery ", dim}, plain(q.id + ": "), {at.state, stateColor(at.state)}, plain(", " + at.detail)})
	return printLines(s, lines)
}

func (q *inquiry) printVerdict(s *screen) error {
	if q.why == nil {
		return s.line(nil, cell{"It can't be explained: ", red}, plain("there is no webhook of that name in these definitions that can be used"))
	}
	if err := printWhy(s, q.why); err != nil || !q.paused() {
		return err
	}
	return s.line(nil, cell{"Note: ", yellow}, plain("the webhook is paused: as it stands it matches nothing"))
}

func stamped(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }

func stateColor(state string) color {
	switch state {
	case stateDelivered:
		return green
	case stateDeadLetter:
		return red
	}
	return yellow
}

func attemptLine(a *event.Attempt) []cell {
	status := strconv.Itoa(a.Status)
	if a.Status == 0 {
		status = a.ErrorClass
	}
	line := []cell{
		{fmt.Sprintf("Attempt %d ", a.Attempt), dim},
		plain(stamped(a.At) + "  " + orDash(status) + "  " + a.Outcome + "  in " + a.Latency.Round(100*time.Microsecond).String()),
	}
	if a.Error != "" {
		line = append(line, plain("  "), cell{a.Error, red})
	}
	if len(a.Response) > 0 {
		line = append(line, plain("  "+string(a.Response)))
	}
	if !a.NextAt.IsZero() {
		line = append(line, plain("  "), cell{"next at " + stamped(a.NextAt), yellow})
	}
	return line
}

// explainObject is an explanation as JSON.
type explainObject struct {
	Webhook     string             `json:"webhook"`
	Event       eventObject        `json:"event"`
	Record      source             `json:"record"`
	Definitions int64              `json:"definitions"`
	AtMatch     bool               `json:"definitions_at_match"`
	Fires       bool               `json:"fires"`
	Why         string             `json:"why,omitempty"`
	Condition   *expression.Clause `json:"condition,omitempty"`
	Matched     time.Time          `json:"matched,omitzero"`
	Delivery    string             `json:"delivery"`
	State       string             `json:"state"`
	Detail      string             `json:"detail"`
	Attempts    []attemptObject    `json:"attempts"`
}

func (q *inquiry) printJSON() error {
	at := q.where()
	shown, _ := describeEvent(q.event, q.then.Catalog, nil)
	o := explainObject{
		Webhook: q.Webhook, Event: shown, Record: sourceOf(&q.record), Definitions: q.then.Offset, AtMatch: q.atMatch,
		Delivery: q.id, State: at.state, Detail: at.detail, Attempts: []attemptObject{},
	}
	if q.why != nil {
		o.Fires, o.Why, o.Condition = q.why.Fires, q.why.Why, q.why.Condition
	}
	if !q.matchedAt.IsZero() {
		o.Matched = q.matchedAt.UTC()
	}
	for _, a := range q.attempts {
		o.Attempts = append(o.Attempts, attemptOf(a))
	}
	return printJSON(q.std.out, o)
}
