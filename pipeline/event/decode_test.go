package event

import (
	"context"
	"testing"
	"time"

	"github.com/millrace-io/millrace/pipeline"
)

const sample = `{"id":"0197f9f0-3c1e-7c52-8d1b-2f6f3f0f7a11","source":"player/eu","type":"smart_walk_thru.goal_reached","time":"2026-01-01T10:00:00.123Z","system":"billing","environment":"production","user":"u-10427","session":"s-5f2c9a","properties":{"walk_thru_id":12345,"walk_thru_name":"Create your first invoice","goal_id":77,"goal_name":"Invoice sent","wm.language":"en-US","env.browser.name":"Chrome","env.os.name":"Windows","ctx.location.hostname":"app.example.com","ctx.location.pathname":"/invoices/new"}}`

func BenchmarkType(b *testing.B) {
	d := NewDecoder(nil, "c")
	r := &pipeline.Record{Value: []byte(sample)}
	b.ReportAllocs()
	for b.Loop() {
		if typ, _ := d.Type(r); typ == "" {
			b.Fatal()
		}
	}
}

func BenchmarkTypeLast(b *testing.B) {
	d := NewDecoder(nil, "c")
	r := &pipeline.Record{Value: []byte(sample[:len(sample)-1] + `}`)}
	r.Value = []byte(`{"id":"0197f9f0-3c1e-7c52-8d1b-2f6f3f0f7a11",` + sample[len(`{"id":"0197f9f0-3c1e-7c52-8d1b-2f6f3f0f7a11","source":"player/eu","type":"smart_walk_thru.goal_reached",`):len(sample)-1] + `,"type":"smart_walk_thru.goal_reached"}`)
	b.ReportAllocs()
	for b.Loop() {
		if typ, _ := d.Type(r); typ == "" {
			b.Fatal()
		}
	}
}

func BenchmarkDecode(b *testing.B) {
	d := NewDecoder(nil, "c")
	c, err := BuiltinCatalog()
	if err != nil {
		b.Fatal(err)
	}
	r := &pipeline.Record{Value: []byte(sample), Time: time.Now()}
	b.ReportAllocs()
	for b.Loop() {
		e, err := d.Decode(context.Background(), r, c)
		if err != nil {
			b.Fatal(err)
		}
		for _, n := range []string{"walk_thru_id", "goal_name", "wm.euid", "ctx.location.hostname", "wm.language"} {
			if e.Properties.Get(n) == nil {
				b.Fatal(n)
			}
		}
	}
}
