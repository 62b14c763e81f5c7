// Package event turns the records that producers write into events, by the
// catalog of event types, and events into Event JSON.
//
// Producers write CloudEvents (binary or structured mode), Event JSON or Event
// Avro; a Decoder tells them apart and reads them. It is strict: what is not
// valid JSON or Avro to the last byte, or not flat, is refused with a reason,
// and nothing that a producer writes makes it panic or take much more memory
// than the record has.
//
// Where an object names a property twice, the last one counts; an attribute of
// the envelope named twice is refused. Event JSON may have members that are not
// known; they are ignored and passed on.
package event

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/millrace-io/millrace/pipeline"
)

// Decoder reads events from records. It is safe for concurrent use; the events
// it gives belong to one goroutine at a time and keep nothing of the record.
// Its fields are set before it is first used.
type Decoder struct {
	// TopicID returns what stands for a topic in the ids of events that have
	// none: its UUID, so that a topic created again does not repeat ids. Nil: the
	// topic's name.
	TopicID func(topic string) string
	// Mismatches is called for each property of an event whose value contradicts
	// the catalog, when it is first read: what nobody reads is not converted. It
	// may be called concurrently. Nil: nobody counts.
	Mismatches func(eventType, property string)

	registry Registry
	cluster  string
	codecs   sync.Map // schema id -> *avroCodec or error
	building sync.Mutex
}

// NewDecoder returns a decoder. The registry may be nil: then events in Avro are
// refused. The cluster's id is part of the ids of events that have none.
func NewDecoder(registry Registry, cluster string) *Decoder {
	return &Decoder{registry: registry, cluster: cluster}
}

// decoded is an event with its properties, in one allocation.
type decoded struct {
	event      pipeline.Event
	properties properties
}

// Decode reads the event in a record. The error is Permanent (Undecodable) if
// the record is none, RetryAfter if the schema registry can't be asked, or
// ctx's.
func (d *Decoder) Decode(ctx context.Context, r *pipeline.Record, c *Catalog) (*pipeline.Event, error) {
	f, err := formOf(r)
	if err != nil {
		return nil, undecodable(err)
	}
	out := &decoded{}
	var env envelope
	p := &out.properties
	switch f {
	case binaryMode:
		err = p.parseBinary(r, &env)
	case structuredMode:
		err = p.parse(string(r.Value), &env, cloudAttribute)
	case eventJSON:
		p.whole = true
		err = p.parse(string(r.Value), &env, jsonAttribute)
	case eventAvro:
		err = d.parseAvro(ctx, r.Value, p, &env)
	}
	if err == nil {
		err = d.complete(out, r, &env, c)
	}
	if err != nil {
		return nil, undecodable(err)
	}
	return &out.event, nil
}

// undecodable makes err permanent, unless it already says what to do or the
// context ended.
func undecodable(err error) error {
	if _, ok := errors.AsType[*pipeline.RetryAfterError](err); ok {
		return err
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return pipeline.Permanent(pipeline.Undecodable, err)
}

// Match returns the event of a match record, with the properties in value and
// the rest from the envelope.
func (d *Decoder) Match(value []byte, m *pipeline.Match, c *Catalog) (*pipeline.Event, error) {
	out := &decoded{event: m.Event}
	out.properties.whole = true
	if err := out.properties.parse(string(value), &envelope{}, jsonAttribute); err != nil {
		return nil, undecodable(err)
	}
	d.adopt(out, c)
	return &out.event, nil
}

// parse reads an object with envelope and properties; attr tells its members.
func (p *properties) parse(text string, env *envelope, attr func(string) attribute) error {
	if err := checkText(text); err != nil {
		return err
	}
	p.text = text
	s := &scanner{text: text}
	var seen [attrNone]bool
	err := s.object(func(name token) error {
		a := attr(name.string(text))
		if a == attrNone {
			_, err := s.value(1)
			return err
		}
		if seen[a] {
			return fmt.Errorf("%s is there twice", name.string(text))
		}
		seen[a] = true
		if err := p.member(s, a, env); err != nil {
			return fmt.Errorf("%s: %w", name.string(text), err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return s.end()
}

// member reads one attribute.
func (p *properties) member(s *scanner, a attribute, env *envelope) error {
	if a == attrProperties {
		return p.parseFields(s)
	}
	t, err := s.value(1)
	if err != nil {
		return err
	}
	text, err := attributeText(a, t, p.text)
	switch {
	case err != nil || text == "":
		return err
	case a == attrBase64:
		return errors.New("not supported; the properties go into data, as a JSON object")
	case a == attrVersion:
		return checkVersion(text)
	}
	env[a] = text
	return nil
}

// checkVersion refuses what is not CloudEvents 1.
func checkVersion(v string) error {
	if v != "1" && !strings.HasPrefix(v, "1.") {
		return fmt.Errorf("expected CloudEvents 1.0, found %.40q", v)
	}
	return nil
}

// parseFields reads the properties object, or null.
func (p *properties) parseFields(s *scanner) error {
	if s.peek() == 'n' {
		_, err := s.word("null", null)
		return err
	}
	p.from = int32(s.at)
	p.fields = make([]field, 0, 16) // as most events have
	err := s.object(func(name token) error {
		v, err := s.value(1)
		if err != nil {
			return err
		}
		if v.kind == nested {
			return fmt.Errorf("property %.100q holds an object or an array; properties are flat", name.string(p.text))
		}
		p.fields = append(p.fields, field{name: name, value: v})
		return nil
	})
	p.to = int32(s.at)
	return err
}

// complete makes the event of what the producer wrote.
func (d *Decoder) complete(out *decoded, r *pipeline.Record, env *envelope, c *Catalog) error {
	e := &out.event
	e.ID, e.Source, e.Type = env[attrID], env[attrSource], env[attrType]
	e.System, e.User, e.Session = env[attrSystem], env[attrUser], env[attrSession]
	if e.Type == "" {
		out.properties.event, out.properties.layout = e, c.other
		e.Type = out.properties.mirroredText(mirrorType)
	}
	if e.Type == "" {
		return errors.New("the event has no type")
	}
	d.adopt(out, c)
	if e.User == "" {
		e.User = out.properties.mirroredText(mirrorUser)
	}
	if e.Session == "" {
		e.Session = out.properties.mirroredText(mirrorSession)
	}
	if e.ID == "" {
		e.ID = d.deriveID(r)
	}
	var err error
	if e.Time, err = out.properties.eventTime(env[attrTime], r.Time); err != nil {
		return fmt.Errorf("time: %w", err)
	}
	if e.Environment, err = out.properties.environment(env[attrEnvironment]); err != nil {
		return fmt.Errorf("environment: %w", err)
	}
	return nil
}

// adopt ties event and properties together, under the type's layout.
func (d *Decoder) adopt(out *decoded, c *Catalog) {
	out.properties.event = &out.event
	out.properties.layout = c.layout(out.event.Type)
	out.properties.mismatch = d.Mismatches
	out.event.Properties = &out.properties
}

// deriveID is the id of an event that came without: where it lies.
func (d *Decoder) deriveID(r *pipeline.Record) string {
	topic := r.Topic
	if d.TopicID != nil {
		topic = d.TopicID(topic)
	}
	b := make([]byte, 0, 128)
	b = append(append(b, d.cluster...), '/')
	b = append(append(b, topic...), '/')
	b = append(strconv.AppendInt(b, int64(r.Partition), 10), '/')
	return string(strconv.AppendInt(b, r.Offset, 10))
}

// mirroredText returns the text of a property that fills the envelope, empty if
// it is missing or no text can be made of it.
func (p *properties) mirroredText(m mirror) string {
	s, _ := p.own(m, pipeline.String).(string)
	return s
}

// own returns the value that the event itself has for a mirrored property,
// whatever the envelope says; nil if it contradicts typ, which is counted.
func (p *properties) own(m mirror, typ pipeline.Type) any {
	s := p.layout.mirrors[m-mirrorUser]
	i := p.find(s)
	if i < 0 {
		return nil
	}
	f := &p.fields[i]
	v, ok := convert(f.value.native(p.text), f.value.raw(p.text), typ)
	if !ok {
		p.count(f, s.name())
		return nil
	}
	return v
}

// eventTime returns when the event happened: as the envelope says, else
// created_at, else the record's timestamp.
func (p *properties) eventTime(given string, record time.Time) (time.Time, error) {
	if given != "" {
		return parseTime(given)
	}
	if ms, ok := p.own(mirrorTime, pipeline.Integer).(int64); ok {
		return atMillis(ms)
	}
	return atMillis(record.UnixMilli())
}

// environment returns the event's stage: as the envelope says, else by wm.env.
func (p *properties) environment(given string) (string, error) {
	if given != "" {
		return parseEnvironment(given)
	}
	s := p.layout.mirrors[mirrorEnvironment-mirrorUser]
	i := p.find(s)
	if i < 0 {
		return pipeline.Production, nil
	}
	v, _ := convert(p.fields[i].value.native(p.text), "", pipeline.Integer)
	return environmentOf(v)
}
