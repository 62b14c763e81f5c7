package event

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/millrace-io/millrace/pipeline"
)

// recorded is the timestamp of records in tests.
var recorded = time.Date(2026, 3, 4, 5, 6, 7, 8_900_000, time.UTC)

// rec is a record with a value and headers, given as key, value, key, value.
func rec(value string, headers ...string) *pipeline.Record {
	r := &pipeline.Record{Topic: "shop", Partition: 3, Offset: 42, Time: recorded, Value: []byte(value)}
	for i := 0; i < len(headers); i += 2 {
		r.Headers = append(r.Headers, pipeline.Header{Key: headers[i], Value: []byte(headers[i+1])})
	}
	return r
}

// at is a record with that timestamp.
func at(ms int64, value string) *pipeline.Record {
	r := rec(value)
	r.Time = time.UnixMilli(ms)
	return r
}

func binaryRecord(value string, headers ...string) *pipeline.Record {
	return rec(value, append([]string{"ce_specversion", "1.0"}, headers...)...)
}

func structuredRecord(value string) *pipeline.Record {
	return rec(value, "content-type", "application/cloudevents+json; charset=UTF-8")
}

// decode decodes with a decoder of its own.
func decode(t *testing.T, r *pipeline.Record) (*pipeline.Event, error) {
	t.Helper()
	return NewDecoder(nil, "cluster").Decode(t.Context(), r, builtin(t))
}

func mustDecode(t *testing.T, r *pipeline.Record) *pipeline.Event {
	t.Helper()
	e, err := decode(t, r)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// envelopeOf is an event without its properties.
func envelopeOf(e *pipeline.Event) pipeline.Event {
	without := *e
	without.Properties = nil
	return without
}

func TestFormsGiveTheSameEvent(t *testing.T) {
	t.Parallel()
	const props = `{"walk_thru_id":12345,"ratio":0.5,"done":true,"nothing":null,"goal_name":"Gr\u00fc\u00dfe \"x\""}`
	const attributes = `"id":"e1","source":"src","type":"smart_walk_thru.goal_reached","time":"2026-01-01T12:00:00.5+02:00","system":"billing","environment":"qa","session":"s1"`
	want := pipeline.Event{
		ID: "e1", Source: "src", Type: "smart_walk_thru.goal_reached", System: "billing", Environment: "qa", User: "u1", Session: "s1",
		Time: time.Date(2026, 1, 1, 10, 0, 0, 500_000_000, time.UTC),
	}
	values := map[string]any{
		"walk_thru_id": int64(12345), "ratio": 0.5, "done": true, "nothing": nil, "goal_name": `Grüße "x"`,
		"wm.euid": "u1", "type": want.Type, "created_at": want.Time.UnixMilli(), "sid": "s1", "wm.env": int64(3),
	}
	for name, r := range map[string]*pipeline.Record{
		"Event JSON": rec(`{` + attributes + `,"user":"u1","properties":` + props + `}`),
		"Event JSON in another order": rec(` { "properties" : ` + props + ` , "more":[{"type":"no"}] , "user":"u1",` +
			attributes + " }\r\n"),
		"structured mode": structuredRecord(`{"specversion":"1.0","data":` + props + `,"subject":"u1","datacontenttype":"application/json",` +
			`"user":{"not":"ours"},` + attributes + `}`),
		"binary mode": binaryRecord(props, "ce_id", "e1", "ce_source", "src", "ce_type", want.Type,
			"ce_time", "2026-01-01T10:00:00.500Z", "ce_subject", "u1", "ce_system", "billing", "ce_environment", "qa",
			"ce_session", "s1", "ce_other", "x", "content-type", "application/json"),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := mustDecode(t, r)
			if got := envelopeOf(e); got != want {
				t.Errorf("got %+v", got)
			}
			if got := maps.Collect(e.Properties.All()); !reflect.DeepEqual(got, values) {
				t.Errorf("got %v\nwant %v", got, values)
			}
			for name, v := range values {
				if got := e.Properties.Get(name); got != v {
					t.Errorf("%s is %v, want %v", name, got, v)
				}
			}
			if typ, err := NewDecoder(nil, "").Type(r); typ != want.Type || err != nil {
				t.Errorf("Type gives %q, %v", typ, err)
			}
		})
	}
}

func TestWhatIsMissing(t *testing.T) {
	t.Parallel()
	want := pipeline.Event{
		ID: "cluster/shop/3/42", Type: "menu.opened", Environment: "production",
		Time: time.Date(2026, 3, 4, 5, 6, 7, 8_000_000, time.UTC),
	}
	for name, r := range map[string]*pipeline.Record{
		"Event JSON":                   rec(`{"type":"menu.opened"}`),
		"nulls and empty text":         rec(`{"type":"menu.opened","id":null,"user":"","time":null,"environment":"","properties":null}`),
		"structured mode":              structuredRecord(`{"type":"menu.opened"}`),
		"binary mode without a value":  binaryRecord("", "ce_type", "menu.opened"),
		"binary mode, null":            binaryRecord(" null ", "ce_type", "menu.opened"),
		"binary mode, only a type":     rec("{}", "ce_type", "menu.opened"),
		"binary mode, the last header": rec("{}", "ce_type", "menu.searched", "ce_type", "menu.opened"),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := mustDecode(t, r)
			if got := envelopeOf(e); got != want {
				t.Errorf("got %+v", got)
			}
			if got := e.Properties.Get("query"); got != nil {
				t.Errorf("query is %v", got)
			}
		})
	}
}

func TestDerivedIDUsesTheTopicsID(t *testing.T) {
	t.Parallel()
	d := NewDecoder(nil, "cluster")
	d.TopicID = func(topic string) string { return "uuid-of-" + topic }
	e, err := d.Decode(t.Context(), rec(`{"type":"x"}`), builtin(t))
	if err != nil || e.ID != "cluster/uuid-of-shop/3/42" {
		t.Errorf("got %v, %v", e, err)
	}
}

func TestMirrors(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, tt := range []struct {
		name, json string
		field      func(*pipeline.Event) any
		want       any
		property   string
		value      any
	}{
		{"user fills wm.euid", `"user":"u"`, user, "u", "wm.euid", "u"},
		{"wm.euid fills user", `"properties":{"wm.euid":"u"}`, user, "u", "wm.euid", "u"},
		{"its alias does", `"properties":{"wm.euId":"u"}`, user, "u", "wm.euid", "u"},
		{"an alias can be asked for", `"properties":{"wm.euid":"u"}`, user, "u", "wm.euId", "u"},
		{"the name wins over the alias", `"properties":{"wm.euid":"u","wm.euId":"v"}`, user, "u", "wm.euid", "u"},
		{"the last of two wins", `"properties":{"wm.euid":"u","wm.euid":"v"}`, user, "v", "wm.euid", "v"},
		{"the envelope wins", `"user":"u","properties":{"wm.euid":"v"}`, user, "u", "wm.euid", "u"},
		{"null is missing", `"user":null,"properties":{"wm.euid":"v"}`, user, "v", "wm.euid", "v"},
		{"a number as user", `"user":12345678901234567890123`, user, "12345678901234567890123", "wm.euid", "12345678901234567890123"},
		{"a number as wm.euid", `"properties":{"wm.euid":12345}`, user, "12345", "wm.euid", "12345"},
		{"what is no user stays", `"properties":{"wm.euid":1.50}`, user, "", "wm.euid", 1.5},
		{"neither", `"properties":{}`, user, "", "wm.euid", nil},

		{"session fills sid", `"session":"s"`, session, "s", "sid", "s"},
		{"sId fills session", `"properties":{"sId":"s"}`, session, "s", "sid", "s"},
		{"the session wins", `"session":"s","properties":{"sid":"t"}`, session, "s", "sid", "s"},

		{"time fills created_at", `"time":"2026-01-01T00:00:00Z"`, when, at, "created_at", at.UnixMilli()},
		{"created_at fills time", `"properties":{"created_at":1767225600000}`, when, at, "created_at", at.UnixMilli()},
		{"created_at as text", `"properties":{"created_at":"1767225600000"}`, when, at, "created_at", at.UnixMilli()},
		{"the time wins", `"time":1767225600000,"properties":{"created_at":5}`, when, at, "created_at", at.UnixMilli()},
		{"epoch milliseconds as text", `"time":"1767225600000"`, when, at, "created_at", at.UnixMilli()},
		{"epoch milliseconds with a fraction", `"time":1767225600000.75`, when, at, "created_at", at.UnixMilli()},
		{"epoch milliseconds with an exponent", `"time":1.7672256e12`, when, at, "created_at", at.UnixMilli()},
		{"before 1970", `"time":-0.5`, when, time.UnixMilli(-1).UTC(), "created_at", int64(-1)},
		{"neither time", `"user":"u"`, when, recorded.Truncate(time.Millisecond), "created_at", recorded.UnixMilli()},
		{"no time in created_at", `"properties":{"created_at":"monday"}`, when, recorded.Truncate(time.Millisecond), "created_at", recorded.UnixMilli()},

		{"environment fills wm.env", `"environment":"qa"`, environment, "qa", "wm.env", int64(3)},
		{"environment in capitals", `"environment":"QA"`, environment, "qa", "wm.env", int64(3)},
		{"wm.env 3", `"properties":{"wm.env":3}`, environment, "qa", "wm.env", int64(3)},
		{"wm.env 3 as text", `"properties":{"wm.env":"3"}`, environment, "qa", "wm.env", int64(3)},
		{"wm.env 0", `"properties":{"wm.env":0}`, environment, "production", "wm.env", int64(0)},
		{"the environment wins", `"environment":"production","properties":{"wm.env":3}`, environment, "production", "wm.env", int64(0)},
		{"neither environment", `"user":"u"`, environment, "production", "wm.env", int64(0)},

		{"the type wins", `"properties":{"type":"menu.opened"}`, eventType, "t", "type", "t"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			e := mustDecode(t, rec(`{"type":"t",`+tt.json+`}`))
			if got := tt.field(e); got != tt.want {
				t.Errorf("field is %v, want %v", got, tt.want)
			}
			if got := e.Properties.Get(tt.property); got != tt.value {
				t.Errorf("%s is %v, want %v", tt.property, got, tt.value)
			}
		})
	}
	for _, r := range []*pipeline.Record{
		rec(`{"properties":{"type":"menu.opened"}}`),
		rec(`{"type":"","properties":{"type":"menu.opened"}}`),
		rec(`{"type":null,"properties":{"type":5,"type":"menu.opened"}}`),
		structuredRecord(`{"data":{"\u0074ype":"menu.opened"}}`),
		binaryRecord(`{"type":"menu.opened"}`),
	} {
		if e := mustDecode(t, r); e.Type != "menu.opened" || e.Properties.Get("type") != "menu.opened" {
			t.Errorf("%s: type is %q", r.Value, e.Type)
		}
	}
}

func user(e *pipeline.Event) any        { return e.User }
func session(e *pipeline.Event) any     { return e.Session }
func when(e *pipeline.Event) any        { return e.Time }
func environment(e *pipeline.Event) any { return e.Environment }
func eventType(e *pipeline.Event) any   { return e.Type }

func TestUndecodable(t *testing.T) {
	t.Parallel()
	props := func(p string) *pipeline.Record { return rec(`{"type":"t","properties":` + p + `}`) }
	member := func(m string) *pipeline.Record { return rec(`{"type":"t",` + m + `}`) }
	for name, tt := range map[string]struct {
		record *pipeline.Record
		want   string
	}{
		"empty":                        {rec(""), "the record is empty"},
		"white space":                  {rec(" \n"), "the record is empty"},
		"text":                         {rec("hello"), "starts with byte 0x68"},
		"an array":                     {rec(`[{"type":"t"}]`), "starts with byte 0x5b"},
		"byte order mark":              {rec("\ufeff{}"), "byte order mark"},
		"two objects":                  {rec(`{"type":"t"}{"type":"t"}`), "byte 12: expected the end, found '{'"},
		"a zero byte after":            {rec("{\"type\":\"t\"}\x00"), "expected the end"},
		"cut off":                      {rec(`{"type":"t"`), "byte 11: expected , or }, found the end"},
		"cut off in a string":          {rec(`{"type":"t`), "found the end"},
		"trailing comma":               {rec(`{"type":"t",}`), "expected a name in quotes"},
		"no UTF-8":                     {rec("{\"type\":\"t\xff\"}"), "not UTF-8 from byte 10"},
		"no UTF-8 in a header":         {binaryRecord("{}", "ce_type", "\xff"), "header ce_type is not UTF-8"},
		"control character":            {rec("{\"type\":\"t\n\"}"), "control character"},
		"bad escape":                   {rec(`{"type":"\x"}`), "expected an escape"},
		"bad unicode escape":           {rec(`{"type":"\u12g4"}`), "expected an escape"},
		"no type":                      {rec(`{}`), "no type"},
		"a number as type":             {rec(`{"type":5}`), "type: expected text"},
		"an object as user":            {member(`"user":{"id":1}`), "user: expected text"},
		"a fraction as user":           {member(`"user":1.5`), "user: expected text"},
		"a boolean as source":          {member(`"source":true`), "source: expected text"},
		"id twice":                     {member(`"id":"a","id":"b"`), "id is there twice"},
		"type twice":                   {member(`"typ\u0065":"a"`), "type is there twice"},
		"properties twice":             {member(`"properties":{},"properties":{}`), "properties is there twice"},
		"no such day":                  {member(`"time":"2026-02-30T00:00:00Z"`), "time: expected RFC 3339"},
		"a word as time":               {member(`"time":"monday"`), `found "monday"`},
		"a boolean as time":            {member(`"time":true`), "time: expected text"},
		"the year 10000":               {member(`"time":253402300800000`), "years 1 to 9999"},
		"the year 0":                   {member(`"time":"0000-06-01T00:00:00Z"`), "years 1 to 9999"},
		"created_at in microseconds":   {props(`{"created_at":1767225600000000}`), "years 1 to 9999"},
		"a timestamp in microseconds":  {at(recorded.UnixMicro(), `{"type":"t"}`), "years 1 to 9999"},
		"another environment":          {member(`"environment":"staging"`), `expected production or qa, found "staging"`},
		"another wm.env":               {props(`{"wm.env":1}`), "expected 0 (production) or 3 (qa), found 1"},
		"text in wm.env":               {props(`{"wm.env":"live"}`), "found live"},
		"properties as array":          {props(`[]`), "expected {, found '['"},
		"nested object":                {props(`{"a":1,"b":{"c":2}}`), `property "b" holds an object or an array`},
		"nested array":                 {props(`{"a":[]}`), `property "a" holds`},
		"NaN":                          {props(`{"a":NaN}`), "expected a value, found 'N'"},
		"nan":                          {props(`{"a":nan}`), "expected null"},
		"Infinity":                     {props(`{"a":-Infinity}`), "expected a number"},
		"leading zero":                 {props(`{"a":01}`), "without leading zeros"},
		"plus":                         {props(`{"a":+1}`), "expected a value"},
		"no digit after the point":     {props(`{"a":1.}`), "expected a digit"},
		"no digit in the exponent":     {props(`{"a":1e}`), "expected a digit"},
		"cut off in an exponent":       {rec(`{"type":"t","properties":{"a":1e`), "expected a digit"},
		"too large a number":           {props(`{"a":1e309}`), "too large"},
		"too long a number":            {props(`{"a":1` + strings.Repeat("0", 400) + `}`), "too long"},
		"too large without exponent":   {props(`{"a":1` + strings.Repeat("0", 309) + `.5}`), "too large"},
		"nested too deep":              {member(`"x":` + strings.Repeat("[", 100_000)), "nested more than 64 deep"},
		"data_base64":                  {structuredRecord(`{"type":"t","data_base64":"e30="}`), "data_base64: not supported"},
		"CloudEvents 2":                {structuredRecord(`{"type":"t","specversion":"2.0"}`), "expected CloudEvents 1.0"},
		"CloudEvents 2 in the headers": {rec("{}", "ce_specversion", "2.0", "ce_type", "t"), "expected CloudEvents 1.0"},
		"a number as version":          {structuredRecord(`{"type":"t","specversion":1}`), "specversion: expected text"},
		"a batch":                      {rec("[]", "content-type", "application/cloudevents-batch+json"), "is not supported"},
		"another encoding":             {rec("", "content-type", "application/cloudevents+avro"), "is not supported"},
		"binary mode, two values":      {binaryRecord("{} {}", "ce_type", "t"), "expected the end"},
		"binary mode, an array":        {binaryRecord("[1]", "ce_type", "t"), "expected {"},
		"binary mode, no type":         {binaryRecord("{}"), "no type"},
		"Avro without a registry":      {rec("\x00\x00\x00\x00\x01x"), "need a schema registry"},
		"Avro, cut off":                {rec("\x00\x00\x00"), "too few for Avro"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e, err := decode(t, tt.record)
			p, ok := pipeline.IsPermanent(err)
			if !ok || p.Reason != pipeline.Undecodable || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("got %v, %v, want %q", e, err, tt.want)
			}
			if len(err.Error()) > 250 {
				t.Errorf("the error has %d bytes", len(err.Error()))
			}
		})
	}
}

// Not parallel, since memory is counted for the whole program.
func TestHugeValuesCostLittle(t *testing.T) {
	d, c := NewDecoder(nil, ""), builtin(t)
	for name, bomb := range map[string]string{
		"brackets":   `{"x":` + strings.Repeat("[", 1<<20),
		"objects":    strings.Repeat(`{"a":`, 1<<18),
		"backslash":  `{"type":"` + strings.Repeat(`\"`, 1<<19),
		"digits":     `{"x":` + strings.Repeat("9", 1<<20) + "}",
		"properties": `{"type":"t","properties":{` + strings.Repeat(`"a":1,`, 1<<17) + `"b":2}}`,
	} {
		r := rec(bomb)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, _ = d.Type(r)
		_, _ = d.Decode(t.Context(), r, c)
		runtime.ReadMemStats(&after)
		if used := after.TotalAlloc - before.TotalAlloc; used > 30*uint64(len(bomb)) {
			t.Errorf("%s: %d bytes for %d", name, used, len(bomb))
		}
	}
}

func TestManyProperties(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	b.WriteString(`{"type":"t","properties":{`)
	for i := range 10_000 {
		fmt.Fprintf(&b, `"p%d":%d,`, i, i)
	}
	b.WriteString(`"p7":"last","wm.euId":"u"}}`)
	e := mustDecode(t, rec(b.String()))
	n := 0
	for range e.Properties.All() {
		n++
	}
	if n != 10_000+1+4-1 || e.Properties.Get("p7") != "last" || e.Properties.Get("p9999") != int64(9999) || e.User != "u" {
		t.Errorf("%d properties, p7 %v, user %q", n, e.Properties.Get("p7"), e.User)
	}
}

func TestAllYieldsEachPropertyOnceInOrder(t *testing.T) {
	t.Parallel()
	e := mustDecode(t, rec(`{"type":"t","user":"u","properties":{"b":1,"a":2,"b":3,"sId":"s","c":null,"wm.euId":"x","answer.9":"y"}}`))
	var got []string
	for name, v := range e.Properties.All() {
		got = append(got, fmt.Sprintf("%s=%v", name, v))
	}
	want := fmt.Sprintf("a=2 b=3 sid=s c=<nil> wm.euid=u answer.9=y type=t created_at=%d wm.env=0", recorded.UnixMilli())
	if strings.Join(got, " ") != want {
		t.Errorf("got  %s\nwant %s", strings.Join(got, " "), want)
	}
	for range e.Properties.All() {
		break // must not go on
	}
}

func TestIntegersKeepEveryDigit(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]any{
		"9223372036854775807":  int64(9223372036854775807),
		"-9223372036854775808": int64(-9223372036854775808),
		"9007199254740993":     int64(9007199254740993),
		"9223372036854775808":  json.Number("9223372036854775808"),
		"18446744073709551615": json.Number("18446744073709551615"),
		"-9223372036854775809": json.Number("-9223372036854775809"),
		"0":                    int64(0),
		"-0":                   int64(0),
		"5.0":                  5.0,
		"1e3":                  1000.0,
		"1E-400":               0.0,
	} {
		e := mustDecode(t, rec(`{"type":"outside","properties":{"n":`+text+`}}`))
		if got := e.Properties.Get("n"); got != want {
			t.Errorf("%s is %T %v, want %v", text, got, got, want)
		}
	}
}

func TestMatchHasTheEnvelopeOfTheMatch(t *testing.T) {
	t.Parallel()
	c, d := builtin(t), NewDecoder(nil, "cluster")
	for name, r := range map[string]*pipeline.Record{
		"Event JSON":  rec(`{"type":"launcher.clicked","properties":{"launcher_id":"77","wm.euId":"u","wm.env":3,"x":"\u00e9"},"more":{}}`),
		"binary mode": binaryRecord(`{ "launcher_id":"77" , "x":"é"}`, "ce_type", "launcher.clicked", "ce_subject", "u", "ce_environment", "qa"),
		"no value":    binaryRecord("", "ce_type", "launcher.clicked"),
		"at 1970":     rec(`{"type":"launcher.clicked","time":0}`),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e, err := d.Decode(t.Context(), r, c)
			if err != nil {
				t.Fatal(err)
			}
			envelope, err := pipeline.ParseMatch((&pipeline.Match{Event: *e}).AppendTo(nil))
			if err != nil {
				t.Fatal(err)
			}
			value := AppendJSON([]byte("x"), e)[1:]
			if len(r.Headers) == 0 && string(value) != string(r.Value) {
				t.Errorf("passed on as %s", value)
			}
			got, err := d.Match(value, &envelope, c)
			if err != nil {
				t.Fatal(err)
			}
			if envelopeOf(got) != envelopeOf(e) {
				t.Errorf("got %+v, want %+v", got, e)
			}
			if got, want := maps.Collect(got.Properties.All()), maps.Collect(e.Properties.All()); !reflect.DeepEqual(got, want) {
				t.Errorf("got %v, want %v", got, want)
			}
		})
	}
	if _, err := d.Match([]byte("{"), &pipeline.Match{}, c); err == nil {
		t.Error("a broken value was accepted")
	}
}

func TestEventKeepsNothingOfTheRecord(t *testing.T) {
	t.Parallel()
	r := rec(sample)
	e := mustDecode(t, r)
	clear(r.Value)
	if e.User != "u-10427" || e.Properties.Get("goal_name") != "Invoice sent" || string(AppendJSON(nil, e)) != sample {
		t.Error("the event changed with the record")
	}
}
