package definition

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Duration is a length of time, written as "500ms", "10s", "1m30s", "72h" or
// "3d"; a day is 24 hours.
type Duration time.Duration

var durationForm = regexp.MustCompile(`^([0-9]{1,9}(\.[0-9]{1,9})?(ms|s|m|h|d))+$`)

var daysForm = regexp.MustCompile(`([0-9.]+)d`)

// ParseDuration reads a Duration.
func ParseDuration(s string) (Duration, error) {
	if !durationForm.MatchString(s) {
		return 0, fmt.Errorf("%q is no duration; write one such as 500ms, 10s, 72h or 3d", cut(s, 40))
	}
	s = daysForm.ReplaceAllStringFunc(s, func(part string) string {
		days, _ := strconv.ParseFloat(strings.TrimSuffix(part, "d"), 64)
		return strconv.FormatFloat(days*24, 'f', -1, 64) + "h"
	})
	d, err := time.ParseDuration(s)
	if err != nil {
		return 0, fmt.Errorf("%q is longer than a duration can be", cut(s, 40))
	}
	return Duration(d), nil
}

// String gives the shortest form, such as "72h".
func (d Duration) String() string {
	s := time.Duration(d).String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// MarshalText gives String.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads what ParseDuration reads.
func (d *Duration) UnmarshalText(b []byte) (err error) {
	*d, err = ParseDuration(string(b))
	return err
}

// Size is a number of bytes, written as "256KiB", "1MiB", "500KB" or an integer.
type Size int64

var sizeForm = regexp.MustCompile(`^([0-9]{1,12})(B|KB|MB|KiB|MiB|)$`)

func unitOfSize(name string) Size {
	return map[string]Size{"": 1, "B": 1, "KB": 1000, "MB": 1000 * 1000, "KiB": 1 << 10, "MiB": 1 << 20}[name]
}

// ParseSize reads a Size.
func ParseSize(s string) (Size, error) {
	m := sizeForm.FindStringSubmatch(s)
	if m == nil {
		return 0, fmt.Errorf("%q is no size; write one such as 256KiB, 1MiB or 500KB", cut(s, 40))
	}
	n, err := strconv.ParseInt(m[1], 10, 64)
	if err != nil {
		return 0, err
	}
	return Size(n) * unitOfSize(m[2]), nil
}

// String gives the size in the largest binary unit that divides it.
func (s Size) String() string {
	for _, unit := range []string{"MiB", "KiB"} {
		if u := unitOfSize(unit); s > 0 && s%u == 0 {
			return strconv.FormatInt(int64(s/u), 10) + unit
		}
	}
	return strconv.FormatInt(int64(s), 10) + "B"
}

// MarshalText gives String.
func (s Size) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalJSON reads a text that ParseSize reads, or an integer.
func (s *Size) UnmarshalJSON(b []byte) error {
	var text string
	if len(b) > 0 && b[0] != '"' {
		text = string(b)
	} else if err := json.Unmarshal(b, &text); err != nil {
		return err
	}
	v, err := ParseSize(text)
	*s = v
	return err
}

// Share is a part of a whole from 0 to 1, written as "50%".
type Share float64

var shareForm = regexp.MustCompile(`^([0-9]{1,3}(\.[0-9]{1,3})?)%$`)

// ParseShare reads a Share.
func ParseShare(s string) (Share, error) {
	m := shareForm.FindStringSubmatch(s)
	if m == nil {
		return 0, fmt.Errorf("%q is no share; write one such as 50%%", cut(s, 40))
	}
	v, err := strconv.ParseFloat(m[1], 64)
	if err != nil || v > 100 {
		return 0, fmt.Errorf("%q is more than 100%%", s)
	}
	return Share(v / 100), nil
}

// String gives the percentage.
func (s Share) String() string {
	return strconv.FormatFloat(float64(s)*100, 'g', 6, 64) + "%"
}

// MarshalText gives String.
func (s Share) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads what ParseShare reads.
func (s *Share) UnmarshalText(b []byte) (err error) {
	*s, err = ParseShare(string(b))
	return err
}
