package event

import (
	"bytes"
	"encoding/json"
	"io"
	"maps"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/millrace-io/millrace/pipeline"
	"github.com/millrace-io/millrace/schemas"
)

// seeds are events in JSON, good and bad, for any of the fuzz tests.
var seeds = []string{
	sample,
	`{"type":"t"}`, `{}`, ` {"type" : "t" , "id":5,"time":1767225600000 } `, `{"type":null,"properties":{"type":"t","type":"u"}}`,
	`{"properties":{"type":"inner"},"type":"outer"}`, `{"x":{"type":"no"},"y":["type","no",{"type":"no"}],"type":"yes"}`,
	`{"t\u0079pe":"\ud83d\ude00\"\\"}`, `{"type":"\ud800"}`, `{"type":"a","type":"b"}`, `{"a\"type":1,"type":"t\\"}`,
	`{"type":"t","properties":{"wm.euid":1,"wm.euId":"x","wm.env":"3","created_at":"1767225600000","sId":true}}`,
	`{"type":"t","properties":{"a":9223372036854775808,"b":-0,"c":5.0,"d":1e308,"e":"","":null,"f\u0000":false}}`,
	`{"type":"survey.submitted","properties":{"answer.1":5,"wants_help":"true","nps_score":"9"}}`,
	`{"type":"t","properties":{"a":{"b":1}}}`, `{"type":"t","properties":[]}`, `{"data":{"type":"t"},"properties":{"type":"x"}}`,
	`{"specversion":"1.0","type":"t","subject":"u","data":{"a":1},"data_base64":null}`,
	`{"type":"t"}{}`, `{"type":"t",}`, `{"type":"t\xff"}`, `[[[[`, `{"a":1e999}`, `{"a":01}`, `{"a":NaN}`, "{\"type\":\"\x01\"}", "",
}

func addSeeds(f *testing.F) {
	f.Helper()
	for _, s := range seeds {
		f.Add([]byte(s))
	}
}

// FuzzJSON decodes Event JSON and compares what is accepted with encoding/json.
func FuzzJSON(f *testing.F) {
	addSeeds(f)
	c, d := builtin(f), NewDecoder(nil, "cluster")
	f.Fuzz(func(t *testing.T, value []byte) {
		e, err := d.Decode(t.Context(), rec(string(value)), c)
		if err != nil {
			checkError(t, err)
			return
		}
		if value[0] != avroMagic {
			compare(t, e, value, "properties")
		}
		checkEvent(t, d, c, e)
	})
}

// FuzzStructured does the same with CloudEvents in structured mode.
func FuzzStructured(f *testing.F) {
	addSeeds(f)
	c, d := builtin(f), NewDecoder(nil, "cluster")
	f.Fuzz(func(t *testing.T, value []byte) {
		e, err := d.Decode(t.Context(), structuredRecord(string(value)), c)
		if err != nil {
			checkError(t, err)
			return
		}
		compare(t, e, value, "data")
		checkEvent(t, d, c, e)
	})
}

// FuzzBinary does the same with CloudEvents in binary mode.
func FuzzBinary(f *testing.F) {
	for _, s := range seeds {
		f.Add([]byte(s), "t", "2026-01-01T00:00:00Z", "u", "qa")
	}
	f.Add([]byte(`{"wm.env":3,"type":"x"}`), "", "1767225600000", "", "")
	c, d := builtin(f), NewDecoder(nil, "cluster")
	f.Fuzz(func(t *testing.T, value []byte, typ, at, user, environment string) {
		e, err := d.Decode(t.Context(), binaryRecord(string(value), "ce_type", typ, "ce_time", at, "ce_subject", user, "ce_environment", environment), c)
		if err != nil {
			checkError(t, err)
			return
		}
		if typ != "" && e.Type != typ || user != "" && e.User != user {
			t.Errorf("got %+v of %q, %q", e, typ, user)
		}
		compareProperties(t, e, value)
		checkEvent(t, d, c, e)
	})
}

// FuzzAvro decodes with our schema and with one that has what ours has not.
func FuzzAvro(f *testing.F) {
	other := record(`{"name":"user","type":["null","long","string"]},{"name":"time","type":"long"},{"name":"kind","type":{"type":"enum","name":"K","symbols":["A"]}},` +
		`{"name":"properties","type":["null",{"type":"map","values":["bytes","float",{"type":"int","logicalType":"date"},"string"]}]}`)
	f.Add(encoded(f, schemas.EventAvro, fullEvent()))
	f.Add(encoded(f, schemas.EventAvro, map[string]any{"type": "x"}))
	f.Add(wire(2, []byte("\x02t\x02\x0e\x00\x00\x02\x02\x02a\x06\x02b\x00")))
	f.Add(wire(2, []byte("\x02t\x00\x00\x00\x00")))
	c, d := builtin(f), NewDecoder(schemaMap{1: schemas.EventAvro, 2: other}, "cluster")
	f.Fuzz(func(t *testing.T, value []byte) {
		if len(value) == 0 || value[0] != avroMagic {
			return
		}
		e, err := d.Decode(t.Context(), rec(string(value)), c)
		if err != nil {
			checkError(t, err)
			return
		}
		checkEvent(t, d, c, e)
	})
}

// FuzzAttempt makes sure that nothing on the attempts topic breaks a reader.
func FuzzAttempt(f *testing.F) {
	f.Add(AppendAttempt(nil, exampleAttempt()))
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := ParseAttempt(b)
		if err != nil {
			return
		}
		again, err := ParseAttempt(AppendAttempt(nil, a))
		if err != nil || len(a.Response) <= MaxResponse && !reflect.DeepEqual(a, again) {
			t.Errorf("got %+v, %v, want %+v", again, err, a)
		}
	})
}

// checkError makes sure that an error is a short reason for a dead letter.
func checkError(t *testing.T, err error) {
	t.Helper()
	p, ok := pipeline.IsPermanent(err)
	if !ok || p.Reason != pipeline.Undecodable || len(err.Error()) > 1000 {
		t.Errorf("got %v", err)
	}
}

// checkEvent checks what holds for every event: attributes and property types,
// and that it is the same after a match record.
func checkEvent(t *testing.T, d *Decoder, c *Catalog, e *pipeline.Event) {
	t.Helper()
	if e.Type == "" || e.ID == "" || e.Environment != pipeline.Production && e.Environment != pipeline.QA || e.Time.Year() < 1 || e.Time.Year() > 9999 {
		t.Errorf("got %+v", e)
	}
	before := maps.Collect(e.Properties.All())
	for name, v := range before {
		if got := e.Properties.Get(name); !reflect.DeepEqual(got, v) {
			t.Errorf("%q is %v, and %v among all", name, got, v)
		}
		switch v.(type) {
		case nil, bool, int64, float64, string, json.Number:
		default:
			t.Errorf("%q is a %T", name, v)
		}
	}
	envelope, err := pipeline.ParseMatch((&pipeline.Match{Event: *e}).AppendTo(nil))
	if err != nil {
		t.Fatal(err)
	}
	value := AppendJSON(nil, e)
	if !json.Valid(value) {
		t.Fatalf("AppendJSON gives %s", value)
	}
	after, err := d.Match(value, &envelope, c)
	if err != nil {
		t.Fatalf("%s: %v", value, err)
	}
	if envelopeOf(after) != envelopeOf(e) {
		t.Errorf("after the match %+v, before %+v", after, e)
	}
	if got := maps.Collect(after.Properties.All()); !reflect.DeepEqual(got, before) {
		t.Errorf("after the match %v, before %v", got, before)
	}
}

// compare checks an event against what encoding/json reads.
func compare(t *testing.T, e *pipeline.Event, value []byte, properties string) {
	t.Helper()
	members, ok := reference(value)
	if !ok || !utf8.Valid(value) {
		t.Fatalf("accepted %q", value)
	}
	var typ string
	if json.Unmarshal(members["type"], &typ) == nil && typ != "" && typ != e.Type {
		t.Errorf("type is %q, want %q", e.Type, typ)
	}
	compareProperties(t, e, members[properties])
}

// compareProperties checks that each value is what was written, or converted.
func compareProperties(t *testing.T, e *pipeline.Event, object []byte) {
	t.Helper()
	props, ok := reference(object)
	if !ok && len(bytes.TrimSpace(object)) > 0 && string(bytes.TrimSpace(object)) != "null" {
		t.Fatalf("accepted properties %q", object)
	}
	for name, raw := range props {
		if mirrored(name) {
			continue
		}
		d := json.NewDecoder(bytes.NewReader(raw))
		d.UseNumber()
		var want any
		if err := d.Decode(&want); err != nil {
			t.Fatal(err)
		}
		if got := e.Properties.Get(name); !same(got, want) {
			t.Errorf("%q is %T %v, want %v", name, got, got, want)
		}
	}
}

func mirrored(name string) bool {
	return mirrorOf(name) != mirrorNone || name == "wm.euId" || name == "sId"
}

// same compares a value with encoding/json's; text may have become a number, a
// boolean or the reverse.
func same(got, want any) bool {
	n, isNumber := want.(json.Number)
	switch got := got.(type) {
	case int64:
		if f, err := n.Float64(); isNumber && strings.ContainsAny(n.String(), ".eE") {
			return err == nil && f == float64(got)
		}
		return strconv.FormatInt(got, 10) == strings.Replace(text(want), "-0", "0", 1) || strconv.FormatInt(got, 10) == text(want)
	case float64:
		f, err := strconv.ParseFloat(text(want), 64)
		return err == nil && f == got
	case string, json.Number, bool:
		return text(got) == text(want)
	}
	return got == want
}

func text(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case json.Number:
		return v.String()
	case bool:
		return strconv.FormatBool(v)
	}
	return ""
}

// reference reads the members of an object by encoding/json; the last of a name
// wins, as with us.
func reference(value []byte) (members map[string]json.RawMessage, ok bool) {
	if !json.Valid(value) || json.Unmarshal(value, &members) != nil || members == nil {
		return nil, false
	}
	return members, true
}

// FuzzType compares Type with a walk over encoding/json's tokens.
func FuzzType(f *testing.F) {
	addSeeds(f)
	d, c := NewDecoder(nil, ""), builtin(f)
	f.Fuzz(func(t *testing.T, value []byte) {
		for container, r := range map[string]*pipeline.Record{"properties": rec(string(value)), "data": structuredRecord(string(value))} {
			got, err := d.Type(r)
			if err != nil || !utf8.Valid(value) {
				continue
			}
			if want, ok := referenceType(value, container); ok && got != want {
				t.Errorf("got %q, want %q", got, want)
			}
			if e, err := d.Decode(t.Context(), r, c); got != "" && err == nil && e.Type != got {
				t.Errorf("Type gives %q, Decode %q", got, e.Type)
			}
		}
	})
}

// referenceType is the first "type" of the object that is text and not empty,
// else the last one of the object of that name.
func referenceType(value []byte, container string) (typ string, ok bool) {
	if !json.Valid(value) {
		return "", false
	}
	d := json.NewDecoder(bytes.NewReader(value))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return "", false
	}
	var inner json.RawMessage
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return "", false
		}
		var raw json.RawMessage
		if err := d.Decode(&raw); err != nil && err != io.EOF {
			return "", false
		}
		if name == "type" && raw[0] == '"' && json.Unmarshal(raw, &typ) == nil && typ != "" {
			return typ, true
		}
		if name == container {
			inner = raw
		}
	}
	props, _ := reference(inner)
	if raw := props["type"]; len(raw) > 0 && raw[0] == '"' {
		_ = json.Unmarshal(raw, &typ)
	}
	return typ, true
}

// FuzzScanner compares what the scanner accepts with encoding/json.
func FuzzScanner(f *testing.F) {
	addSeeds(f)
	f.Fuzz(func(t *testing.T, value []byte) {
		text := string(value)
		if err := checkText(text); err != nil {
			if utf8.Valid(value) {
				t.Errorf("refused UTF-8: %v", err)
			}
			return
		}
		s := &scanner{text: text}
		_, err := s.value(0)
		if err == nil {
			err = s.end()
		}
		if valid := json.Valid(value); err == nil && !valid {
			t.Error("accepted what is no JSON")
		} else if valid && err != nil && !strings.Contains(err.Error(), "nested more") && !strings.Contains(err.Error(), "number") {
			t.Errorf("refused JSON: %v", err)
		}
	})
}
