package event

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/linkedin/goavro/v2"

	"github.com/millrace-io/millrace/pipeline"
)

// Registry knows the schemas that producers wrote with.
type Registry interface {
	// Schema returns the text of an Avro schema. The error wraps ErrSchemaUnknown
	// if there is none of that id; anything else means that the registry can't be
	// asked now.
	Schema(ctx context.Context, id int) (string, error)
}

// ErrSchemaUnknown means that the registry has no Avro schema of that id.
var ErrSchemaUnknown = errors.New("the schema registry has no such Avro schema")

const (
	avroMagic = 0 // first byte of the Confluent wire format
	// registryPause is how long a record waits while the registry can't be asked.
	registryPause = time.Second
	// maxAvroItems is how many items a map may announce, maxAvroBytes how long a
	// text: beyond what any record of Kafka holds, far below what hurts.
	maxAvroItems = 10_000
	maxAvroBytes = 16 << 20
)

// limitAvro sets goavro's limits, which are its package's variables: without
// them it allocates 32 GiB on 6 bytes. Every codec of this program comes from
// newCodec, so they hold before the first use and are written once.
var limitAvro = sync.OnceFunc(func() {
	goavro.MaxBlockCount = maxAvroItems
	goavro.MaxBlockSize = maxAvroBytes
})

func newCodec(schema string) (*goavro.Codec, error) {
	limitAvro()
	return goavro.NewCodec(schema)
}

// avroCodec decodes what was written with one schema.
type avroCodec struct {
	codec *goavro.Codec
	err   error // why the schema is none of an event
	shape avroShape
}

// parseAvro reads Event Avro with the writer's schema. The properties become
// JSON, sorted by name so that the same bytes in give the same bytes out; from
// there on the event is like any other.
func (d *Decoder) parseAvro(ctx context.Context, value []byte, p *properties, env *envelope) error {
	if len(value) < 5 {
		return fmt.Errorf("%d bytes are too few for Avro with a schema id", len(value))
	}
	id := int(binary.BigEndian.Uint32(value[1:]))
	a, err := d.codec(ctx, id)
	if err != nil {
		return fmt.Errorf("schema %d: %w", id, err)
	}
	datum, rest, err := a.codec.NativeFromBinary(value[5:])
	if err != nil {
		return fmt.Errorf("schema %d: %w", id, err)
	}
	if len(rest) > 0 {
		return fmt.Errorf("schema %d: %d bytes are left over", id, len(rest))
	}
	record := datum.(map[string]any) // the schema is a record's
	if err := env.fromAvro(record); err != nil {
		return err
	}
	text, err := appendNative(nil, a.shape.properties(record))
	if err != nil {
		return err
	}
	p.text = string(text)
	if err := checkText(p.text); err != nil {
		return err
	}
	s := &scanner{text: p.text}
	return p.parseFields(s)
}

// codec returns the codec of a schema id, building it once. One that is no
// schema of an event is kept too, so that it is asked for once.
func (d *Decoder) codec(ctx context.Context, id int) (*avroCodec, error) {
	if a, ok := d.codecs.Load(id); ok {
		return a.(*avroCodec), a.(*avroCodec).err
	}
	if d.registry == nil {
		return nil, errors.New("events in Avro need a schema registry; none is set")
	}
	schema, err := d.registry.Schema(ctx, id)
	switch {
	case errors.Is(err, ErrSchemaUnknown):
		return nil, err
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case err != nil:
		return nil, pipeline.RetryAfter(registryPause, fmt.Errorf("asking the schema registry: %w", err))
	}
	a := d.build(schema)
	d.codecs.Store(id, a)
	return a, a.err
}

// build makes a codec, one at a time: goavro's NewCodec is not made for more.
func (d *Decoder) build(schema string) *avroCodec {
	d.building.Lock()
	defer d.building.Unlock()
	shape, err := readShape(schema)
	if err != nil {
		return &avroCodec{err: err}
	}
	codec, err := newCodec(schema)
	if err != nil {
		return &avroCodec{err: fmt.Errorf("compiling the schema: %w", err)}
	}
	return &avroCodec{codec: codec, shape: shape}
}

// fromAvro fills the envelope.
func (env *envelope) fromAvro(record map[string]any) error {
	for name, v := range record {
		a := jsonAttribute(name)
		if a >= attributes {
			continue
		}
		text, err := nativeText(a, unwrap(v))
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		env[a] = text
	}
	return nil
}

// unwrap takes the value out of a union, which goavro gives as {"string": v}.
func unwrap(v any) any {
	if m, ok := v.(map[string]any); ok && len(m) == 1 {
		for _, v := range m {
			return v
		}
	}
	return v
}

// nativeText is attributeText for a value of goavro.
func nativeText(a attribute, v any) (string, error) {
	switch v := v.(type) {
	case nil:
		return "", nil
	case string:
		if !utf8.ValidString(v) {
			return "", errors.New("expected UTF-8")
		}
		return v, nil
	case time.Time:
		if a == attrTime {
			return strconv.FormatInt(v.UnixMilli(), 10), nil
		}
	case int64:
		return integerText(a, v)
	case int32:
		return integerText(a, int64(v))
	}
	return "", errors.New("expected text")
}

func integerText(a attribute, n int64) (string, error) {
	if !a.mayBeNumber() {
		return "", errors.New("expected text")
	}
	return strconv.FormatInt(n, 10), nil
}

// appendNative appends properties of goavro as a JSON object.
func appendNative(dst []byte, props map[string]any) ([]byte, error) {
	dst = append(dst, '{')
	for i, name := range slices.Sorted(maps.Keys(props)) {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(appendString(dst, name), ':')
		v, err := flat(props[name])
		if err != nil {
			return nil, fmt.Errorf("property %.100q: %w", name, err)
		}
		dst = appendValue(dst, v)
	}
	return append(dst, '}'), nil
}

// flat returns a value of goavro as Properties give it. A moment becomes text,
// as dates are.
func flat(v any) (any, error) {
	switch v := v.(type) {
	case nil, bool, int64, string:
		return v, nil
	case int32:
		return int64(v), nil
	case float32:
		return flat(float64(v))
	case float64:
		if !isFinite(v) {
			return nil, fmt.Errorf("%v is no number in JSON", v)
		}
		return v, nil
	case time.Time:
		return v.UTC().Format(time.RFC3339Nano), nil
	}
	return nil, fmt.Errorf("%T is neither text, number nor boolean; properties are flat", v)
}
