package event

import (
	"bytes"
	"encoding/binary"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/linkedin/goavro/v2"

	"github.com/millrace-io/millrace/schemas"
)

func exampleAttempt() *Attempt {
	return &Attempt{
		DeliveryID: "0123456789abcdef0123456789abcdef", Webhook: "walk-thru-goal-to-heap", Destination: "heap", Lane: "default",
		EventID: "e1", EventType: "smart_walk_thru.goal_reached", Attempt: 3,
		At: time.Date(2026, 1, 1, 0, 0, 0, 5_000_000, time.UTC), Latency: 1234567 * time.Microsecond,
		Status: 503, Outcome: "retry", ErrorClass: "status", Error: "503 Service Unavailable", Response: []byte("busy \xff"),
		NextAt: time.Date(2026, 1, 1, 0, 0, 30, 0, time.UTC),
	}
}

func TestAttemptIsReadBack(t *testing.T) {
	t.Parallel()
	last := exampleAttempt()
	last.NextAt, last.Outcome, last.Response = time.Time{}, "dead_letter", []byte{}
	for _, want := range []*Attempt{exampleAttempt(), last, {
		At: time.UnixMilli(-1).UTC(), Response: []byte{}, Status: -1, Latency: -time.Microsecond,
	}} {
		got, err := ParseAttempt(AppendAttempt(nil, want))
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("got  %+v, %v\nwant %+v", got, err, want)
		}
	}
}

// TestAttemptIsAvro encodes the same with goavro alone.
func TestAttemptIsAvro(t *testing.T) {
	t.Parallel()
	codec, err := goavro.NewCodec(schemas.AttemptAvro)
	if err != nil {
		t.Fatal(err)
	}
	a := exampleAttempt()
	want, err := codec.SingleFromNative(nil, map[string]any{
		"delivery_id": a.DeliveryID, "webhook": a.Webhook, "destination": a.Destination, "lane": a.Lane,
		"event_id": a.EventID, "event_type": a.EventType, "attempt": a.Attempt, "at": a.At,
		"latency_us": a.Latency.Microseconds(), "status": a.Status, "outcome": a.Outcome,
		"error_class": a.ErrorClass, "error": a.Error, "response": a.Response,
		"next_at": goavro.Union("long.timestamp-millis", a.NextAt),
	})
	if err != nil {
		t.Fatal(err)
	}
	got := AppendAttempt(nil, a)
	if !bytes.Equal(got, want) {
		t.Errorf("got  %x\nwant %x", got, want)
	}
	if got[0] != 0xc3 || got[1] != 1 || binary.LittleEndian.Uint64(got[2:]) != codec.Rabin {
		t.Errorf("header %x", got[:10])
	}
}

func TestAttemptKeepsTheStartOfALongResponse(t *testing.T) {
	t.Parallel()
	a := exampleAttempt()
	a.Response = []byte(strings.Repeat("x", MaxResponse+1))
	got, err := ParseAttempt(AppendAttempt(nil, a))
	if err != nil || len(got.Response) != MaxResponse {
		t.Errorf("%d bytes, %v", len(got.Response), err)
	}
}

func TestParseAttemptRefuses(t *testing.T) {
	t.Parallel()
	good := AppendAttempt(nil, exampleAttempt())
	for name, b := range map[string][]byte{
		"nothing": nil, "another schema": append([]byte{0xc3, 1}, make([]byte, 30)...),
		"cut off": good[:len(good)-9], "more behind": append(bytes.Clone(good), 0),
	} {
		if _, err := ParseAttempt(b); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
