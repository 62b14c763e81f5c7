package pipeline_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"reflect"
	"testing"
	"time"

	"github.com/millrace-io/millrace/pipeline"
)

func TestErrors(t *testing.T) {
	t.Parallel()
	permanent := pipeline.Permanent(pipeline.TooLarge, fmt.Errorf("writing it: %w", io.ErrShortBuffer))
	later := pipeline.RetryAfter(90*time.Second, fmt.Errorf("asking: %w", io.ErrUnexpectedEOF))
	for want, err := range map[string]error{
		"too_large: writing it: short buffer":                 permanent,
		"asking: unexpected EOF (again in 1m30s)":             later,
		"while here: asking: unexpected EOF (again in 1m30s)": fmt.Errorf("while here: %w", later),
	} {
		if err.Error() != want {
			t.Errorf("got %q, want %q", err, want)
		}
	}
	if !errors.Is(permanent, io.ErrShortBuffer) || !errors.Is(later, io.ErrUnexpectedEOF) {
		t.Error("the cause is lost")
	}
	if p, ok := errors.AsType[*pipeline.RetryAfterError](fmt.Errorf("x: %w", later)); !ok || p.After != 90*time.Second {
		t.Errorf("got %v, %v", p, ok)
	}
}

func TestIsPermanent(t *testing.T) {
	t.Parallel()
	inner := pipeline.Permanent(pipeline.Undecodable, io.EOF)
	for _, err := range []error{inner, fmt.Errorf("x: %w", inner), errors.Join(io.EOF, inner), pipeline.RetryAfter(1, inner)} {
		if p, ok := pipeline.IsPermanent(err); !ok || p.Reason != pipeline.Undecodable {
			t.Errorf("%v: got %v, %v", err, p, ok)
		}
	}
	for _, err := range []error{nil, io.EOF, pipeline.RetryAfter(1, io.EOF), pipeline.ErrNewerFormat} {
		if p, ok := pipeline.IsPermanent(err); ok {
			t.Errorf("%v: got %v", err, p)
		}
	}
}

func TestOutput(t *testing.T) {
	t.Parallel()
	var out pipeline.Output
	stage := pipeline.StageFunc(func(_ context.Context, in *pipeline.Record, out *pipeline.Output) error {
		out.Send(*in)
		out.Send(pipeline.Record{Topic: "more"})
		out.Count(pipeline.Count{Webhook: "w", N: 1})
		return io.EOF
	})
	in := pipeline.Record{Topic: "events", Value: []byte("x")}
	if err := stage.Process(t.Context(), &in, &out); !errors.Is(err, io.EOF) {
		t.Errorf("got %v", err)
	}
	want := pipeline.Output{
		Records: []pipeline.Record{in, {Topic: "more"}},
		Counts:  []pipeline.Count{{Webhook: "w", N: 1}},
	}
	if !reflect.DeepEqual(out, want) {
		t.Errorf("got %+v, want %+v", out, want)
	}
	room := out.Records
	if out.Reset(); len(out.Records)+len(out.Counts) != 0 {
		t.Errorf("after a reset: %+v", out)
	}
	if room[0].Value != nil {
		t.Error("a reset keeps the bytes of records")
	}
}
