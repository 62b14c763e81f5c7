package event

import (
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/millrace-io/millrace/pipeline"
)

// fullOperator has a value for everything an operator event may say.
func fullOperator(eventType string) *Operator {
	at := time.Date(2026, 1, 2, 3, 4, 5, 678e6, time.UTC)
	return &Operator{
		Type: eventType, At: at, Destination: "crm", Lane: "default", Count: 3, Webhook: "to-crm", Delivery: "c65f",
		Reason: "refused", Status: 401, Detail: "it said \"no\"", By: "sink", OpenUntil: at.Add(time.Minute),
	}
}

// What an operator event says is in the catalog, and all that is in the catalog
// can be said.
func TestOperatorEventsFitTheCatalog(t *testing.T) {
	t.Parallel()
	c, d := builtin(t), NewDecoder(nil, "cluster")
	d.Mismatches = func(eventType, property string) { t.Errorf("%s of %s contradicts the catalog", property, eventType) }
	described, written := map[string]bool{}, map[string]bool{}
	for _, want := range c.Types() {
		if !pipeline.IsOperator(want.Name) {
			continue
		}
		r := fullOperator(want.Name).Record(pipeline.DefaultPrefix)
		e, err := d.Decode(t.Context(), &r, c)
		if err != nil {
			t.Fatalf("%s: %v", r.Value, err)
		}
		if r.Topic != "millrace.operator-events" || string(r.Key) != "crm" || e.Type != want.Name || e.Source != "millrace" ||
			e.Environment != pipeline.Production || e.Time.Format(time.RFC3339Nano) != "2026-01-02T03:04:05.678Z" {
			t.Errorf("%s is %+v", r.Value, e)
		}
		for _, p := range want.Properties {
			described[p.Name] = true
			if e.Properties.Get(p.Name) == nil {
				t.Errorf("%s has no %s", want.Name, p.Name)
			}
		}
		for name := range e.Properties.All() {
			if mirrorOf(name) == mirrorNone {
				written[name] = true
			}
		}
	}
	if !maps.Equal(described, written) {
		t.Errorf("written is %v, described %v", written, described)
	}
}

func TestOperatorEventsLeaveOutWhatIsEmpty(t *testing.T) {
	t.Parallel()
	o := &Operator{Type: pipeline.DestinationPaused, At: time.UnixMilli(1767225600000), Destination: "crm"}
	want := `{"id":"destination_paused/crm/1767225600000","source":"millrace/acme","type":"millrace.destination_paused",` +
		`"environment":"production","time":"2026-01-01T00:00:00.000Z","properties":{"destination":"crm"}}`
	if r := o.Record("acme."); string(r.Value) != want {
		t.Errorf("got  %s\nwant %s", r.Value, want)
	}
}

// Ids tell events apart, and are the same for the same event.
func TestOperatorEventIDs(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, change := range []func(*Operator){
		func(*Operator) {},
		func(o *Operator) { o.Type = pipeline.DestinationDisabled },
		func(o *Operator) { o.Destination = "other" },
		func(o *Operator) { o.At = o.At.Add(time.Millisecond) },
		func(o *Operator) { o.Delivery = "other" },
	} {
		o := fullOperator(pipeline.DestinationPaused)
		change(o)
		again := *o
		again.Detail, again.Count = "else", 9
		if o.id() != again.id() || seen[o.id()] {
			t.Errorf("%s, again %s; so far %v", o.id(), again.id(), seen)
		}
		seen[o.id()] = true
	}
}

func TestOperatorDetail(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"one\r\n  two\tthree ":               "one two three",
		"\xff":                               "\uFFFD",
		strings.Repeat("a", maxDetail):       strings.Repeat("a", maxDetail),
		"a" + strings.Repeat("ü", maxDetail): "a" + strings.Repeat("ü", maxDetail/2-1),
	} {
		if got := detail(text); got != want {
			t.Errorf("%.50q became %.50q", text, got)
		}
	}
}
