package httpsend

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"
	"time"
)

// statuses is every status and its verdict, one row for each hundred and one
// for each exception.
var statuses = []struct {
	from, to int
	want     Outcome
}{
	{100, 199, DeadLetter},
	{200, 299, Success},
	{300, 399, DeadLetter}, // not followed
	{400, 400, DeadLetter},
	{401, 401, Pause},
	{402, 402, DeadLetter},
	{403, 403, Pause},
	{404, 407, DeadLetter},
	{408, 408, Retry},
	{409, 409, DeadLetter},
	{410, 410, Disable},
	{411, 424, DeadLetter},
	{425, 425, Retry},
	{426, 428, DeadLetter},
	{429, 429, Retry},
	{430, 499, DeadLetter},
	{500, 599, Retry},
}

func TestVerdict(t *testing.T) {
	t.Parallel()
	next := 100
	for _, row := range statuses {
		if row.from != next {
			t.Fatalf("the table has no row for %d", next)
		}
		for ; next <= row.to; next++ {
			if got := verdict(next); got != row.want {
				t.Errorf("%d is %v, want %v", next, got, row.want)
			}
		}
	}
	if next != 600 {
		t.Errorf("the table ends before %d", next)
	}
	for _, odd := range []int{0, 99, 600, 999} {
		if got := verdict(odd); got != DeadLetter {
			t.Errorf("%d is %v", odd, got)
		}
	}
}

func TestVerdictsOfADestination(t *testing.T) {
	t.Parallel()
	v, err := newVerdicts(map[string]string{"404": "success", "4xx": "retry", "503": "disable", "200": "pause", "302": "dead_letter"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for status, want := range map[int]Outcome{
		404: Success, 400: Retry, 401: Retry, 499: Retry, 503: Disable, 500: Retry, 200: Pause, 201: Success, 302: DeadLetter, 410: Retry, 999: DeadLetter,
	} {
		if got, open := v.of(status); got != want || open {
			t.Errorf("%d is %v, want %v", status, got, want)
		}
	}
	for _, name := range []string{"", "not_sent", "Success", "drop"} {
		if _, err := newVerdicts(map[string]string{"404": name}, nil); err == nil {
			t.Errorf("%q is taken", name)
		}
		if _, err := newVerdicts(nil, []Meaning{{Means: name}}); err == nil {
			t.Errorf("%q is taken as a meaning", name)
		}
	}
}

func TestOutcomeNames(t *testing.T) {
	t.Parallel()
	got := fmt.Sprint(NotSent, Success, Retry, DeadLetter, Pause, Disable, Outcome(9))
	if want := "not_sent success retry dead_letter pause disable outcome 9"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestRetryAfter(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	for value, want := range map[string]time.Duration{
		"":                                  0,
		"0":                                 0,
		"7":                                 7 * time.Second,
		" 120 ":                             2 * time.Minute,
		"3600":                              time.Hour,
		"3601":                              time.Hour,
		"99999999999999999999999":           time.Hour,
		"-1":                                0,
		"1.5":                               0,
		"1e3":                               0,
		"soon":                              0,
		"5 seconds":                         0,
		"Wed, 04 Mar 2026 05:06:37 GMT":     30 * time.Second,
		"Wednesday, 04-Mar-26 05:06:37 GMT": 30 * time.Second,
		"Wed, 04 Mar 2026 05:06:00 GMT":     0,
		"Fri, 04 Mar 2033 05:06:00 GMT":     time.Hour,
		"Wed, 99 Mar 2026 05:06:37 GMT":     0,
		"2026-03-04T05:06:37Z":              0,
	} {
		if got := retryAfter(value, now); got != want {
			t.Errorf("%q: %v, want %v", value, got, want)
		}
	}
}

func FuzzRetryAfter(f *testing.F) {
	f.Add("7")
	f.Add("Wed, 04 Mar 2026 05:06:37 GMT")
	f.Fuzz(func(t *testing.T, value string) {
		if d := retryAfter(value, time.Unix(1789000000, 0)); d < 0 || d > MaxRetryAfter {
			t.Errorf("%q: %v", value, d)
		}
	})
}

// A time-out is told in plain words, and one of a connection with its address.
func TestPlainly(t *testing.T) {
	t.Parallel()
	_, late := (&net.Dialer{Timeout: time.Nanosecond}).DialContext(t.Context(), "tcp", "127.0.0.1:9")
	if !errors.Is(late, context.DeadlineExceeded) {
		t.Fatal(late)
	}
	for _, c := range []struct {
		err  error
		want string
	}{
		{context.DeadlineExceeded, "no answer in time"},
		{fmt.Errorf("reading: %w", context.DeadlineExceeded), "no answer in time"},
		{late, "dial tcp 127.0.0.1:9: i/o timeout"},
		{io.EOF, "EOF"},
	} {
		if got := plainly(c.err); got != c.want {
			t.Errorf("%v: %q, expected %q", c.err, got, c.want)
		}
	}
}
