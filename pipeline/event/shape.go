package event

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
)

// avroShape says where a writer's schema has unions. Decoded values alone don't:
// {"string": "x"} may be a union's text or a property named string.
type avroShape struct {
	union  bool // properties are null or a map
	values bool // a property is one of several types
}

// avroType is what is read of a type in an Avro schema. Everything else, such as
// items of an array, is not known here and so refused.
type avroType struct {
	Type        json.RawMessage `json:"type"`
	LogicalType string          `json:"logicalType"`
	Values      json.RawMessage `json:"values"` // of a map
}

// readShape checks that a schema is an event's, flat but for the properties. A
// schema comes from whoever may write to the registry, and goavro follows it
// blindly: a recursive one could overflow the stack, and an array of nulls takes
// memory for nothing, so neither is accepted.
func readShape(schema string) (avroShape, error) {
	var record struct {
		Type   json.RawMessage `json:"type"`
		Fields []struct {
			Name string `json:"name"`
			avroType
		} `json:"fields"`
	}
	if err := json.Unmarshal([]byte(schema), &record); err != nil || string(record.Type) != `"record"` {
		return avroShape{}, errors.New("the schema is no Avro record")
	}
	var shape avroShape
	for _, f := range record.Fields {
		var err error
		if jsonAttribute(f.Name) == attrProperties {
			shape, err = readProperties(f.Type)
		} else {
			err = checkFlat(f.Type)
		}
		if err != nil {
			return shape, fmt.Errorf("field %s of the schema: %w", f.Name, err)
		}
	}
	return shape, nil
}

// readProperties reads the type of the properties: a map, or null or a map.
func readProperties(raw json.RawMessage) (avroShape, error) {
	var shape avroShape
	if members := unionOf(raw); members != nil {
		shape.union = true
		members = slices.DeleteFunc(members, func(m json.RawMessage) bool { return string(m) == `"null"` })
		if len(members) != 1 {
			return shape, errors.New("expected a map, or null or a map")
		}
		raw = members[0]
	}
	var t avroType
	if json.Unmarshal(raw, &t) != nil || string(t.Type) != `"map"` {
		return shape, errors.New("expected a map")
	}
	shape.values = unionOf(t.Values) != nil
	return shape, checkFlat(t.Values)
}

// unionOf returns the members of a union; nil if it is none.
func unionOf(raw json.RawMessage) []json.RawMessage {
	var members []json.RawMessage
	if !bytes.HasPrefix(bytes.TrimSpace(raw), []byte("[")) || json.Unmarshal(raw, &members) != nil {
		return nil
	}
	return members
}

// checkFlat accepts a type of single values, or a union of such.
func checkFlat(raw json.RawMessage) error {
	if members := unionOf(raw); members != nil {
		for _, m := range members {
			if err := checkFlat(m); err != nil {
				return err
			}
		}
		return nil
	}
	var name string
	if json.Unmarshal(raw, &name) == nil {
		return checkName(name)
	}
	var t avroType
	if err := json.Unmarshal(raw, &t); err != nil {
		return errors.New("expected a type")
	}
	switch t.LogicalType {
	case "", "timestamp-millis", "timestamp-micros", "date", "uuid":
	default:
		return fmt.Errorf("logical type %q is not supported in an event", t.LogicalType)
	}
	if json.Unmarshal(t.Type, &name) != nil {
		return checkFlat(t.Type)
	}
	if name == "enum" {
		return nil
	}
	return checkName(name)
}

func checkName(name string) error {
	switch name {
	case "null", "boolean", "int", "long", "float", "double", "string", "bytes":
		return nil
	}
	return fmt.Errorf("type %q is not supported in an event, which is flat", name)
}

// properties takes the properties out of a decoded record.
func (s avroShape) properties(record map[string]any) map[string]any {
	v := record["properties"]
	if s.union {
		v = unwrap(v)
	}
	props, _ := v.(map[string]any)
	if s.values {
		for name, v := range props {
			props[name] = unwrap(v)
		}
	}
	return props
}
