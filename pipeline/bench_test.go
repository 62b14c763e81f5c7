package pipeline_test

import (
	"testing"

	"github.com/millrace-io/millrace/pipeline"
)

func BenchmarkAppendTo(b *testing.B) {
	m, d, x := aMatch(), aDelivery(), aDeadLetter()
	for name, write := range map[string]func([]byte) []byte{"match": m.AppendTo, "delivery": d.AppendTo, "dead letter": x.AppendTo} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			var room []byte
			for b.Loop() {
				room = write(room[:0])
			}
		})
	}
}

func BenchmarkParse(b *testing.B) {
	match, delivery, letter := kinds["match"].whole(), kinds["delivery"].whole(), kinds["dead letter"].whole()
	for name, parse := range map[string]func() error{
		"match":       func() error { _, err := pipeline.ParseMatch(match); return err },
		"delivery":    func() error { _, err := pipeline.ParseDelivery(delivery); return err },
		"dead letter": func() error { _, err := pipeline.ParseDeadLetter(letter); return err },
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := parse(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkDeliveryID(b *testing.B) {
	e := aMatch().Event
	b.ReportAllocs()
	for b.Loop() {
		pipeline.DeliveryID(&e, "to-heap")
	}
}
