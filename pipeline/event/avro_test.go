package event

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math"
	"reflect"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/linkedin/goavro/v2"

	"github.com/millrace-io/millrace/pipeline"
	"github.com/millrace-io/millrace/schemas"
)

// schemaMap is a registry in memory.
type schemaMap map[int]string

func (m schemaMap) Schema(_ context.Context, id int) (string, error) {
	if s, ok := m[id]; ok {
		return s, nil
	}
	return "", ErrSchemaUnknown
}

// wire is an Avro datum in the Confluent wire format.
func wire(id uint32, avro []byte) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{avroMagic}, id), avro...)
}

// encoded encodes a datum with a schema of id 1.
func encoded(t testing.TB, schema string, datum map[string]any) []byte {
	t.Helper()
	codec, err := newCodec(schema)
	if err != nil {
		t.Fatal(err)
	}
	b, err := codec.BinaryFromNative(nil, datum)
	if err != nil {
		t.Fatal(err)
	}
	return wire(1, b)
}

func nullable(v string) any { return goavro.Union("string", v) }

func fullEvent() map[string]any {
	return map[string]any{
		"id": nullable("e1"), "source": nullable("src"), "type": "smart_walk_thru.goal_reached",
		"time":   goavro.Union("long.timestamp-millis", time.UnixMilli(1767225600123)),
		"system": nullable("billing"), "environment": nullable("qa"), "user": nullable("u1"), "session": nullable("s1"),
		"properties": map[string]any{
			"walk_thru_id": goavro.Union("long", int64(math.MaxInt64)), "goal_id": nullable("77"), "ratio": goavro.Union("double", 0.1),
			"large": goavro.Union("double", 1e20), "whole": goavro.Union("double", 5.0), "done": goavro.Union("boolean", true),
			"nothing": nil, "goal_name": nullable("Grüße \"x\"\n\x01"), "string": nullable("a name like a type"),
		},
	}
}

func TestAvro(t *testing.T) {
	t.Parallel()
	d := NewDecoder(schemaMap{1: schemas.EventAvro}, "cluster")
	r := rec(string(encoded(t, schemas.EventAvro, fullEvent())))
	if typ, err := d.Type(r); typ != "" || err != nil {
		t.Errorf("Type gives %q, %v", typ, err)
	}
	e, err := d.Decode(t.Context(), r, builtin(t))
	if err != nil {
		t.Fatal(err)
	}
	want := pipeline.Event{
		ID: "e1", Source: "src", Type: "smart_walk_thru.goal_reached", Time: time.UnixMilli(1767225600123).UTC(),
		System: "billing", Environment: "qa", User: "u1", Session: "s1",
	}
	if got := envelopeOf(e); got != want {
		t.Errorf("got %+v", got)
	}
	values := map[string]any{
		"walk_thru_id": int64(math.MaxInt64), "goal_id": int64(77), "ratio": 0.1, "large": 1e20, "whole": int64(5), "done": true,
		"nothing": nil, "goal_name": "Grüße \"x\"\n\x01", "string": "a name like a type",
		"wm.euid": "u1", "type": want.Type, "created_at": int64(1767225600123), "sid": "s1", "wm.env": int64(3),
	}
	if got := maps.Collect(e.Properties.All()); !reflect.DeepEqual(got, values) {
		t.Errorf("got %v", got)
	}
	again, err := d.Decode(t.Context(), r, builtin(t))
	if err != nil || string(AppendJSON(nil, e)) != string(AppendJSON(nil, again)) {
		t.Errorf("the same bytes in give other bytes out: %v", err)
	}
}

func TestAvroDefaults(t *testing.T) {
	t.Parallel()
	d := NewDecoder(schemaMap{1: schemas.EventAvro}, "cluster")
	e, err := d.Decode(t.Context(), rec(string(encoded(t, schemas.EventAvro, map[string]any{"type": "x"}))), builtin(t))
	if err != nil || e.ID != "cluster/shop/3/42" || e.Environment != "production" || !e.Time.Equal(recorded.Truncate(time.Millisecond)) {
		t.Errorf("got %+v, %v", e, err)
	}
}

// record is a schema with these fields besides the type.
func record(fields string) string {
	return `{"type":"record","name":"E","fields":[{"name":"type","type":"string"},` + fields + `]}`
}

func TestAvroByTheWritersSchema(t *testing.T) {
	t.Parallel()
	day := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for name, tt := range map[string]struct {
		fields string
		datum  map[string]any
		want   map[string]any // what the event has besides type, created_at and wm.env
	}{
		"no properties": {`{"name":"user","type":"string"}`, map[string]any{"user": "u"}, map[string]any{"wm.euid": "u"}},
		"unknown fields": {
			`{"name":"tenant","type":"string"},{"name":"user","type":["null","long"]}`,
			map[string]any{"tenant": "x", "user": goavro.Union("long", 7)},
			map[string]any{"wm.euid": "7"},
		},
		"null for properties": {
			`{"name":"properties","type":["null",{"type":"map","values":"string"}]}`,
			map[string]any{"properties": nil},
			map[string]any{},
		},
		"null or a map": {
			`{"name":"properties","type":["null",{"type":"map","values":"string"}]}`,
			map[string]any{"properties": goavro.Union("map", map[string]any{"map": "x"})},
			map[string]any{"map": "x"},
		},
		"one property called map": {
			`{"name":"properties","type":{"type":"map","values":["string","int"]}}`,
			map[string]any{"properties": map[string]any{"map": goavro.Union("int", 3)}},
			map[string]any{"map": int64(3)},
		},
		"other types": {
			`{"name":"properties","type":{"type":"map","values":["null","float",{"type":"long","logicalType":"timestamp-millis"},{"type":"enum","name":"Size","symbols":["S","L"]}]}}`,
			map[string]any{"properties": map[string]any{
				"f": goavro.Union("float", float32(0.5)), "t": goavro.Union("long.timestamp-millis", day), "e": goavro.Union("Size", "L"),
			}},
			map[string]any{"f": 0.5, "t": "2026-01-01T00:00:00Z", "e": "L"},
		},
		"mirrors": {
			`{"name":"properties","type":{"type":"map","values":"string"}}`,
			map[string]any{"properties": map[string]any{"wm.euId": "u", "sId": "s"}},
			map[string]any{"wm.euid": "u", "sid": "s"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			schema := record(tt.fields)
			tt.datum["type"] = "outside"
			d := NewDecoder(schemaMap{1: schema}, "")
			e, err := d.Decode(t.Context(), rec(string(encoded(t, schema, tt.datum))), builtin(t))
			if err != nil {
				t.Fatal(err)
			}
			got := maps.Collect(e.Properties.All())
			for _, n := range []string{"type", "created_at", "wm.env"} {
				delete(got, n)
			}
			if !reflect.DeepEqual(got, tt.want) {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}

func TestAvroUndecodable(t *testing.T) {
	t.Parallel()
	const stringMap = `{"name":"properties","type":{"type":"map","values":"string"}}`
	good := encoded(t, schemas.EventAvro, fullEvent())
	withType := func(rest string) []byte { return wire(1, []byte("\x02t"+rest)) }
	for name, tt := range map[string]struct {
		schema string
		value  []byte
		want   string
	}{
		"unknown schema":        {schemas.EventAvro, wire(2, good[5:]), "schema 2: the schema registry has no such"},
		"cut off":               {schemas.EventAvro, good[:len(good)-1], "schema 1: "},
		"bytes left over":       {schemas.EventAvro, append(good[:len(good):len(good)], 0), "1 bytes are left over"},
		"no bytes":              {schemas.EventAvro, wire(1, nil), "schema 1: "},
		"no schema":             {"<html>", good, "no Avro record"},
		"another kind":          {`"string"`, good, "no Avro record"},
		"nested record":         {record(`{"name":"x","type":{"type":"record","name":"N","fields":[]}}`), good, `type "record" is not supported`},
		"recursive record":      {record(`{"name":"x","type":["null","E"]}`), good, `type "E" is not supported`},
		"array":                 {record(`{"name":"x","type":{"type":"array","items":"null"}}`), good, `type "array" is not supported`},
		"map beside properties": {record(`{"name":"x","type":{"type":"map","values":"null"}}`), good, `type "map" is not supported`},
		"map of maps":           {record(`{"name":"properties","type":{"type":"map","values":{"type":"map","values":"int"}}}`), good, "field properties of the schema: type"},
		"properties as text":    {record(`{"name":"properties","type":"string"}`), good, "expected a map"},
		"properties as union":   {record(`{"name":"properties","type":["string",{"type":"map","values":"int"}]}`), good, "expected a map, or null or a map"},
		"decimal":               {record(`{"name":"x","type":{"type":"bytes","logicalType":"decimal","precision":4}}`), good, `logical type "decimal"`},
		"broken schema":         {record(`{"name":"x","type":"string"},{"name":"x","type":"string"}`), good, "compiling the schema"},
		"bytes in a property":   {record(`{"name":"properties","type":{"type":"map","values":"bytes"}}`), withType("\x02\x02a\x02b\x00"), `property "a": []uint8 is neither`},
		"NaN":                   {record(`{"name":"properties","type":{"type":"map","values":"float"}}`), withType("\x02\x02a\x00\x00\xc0\x7f\x00"), `property "a": NaN is no number`},
		"no UTF-8":              {record(stringMap), withType("\x02\x02a\x02\xff\x00"), "not UTF-8"},
		"no UTF-8 in a name":    {record(stringMap), withType("\x02\x02\xff\x02a\x00"), "not UTF-8"},
		"no UTF-8 in the type":  {record(stringMap), wire(1, []byte("\x02\xff\x00")), "type: expected UTF-8"},
		"no type":               {record(stringMap), wire(1, []byte("\x00\x00")), "no type"},
		"too many items":        {record(stringMap), withType("\xfe\xff\xff\xff\x0f"), "MaxBlockCount"},
		"too long a text":       {record(stringMap), wire(1, []byte("\xfe\xff\xff\xff\xff\xff\xff\x0f")), "schema 1: "},
		"a boolean as user":     {record(`{"name":"user","type":"boolean"}`), withType("\x01"), "user: expected text"},
		"a number as source":    {record(`{"name":"source","type":"long"}`), withType("\x02"), "source: expected text"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := NewDecoder(schemaMap{1: tt.schema}, "")
			for range 2 { // the second time from the codecs kept
				e, err := d.Decode(t.Context(), rec(string(tt.value)), builtin(t))
				p, ok := pipeline.IsPermanent(err)
				if !ok || p.Reason != pipeline.Undecodable || !strings.Contains(err.Error(), tt.want) {
					t.Fatalf("got %v, %v, want %q", e, err, tt.want)
				}
			}
		})
	}
}

// Not parallel, since memory is counted for the whole program.
func TestAvroBombsCostLittle(t *testing.T) {
	schema := record(`{"name":"properties","type":{"type":"map","values":"null"}}`)
	d, c := NewDecoder(schemaMap{1: schema}, ""), builtin(t)
	for name, avro := range map[string]string{
		"items that are not there": "\x02t" + string(binary.AppendVarint(nil, maxAvroItems)),
		"a text that is not there": string(binary.AppendVarint(nil, maxAvroBytes)),
		"more than is allowed":     "\x02t" + string(binary.AppendVarint(nil, math.MaxInt64)),
		"negative counts":          "\x02t" + string(binary.AppendVarint(nil, math.MinInt64)),
	} {
		r := rec(string(wire(1, []byte(avro))))
		_, _ = d.Decode(t.Context(), r, c) // builds the codec
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := d.Decode(t.Context(), r, c)
		runtime.ReadMemStats(&after)
		if used := after.TotalAlloc - before.TotalAlloc; err == nil || used > 2<<20 {
			t.Errorf("%s: %d bytes, %v", name, used, err)
		}
	}
}

// flaky is a registry that fails until it is mended.
type flaky struct {
	mu    sync.Mutex
	err   error
	asked int
}

func (f *flaky) Schema(context.Context, int) (string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked++
	return schemas.EventAvro, f.err
}

func TestAvroWaitsForTheRegistry(t *testing.T) {
	t.Parallel()
	down := errors.New("connection refused")
	reg := &flaky{err: down}
	d, c := NewDecoder(reg, ""), builtin(t)
	r := rec(string(encoded(t, schemas.EventAvro, fullEvent())))
	_, err := d.Decode(t.Context(), r, c)
	if after, ok := errors.AsType[*pipeline.RetryAfterError](err); !ok || after.After <= 0 || !errors.Is(err, down) {
		t.Fatalf("got %v", err)
	}
	if _, ok := pipeline.IsPermanent(err); ok {
		t.Fatalf("%v is permanent", err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := d.Decode(ended, r, c); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	} else if _, ok := pipeline.IsPermanent(err); ok {
		t.Errorf("%v is permanent", err)
	}
	reg.err = nil
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if e, err := d.Decode(t.Context(), r, c); err != nil || e.ID != "e1" {
				t.Errorf("got %v, %v", e, err)
			}
		})
	}
	wg.Wait()
	asked := reg.asked
	if _, err := d.Decode(t.Context(), r, c); err != nil || reg.asked != asked {
		t.Errorf("asked again: %v", err)
	}
}

func BenchmarkDecodeAvro(b *testing.B) {
	d, c := NewDecoder(schemaMap{1: schemas.EventAvro}, ""), builtin(b)
	r := rec(string(encoded(b, schemas.EventAvro, fullEvent())))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := d.Decode(b.Context(), r, c); err != nil {
			b.Fatal(err)
		}
	}
}

func TestEventSchemaIsFlat(t *testing.T) {
	t.Parallel()
	shape, err := readShape(schemas.EventAvro)
	if err != nil || fmt.Sprintf("%+v", shape) != "{union:false values:true}" {
		t.Errorf("got %+v, %v", shape, err)
	}
}
