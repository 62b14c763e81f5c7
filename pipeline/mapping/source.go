package mapping

import (
	"errors"
	"fmt"

	"github.com/millrace-io/millrace/pipeline"
	"github.com/millrace-io/millrace/pipeline/expression"
)

// source is where the value of an entry comes from: one of fixed, property and
// program.
type source struct {
	entry    int
	name     string // as it is written, for errors
	fixed    []byte // compact JSON
	property string // under the catalog's name
	program  *expression.Program
	required bool
	pair     []byte // name= in a query string; with the value where it is fixed
}

// value returns the value of a property or an expression; nil where there is
// none. Errors are permanent.
func (s *source) value(in *expression.Input) (any, error) {
	if s.program == nil {
		v := property(in.Event, s.property)
		if v == nil && s.required {
			return nil, pipeline.Permanent(pipeline.PropertyMissing, fmt.Errorf("the required property %q is missing", s.property))
		}
		return v, nil
	}
	v, err := s.program.Run(in)
	if err != nil {
		return nil, s.failed(err)
	}
	if v == nil && s.required {
		return nil, pipeline.Permanent(pipeline.PropertyMissing, fmt.Errorf("the required property %q has no value: its expression gives null", s.name))
	}
	return v, nil
}

func (s *source) failed(err error) error {
	return failed(fmt.Errorf("properties[%d], %q: %w", s.entry, s.name, err))
}

// append writes the value as JSON and says whether there is one.
func (s *source) append(dst []byte, in *expression.Input) ([]byte, bool, error) {
	if s.fixed != nil {
		return append(dst, s.fixed...), true, nil
	}
	v, err := s.value(in)
	if v == nil || err != nil {
		return dst, false, err
	}
	if dst, err = appendValue(dst, v); err != nil {
		return dst, false, s.failed(err)
	}
	return dst, true, nil
}

var errNested = errors.New("a list or an object can't stand in a query string")

// appendPair writes name=value for a query string, after an & unless it is the
// first; nothing where there is no value.
func (s *source) appendPair(dst []byte, first bool, in *expression.Input) ([]byte, error) {
	switch {
	case string(s.fixed) == "null":
		return dst, nil
	case s.fixed != nil:
		return append(separate(dst, first), s.pair...), nil
	}
	v, err := s.value(in)
	if v == nil || err != nil {
		return dst, err
	}
	text, err := text(v)
	if err != nil {
		return dst, s.failed(err)
	}
	return appendQueryEscaped(append(separate(dst, first), s.pair...), text), nil
}
