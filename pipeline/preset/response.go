package preset

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Response is what a response of the platform means, where its status alone does
// not say so: one of a status, or of a status with a certain body.
type Response struct {
	Status   string // such as 404, or 2xx; empty: any
	Contains string // text that the body has; empty: any
	At       string // JSON Pointer to what in the body Equals; empty: any
	Equals   value
	Means    string // success, retry, dead_letter, pause or disable
	About    string // why, for people to read
	Example  string // a body that it is about
	Unlike   string // one that it is not about
}

// Responses are asked in their order.
type Responses []Response

// Is says whether the body is one that the response is about.
func (r *Response) Is(body []byte) bool {
	if r.Contains != "" && !bytes.Contains(body, []byte(r.Contains)) {
		return false
	}
	if r.At == "" {
		return true
	}
	have, err := decode(body)
	if err != nil {
		return false
	}
	want, err := decode(r.Equals)
	if err != nil {
		return false
	}
	found, ok := lookUp(have, r.At)
	return ok && same(found, want)
}

// decode reads JSON with all digits of its numbers.
func decode(data []byte) (v any, err error) {
	if !json.Valid(data) { // which a Decoder would not see behind the value
		return nil, errors.New("this is not JSON")
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	err = d.Decode(&v)
	return v, err
}

// same says whether two values of decode are equal: of numbers, that 1 is 1.0.
func same(a, b any) bool {
	switch a := a.(type) {
	case json.Number:
		b, ok := b.(json.Number)
		return ok && sameNumber(a, b)
	case []any:
		b, ok := b.([]any)
		return ok && slices.EqualFunc(a, b, same)
	case map[string]any:
		b, ok := b.(map[string]any)
		return ok && maps.EqualFunc(a, b, same)
	}
	return a == b
}

// exactDigits is how many digits of an integer a float64 keeps for certain.
const exactDigits = 15

func sameNumber(a, b json.Number) bool {
	isInteger := func(n json.Number) bool { return !strings.ContainsAny(string(n), ".eE") }
	if a == b || isInteger(a) && isInteger(b) && max(len(a), len(b)) > exactDigits {
		return a == b
	}
	x, errX := a.Float64()
	y, errY := b.Float64()
	return errX == nil && errY == nil && x == y
}

// lookUp finds what a JSON Pointer (RFC 6901) leads to.
func lookUp(v any, pointer string) (any, bool) {
	for part := range strings.SplitSeq(pointer[1:], "/") {
		part = strings.NewReplacer("~1", "/", "~0", "~").Replace(part)
		switch in := v.(type) {
		case map[string]any:
			next, ok := in[part]
			if !ok {
				return nil, false
			}
			v = next
		case []any:
			i, err := strconv.Atoi(part)
			if err != nil || i < 0 || i >= len(in) {
				return nil, false
			}
			v = in[i]
		default:
			return nil, false
		}
	}
	return v, true
}

var statusForm = regexp.MustCompile(`^[2-5](xx|[0-9][0-9])$`)

// meanings are what a response may mean.
func meanings() []string { return []string{"success", "retry", "dead_letter", "pause", "disable"} }

// check says what is wrong with how it is written.
func (r *Response) check() error {
	conditional := r.Contains != "" || r.At != ""
	switch {
	case r.Status == "" && !conditional:
		return errors.New("expected status, contains or at")
	case r.Status != "" && !statusForm.MatchString(r.Status):
		return fmt.Errorf("found the status %q, expected one such as 404 or 2xx", r.Status)
	case r.At != "" && r.At[0] != '/', (r.At == "") != (r.Equals == nil):
		return errors.New("expected at, a JSON Pointer, together with equals")
	case !slices.Contains(meanings(), r.Means):
		return fmt.Errorf("found %q under means, expected %s", r.Means, strings.Join(meanings(), ", "))
	case r.About == "":
		return errors.New("expected about")
	case conditional != (r.Example != ""):
		return errors.New("expected an example where the body counts")
	}
	return nil
}

// runTest holds the examples against what is written.
func (r *Response) runTest() error {
	switch {
	case !r.Is([]byte(r.Example)):
		return fmt.Errorf("it is not about its example %q", r.Example)
	case r.Unlike != "" && r.Is([]byte(r.Unlike)):
		return fmt.Errorf("it is also about %q", r.Unlike)
	}
	return nil
}

// each calls f for each of them, and joins what it says.
func (rs Responses) each(f func(*Response) error) error {
	var errs []error
	for i := range rs {
		if err := f(&rs[i]); err != nil {
			errs = append(errs, fmt.Errorf("responses.%d: %w", i, err))
		}
	}
	return errors.Join(errs...)
}
