package definition

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"time"

	"github.com/millrace-io/millrace/pipeline"
	"github.com/millrace-io/millrace/pipeline/event"
	"github.com/millrace-io/millrace/pipeline/expression"
)

// RunTests runs the tests that webhooks of the set hold against the webhooks as
// they are in the snapshot that Check gave. It returns what did not turn out as
// expected, and how many tests there were.
func (s *Set) RunTests(ctx context.Context, after *Snapshot) (count int, failures Problems) {
	decoder := event.NewDecoder(nil, "")
	for _, d := range s.Definitions {
		c := after.Webhooks[d.Name]
		if d.Kind != KindWebhook || c == nil {
			continue
		}
		for i, test := range c.Webhook.Tests {
			count++
			var is issues
			c.runTest(ctx, &test, decoder, after.Catalog, &is)
			for j := range is {
				is[j].path = append(at("tests", strconv.Itoa(i)), is[j].path...)
			}
			failures = append(failures, d.problems(is)...)
		}
	}
	return count, failures.sorted()
}

func (c *Compiled) runTest(ctx context.Context, test *Test, decoder *event.Decoder, catalog *event.Catalog, is *issues) {
	record := pipeline.Record{Topic: "test", Time: time.Now(), Value: test.Event}
	e, err := decoder.Decode(ctx, &record, catalog)
	if err != nil {
		is.add(at("event"), "found no event: %v", err)
		return
	}
	fires, why := c.fires(e)
	expected := test.Fires == nil || *test.Fires
	if fires != expected {
		is.add(at(), "the test failed: expected that the webhook %s, but it %s, since %s", firesOrNot(expected), firesOrNot(fires), why)
		return
	}
	if !fires {
		return
	}
	c.compareBody(test, e, is)
}

func firesOrNot(fires bool) string {
	if fires {
		return "fires"
	}
	return "does not fire"
}

// fires says whether the webhook fires for an event, and in words why.
func (c *Compiled) fires(e *pipeline.Event) (fires bool, why string) {
	w := c.Webhook
	switch {
	case !slices.Contains(w.Event, e.Type):
		return false, fmt.Sprintf("the event's type is %s", e.Type)
	case w.System != "" && w.System != e.System:
		return false, fmt.Sprintf("the event's system is %q, not %q", e.System, w.System)
	case w.Environment != e.Environment:
		return false, fmt.Sprintf("the event's environment is %s, not %s", e.Environment, w.Environment)
	case c.Condition == nil:
		return true, "it has no condition"
	}
	ok, err := c.Condition.Match(e)
	switch {
	case err != nil:
		return false, fmt.Sprintf("its condition failed: %v", err)
	case ok:
		return true, "its condition holds"
	default:
		return false, "its condition does not hold"
	}
}

// compareBody compares as JSON what would be sent; the query string of a GET as
// a text.
func (c *Compiled) compareBody(test *Test, e *pipeline.Event, is *issues) {
	in := &expression.Input{Event: e, DeliveryID: pipeline.DeliveryID(e, c.Webhook.Name), Webhook: c.Webhook.Name}
	out, err := c.Request(in)
	if dead, permanent := pipeline.IsPermanent(err); permanent {
		err = dead.Err
	}
	if err != nil {
		is.add(at(), "the test failed: no request can be made: %v", err)
		return
	}
	got := out.Value
	if c.Destination.Request.Method == http.MethodGet {
		got = appendText(nil, string(got))
	}
	if test.Body != nil && !equalJSON(got, test.Body) {
		is.add(at("body"), "the test failed: expected the body %s, got %s", compact(test.Body), compact(got))
	}
}

// equalJSON compares numbers by their value, digit for digit where they are
// integers, and ignores the order of keys.
func equalJSON(a, b json.RawMessage) bool {
	return reflect.DeepEqual(valueOf(a), valueOf(b))
}

func compact(raw json.RawMessage) string {
	var b bytes.Buffer
	if err := json.Compact(&b, raw); err != nil {
		return string(raw)
	}
	return b.String()
}
