package mapping

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// A step of a pointer that is no index of an array.
const (
	isKey    = -1
	isAppend = -2 // "-": one past the last element mentioned so far
)

// step is one part of a name: the key of an object's member, or the index of an
// array's element.
type step struct {
	key   string
	index int // of an element, or isKey or isAppend
}

// CheckName says whether something may be sent under a name that is written in a
// mapping: literal, or a JSON Pointer.
func CheckName(name string) error {
	_, err := parseName(name)
	return err
}

// parseName splits a name into its steps: several for a JSON Pointer, one for
// any other name, which is taken literally.
func parseName(name string) ([]step, error) {
	if err := checkText(name); err != nil {
		return nil, err
	}
	if name[0] != '/' {
		return []step{{name, isKey}}, nil
	}
	parts := strings.Split(name[1:], "/")
	if len(parts) > MaxDepth {
		return nil, fmt.Errorf("the pointer %q is %d deep; at most %d", name, len(parts), MaxDepth)
	}
	path := make([]step, len(parts))
	for i, part := range parts {
		var err error
		if path[i], err = parseStep(part); err != nil {
			return nil, fmt.Errorf("the pointer %q: %w", name, err)
		}
	}
	return path, nil
}

// checkText says whether a name may be one, pointer or not.
func checkText(name string) error {
	switch {
	case name == "":
		return errors.New("the name is empty")
	case len(name) > MaxName:
		return fmt.Errorf("the name is %d bytes long; at most %d", len(name), MaxName)
	case !utf8.ValidString(name):
		return fmt.Errorf("the name %q is not valid UTF-8", name)
	case strings.ContainsFunc(name, unicode.IsSpace):
		return fmt.Errorf("the name %q holds white space: use _ or camelCase, such as %q",
			name, strings.Join(strings.Fields(name), "_"))
	case strings.ContainsFunc(name, unicode.IsControl):
		return fmt.Errorf("the name %q holds a control character", name)
	}
	return nil
}

// parseStep reads one part of a pointer. An empty part is a legal key of RFC
// 6901, but in a mapping it is a slash too many.
func parseStep(part string) (step, error) {
	switch {
	case part == "":
		return step{}, errors.New("a part is empty; is there a / too many?")
	case part == "-":
		return step{part, isAppend}, nil
	case isIndex(part):
		index, err := strconv.Atoi(part)
		if err != nil || index >= MaxProperties {
			return step{}, fmt.Errorf("the index %s is beyond %d; an object whose keys are numbers needs one entry with value or expr", part, MaxProperties-1)
		}
		return step{part, index}, nil
	}
	key, err := unescape(part)
	return step{key, isKey}, err
}

// isIndex reports whether RFC 6901 takes the part for an index: digits, without
// leading zeros.
func isIndex(part string) bool {
	return part == "0" || part[0] != '0' && strings.Trim(part, "0123456789") == ""
}

func unescape(part string) (string, error) {
	for i, c := range part {
		if c == '~' && !strings.HasPrefix(part[i+1:], "0") && !strings.HasPrefix(part[i+1:], "1") {
			return "", errors.New(`a ~ is written ~0 and a / inside a key ~1`)
		}
	}
	return strings.NewReplacer("~1", "/", "~0", "~").Replace(part), nil
}
