package pipeline

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"
)

// EnvelopeHeader is the one header that holds what Millrace knows about a
// record: a format version, a kind, then the fields in the order of the struct.
// Numbers are varints, texts and lists are preceded by their length.
const EnvelopeHeader = "millrace"

// EnvelopeFormat is the version this binary writes. It reads this one and the
// one before.
const EnvelopeFormat = 1

// ErrNewerFormat means that a record was written by a newer Millrace. A role
// that meets it stops: the record is fine, the reader is too old.
var ErrNewerFormat = errors.New("record was written by a newer version of Millrace; upgrade this role first")

var errTruncated = errors.New("envelope is cut short")

const (
	kindMatch      = 'M'
	kindDelivery   = 'D'
	kindDeadLetter = 'X'
)

// Match is the envelope of a record on the matches topic: one event and the
// webhooks whose condition holds. The event's properties are in the record's
// value, in the form of Event JSON.
type Match struct {
	Definitions int64     // offset of the definitions it was made under
	At          time.Time // when the filter matched it
	Event       Event     // all but the properties
	Webhooks    []string
}

// MaxWebhooks is how many webhooks one match record names; more make several.
const MaxWebhooks = 200

// Delivery is the envelope of a delivery. The record's value is the request
// body, or the query string where the method is GET.
type Delivery struct {
	Definitions int64     // offset of the definitions it was made under
	ID          string    // the same on every attempt
	Webhook     string    // name
	Destination string    // name
	Lane        string    // the lane it was sent to; a delay brings it back there
	MatchedAt   time.Time // hour of the ledger, start of max_age
	URL         string    // where it depends on the event; otherwise the definition's
	EventID     string
	EventType   string
	EventTime   time.Time
	User        string    // key in an own lane
	Attempts    int       // HTTP requests made that used up an attempt
	Due         time.Time // not to be sent earlier; zero for at once
}

// DeadLetter is the envelope of a record on the dead-letters topic. Key, value
// and other headers are those of the record that could not go on.
type DeadLetter struct {
	Stage     string // role that gave up: filter, transform, sink
	Reason    Reason
	Error     string // one line, no secrets
	Topic     string // where the record was
	Partition int32
	Offset    int64
	At        time.Time
	Webhook   string // where it is a delivery's or a mapping's
	Delivery  string // delivery id, likewise
	Envelope  []byte // the record's own envelope, untouched; nil if it had none
}

// DeliveryID is the id of the delivery of one event for one webhook: the first
// 16 bytes, in hex, of SHA-256 over the event's source (or, where that is
// empty, its system and environment), its id and the webhook's name, each
// preceded by its length.
func DeliveryID(e *Event, webhook string) string {
	var room [256]byte
	b := room[:0]
	if e.Source != "" {
		b = appendString(append(b, 's'), e.Source)
	} else {
		b = appendString(appendString(append(b, 'e'), e.System), e.Environment)
	}
	b = appendString(appendString(b, e.ID), webhook)
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:16])
}

// AppendTo appends the encoded envelope.
func (m *Match) AppendTo(b []byte) []byte {
	b = append(b, EnvelopeFormat, kindMatch)
	b = binary.AppendVarint(b, m.Definitions)
	b = appendTime(b, m.At)
	b = appendString(b, m.Event.ID)
	b = appendString(b, m.Event.Source)
	b = appendString(b, m.Event.Type)
	b = appendTime(b, m.Event.Time)
	b = appendString(b, m.Event.System)
	b = appendString(b, m.Event.Environment)
	b = appendString(b, m.Event.User)
	b = appendString(b, m.Event.Session)
	b = binary.AppendUvarint(b, uint64(len(m.Webhooks)))
	for _, w := range m.Webhooks {
		b = appendString(b, w)
	}
	return b
}

// WithEnvelope returns the headers of a record made from one with the given
// headers: those that belong to the event (ce_*, traceparent, tracestate) and
// the envelope.
func WithEnvelope(headers []Header, envelope []byte) []Header {
	out := make([]Header, 0, len(headers)+1)
	for _, h := range headers {
		if strings.HasPrefix(h.Key, "ce_") || h.Key == "traceparent" || h.Key == "tracestate" {
			out = append(out, h)
		}
	}
	return append(out, Header{EnvelopeHeader, envelope})
}

// ParseMatch decodes a match envelope. The error of this and the other parsers
// is ErrNewerFormat or permanent.
func ParseMatch(b []byte) (Match, error) {
	r := open(b, kindMatch)
	m := Match{Definitions: r.varint(), At: r.time()}
	m.Event = Event{
		ID: r.string(), Source: r.string(), Type: r.string(), Time: r.time(),
		System: r.string(), Environment: r.string(), User: r.string(), Session: r.string(),
	}
	n := r.uvarint()
	if n > uint64(len(r.b)) { // each takes a byte at least
		r.fail(errTruncated)
		n = 0
	}
	m.Webhooks = make([]string, 0, n)
	for range n {
		m.Webhooks = append(m.Webhooks, r.string())
	}
	return m, r.done("match")
}

// AppendTo appends the encoded envelope.
func (d *Delivery) AppendTo(b []byte) []byte {
	b = append(b, EnvelopeFormat, kindDelivery)
	b = binary.AppendVarint(b, d.Definitions)
	b = appendString(b, d.ID)
	b = appendString(b, d.Webhook)
	b = appendString(b, d.Destination)
	b = appendString(b, d.Lane)
	b = appendTime(b, d.MatchedAt)
	b = appendString(b, d.URL)
	b = appendString(b, d.EventID)
	b = appendString(b, d.EventType)
	b = appendTime(b, d.EventTime)
	b = appendString(b, d.User)
	b = binary.AppendVarint(b, int64(d.Attempts))
	b = appendTime(b, d.Due)
	return b
}

// ParseDelivery decodes a delivery envelope.
func ParseDelivery(b []byte) (Delivery, error) {
	r := open(b, kindDelivery)
	d := Delivery{
		Definitions: r.varint(), ID: r.string(), Webhook: r.string(), Destination: r.string(),
		Lane: r.string(), MatchedAt: r.time(), URL: r.string(), EventID: r.string(),
		EventType: r.string(), EventTime: r.time(), User: r.string(),
		Attempts: int(r.varint()), Due: r.time(),
	}
	return d, r.done("delivery")
}

// Key is the record key of the delivery in its lane: the default lane is
// partitioned by destination, so that each has one owner; an own lane by user.
func (d *Delivery) Key() []byte {
	if d.Lane == DefaultLane {
		return []byte(d.Destination)
	}
	if d.User == "" {
		return []byte(d.ID)
	}
	return []byte(d.User)
}

// AppendTo appends the encoded envelope.
func (x *DeadLetter) AppendTo(b []byte) []byte {
	b = append(b, EnvelopeFormat, kindDeadLetter)
	b = appendString(b, x.Stage)
	b = appendString(b, string(x.Reason))
	b = appendString(b, x.Error)
	b = appendString(b, x.Topic)
	b = binary.AppendVarint(b, int64(x.Partition))
	b = binary.AppendVarint(b, x.Offset)
	b = appendTime(b, x.At)
	b = appendString(b, x.Webhook)
	b = appendString(b, x.Delivery)
	b = appendString(b, string(x.Envelope))
	return b
}

// ParseDeadLetter decodes a dead letter's envelope.
func ParseDeadLetter(b []byte) (DeadLetter, error) {
	r := open(b, kindDeadLetter)
	x := DeadLetter{
		Stage: r.string(), Reason: Reason(r.string()), Error: r.string(), Topic: r.string(),
		Partition: int32(r.varint()), Offset: r.varint(), At: r.time(),
		Webhook: r.string(), Delivery: r.string(),
	}
	if e := r.string(); e != "" {
		x.Envelope = []byte(e)
	}
	return x, r.done("dead letter")
}

// maxError is how much of an error a dead letter keeps, in bytes: the record
// itself must still fit its topic.
const maxError = 4 << 10

// NewDeadLetter makes the record that keeps r with the reason it could not go
// on, for the given topic. x says the rest; its source fields are set here.
func NewDeadLetter(topic string, r *Record, x DeadLetter) Record {
	x.Topic, x.Partition, x.Offset = r.Topic, r.Partition, r.Offset
	if len(x.Error) > maxError {
		x.Error = x.Error[:maxError]
	}
	out := Record{Topic: topic, Key: r.Key, Value: r.Value}
	for _, h := range r.Headers {
		if h.Key == EnvelopeHeader {
			x.Envelope = h.Value
			continue
		}
		out.Headers = append(out.Headers, h)
	}
	out.Headers = append(out.Headers, Header{EnvelopeHeader, x.AppendTo(nil)})
	return out
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// appendTime writes milliseconds since 1970; the zero time is 0.
func appendTime(b []byte, t time.Time) []byte {
	if t.IsZero() {
		return binary.AppendVarint(b, 0)
	}
	return binary.AppendVarint(b, t.UnixMilli())
}

// reader takes fields off the front; after the first error it gives zeros.
type reader struct {
	b   []byte
	err error
}

func open(b []byte, kind byte) *reader {
	r := &reader{b: b}
	switch {
	case len(b) < 2:
		r.fail(errTruncated)
	case b[0] > EnvelopeFormat:
		r.fail(fmt.Errorf("format %d: %w", b[0], ErrNewerFormat))
	case b[0] < EnvelopeFormat-1 || b[0] == 0:
		r.fail(fmt.Errorf("format %d is not known", b[0]))
	case b[1] != kind:
		r.fail(fmt.Errorf("kind is %q, not %q", b[1], kind))
	default:
		r.b = b[2:]
	}
	return r
}

func (r *reader) fail(err error) {
	if r.err == nil {
		r.err = err
	}
	r.b = nil
}

func (r *reader) done(what string) error {
	if r.err == nil && len(r.b) > 0 {
		r.err = fmt.Errorf("%d bytes too many", len(r.b))
	}
	switch {
	case r.err == nil:
		return nil
	case errors.Is(r.err, ErrNewerFormat):
		return fmt.Errorf("reading %s envelope: %w", what, r.err)
	}
	return Permanent(BrokenEnvelope, fmt.Errorf("reading %s envelope: %w", what, r.err))
}

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.fail(errTruncated)
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) varint() int64 {
	v, n := binary.Varint(r.b)
	if n <= 0 {
		r.fail(errTruncated)
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) string() string {
	n := r.uvarint()
	if n > uint64(len(r.b)) {
		r.fail(errTruncated)
		return ""
	}
	s := string(r.b[:n])
	r.b = r.b[n:]
	return s
}

func (r *reader) time() time.Time {
	ms := r.varint()
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}
