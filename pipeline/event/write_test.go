package event

import (
	"encoding/json"
	"iter"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/millrace-io/millrace/pipeline"
)

// pair is a property that no Decoder made.
type pair struct {
	name  string
	value any
}

type pairs []pair

func (p pairs) Get(name string) any {
	if i := slices.IndexFunc(p, func(m pair) bool { return m.name == name }); i >= 0 {
		return p[i].value
	}
	return nil
}

func (p pairs) All() iter.Seq2[string, any] {
	return func(yield func(string, any) bool) {
		for _, m := range p {
			if !yield(m.name, m.value) {
				return
			}
		}
	}
}

func TestAppendJSONOfAnEventMadeByHand(t *testing.T) {
	t.Parallel()
	e := &pipeline.Event{
		ID: "e\"1\\\x1f", Type: "t", Time: time.Date(2026, 1, 1, 2, 0, 0, 0, time.FixedZone("", 3600)), Environment: "qa",
		Properties: pairs{
			{"a", nil},
			{"b", true},
			{"c", int64(math.MinInt64)},
			{"d", 0.1},
			{"e", 1e300},
			{"f", 5.0},
			{"g", json.Number("18446744073709551616")},
			{"h", "Grüße"},
		},
	}
	const want = `{"id":"e\"1\\\u001f","type":"t","environment":"qa","time":"2026-01-01T01:00:00.000Z",` +
		`"properties":{"a":null,"b":true,"c":-9223372036854775808,"d":0.1,"e":1e+300,"f":5,"g":18446744073709551616,"h":"Grüße"}}`
	if got := string(AppendJSON(nil, e)); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	e.Properties = nil
	if got := string(AppendJSON(nil, e)); got != `{"id":"e\"1\\\u001f","type":"t","environment":"qa","time":"2026-01-01T01:00:00.000Z","properties":{}}` {
		t.Errorf("got %s", got)
	}
}
