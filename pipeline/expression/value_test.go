package expression_test

import (
	"reflect"
	"sync"
	"testing"
	"time"

	"github.com/millrace-io/millrace/pipeline"
	"github.com/millrace-io/millrace/pipeline/expression"
)

func fullInput() *expression.Input {
	e := *events()[0]
	e.ID, e.Source, e.User, e.System = "e1", "s", "u1", "shop"
	e.Environment, e.Session = pipeline.QA, "sess"
	e.Time = time.Date(2026, 3, 1, 12, 30, 5, 250e6, time.FixedZone("", 3600))
	return &expression.Input{Event: &e, DeliveryID: "d1", Webhook: "w1"}
}

// TestValues holds what expressions of property mappings give.
func TestValues(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]any{
		`props.walk_thru_id`: int64(12345), `props.price`: 2.5, `props.vip`: true, `props.answer`: "please help", `props.missing`: nil,
		`12`: int64(12), `-12`: int64(-12), `+1.5`: 1.5, `1_000`: int64(1000), `0x10`: int64(16), `2 + 2`: int64(4), `7 / 2`: 3.5, `7 % -4`: int64(3),
		`-9223372036854775807 - 1`: int64(-1 << 63), `3 - 5`: int64(-2), `-3 * -4`: int64(12), `4611686018427387904 * -2`: int64(-1 << 63),
		`[1, 2.5, "x", null, true]`:                []any{int64(1), 2.5, "x", nil, true},
		`{a: 1, "b c": [2], (props.goal_name): 3}`: map[string]any{"a": int64(1), "b c": []any{int64(2)}, "g": int64(3)},
		`1..3`: []any{int64(1), int64(2), int64(3)}, `len("äö")`: int64(2), `split("a,b", ",")`: []any{"a", "b"},
		`props.goal_name ?? "goal"`: "g", `props.missing ?? "goal"`: "goal",
		`event.id`: "e1", `event.source`: "s", `event.type`: "t", `event.user`: "u1", `event.system`: "shop", `event.environment`: "qa",
		`event.session`: "sess", `event.time`: "2026-03-01T11:30:05.250Z", `delivery.id`: "d1", `webhook.name`: "w1",
		`md5("a")`:           "0cc175b9c0f1b6a831c399e269772661",
		`sha256("a")`:        "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb",
		`md5(props.missing)`: nil, `json(props.missing)`: nil, `unix(null ?? props.missing)`: nil,
		`unix(event.time)`: int64(1772364605), `unixMilli(event.time)`: int64(1772364605250), `unix(0)`: int64(0), `unixMilli("1970-01-02")`: int64(86400000),
		`iso8601(1772364605250)`: "2026-03-01T11:30:05.250Z", `iso8601("2026-03-01T12:30:05+01:00")`: "2026-03-01T11:30:05.000Z", `iso8601(props.day)`: "2026-03-01T00:00:00.000Z",
		`formatDate(event.time, "2006-01-02 15:04")`: "2026-03-01 11:30", `formatDate(0, "Jan 2, 2006")`: "Jan 1, 1970", `formatDate(props.missing, "2006")`: nil,
		`json({b: 1, a: [1.0, "<&>", null, 9223372036854775807]})`: `{"a":[1,"<&>",null,9223372036854775807],"b":1}`,
		`json("\u2028\"")`: `"\u2028\""`, `json(props.price)`: "2.5", `json([])`: "[]",
		`fromJSON("[1, 2.5, {\"a\": null}]")`: []any{int64(1), 2.5, map[string]any{"a": nil}},
		`string(12)`:                          "12", `string(1e21)`: "1e+21", `string(0.1 + 0.2)`: "0.30000000000000004", `string(2.0)`: "2", `string(null ?? props.missing)`: nil,
		`round(2.5)`: 3.0, `median([3, 1, 2])`: 2.0, `mean(1, 2)`: 1.5, `max([1, [7]], 3)`: int64(7), `min([])`: nil, `mean([])`: 0.0,
		`sum([])`: int64(0), `sum([0.5, 1])`: 1.5, `uniq([1, 1.0, "1", 1])`: []any{int64(1), "1"}, `flatten([1, [2, [3]]])`: []any{int64(1), int64(2), int64(3)},
		`concat([1], [2])`: []any{int64(1), int64(2)}, `take([1, 2], 1)`: []any{int64(1)}, `sortBy([3, 1], -#)`: []any{int64(3), int64(1)}, `last([1, 2])`: int64(2),
		`map(1..2, # * 10 + #index)`: []any{int64(10), int64(21)}, `map(1..2, map(1..2, #))`: []any{[]any{int64(1), int64(2)}, []any{int64(1), int64(2)}},
		`findLast([1, 2, 3], # < 3)`: int64(2), `findLastIndex([1, 2, 3], # < 3)`: int64(1), `find([1], # > 5)`: nil, `filter([{a: 1}, {a: 2}], .a > 1)[0].a`: int64(2),
		`trim("  x ")`: "x", `trimSuffix("a.js", ".js")`: "a", `splitAfter("a,b", ",", 2)`: []any{"a,", "b"}, `replace("aaa", "a", "b", 2)`: "bba", `bitshl(1, 4)`: int64(16), `bitnot(0)`: int64(-1),
		`"  Ab " | trim() | lower()`: "ab", `{a: {b: 5}}.a.b`: int64(5), `{a: 1}?.b?.c`: nil, `"abc"[1:]`: "bc", `[1, 2, 3][-2:]`: []any{int64(2), int64(3)}, `[1][5:1]`: []any{},
		`if props.vip { "yes" } else { "no" }`: "yes", `let x = 2; let y = x * x; y + 1`: int64(5), `1; 2`: int64(2),
	} {
		p, _, err := expression.Compile(text, expression.Scope{Delivery: true})
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		got, err := p.Run(fullInput())
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %#v (%v), want %#v", text, got, err, want)
		}
	}
}

func TestHelperErrors(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		`md5(props.vip)`:                     `1:1: md5 needs text, not a boolean`,
		`unix(true)`:                         `1:1: a time is text or an integer of milliseconds, not a boolean`,
		`unix("yesterday")`:                  `1:1: "yesterday" is no time in RFC 3339`,
		`iso8601(9223372036854775807)`:       `1:1: 9223372036854775807 milliseconds is a time outside the years 0 to 9999`,
		`formatDate(0, repeat("2006", 100))`: `1:1: the layout has 400 bytes; at most 200 are allowed`,
		`json(reduce(1..99, [#acc], 1))`:     `1:1: lists are nested more than 64 deep`,
		`reduce(1..99, [#acc], 1)`:           `1:1: lists are nested more than 64 deep`,
		`reduce(1..40, [#acc, #acc], 1)`:     `1:1: the expression takes too much time or memory for this event`,
	} {
		p, _, err := expression.Compile(text, expression.Scope{Delivery: true})
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if _, err := p.Run(fullInput()); messages(err) != want {
			t.Errorf("%s:\n got %v\nwant %s", text, err, want)
		}
	}
	_, _, err := expression.Compile(`md5(1) + unixx(2)`, expression.Scope{Delivery: true})
	if want := "1:10: unknown function unixx; did you mean unix?"; messages(err) != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

// TestConcurrent runs one program from several goroutines over several events.
func TestConcurrent(t *testing.T) {
	t.Parallel()
	p, _, err := expression.Compile(`any(split(props.tags, ","), # == "b") and props.nps_score > 8`, expression.Scope{})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			all := events()
			for i := range 400 {
				v, err := p.Run(&expression.Input{Event: all[i%4]})
				if want := i%4 == 0; (v == true) != want || (err != nil) != (i%4 == 3) {
					t.Errorf("event %d: %v %v", i%4, v, err)
					return
				}
			}
		})
	}
	wg.Wait()
}

func TestAllocations(t *testing.T) {
	p, _, err := expression.Compile(threeClauses, expression.Scope{Types: catalog()})
	if err != nil {
		t.Fatal(err)
	}
	in := &expression.Input{Event: events()[0]}
	if n := testing.AllocsPerRun(100, func() { _, _ = p.Run(in) }); n > 1 { // a pooled VM may be collected
		t.Errorf("%v allocations in each run", n)
	}
}
