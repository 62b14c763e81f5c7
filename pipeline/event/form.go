package event

import (
	"bytes"
	"errors"
	"fmt"
	"mime"
	"strings"
	"unicode/utf8"

	"github.com/millrace-io/millrace/pipeline"
)

// form is how an event is written.
type form int

const (
	binaryMode     form = iota // CloudEvents, attributes in headers
	structuredMode             // CloudEvents, one JSON object
	eventJSON
	eventAvro
)

const (
	cloudHeader   = "ce_"
	contentHeader = "content-type"
)

// formOf tells the form by headers and the first byte.
func formOf(r *pipeline.Record) (form, error) {
	if ct, ok := r.Header(contentHeader); ok && bytes.HasPrefix(ct, []byte("application/cloudevents")) {
		return structuredMode, checkContentType(string(ct))
	}
	if has(r, cloudHeader+"specversion") || has(r, cloudHeader+"type") {
		return binaryMode, nil
	}
	switch b := bytes.TrimLeft(r.Value, " \t\r\n"); {
	case len(b) == 0:
		return 0, errors.New("the record is empty")
	case b[0] == '{':
		return eventJSON, nil
	case r.Value[0] == avroMagic:
		return eventAvro, nil
	case bytes.HasPrefix(b, []byte("\ufeff")):
		return 0, errors.New("the value starts with a byte order mark; JSON has none")
	default:
		return 0, fmt.Errorf("the value starts with byte %#02x: neither a JSON object nor Avro with a schema id", b[0])
	}
}

func has(r *pipeline.Record, header string) bool {
	_, ok := r.Header(header)
	return ok
}

func checkContentType(ct string) error {
	if media, _, err := mime.ParseMediaType(ct); err != nil || media != "application/cloudevents+json" {
		return fmt.Errorf("content type %.60q is not supported; application/cloudevents+json is", ct)
	}
	return nil
}

// parseBinary reads CloudEvents in binary mode. A record without a value is an
// event without properties.
func (p *properties) parseBinary(r *pipeline.Record, env *envelope) error {
	for _, h := range r.Headers {
		name, ok := strings.CutPrefix(h.Key, cloudHeader)
		if !ok {
			continue
		}
		if !utf8.Valid(h.Value) {
			return fmt.Errorf("header %.60s is not UTF-8", h.Key)
		}
		switch a := cloudAttribute(name); {
		case a < attributes:
			env[a] = string(h.Value)
		case a == attrVersion:
			if err := checkVersion(string(h.Value)); err != nil {
				return err
			}
		}
	}
	p.text = string(r.Value)
	if err := checkText(p.text); err != nil {
		return err
	}
	s := &scanner{text: p.text}
	if s.peek() == 0 && len(r.Value) == s.at {
		return nil
	}
	if err := p.parseFields(s); err != nil {
		return err
	}
	return s.end()
}

// Type returns an event's type as cheaply as its form allows, for the filter to
// leave alone what no webhook wants: from the headers, else by searching the
// value without checking it. It is empty where only Decode can tell (Avro), and
// where Decode will refuse the record. The error is Permanent (Undecodable): the
// record is in no form of an event.
func (d *Decoder) Type(r *pipeline.Record) (string, error) {
	f, err := formOf(r)
	if err != nil {
		return "", undecodable(err)
	}
	switch f {
	case binaryMode:
		t, _ := r.Header(cloudHeader + "type")
		return string(t), nil
	case structuredMode:
		return searchType(r.Value, "data"), nil
	case eventJSON:
		return searchType(r.Value, "properties"), nil
	}
	return "", nil
}
