package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/millrace-io/millrace/pipeline"
	"github.com/millrace-io/millrace/pipeline/event"
)

// view is one thing that tail can show.
type view struct {
	filters []string // that make sense
	head    []string // names of the columns
	widths  []int    // of the columns at first; they grow
	rest    string   // and of what stands behind them
	// read makes what is shown of a record. A record that can't be read is shown
	// with the reason; an error ends tail.
	read func(context.Context, *tail, *pipeline.Record) (shown, error)
}

// shown is what is shown of one record.
type shown struct {
	values map[string][]string // what filters look at, by their names
	cells  []cell
	rest   []cell
	object any // the same for programs
}

// views are what tail can show.
var views = map[string]view{
	"events": {
		filters: []string{"type", "user"},
		head:    []string{"TIME", "TYPE", "USER"}, widths: []int{12, 28, 8}, rest: "PROPERTIES",
		read: showEvent,
	},
	"matches": {
		filters: []string{"type", "user", "webhook"},
		head:    []string{"TIME", "TYPE", "USER", "EVENT", "WEBHOOKS"}, widths: []int{12, 28, 8, 16, 16}, rest: "PROPERTIES",
		read: showMatch,
	},
	"deliveries": {
		filters: []string{"type", "user", "webhook", "destination"},
		head:    []string{"TIME", "DELIVERY", "WEBHOOK", "DESTINATION", "ATTEMPTS", "DUE"}, widths: []int{12, 12, 16, 12, 8, 12}, rest: "BODY",
		read: showDelivery,
	},
	"attempts": {
		filters: []string{"type", "webhook", "destination", "status"},
		head:    []string{"TIME", "DELIVERY", "WEBHOOK", "DESTINATION", "ATTEMPT", "STATUS", "TOOK", "OUTCOME"},
		widths:  []int{12, 12, 16, 12, 7, 6, 8, 11}, rest: "ANSWER",
		read: showAttempt,
	},
	"dead-letters": {
		filters: []string{"type", "user", "webhook", "destination", "reason"},
		head:    []string{"TIME", "STAGE", "REASON", "WEBHOOK", "FROM"}, widths: []int{12, 9, 16, 16, 24}, rest: "ERROR AND VALUE",
		read: showDeadLetter,
	},
}

// source is where a record lies, for programs.
type source struct {
	Topic     string    `json:"topic"`
	Partition int32     `json:"partition"`
	Offset    int64     `json:"offset"`
	Written   time.Time `json:"written"`
}

func sourceOf(r *pipeline.Record) source {
	return source{r.Topic, r.Partition, r.Offset, r.Time.UTC()}
}

// unreadable shows a record that is not what it should be.
func unreadable(r *pipeline.Record, err error) shown {
	reason := err.Error()
	if dead, ok := pipeline.IsPermanent(err); ok {
		reason = dead.Err.Error()
	}
	return shown{
		cells: []cell{{clock(r.Time), dim}, {"unreadable", red}, plain(place(r))},
		rest:  []cell{{reason, red}, plain("  " + preview(r.Value))},
		object: struct {
			source
			Error string          `json:"error"`
			Value json.RawMessage `json:"value,omitempty"`
		}{sourceOf(r), reason, asJSON(r.Value)},
	}
}

// shortID is what people need of a delivery's id to tell it from others.
func shortID(id string) string { return id[:min(len(id), 12)] }

// deliveryObject is the envelope of a delivery as JSON.
type deliveryObject struct {
	ID          string    `json:"delivery"`
	Webhook     string    `json:"webhook"`
	Destination string    `json:"destination"`
	Lane        string    `json:"lane"`
	EventID     string    `json:"event"`
	EventType   string    `json:"type"`
	EventTime   time.Time `json:"time"`
	User        string    `json:"user,omitempty"`
	URL         string    `json:"url,omitempty"`
	Definitions int64     `json:"definitions"`
	Matched     time.Time `json:"matched"`
	Attempts    int       `json:"attempts"`
	Due         time.Time `json:"due,omitzero"`
}

func showDelivery(_ context.Context, _ *tail, r *pipeline.Record) (shown, error) {
	header, _ := r.Header(pipeline.EnvelopeHeader)
	d, err := pipeline.ParseDelivery(header)
	if err != nil {
		return unreadable(r, err), nil
	}
	due := "now"
	if !d.Due.IsZero() {
		due = clock(d.Due)
	}
	return shown{
		values: map[string][]string{
			"type": {d.EventType}, "user": {d.User}, "webhook": {d.Webhook}, "destination": {d.Destination},
		},
		cells: []cell{
			{clock(r.Time), dim}, plain(shortID(d.ID)), {d.Webhook, green}, plain(d.Destination), plain(strconv.Itoa(d.Attempts)), plain(due),
		},
		rest: []cell{plain(preview(r.Value))},
		object: struct {
			source
			deliveryObject
			Body json.RawMessage `json:"body,omitempty"`
		}{sourceOf(r), deliveryObject{
			d.ID, d.Webhook, d.Destination, d.Lane, d.EventID, d.EventType, d.EventTime, d.User, d.URL,
			d.Definitions, d.MatchedAt, d.Attempts, d.Due,
		}, asJSON(r.Value)},
	}, nil
}

func showAttempt(_ context.Context, _ *tail, r *pipeline.Record) (shown, error) {
	a, err := event.ParseAttempt(r.Value)
	if err != nil {
		return unreadable(r, err), nil
	}
	status, statusColor := strconv.Itoa(a.Status), green
	if a.Status == 0 {
		status = a.ErrorClass
	}
	if a.Outcome != "success" {
		statusColor = red
	}
	var rest []cell
	if !a.NextAt.IsZero() {
		rest = append(rest, cell{"next " + clock(a.NextAt) + "  ", yellow})
	}
	if a.Error != "" {
		rest = append(rest, cell{a.Error + "  ", red})
	}
	values := []string{a.Outcome}
	if a.Status != 0 {
		values = append(values, status, status[:1]+"xx")
	}
	return shown{
		values: map[string][]string{
			"type": {a.EventType}, "webhook": {a.Webhook}, "destination": {a.Destination}, "status": values,
		},
		cells: []cell{
			{clock(a.At), dim},
			plain(shortID(a.DeliveryID)),
			{a.Webhook, green},
			plain(a.Destination),
			plain("#" + strconv.Itoa(a.Attempt)),
			{orDash(status), statusColor},
			plain(a.Latency.Round(100 * time.Microsecond).String()), plain(a.Outcome),
		},
		rest: append(rest, plain(preview(a.Response))),
		object: struct {
			source
			attemptObject
		}{sourceOf(r), attemptOf(a)},
	}, nil
}

// attemptObject is an attempt as JSON.
type attemptObject struct {
	ID          string          `json:"delivery"`
	Webhook     string          `json:"webhook"`
	Destination string          `json:"destination"`
	Lane        string          `json:"lane"`
	EventID     string          `json:"event"`
	EventType   string          `json:"type"`
	Attempt     int             `json:"attempt"`
	At          time.Time       `json:"at"`
	LatencyMS   float64         `json:"latency_ms"`
	Status      int             `json:"status,omitempty"`
	Outcome     string          `json:"outcome"`
	ErrorClass  string          `json:"error_class,omitempty"`
	Error       string          `json:"error,omitempty"`
	Response    json.RawMessage `json:"response,omitempty"`
	NextAt      time.Time       `json:"next_at,omitzero"`
}

func attemptOf(a *event.Attempt) attemptObject {
	return attemptObject{
		a.DeliveryID, a.Webhook, a.Destination, a.Lane, a.EventID, a.EventType, a.Attempt, a.At,
		float64(a.Latency.Microseconds()) / 1000, a.Status, a.Outcome, a.ErrorClass, a.Error, asJSON(a.Response), a.NextAt,
	}
}

// deadLetterObject is a dead letter as JSON.
type deadLetterObject struct {
	source
	Stage       string          `json:"stage"`
	Reason      pipeline.Reason `json:"reason"`
	Error       string          `json:"error"`
	At          time.Time       `json:"at"`
	FromTopic   string          `json:"from_topic"`
	FromPart    int32           `json:"from_partition"`
	FromOffset  int64           `json:"from_offset"`
	Webhooks    []string        `json:"webhooks,omitempty"`
	Delivery    string          `json:"delivery,omitempty"`
	Destination string          `json:"destination,omitempty"`
	EventType   string          `json:"type,omitempty"`
	User        string          `json:"user,omitempty"`
	Value       json.RawMessage `json:"value,omitempty"`
}

func showDeadLetter(_ context.Context, _ *tail, r *pipeline.Record) (shown, error) {
	header, _ := r.Header(pipeline.EnvelopeHeader)
	x, err := pipeline.ParseDeadLetter(header)
	if err != nil {
		return unreadable(r, err), nil
	}
	was := originOf(&x)
	from := fmt.Sprintf("%s/%d@%d", x.Topic, x.Partition, x.Offset)
	return shown{
		values: map[string][]string{
			"type": {was.eventType}, "user": {was.user}, "webhook": was.webhooks, "destination": {was.destination},
			"reason": {string(x.Reason)},
		},
		cells: []cell{
			{clock(x.At), dim}, plain(x.Stage), {string(x.Reason), red}, plain(orDash(strings.Join(was.webhooks, ","))), plain(from),
		},
		rest: []cell{{x.Error + "  ", red}, plain(preview(r.Value))},
		object: deadLetterObject{
			sourceOf(r), x.Stage, x.Reason, x.Error, x.At, x.Topic, x.Partition, x.Offset,
			was.webhooks, x.Delivery, was.destination, was.eventType, was.user, asJSON(r.Value),
		},
	}, nil
}

// origin is what is known of what a dead letter was.
type origin struct {
	eventType, user, destination string
	webhooks                     []string
}

// originOf asks the envelope that the record had before, if it can be read.
func originOf(x *pipeline.DeadLetter) origin {
	var o origin
	if d, err := pipeline.ParseDelivery(x.Envelope); err == nil {
		o = origin{d.EventType, d.User, d.Destination, []string{d.Webhook}}
	} else if m, err := pipeline.ParseMatch(x.Envelope); err == nil {
		o = origin{m.Event.Type, m.Event.User, "", m.Webhooks}
	}
	if x.Webhook != "" {
		o.webhooks = []string{x.Webhook}
	}
	return o
}
