package definition

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strconv"
)

// Field is a part of a definition that differs.
type Field struct {
	Path string          `json:"path"`           // such as properties.2.expr
	From json.RawMessage `json:"from,omitempty"` // nil: it was not there
	To   json.RawMessage `json:"to,omitempty"`   // nil: it is no longer there
	// Sealed says that a secret in To was written out and has been sealed: whether
	// it is another than before can't be told.
	Sealed bool `json:"sealed,omitempty"`
}

// String gives "path: from → to".
func (f Field) String() string {
	text := fmt.Sprintf("%s: %s → %s", f.Path, shown(f.From), shown(f.To))
	if f.Sealed {
		text += " (sealed now, since it is written out)"
	}
	return text
}

var longSeal = regexp.MustCompile(`\$\{sealed:[A-Za-z0-9_-]+([A-Za-z0-9_-]{6})\}`)

// shown is a value for people; of what is sealed the end is enough.
func shown(v json.RawMessage) string {
	if v == nil {
		return "(none)"
	}
	return cut(longSeal.ReplaceAllString(string(v), "$${sealed:…$1}"), 200)
}

// diff lists what differs between two revisions of a definition.
func diff(from, to *Resource) []Field {
	var fields []Field
	if from.Owner != to.Owner {
		fields = append(fields, Field{Path: "owner", From: appendText(nil, from.Owner), To: appendText(nil, to.Owner)})
	}
	return compare(fields, "", from.Spec, to.Spec)
}

// compare goes down into maps, and into lists past what they have in common at
// both ends.
func compare(fields []Field, path string, from, to json.RawMessage) []Field {
	if bytes.Equal(from, to) {
		return fields
	}
	before := len(fields)
	var fromMap, toMap map[string]json.RawMessage
	if isMap(from) && isMap(to) && json.Unmarshal(from, &fromMap) == nil && json.Unmarshal(to, &toMap) == nil {
		keys := slices.Compact(slices.Sorted(slices.Values(append(sortedKeys(fromMap), sortedKeys(toMap)...))))
		for _, k := range keys {
			fields = compare(fields, join(path, k), fromMap[k], toMap[k])
		}
		if len(fields) > before { // else it is the order of the keys
			return fields
		}
	}
	var fromList, toList []json.RawMessage
	if isList(from) && isList(to) && json.Unmarshal(from, &fromList) == nil && json.Unmarshal(to, &toList) == nil {
		return compareLists(fields, path, fromList, toList)
	}
	return append(fields, Field{Path: path, From: from, To: to})
}

func compareLists(fields []Field, path string, from, to []json.RawMessage) []Field {
	start := 0
	for start < len(from) && start < len(to) && bytes.Equal(from[start], to[start]) {
		start++
	}
	from, to = from[start:], to[start:]
	for len(from) > 0 && len(to) > 0 && bytes.Equal(from[len(from)-1], to[len(to)-1]) {
		from, to = from[:len(from)-1], to[:len(to)-1]
	}
	for i := range max(len(from), len(to)) {
		var a, b json.RawMessage
		if i < len(from) {
			a = from[i]
		}
		if i < len(to) {
			b = to[i]
		}
		fields = compare(fields, join(path, strconv.Itoa(start+i)), a, b)
	}
	return fields
}

func isMap(v json.RawMessage) bool  { return len(v) > 0 && v[0] == '{' }
func isList(v json.RawMessage) bool { return len(v) > 0 && v[0] == '[' }

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}
