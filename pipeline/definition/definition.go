package definition

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/millrace-io/millrace/pipeline/expression"
)

// Definition is one definition as a file or a request gives it.
type Definition struct {
	Key
	// Spec is the definition as JSON, without kind and name: of the same
	// definition always the same bytes. Nil if it has problems.
	Spec json.RawMessage

	source *text
	node   *node
	// rest is a definition with problems without the parts that have them: the
	// problems of meaning in what is left are found in the same run.
	rest json.RawMessage
	// written are the fields, such as auth.token, whose secrets were written out
	// and have been sealed.
	written []string
}

// Set is what some files define, with all that is wrong with it by itself.
// Check finds the rest.
type Set struct {
	Definitions []*Definition // in the order of the files
	Problems    Problems
}

// Parse reads files. It reports all problems of syntax, keys and values in the
// set it returns; a set with errors is only good for Check, which adds the
// problems of meaning.
func Parse(files ...File) *Set {
	s := &Set{}
	seen := map[Key]*Definition{}
	for _, f := range files {
		t, ok := openText(f)
		if ok {
			for _, doc := range t.documents() {
				s.add(t.definition(doc), seen)
			}
		}
		s.Problems = append(s.Problems, t.problems...)
		t.problems = nil
	}
	s.Problems = s.Problems.sorted()
	return s
}

// add takes a definition into the set, unless its name is taken.
func (s *Set) add(d *Definition, seen map[Key]*Definition) {
	if d == nil {
		return
	}
	if first := seen[d.Key]; first != nil {
		d.source.report(d.node.find([]string{"name"}).at, "found the %s %q again, expected each name once; it stands in %s:%d already",
			d.Kind, d.Name, first.source.name, first.node.at.line)
		return
	}
	seen[d.Key] = d
	s.Definitions = append(s.Definitions, d)
}

// definition checks a document against the table of keys. It returns nil where
// it can't even be told what is defined.
func (t *text) definition(doc *node) *Definition {
	kinds := []string{string(KindEventType), string(KindDestination), string(KindWebhook)}
	kind := doc.get("kind")
	if doc.kind != mapNode || kind == nil {
		doc.guarded = true // it may be the file of a secret
		t.report(doc.at, "found %s without a kind, expected kind: %s", doc.describe(), alternatives(kinds))
		return nil
	}
	keys := keysOf(Kind(kind.text), doc.get("preset") != nil)
	if keys == nil {
		t.report(kind.at, "found the kind %s, expected %s%s", kind.describe(), alternatives(kinds), expression.DidYouMean(kind.text, kinds))
		return nil
	}
	doc.guardSecrets(Kind(kind.text))
	before := len(t.problems)
	object(keys...)(t, "", doc)
	name := doc.get("name")
	if name == nil || name.kind != textNode {
		return nil
	}
	d := &Definition{Key: Key{Kind(kind.text), name.text}, source: t, node: doc}
	if bad := t.problems[before:]; len(bad) > 0 {
		d.rest, _ = canonical(d.Key, doc.withoutIdentity().without(bad).appendJSON(nil)) // nothing left to check where it fails
		return d
	}
	spec, err := canonical(d.Key, doc.withoutIdentity().appendJSON(nil))
	if err != nil {
		t.report(doc.at, "found a %s that can't be read: %v", d.Kind, err)
	}
	d.Spec = spec
	return d
}

// withoutIdentity is the document without its kind and name.
func (n *node) withoutIdentity() *node {
	bare := *n
	bare.pairs = slices.DeleteFunc(slices.Clone(n.pairs), func(p pair) bool {
		return p.key.text == "kind" || p.key.text == "name"
	})
	return &bare
}

// without is the value without the keys and items that have problems.
func (n *node) without(bad Problems) *node {
	isBad := func(at place) bool {
		return slices.ContainsFunc(bad, func(p Problem) bool { return place{p.Line, p.Column} == at })
	}
	left := *n
	left.pairs, left.items = nil, nil
	for _, p := range n.pairs {
		if !isBad(p.key.at) && (!isBad(p.value.at) || len(p.value.pairs)+len(p.value.items) > 0) {
			left.pairs = append(left.pairs, pair{p.key, p.value.without(bad)})
		}
	}
	for _, i := range n.items {
		if !isBad(i.at) || len(i.pairs) > 0 {
			left.items = append(left.items, i.without(bad))
		}
	}
	return &left
}

// canonical gives a spec the one form that it has in the definitions topic:
// keys in the order of the table, durations and sizes in their shortest form.
func canonical(k Key, spec json.RawMessage) (json.RawMessage, error) {
	v, err := decodeSpec(k, spec)
	if err != nil {
		return nil, err
	}
	return marshal(v)
}

// marshal is json.Marshal without the escapes that HTML wants: specs are read
// by people, and expressions are full of < and >.
func marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), err
}

// decodeSpec gives the *EventType, *Destination or *Webhook of a spec.
func decodeSpec(k Key, spec json.RawMessage) (any, error) {
	var v any
	switch k.Kind {
	case KindEventType:
		v = &EventType{Name: k.Name}
	case KindDestination:
		v = &Destination{Name: k.Name}
	case KindWebhook:
		v = &Webhook{Name: k.Name}
	default:
		return nil, fmt.Errorf("kind %q is not known", k.Kind)
	}
	d := json.NewDecoder(bytes.NewReader(spec))
	d.DisallowUnknownFields() // a newer version's: half a definition is worse than none
	if err := d.Decode(v); err != nil {
		return nil, fmt.Errorf("reading %s: %w", k, err)
	}
	return v, nil
}
