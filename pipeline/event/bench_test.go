package event

import (
	"strings"
	"testing"
	"time"

	"github.com/millrace-io/millrace/pipeline"
)

// sample is an event of 499 bytes, about as many as the budgets of the design count.
const sample = `{"id":"0197f9f0-3c1e-7c52-8d1b-2f6f3f0f7a11","source":"player/eu","type":"smart_walk_thru.goal_reached",` +
	`"time":"2026-01-01T10:00:00.123Z","system":"billing","environment":"production","user":"u-10427","session":"s-5f2c9a",` +
	`"properties":{"walk_thru_id":12345,"walk_thru_name":"Create your first invoice","goal_id":77,"goal_name":"Invoice sent",` +
	`"wm.language":"en-US","env.browser.name":"Chrome","env.os.name":"Windows","ctx.location.hostname":"app.example.com",` +
	`"ctx.location.pathname":"/invoices/new"}}`

const sampleType = `"type":"smart_walk_thru.goal_reached",`

func BenchmarkType(b *testing.B) {
	last := strings.Replace(sample, sampleType, "", 1)
	last = strings.TrimSuffix(last, "}") + "," + strings.TrimSuffix(sampleType, ",") + "}"
	for name, value := range map[string]string{"third": sample, "last": last} {
		b.Run(name, func(b *testing.B) {
			d, r := NewDecoder(nil, "c"), &pipeline.Record{Value: []byte(value)}
			b.ReportAllocs()
			for b.Loop() {
				if typ, err := d.Type(r); typ == "" || err != nil {
					b.Fatal(typ, err)
				}
			}
		})
	}
}

func BenchmarkDecode(b *testing.B) {
	c, d := builtin(b), NewDecoder(nil, "c")
	names := []string{"walk_thru_id", "goal_name", "wm.euid", "ctx.location.hostname", "wm.language"}
	value, _ := c.Example("smart_walk_thru.goal_reached", 1)
	for name, r := range map[string]*pipeline.Record{
		"json":   {Value: []byte(sample), Time: time.Now()},
		"binary": binaryRecord(string(value[strings.Index(string(value), `{"wm`):len(value)-1]), "ce_type", "smart_walk_thru.goal_reached", "ce_subject", "u"),
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				e, err := d.Decode(b.Context(), r, c)
				if err != nil {
					b.Fatal(err)
				}
				for _, n := range names {
					if e.Properties.Get(n) == nil {
						b.Fatal(n)
					}
				}
			}
		})
	}
}

func BenchmarkAll(b *testing.B) {
	c, d := builtin(b), NewDecoder(nil, "c")
	e, err := d.Decode(b.Context(), &pipeline.Record{Value: []byte(sample)}, c)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		for range e.Properties.All() {
		}
	}
}

func BenchmarkAppendAttempt(b *testing.B) {
	a, buf := exampleAttempt(), make([]byte, 0, 1<<10)
	b.ReportAllocs()
	for b.Loop() {
		buf = AppendAttempt(buf[:0], a)
	}
}
