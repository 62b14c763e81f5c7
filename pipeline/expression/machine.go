package expression

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/expr-lang/expr/vm"
)

// machine is one run of a program: expr's VM and what the operators need. It is
// the environment of the compiled code, which no expression can name: the
// rewritten code hands it to our own operators and nothing else.
type machine struct {
	vm    vm.VM
	in    Input
	spent int
	seen  []observation // what an explained run notes; nil: nothing
}

// machines saves a VM and its stack for each evaluation.
var machines = sync.Pool{New: func() any { return new(machine) }}

var (
	errWork  = errors.New("the expression takes too much time or memory for this event")
	errDepth = fmt.Errorf("lists are nested more than %d deep", maxDepth)
)

// spend counts work against maxWork: an element of a list or a piece of text
// looked at or made, an operator within a loop. expr has no time limit and
// can't be cancelled; its own budget knows neither loops nor text. A failure is
// a panic, as everywhere in operators: the VM makes an error of it.
func (m *machine) spend(n int) {
	if m.spent += n; n < 0 || m.spent > maxWork {
		panic(errWork)
	}
}

// spendText counts text that is made or searched.
func (m *machine) spendText(bytes int) { m.spend(bytes / 16) }

func (m *machine) property(name string) any {
	v := m.get(name)
	if n, ok := v.(json.Number); ok {
		panic(fmt.Errorf("%s is %s, an integer beyond 64 bits", name, n))
	}
	return v
}

func (m *machine) get(name string) any {
	if m.in.Event.Properties == nil {
		return nil
	}
	return m.in.Event.Properties.Get(name)
}

// timeLayout is RFC 3339 in UTC with three decimals, so that times compare as text.
const timeLayout = "2006-01-02T15:04:05.000Z07:00"

// A member reads one field of event, delivery or webhook. Text that is empty is
// null: it was not given.
type member func(m *machine) any

func given(s string) any {
	if s == "" {
		return nil
	}
	return s
}

var eventMembers = map[string]member{
	"id":          func(m *machine) any { return given(m.in.Event.ID) },
	"source":      func(m *machine) any { return given(m.in.Event.Source) },
	"type":        func(m *machine) any { return given(m.in.Event.Type) },
	"system":      func(m *machine) any { return given(m.in.Event.System) },
	"environment": func(m *machine) any { return given(m.in.Event.Environment) },
	"user":        func(m *machine) any { return given(m.in.Event.User) },
	"session":     func(m *machine) any { return given(m.in.Event.Session) },
	"time": func(m *machine) any {
		if m.in.Event.Time.IsZero() {
			return nil
		}
		return formatTime(m.in.Event.Time)
	},
}

var deliveryMembers = map[string]member{"id": func(m *machine) any { return given(m.in.DeliveryID) }}

var webhookMembers = map[string]member{"name": func(m *machine) any { return given(m.in.Webhook) }}

func formatTime(t time.Time) string { return t.UTC().Format(timeLayout) }

// result turns a value of the VM into one that Run promises.
func (m *machine) result(v any) (any, error) {
	switch v := v.(type) {
	case nil, bool, int64, string:
		return v, nil
	case int:
		return int64(v), nil
	case float64:
		if math.IsInf(v, 0) || math.IsNaN(v) {
			return nil, &Error{1, 1, "the result is beyond the range of numbers"}
		}
		return v, nil
	}
	left := maxList
	out, err := plainValue(v, &left, maxDepth)
	if err != nil {
		return nil, &Error{1, 1, err.Error()}
	}
	return out, nil
}

// plainValue copies a value. Lists may hold the same list many times, so what
// takes little memory here can be endless once written out: left is what may
// still come.
func plainValue(v any, left *int, depth int) (any, error) {
	*left--
	if s, ok := v.(string); ok {
		*left -= len(s) / 16
	}
	if *left < 0 {
		return nil, errWork
	}
	if depth == 0 {
		return nil, errDepth
	}
	switch v := v.(type) {
	case nil, bool, int64, float64, string:
		return v, nil
	case int:
		return int64(v), nil
	case []any:
		out := make([]any, len(v))
		for i, e := range v {
			var err error
			if out[i], err = plainValue(e, left, depth-1); err != nil {
				return nil, err
			}
		}
		return out, nil
	case map[string]any:
		out := make(map[string]any, len(v))
		for k, e := range v {
			*left -= len(k) / 16
			c, err := plainValue(e, left, depth-1)
			if err != nil {
				return nil, err
			}
			out[k] = c
		}
		return out, nil
	}
	return nil, fmt.Errorf("the result is a %T", v)
}
