package definition

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/millrace-io/millrace/pipeline"
)

// resourceFormat is the version of Resource that this binary writes.
const resourceFormat = 1

// Resource is a definition as it is in force: a record of the definitions topic.
type Resource struct {
	Format   int             `json:"format"`
	Kind     Kind            `json:"kind"`
	Name     string          `json:"name"`
	Owner    string          `json:"owner"`             // a set of files, the console, the API
	Revision int64           `json:"revision"`          // grows with every change of any definition; never used twice
	Created  int64           `json:"created,omitempty"` // revision at which there was none before; 0: not known
	Author   string          `json:"author,omitempty"`  // who applied it
	Time     time.Time       `json:"time"`              // when
	Removed  bool            `json:"removed,omitempty"` // in the history: there is none any more
	Spec     json.RawMessage `json:"spec,omitempty"`    // canonical; secrets only as references or sealed
}

// Key identifies the definition.
func (r *Resource) Key() Key { return Key{r.Kind, r.Name} }

// record is the resource as a record of a topic.
func (r *Resource) record(topic string) (pipeline.Record, error) {
	value, err := marshal(r)
	if err != nil {
		return pipeline.Record{}, fmt.Errorf("writing %s: %w", r.Key(), err)
	}
	return pipeline.Record{Topic: topic, Key: []byte(r.Key().String()), Value: value}, nil
}

// decodeResource reads the value of a record of the definitions topic.
func decodeResource(k Key, value []byte) (*Resource, error) {
	var r Resource
	if err := json.Unmarshal(value, &r); err != nil {
		return nil, fmt.Errorf("reading %s: %w", k, err)
	}
	if r.Format > resourceFormat {
		return nil, fmt.Errorf("reading %s: it was written by a newer version of Millrace (format %d)", k, r.Format)
	}
	if r.Key() != k {
		return nil, fmt.Errorf("reading %s: it says that it is %s", k, r.Key())
	}
	return &r, nil
}

// Start is where the filter starts to read an event topic. `millrace init`
// writes it into the definitions topic when it first sees the topic.
type Start struct {
	Topic      string          `json:"topic"`
	ID         string          `json:"id"`         // the topic's id: a topic created again has another
	Partitions map[int32]int64 `json:"partitions"` // partition to offset
}

const startPrefix = "start/"

// Record is the start as a record of the definitions topic.
func (s Start) Record(names pipeline.Names) (pipeline.Record, error) {
	value, err := marshal(s)
	if err != nil {
		return pipeline.Record{}, fmt.Errorf("writing the start of topic %q: %w", s.Topic, err)
	}
	return pipeline.Record{Topic: names.Definitions(), Key: []byte(startPrefix + s.Topic), Value: value}, nil
}

// recordOver is the record to write where others are in force: what they know of
// the same topic stays, but a topic of another id is another topic. It says false
// where there is nothing new.
func (s Start) recordOver(current map[string]pipeline.Record, names pipeline.Names) (pipeline.Record, bool, error) {
	r, err := s.Record(names)
	have, ok := current[string(r.Key)]
	if err != nil || !ok {
		return r, true, err
	}
	known, _, err := ParseStart(&have)
	if err != nil || known.ID != s.ID {
		return r, true, err
	}
	all := maps.Clone(s.Partitions)
	maps.Copy(all, known.Partitions)
	s.Partitions = all
	r, err = s.Record(names)
	return r, len(all) > len(known.Partitions), err
}

// ParseStart reads a record of the definitions topic. It says false where the
// record is something else or the start of a topic that is gone (Value nil).
func ParseStart(r *pipeline.Record) (Start, bool, error) {
	topic, ok := strings.CutPrefix(string(r.Key), startPrefix)
	if !ok || r.Value == nil {
		return Start{}, false, nil
	}
	var s Start
	if err := json.Unmarshal(r.Value, &s); err != nil {
		return Start{}, false, fmt.Errorf("reading the start of topic %q: %w", topic, err)
	}
	return s, true, nil
}

// sorted gives the keys by kind, in the order in which they are written, and name.
func sortedResources(m map[Key]*Resource) []*Resource {
	return slices.SortedFunc(maps.Values(m), func(a, b *Resource) int { return compareKeys(a.Key(), b.Key()) })
}
