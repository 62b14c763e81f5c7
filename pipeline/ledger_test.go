package pipeline_test

import (
	"encoding/json"
	"reflect"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/millrace-io/millrace/pipeline"
)

func TestDeliveryID(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		event   pipeline.Event
		webhook string
		want    string
	}{
		{pipeline.Event{ID: "e-1", Source: "shop", System: "crm", Environment: "production"}, "to-heap", "27af2ffd434f5c0d661068100de55ad2"},
		{pipeline.Event{ID: "e-1", Source: "shop", System: "other", User: "u", Type: "t"}, "to-heap", "27af2ffd434f5c0d661068100de55ad2"}, // the source says it all
		{pipeline.Event{ID: "e-1", Source: "shop"}, "to-slack", "42e81690c6d4925ca9ac50385f15d639"},
		{pipeline.Event{ID: "e-1", System: "crm", Environment: "production"}, "to-heap", "075b4beec9960673df94aa40ad62b63c"},
		{pipeline.Event{}, "", "06630f047d35ff89d9e82b3d4039456c"},
	} {
		if got := pipeline.DeliveryID(&c.event, c.webhook); got != c.want {
			t.Errorf("%+v, %s: %s, want %s", c.event, c.webhook, got, c.want)
		}
	}
}

// TestDeliveryIDsDiffer: no two deliveries have the same parts one after another.
func TestDeliveryIDsDiffer(t *testing.T) {
	t.Parallel()
	type parts struct{ source, system, environment, id, webhook string }
	seen := map[string]parts{}
	texts := []string{"", "a", "aa", "a\x01a", "\x01a", "s", "e", "s\x01a"}
	for _, source := range texts {
		for _, system := range texts {
			for _, environment := range texts {
				for _, id := range texts {
					for _, webhook := range texts {
						p := parts{source, system, environment, id, webhook}
						if source != "" {
							p.system, p.environment = "", ""
						}
						e := pipeline.Event{ID: id, Source: source, System: system, Environment: environment}
						got := pipeline.DeliveryID(&e, webhook)
						if other, ok := seen[got]; ok && other != p {
							t.Fatalf("%q and %q have the same id", p, other)
						}
						seen[got] = p
					}
				}
			}
		}
	}
}

func TestOne(t *testing.T) {
	t.Parallel()
	zone := time.FixedZone("half an hour off", 5*3600+1800)
	at := time.Date(2026, 3, 4, 10, 59, 59, 999, zone)
	hour := time.Date(2026, 3, 4, 5, 0, 0, 0, time.UTC)
	for id, sum := range map[string]uint64{
		"0123456789abcdef0123456789abcdef":        0x0123456789abcdef,
		"ffffffffffffffffffffffffffffffff":        1<<64 - 1,
		"00000000000000010000000000000000":        1,
		"0123456789ABCDEF":                        0x0123456789abcdef,
		"0123456789abcde":                         0,
		"":                                        0,
		"0123456789abcdeg0123456789abcdef":        0,
		"+123456789abcdef0123456789abcdef":        0,
		"0x23456789abcdef0123456789abcdef":        0,
		"0_23456789abcdef0123456789abcdef":        0,
		"an id that is not one of ours, but long": 0,
	} {
		want := pipeline.Count{Webhook: "w", Hour: hour, Ending: pipeline.Delivered, N: 1, Sum: sum}
		if got := pipeline.One("w", at, pipeline.Delivered, id); got != want {
			t.Errorf("%q: got %+v, want %+v", id, got, want)
		}
	}
}

func TestTally(t *testing.T) {
	t.Parallel()
	hour := time.Date(2026, 3, 4, 5, 0, 0, 0, time.UTC)
	const first, last = "ffffffffffffffff", "0000000000000003"
	var tally pipeline.Tally
	for _, c := range []pipeline.Count{
		pipeline.One("b", hour.Add(time.Minute), pipeline.Delivered, first),
		pipeline.One("a", hour, pipeline.Matched, last),
		pipeline.One("b", hour.Add(59*time.Minute), pipeline.Delivered, last), // beyond 2^64
		pipeline.One("b", hour, pipeline.DeadLettered, last),
		pipeline.One("b", hour.Add(time.Hour), pipeline.Delivered, last),
		{Webhook: "a", Hour: hour, Ending: pipeline.Matched, N: 40, Sum: 5},
	} {
		tally.Add(c)
	}
	want := [][2]string{
		{"b/2026-03-04T05:00:00Z", `{"webhook":"b","hour":"2026-03-04T05:00:00Z","ending":"delivered","count":2,"sum":"2"}`},
		{"a/2026-03-04T05:00:00Z", `{"webhook":"a","hour":"2026-03-04T05:00:00Z","ending":"matched","count":41,"sum":"8"}`},
		{"b/2026-03-04T05:00:00Z", `{"webhook":"b","hour":"2026-03-04T05:00:00Z","ending":"dead_letter","count":1,"sum":"3"}`},
		{"b/2026-03-04T06:00:00Z", `{"webhook":"b","hour":"2026-03-04T06:00:00Z","ending":"delivered","count":1,"sum":"3"}`},
	}
	var got [][2]string
	for _, r := range tally.Records("ledger") {
		got = append(got, [2]string{string(r.Key), string(r.Value)})
		if r.Topic != "ledger" || r.Headers != nil {
			t.Errorf("the record is %+v", r)
		}
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%q, want\n%q", got, want)
	}
	if again := tally.Records("ledger"); len(again) != 0 {
		t.Errorf("it was not emptied: %v", again)
	}
	tally.Add(pipeline.One("b", hour, pipeline.Delivered, last))
	if again := tally.Records("ledger"); len(again) != 1 {
		t.Errorf("it can't be used again: %v", again)
	}
}

// TestTallyAddsUp: in whatever order and pieces counts come, what the records
// say is the same.
func TestTallyAddsUp(t *testing.T) {
	t.Parallel()
	counts := rapid.SliceOf(rapid.Custom(func(t *rapid.T) pipeline.Count {
		return pipeline.Count{
			Webhook: rapid.SampledFrom([]string{"a", "b", "a/2026"}).Draw(t, "webhook"),
			Hour:    time.Unix(3600*rapid.Int64Range(0, 1).Draw(t, "hour"), 0).UTC(),
			Ending:  rapid.SampledFrom([]pipeline.Ending{pipeline.Matched, pipeline.Expired}).Draw(t, "ending"),
			N:       rapid.Int64Range(1, 9).Draw(t, "count"), Sum: rapid.Uint64().Draw(t, "sum"),
		}
	}))
	rapid.Check(t, func(t *rapid.T) {
		all := counts.Draw(t, "counts")
		cut := rapid.IntRange(0, len(all)).Draw(t, "cut")
		whole := read(t, records(all), nil)
		pieces := read(t, records(all[cut:]), read(t, records(all[:cut]), nil))
		if !reflect.DeepEqual(whole, pieces) {
			t.Errorf("got %v, in pieces %v", whole, pieces)
		}
	})
}

func records(counts []pipeline.Count) []pipeline.Record {
	var tally pipeline.Tally
	for _, c := range counts {
		tally.Add(c)
	}
	return tally.Records("ledger")
}

// read adds what the records of a ledger say to what is known.
func read(t *rapid.T, records []pipeline.Record, known map[pipeline.Count][2]uint64) map[pipeline.Count][2]uint64 {
	sums := map[pipeline.Count][2]uint64{}
	for k, v := range known {
		sums[k] = v
	}
	for _, r := range records {
		var c pipeline.Count
		if err := json.Unmarshal(r.Value, &c); err != nil {
			t.Fatal(err)
		}
		k := pipeline.Count{Webhook: c.Webhook, Hour: c.Hour, Ending: c.Ending}
		sums[k] = [2]uint64{sums[k][0] + uint64(c.N), sums[k][1] + c.Sum}
	}
	return sums
}
