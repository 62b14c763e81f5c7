package event

import (
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/millrace-io/millrace/pipeline"
)

// Operator is what an operator event says. Which of it an event has is in the
// catalog: what is empty is left out.
type Operator struct {
	Type        string // such as pipeline.DestinationPaused
	At          time.Time
	Destination string
	Lane        string
	Count       int64
	Webhook     string
	Delivery    string // id of one
	Reason      string
	Status      int    // of the HTTP response
	Detail      string // without secrets; put into one line, and cut where it is long
	By          string // who did it
	OpenUntil   time.Time
}

// maxDetail is how much is kept of a detail: a message is made of it.
const maxDetail = 1000

// Record returns the event as a record for the topic of operator events. Its id
// tells it from all others of the tenant, and is the same for the same values.
func (o *Operator) Record(names pipeline.Names) pipeline.Record {
	e := pipeline.Event{ID: o.id(), Source: operatorSource(names), Type: o.Type, Time: o.At, Environment: pipeline.Production}
	value := appendEnvelope([]byte{'{'}, &e)
	value = append(value, `,"properties":{`...)
	value = appendValue(append(value, `"destination":`...), o.Destination)
	for _, m := range o.members() {
		if m.value != "" && m.value != int64(0) {
			value = appendValue(append(value, m.name...), m.value)
		}
	}
	return pipeline.Record{Topic: names.OperatorEvents(), Key: []byte(o.Destination), Value: append(value, "}}"...)}
}

// member is a property as it is written, with the comma before it.
type member struct {
	name  string
	value any
}

func (o *Operator) members() []member {
	until := ""
	if !o.OpenUntil.IsZero() {
		until = o.OpenUntil.UTC().Format("2006-01-02T15:04:05.000Z07:00")
	}
	return []member{
		{`,"lane":`, o.Lane},
		{`,"count":`, o.Count},
		{`,"webhook":`, o.Webhook},
		{`,"delivery":`, o.Delivery},
		{`,"reason":`, o.Reason},
		{`,"status":`, int64(o.Status)},
		{`,"detail":`, detail(o.Detail)},
		{`,"by":`, o.By},
		{`,"open_until":`, until},
	}
}

// id is made of what happened, to whom and when; two of a millisecond differ in
// the delivery, since nothing else happens twice so soon.
func (o *Operator) id() string {
	id := strings.TrimPrefix(o.Type, pipeline.OperatorPrefix) + "/" + o.Destination + "/" + strconv.FormatInt(o.At.UnixMilli(), 10)
	if o.Delivery != "" {
		id += "/" + o.Delivery
	}
	return id
}

// operatorSource is the source of the operator events of a tenant.
func operatorSource(names pipeline.Names) string {
	if names == pipeline.DefaultPrefix || names == "" {
		return "millrace"
	}
	return "millrace/" + strings.TrimRight(string(names), "._-")
}

// detail is UTF-8, in one line and not too long.
func detail(text string) string {
	text = strings.Join(strings.Fields(strings.ToValidUTF8(text, "\uFFFD")), " ")
	if len(text) <= maxDetail {
		return text
	}
	cut := maxDetail
	for !utf8.RuneStart(text[cut]) {
		cut--
	}
	return text[:cut]
}
