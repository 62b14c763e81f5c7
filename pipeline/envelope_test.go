package pipeline_test

import (
	"encoding/binary"
	"errors"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"pgregory.net/rapid"

	"github.com/millrace-io/millrace/pipeline"
)

var (
	matchedAt  = time.UnixMilli(1_790_000_000_123).UTC()
	happenedAt = time.UnixMilli(1_789_999_999_001).UTC()
)

func aMatch() pipeline.Match {
	return pipeline.Match{
		Definitions: 7, At: matchedAt,
		Event: pipeline.Event{
			ID: "e-1", Source: "shop", Type: "launcher.clicked", Time: happenedAt,
			System: "crm", Environment: pipeline.QA, User: "u-1", Session: "s-1",
		},
		Webhooks: []string{"to-heap", "to-slack"},
	}
}

func aDelivery() pipeline.Delivery {
	return pipeline.Delivery{
		Definitions: 7, ID: "0123456789abcdef0123456789abcdef", Webhook: "to-heap", Destination: "heap",
		Lane: pipeline.DefaultLane, MatchedAt: matchedAt, URL: "https://heap.example/u-1", EventID: "e-1",
		EventType: "launcher.clicked", EventTime: happenedAt, User: "u-1", Attempts: 3, Due: matchedAt.Add(time.Minute),
	}
}

func aDeadLetter() pipeline.DeadLetter {
	return pipeline.DeadLetter{
		Stage: "sink", Reason: pipeline.FinalResponse, Error: "status 400", Topic: "millrace.deliveries.default",
		Partition: 3, Offset: 1 << 40, At: matchedAt, Webhook: "to-heap", Delivery: "0123", Envelope: []byte{1, 'D', 0},
	}
}

// The three kinds of envelopes as bytes, and what reads them.
var kinds = map[string]struct {
	whole func() []byte
	parse func(b []byte) (any, error)
	none  any
}{
	"match": {
		func() []byte { m := aMatch(); return m.AppendTo(nil) },
		func(b []byte) (any, error) { return pipeline.ParseMatch(b) },
		pipeline.Match{},
	},
	"delivery": {
		func() []byte { d := aDelivery(); return d.AppendTo(nil) },
		func(b []byte) (any, error) { return pipeline.ParseDelivery(b) },
		pipeline.Delivery{},
	},
	"dead letter": {
		func() []byte { x := aDeadLetter(); return x.AppendTo(nil) },
		func(b []byte) (any, error) { return pipeline.ParseDeadLetter(b) },
		pipeline.DeadLetter{},
	},
}

// TestEnvelopeFormat holds the bytes of format 1: records of that format are in
// topics, so other bytes need another format.
func TestEnvelopeFormat(t *testing.T) {
	t.Parallel()
	at, happened := "\xf6\xb1\x83\xc5\x98\x68", "\xb2\xa0\x83\xc5\x98\x68"
	for kind, want := range map[string]string{
		"match": "\x01M\x0e" + at + "\x03e-1\x04shop\x10launcher.clicked" + happened + "\x03crm\x02qa\x03u-1\x03s-1" +
			"\x02\x07to-heap\x08to-slack",
		"delivery": "\x01D\x0e\x200123456789abcdef0123456789abcdef\x07to-heap\x04heap\x07default" + at +
			"\x18https://heap.example/u-1\x03e-1\x10launcher.clicked" + happened + "\x03u-1\x06\xb6\xdb\x8a\xc5\x98\x68",
		"dead letter": "\x01X\x04sink\x0efinal_response\x0astatus 400\x1bmillrace.deliveries.default\x06\x80\x80\x80\x80\x80@" +
			at + "\x07to-heap\x040123\x03\x01D\x00",
	} {
		if got := string(kinds[kind].whole()); got != want {
			t.Errorf("%s: got\n%q, want\n%q", kind, got, want)
		}
	}
}

func anyTime() *rapid.Generator[time.Time] {
	return rapid.Custom(func(t *rapid.T) time.Time { // from the year 1, which is the zero time, to 9999; 1970 is among the first tried
		return time.UnixMilli(rapid.Int64Range(-62135596800000, 253402300799999).Draw(t, "ms")).UTC()
	})
}

func TestMatchRoundTrip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		text, at := rapid.String(), anyTime()
		want := pipeline.Match{
			Definitions: rapid.Int64().Draw(t, "definitions"), At: at.Draw(t, "at"),
			Event: pipeline.Event{
				ID: text.Draw(t, "id"), Source: text.Draw(t, "source"), Type: text.Draw(t, "type"), Time: at.Draw(t, "time"),
				System: text.Draw(t, "system"), Environment: text.Draw(t, "environment"),
				User: text.Draw(t, "user"), Session: text.Draw(t, "session"),
			},
			Webhooks: append([]string{}, rapid.SliceOfN(text, 0, pipeline.MaxWebhooks+1).Draw(t, "webhooks")...),
		}
		roundTrip(t, want.AppendTo, pipeline.ParseMatch, want)
	})
}

func TestDeliveryRoundTrip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		text, at := rapid.String(), anyTime()
		want := pipeline.Delivery{
			Definitions: rapid.Int64().Draw(t, "definitions"), ID: text.Draw(t, "id"), Webhook: text.Draw(t, "webhook"),
			Destination: text.Draw(t, "destination"), Lane: text.Draw(t, "lane"), MatchedAt: at.Draw(t, "matched at"),
			URL: text.Draw(t, "url"), EventID: text.Draw(t, "event id"), EventType: text.Draw(t, "event type"),
			EventTime: at.Draw(t, "event time"), User: text.Draw(t, "user"),
			Attempts: rapid.IntRange(0, 1<<31-1).Draw(t, "attempts"), Due: at.Draw(t, "due"),
		}
		roundTrip(t, want.AppendTo, pipeline.ParseDelivery, want)
	})
}

func TestDeadLetterRoundTrip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.String()
		want := pipeline.DeadLetter{
			Stage: text.Draw(t, "stage"), Reason: pipeline.Reason(text.Draw(t, "reason")), Error: text.Draw(t, "error"),
			Topic: text.Draw(t, "topic"), Partition: rapid.Int32Min(0).Draw(t, "partition"),
			Offset: rapid.Int64().Draw(t, "offset"), At: anyTime().Draw(t, "at"),
			Webhook: text.Draw(t, "webhook"), Delivery: text.Draw(t, "delivery"),
		}
		if b := rapid.SliceOf(rapid.Byte()).Draw(t, "envelope"); len(b) > 0 {
			want.Envelope = b
		}
		roundTrip(t, want.AppendTo, pipeline.ParseDeadLetter, want)
	})
}

// roundTrip writes behind what is there already, and reads.
func roundTrip[T any](t *rapid.T, write func(b []byte) []byte, parse func(b []byte) (T, error), want T) {
	b := write([]byte("before"))
	got, err := parse(b[len("before"):])
	if err != nil {
		t.Fatal(err)
	}
	if string(b[:len("before")]) != "before" || !reflect.DeepEqual(got, want) {
		t.Fatalf("got %+v, want %+v", got, want)
	}
}

// TestEnvelopeKeepsNothingOfTheRecord: the client uses a record's memory again.
func TestEnvelopeKeepsNothingOfTheRecord(t *testing.T) {
	t.Parallel()
	for name, k := range kinds {
		b := k.whole()
		before, err := k.parse(b)
		if err != nil {
			t.Fatal(err)
		}
		want, err := k.parse(k.whole())
		clear(b)
		if err != nil || !reflect.DeepEqual(before, want) {
			t.Errorf("%s changed with the record: %+v", name, before)
		}
	}
}

func TestBrokenEnvelopes(t *testing.T) {
	t.Parallel()
	for name, k := range kinds {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			whole := k.whole()
			other := kinds["match"].whole()
			if name == "match" {
				other = kinds["delivery"].whole()
			}
			broken := map[string][]byte{
				"empty": nil, "one byte": {pipeline.EnvelopeFormat}, "another kind": other,
				"format 0": append([]byte{0}, whole[1:]...), "a byte too many": append(k.whole(), 0),
			}
			for n := range whole {
				broken["cut to "+string(whole[:n])] = whole[:n]
			}
			for what, b := range broken {
				got, err := k.parse(b)
				if dead, ok := pipeline.IsPermanent(err); !ok || dead.Reason != pipeline.BrokenEnvelope || errors.Is(err, pipeline.ErrNewerFormat) {
					t.Errorf("%q gives the error %v", what, err)
				}
				if !reflect.DeepEqual(got, k.none) {
					t.Errorf("%q gives %+v", what, got)
				}
			}
		})
	}
}

func TestNewerFormat(t *testing.T) {
	t.Parallel()
	for name, k := range kinds {
		for _, b := range [][]byte{append([]byte{pipeline.EnvelopeFormat + 1}, k.whole()[1:]...), {2, 'Z'}, {255, 0, 1}} {
			got, err := k.parse(b)
			if _, permanent := pipeline.IsPermanent(err); permanent || !errors.Is(err, pipeline.ErrNewerFormat) || !reflect.DeepEqual(got, k.none) {
				t.Errorf("%s of format %d: %+v, %v", name, b[0], got, err)
			}
		}
	}
	_, err := pipeline.ParseMatch([]byte{2, 'M'})
	if want := "reading match envelope: format 2: record was written by a newer version of Millrace; upgrade this role first"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestEnvelopeErrors(t *testing.T) {
	t.Parallel()
	match, letter := kinds["match"], kinds["dead letter"]
	farAway := pipeline.Match{At: time.Date(10_000, 1, 1, 0, 0, 0, 0, time.UTC)}
	negative := pipeline.Delivery{Attempts: -1}
	beyond := append([]byte{pipeline.EnvelopeFormat, 'X', 0, 0, 0, 0}, binary.AppendVarint(nil, 1<<31)...)
	for want, parsed := range map[string]func() (any, error){
		"broken_envelope: reading match envelope: envelope is cut short":               func() (any, error) { return match.parse(nil) },
		"broken_envelope: reading match envelope: format 0 is not known":               func() (any, error) { return match.parse([]byte{0, 'M'}) },
		`broken_envelope: reading match envelope: kind is 'X', not 'M'`:                func() (any, error) { return match.parse(letter.whole()) },
		"broken_envelope: reading match envelope: 1 bytes too many":                    func() (any, error) { return match.parse(append(match.whole(), 0)) },
		"broken_envelope: reading match envelope: a number is out of range":            func() (any, error) { return match.parse(farAway.AppendTo(nil)) },
		"broken_envelope: reading delivery envelope: a number is out of range":         func() (any, error) { return pipeline.ParseDelivery(negative.AppendTo(nil)) },
		"broken_envelope: reading dead letter envelope: a number is out of range":      func() (any, error) { return letter.parse(beyond) },
		"broken_envelope: reading dead letter envelope: kind is 'M', not 'X'":          func() (any, error) { return letter.parse(match.whole()) },
		"broken_envelope: reading delivery envelope: envelope is cut short":            func() (any, error) { return pipeline.ParseDelivery([]byte{1, 'D', 0x80}) },
		"broken_envelope: reading dead letter envelope: format 0 is not known":         func() (any, error) { return letter.parse(make([]byte, 9)) },
		"broken_envelope: reading delivery envelope: kind is '\\x00', not 'D'":         func() (any, error) { return pipeline.ParseDelivery([]byte{1, 0}) },
		"broken_envelope: reading dead letter envelope: envelope is cut short":         func() (any, error) { return letter.parse([]byte{1, 'X', 200, 'a'}) },
		"reading delivery envelope: format 9: " + pipeline.ErrNewerFormat.Error() + "": func() (any, error) { return pipeline.ParseDelivery([]byte{9, 'D'}) },
	} {
		if _, err := parsed(); err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

// TestHostileCounts: what an envelope claims to hold is not what room is made
// for. (Not parallel: it counts the bytes that the process takes.)
func TestHostileCounts(t *testing.T) {
	claims := func(n uint64) []byte {
		m := pipeline.Match{}
		b := m.AppendTo(nil)
		return append(binary.AppendUvarint(b[:len(b)-1], n), "\x01w"...)
	}
	if m, err := pipeline.ParseMatch(claims(1)); err != nil || len(m.Webhooks) != 1 {
		t.Fatalf("got %v, %v: the claim is not where it should be", m, err)
	}
	for _, n := range []uint64{2, 1 << 24, 1 << 60, 1<<64 - 1} {
		b := claims(n)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := pipeline.ParseMatch(b)
		runtime.ReadMemStats(&after)
		if _, permanent := pipeline.IsPermanent(err); !permanent {
			t.Errorf("%d webhooks in %d bytes: %v", n, len(b), err)
		}
		if took := after.TotalAlloc - before.TotalAlloc; took > 16<<10 {
			t.Errorf("%d webhooks in %d bytes took %d bytes", n, len(b), took)
		}
	}
}

func TestDeliveryKey(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ lane, user, want string }{
		{pipeline.DefaultLane, "u", "heap"}, {pipeline.DefaultLane, "", "heap"}, {"own", "u", "u"}, {"own", "", "id"},
	} {
		d := pipeline.Delivery{ID: "id", Destination: "heap", Lane: c.lane, User: c.user}
		if got := string(d.Key()); got != c.want {
			t.Errorf("lane %s, user %q: %s, want %s", c.lane, c.user, got, c.want)
		}
	}
}

func TestWithEnvelope(t *testing.T) {
	t.Parallel()
	in := []pipeline.Header{
		{"ce_id", []byte("1")},
		{"content-type", nil},
		{pipeline.EnvelopeHeader, []byte("old")},
		{"traceparent", []byte("t")},
		{"ce", nil},
		{"Ce_id", nil},
		{"tracestate", []byte("s")},
		{"ce_", []byte("2")},
		{"traceparent2", nil},
	}
	got := pipeline.WithEnvelope(in, []byte("new"))
	want := []pipeline.Header{
		{"ce_id", []byte("1")},
		{"traceparent", []byte("t")},
		{"tracestate", []byte("s")},
		{"ce_", []byte("2")},
		{pipeline.EnvelopeHeader, []byte("new")},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if string(in[2].Value) != "old" {
		t.Error("the headers given were changed")
	}
}

func TestNewDeadLetter(t *testing.T) {
	t.Parallel()
	r := &pipeline.Record{
		Topic: "events", Partition: 3, Offset: 42, Time: happenedAt, Key: []byte("u\xff"), Value: []byte("\x00no event"),
		Headers: []pipeline.Header{{"a", []byte("1")}, {pipeline.EnvelopeHeader, []byte("own")}, {"a", []byte("2")}, {"content-type", nil}},
	}
	out := pipeline.NewDeadLetter("dead", r, pipeline.DeadLetter{
		Stage: "filter", Reason: pipeline.Undecodable, Error: "no JSON", At: matchedAt, Topic: "x", Partition: 9, Offset: 9,
	})
	last := len(out.Headers) - 1
	x, err := pipeline.ParseDeadLetter(out.Headers[last].Value)
	if err != nil || out.Headers[last].Key != pipeline.EnvelopeHeader {
		t.Fatalf("%q, %v", out.Headers, err)
	}
	want := pipeline.DeadLetter{
		Stage: "filter", Reason: pipeline.Undecodable, Error: "no JSON", At: matchedAt,
		Topic: "events", Partition: 3, Offset: 42, Envelope: []byte("own"),
	}
	if !reflect.DeepEqual(x, want) {
		t.Errorf("got %+v, want %+v", x, want)
	}
	others := []pipeline.Header{{"a", []byte("1")}, {"a", []byte("2")}, {"content-type", nil}}
	if !reflect.DeepEqual(out.Headers[:last], others) {
		t.Errorf("headers are %q", out.Headers[:last])
	}
	out.Headers = nil
	if !reflect.DeepEqual(out, pipeline.Record{Topic: "dead", Key: r.Key, Value: r.Value}) {
		t.Errorf("the record is %+v", out)
	}
}

func TestDeadLetterWithoutEnvelope(t *testing.T) {
	t.Parallel()
	out := pipeline.NewDeadLetter("dead", &pipeline.Record{Topic: "events"}, pipeline.DeadLetter{})
	if x := mustDeadLetter(t, &out); x.Envelope != nil {
		t.Errorf("an envelope came from nowhere: %q", x.Envelope)
	}
}

func mustDeadLetter(t *testing.T, r *pipeline.Record) pipeline.DeadLetter {
	t.Helper()
	header, _ := r.Header(pipeline.EnvelopeHeader)
	x, err := pipeline.ParseDeadLetter(header)
	if err != nil {
		t.Fatal(err)
	}
	return x
}

func TestDeadLetterErrorsAreCut(t *testing.T) {
	t.Parallel()
	const most = 4096
	for name, c := range map[string]struct{ text, want string }{
		"short":              {"no", "no"},
		"just fits":          {strings.Repeat("x", most), strings.Repeat("x", most)},
		"one too many":       {strings.Repeat("x", most+1), strings.Repeat("x", most)},
		"inside a character": {strings.Repeat("x", most-1) + "é", strings.Repeat("x", most-1)},
		"after a character":  {strings.Repeat("x", most-2) + "éé", strings.Repeat("x", most-2) + "é"},
		"inside an emoji":    {strings.Repeat("x", most-3) + "😀😀", strings.Repeat("x", most-3)},
		"several lines":      {"a\nb", "a; b"},
		"no UTF-8":           {"a\xff\x80b", "a\uFFFDb"},
		"no UTF-8 at all":    {strings.Repeat("\x80", 2*most), "\uFFFD"},
	} {
		out := pipeline.NewDeadLetter("dead", &pipeline.Record{}, pipeline.DeadLetter{Error: c.text})
		if got := mustDeadLetter(t, &out).Error; got != c.want || !utf8.ValidString(got) {
			t.Errorf("%s: %d bytes, ends in %q; want %d", name, len(got), got[max(0, len(got)-8):], len(c.want))
		}
	}
}

func TestLastHeaderCounts(t *testing.T) {
	t.Parallel()
	r := pipeline.Record{Headers: []pipeline.Header{{"a", []byte("1")}, {"a", []byte("2")}, {"b", nil}}}
	if v, ok := r.Header("a"); string(v) != "2" || !ok {
		t.Errorf("a is %q, %v", v, ok)
	}
	if v, ok := r.Header("b"); v != nil || !ok {
		t.Errorf("b is %q, %v", v, ok)
	}
	if _, ok := r.Header("A"); ok {
		t.Error("A is there")
	}
}
