package definition

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/millrace-io/millrace/pipeline/scalar"
)

// Export writes definitions as YAML that Parse reads back as the same: event
// types first, then destinations and webhooks. Expressions stand in block
// scalars, secrets as references.
func Export(w io.Writer, s *Snapshot) error {
	if len(s.Resources) == 0 {
		return nil // the encoder can't close what it has not begun
	}
	e := yaml.NewEncoder(w)
	e.SetIndent(2)
	for _, r := range sortedResources(s.Resources) {
		doc, err := exported(r)
		if err != nil {
			return fmt.Errorf("exporting %s: %w", r.Key(), err)
		}
		if err := e.Encode(doc); err != nil {
			return fmt.Errorf("exporting %s: %w", r.Key(), err)
		}
	}
	return e.Close()
}

// exported is the document of a resource.
func exported(r *Resource) (*yaml.Node, error) {
	d := json.NewDecoder(bytes.NewReader(r.Spec))
	d.UseNumber()
	spec, err := yamlOf(d)
	if err != nil {
		return nil, err
	}
	if r.Kind == KindWebhook {
		asBlock(valueIn(spec, "condition"))
		if properties := valueIn(spec, "properties"); properties != nil {
			for _, p := range properties.Content {
				asBlock(valueIn(p, "expr"))
			}
		}
	}
	head := []*yaml.Node{yamlText("kind"), yamlText(string(r.Kind)), yamlText("name"), yamlText(r.Name)}
	spec.Content = append(head, spec.Content...)
	return spec, nil
}

// yamlOf turns the next JSON value into YAML, keys in their order.
func yamlOf(d *json.Decoder) (*yaml.Node, error) {
	token, err := d.Token()
	if err != nil {
		return nil, err
	}
	switch v := token.(type) {
	case json.Delim:
		n := &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq"}
		if v == '{' {
			n.Kind, n.Tag = yaml.MappingNode, "!!map"
		}
		for d.More() { // keys are values like others
			value, err := yamlOf(d)
			if err != nil {
				return nil, err
			}
			n.Content = append(n.Content, value)
		}
		_, err := d.Token()
		return n, err
	case string:
		return yamlText(v), nil
	case nil:
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!null", Value: "null"}, nil
	case bool:
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!bool", Value: strconv.FormatBool(v)}, nil
	default: // json.Number: its digits as they are
		return &yaml.Node{Kind: yaml.ScalarNode, Value: fmt.Sprint(v)}, nil
	}
}

// valueIn returns the value of a key of a map, or nil.
func valueIn(n *yaml.Node, key string) *yaml.Node {
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return n.Content[i+1]
		}
	}
	return nil
}

// asBlock puts an expression into a block scalar, where YAML leaves it alone.
func asBlock(n *yaml.Node) {
	if n != nil && n.Style != yaml.DoubleQuotedStyle {
		n.Style, n.Value = yaml.LiteralStyle, n.Value+"\n"
	}
}

// yamlText quotes what this package or YAML 1.1, which other tools go by, would
// read as anything but this text.
func yamlText(s string) *yaml.Node {
	n := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: s}
	if kind, _ := scalar.Plain(s); kind != textNode || strings.ContainsAny(s, "\r\t\u0085\u2028\u2029\uFEFF") {
		n.Style = yaml.DoubleQuotedStyle
	}
	return n
}
