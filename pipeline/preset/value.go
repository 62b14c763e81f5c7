package preset

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"

	"gopkg.in/yaml.v3"

	"github.com/millrace-io/millrace/pipeline/scalar"
)

// value is any YAML, kept as JSON. Its scalars mean what they mean in
// definitions, which yaml.v3 reads otherwise: it takes 0123 for 83 and
// 2026-05-04 for a time, and rounds long integers.
type value json.RawMessage

// UnmarshalYAML turns the value into JSON.
func (v *value) UnmarshalYAML(n *yaml.Node) error {
	w := writer{left: maxValues}
	if err := w.value(n); err != nil {
		return err
	}
	*v = w.out
	return nil
}

// count is how many of something there may be.
type count int

// UnmarshalYAML reads an integer.
func (c *count) UnmarshalYAML(n *yaml.Node) error {
	kind, text := plain(n)
	i, err := strconv.Atoi(text)
	if kind != scalar.Integer || err != nil || i < 0 {
		return fmt.Errorf("line %d: found %q, expected how many", n.Line, n.Value)
	}
	*c = count(i)
	return nil
}

// maxValues is how many values may stand in one, with those that aliases repeat:
// an alias within what it stands for would repeat for ever.
const maxValues = 10_000

// writer writes YAML as JSON.
type writer struct {
	out  []byte
	left int // values
}

func (w *writer) value(n *yaml.Node) error {
	if w.left--; w.left < 0 {
		return fmt.Errorf("line %d: found more than %d values inside one, with what aliases repeat", n.Line, maxValues)
	}
	if n.Style&yaml.TaggedStyle != 0 && n.Tag != "!!str" {
		return fmt.Errorf("line %d: found the tag %s, expected none", n.Line, n.Tag)
	}
	switch n.Kind {
	case yaml.AliasNode:
		return w.value(n.Alias)
	case yaml.MappingNode:
		return w.object(n)
	case yaml.SequenceNode:
		return w.array(n)
	}
	return w.scalar(n)
}

func (w *writer) object(n *yaml.Node) error {
	w.out = append(w.out, '{')
	names := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		name := n.Content[i]
		if name.Kind != yaml.ScalarNode || names[name.Value] {
			return fmt.Errorf("line %d: found %q as a name, expected text that is no name yet", name.Line, name.Value)
		}
		names[name.Value] = true
		if i > 0 {
			w.out = append(w.out, ',')
		}
		if err := w.text(name.Value); err != nil {
			return err
		}
		w.out = append(w.out, ':')
		if err := w.value(n.Content[i+1]); err != nil {
			return err
		}
	}
	w.out = append(w.out, '}')
	return nil
}

func (w *writer) array(n *yaml.Node) error {
	w.out = append(w.out, '[')
	for i, element := range n.Content {
		if i > 0 {
			w.out = append(w.out, ',')
		}
		if err := w.value(element); err != nil {
			return err
		}
	}
	w.out = append(w.out, ']')
	return nil
}

func (w *writer) scalar(n *yaml.Node) error {
	kind, text := plain(n)
	switch {
	case kind == scalar.Text && isPlain(n) && scalar.Endless(text):
		return fmt.Errorf("line %d: found %s, expected a number that JSON has", n.Line, text)
	case kind == scalar.Text:
		return w.text(text)
	case kind == scalar.Null:
		text = null
	}
	w.out = append(w.out, text...)
	return nil
}

func (w *writer) text(s string) error {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(s); err != nil {
		return err
	}
	w.out = append(w.out, bytes.TrimSpace(b.Bytes())...)
	return nil
}

// plain gives a scalar its kind, and what it says in JSON.
func plain(n *yaml.Node) (scalar.Kind, string) {
	if isPlain(n) {
		return scalar.Plain(n.Value)
	}
	return scalar.Text, n.Value
}

// isPlain says whether a scalar stands there without quotes, and without a tag.
func isPlain(n *yaml.Node) bool {
	const other = yaml.TaggedStyle | yaml.SingleQuotedStyle | yaml.DoubleQuotedStyle | yaml.LiteralStyle | yaml.FoldedStyle
	return n.Kind == yaml.ScalarNode && n.Style&other == 0
}
