package pipeline_test

import (
	"bytes"
	"errors"
	"reflect"
	"testing"

	"github.com/millrace-io/millrace/pipeline"
)

func FuzzParseMatch(f *testing.F) {
	seed(f, "match")
	f.Fuzz(func(t *testing.T, b []byte) {
		m, ok := parse(t, pipeline.ParseMatch, b)
		if !ok {
			return
		}
		if len(m.Webhooks) > len(b) {
			t.Errorf("%d webhooks in %d bytes", len(m.Webhooks), len(b))
		}
		again(t, m, m.AppendTo, pipeline.ParseMatch, b)
		pipeline.One("", m.At, pipeline.Matched, pipeline.DeliveryID(&m.Event, ""))
	})
}

func FuzzParseDelivery(f *testing.F) {
	seed(f, "delivery")
	f.Fuzz(func(t *testing.T, b []byte) {
		d, ok := parse(t, pipeline.ParseDelivery, b)
		if !ok {
			return
		}
		if d.Attempts < 0 {
			t.Errorf("%d attempts", d.Attempts)
		}
		again(t, d, d.AppendTo, pipeline.ParseDelivery, b)
		var tally pipeline.Tally
		tally.Add(pipeline.One(d.Webhook, d.MatchedAt, pipeline.Delivered, d.ID))
		tally.Records("ledger") // panics at a time that JSON has no form for
	})
}

func FuzzParseDeadLetter(f *testing.F) {
	seed(f, "dead letter")
	f.Fuzz(func(t *testing.T, b []byte) {
		if x, ok := parse(t, pipeline.ParseDeadLetter, b); ok {
			again(t, x, x.AppendTo, pipeline.ParseDeadLetter, b)
		}
	})
}

// seed adds the envelope of a kind, whole and not.
func seed(f *testing.F, kind string) {
	f.Helper()
	whole := kinds[kind].whole()
	for _, b := range [][]byte{whole, whole[:len(whole)-1], append(bytes.Clone(whole), 0), {}, {2, whole[1]}, {0, whole[1]}} {
		f.Add(b)
	}
	f.Add(append(bytes.Clone(whole[:len(whole)-17]), "\x80\x80\x80\x80\x80\x80\x80\x80\x10 webhooks"...))
	f.Add(append([]byte{pipeline.EnvelopeFormat, whole[1]}, bytes.Repeat([]byte{0xff}, 40)...))
}

// parse parses what may be an envelope: half of one is never given.
func parse[T any](t *testing.T, parse func(b []byte) (T, error), b []byte) (T, bool) {
	v, err := parse(b)
	if err == nil {
		return v, true
	}
	dead, permanent := pipeline.IsPermanent(err)
	newer := len(b) > 1 && b[0] > pipeline.EnvelopeFormat
	if permanent == newer || errors.Is(err, pipeline.ErrNewerFormat) != newer || permanent && dead.Reason != pipeline.BrokenEnvelope {
		t.Errorf("%q: %v", b, err)
	}
	if !reflect.ValueOf(v).IsZero() {
		t.Errorf("%q gives %+v beside an error", b, v)
	}
	return v, false
}

// again writes what was read, which needs no more room, and reads it again.
func again[T any](t *testing.T, v T, write func(b []byte) []byte, parse func(b []byte) (T, error), b []byte) {
	out := write(nil)
	if len(out) > len(b) {
		t.Errorf("%q becomes longer: %q", b, out)
	}
	if got, err := parse(out); err != nil || !reflect.DeepEqual(got, v) {
		t.Errorf("%q: got %+v, %v; want %+v", b, got, err, v)
	}
}
