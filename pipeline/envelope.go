package pipeline

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"
	"unicode/utf8"
)

// EnvelopeHeader is the one header that holds what Millrace knows about a
// record: a format version, a kind, then the fields in the order of the struct.
// Numbers are varints, times are milliseconds since 1970, texts and lists are
// preceded by their length.
const EnvelopeHeader = "millrace"

// EnvelopeFormat is the version this binary writes, and the newest it reads. A
// binary reads the one before its own as well; before the first there is none.
const EnvelopeFormat = 1

// ErrNewerFormat means that a record was written by a newer Millrace. A role
// that meets it stops: the record is fine, the reader is too old.
var ErrNewerFormat = errors.New("record was written by a newer version of Millrace; upgrade this role first")

var (
	errTruncated = errors.New("envelope is cut short")
	errRange     = errors.New("a number is out of range")
)

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
// 16 bytes, in hex, of SHA-256 over the event's source (after an "s") or, where
// that is empty, its system and environment (after an "e"), then its id and the
// webhook's name, each preceded by its length. It never changes: whoever is
// called knows a delivery by it.
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
// is ErrNewerFormat or permanent, and with it comes the zero value: half an
// envelope is of no use. What they return shares no memory with b.
func ParseMatch(b []byte) (Match, error) {
	r := open(b, kindMatch)
	m := Match{Definitions: r.varint(), At: r.time()}
	m.Event = Event{
		ID: r.string(), Source: r.string(), Type: r.string(), Time: r.time(),
		System: r.string(), Environment: r.string(), User: r.string(), Session: r.string(),
	}
	n := r.uvarint()
	m.Webhooks = make([]string, 0, min(n, MaxWebhooks)) // n is not to be trusted yet
	for range n {
		m.Webhooks = append(m.Webhooks, r.string())
		if r.err != nil {
			break
		}
	}
	return whole(m, r, "match")
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
		Attempts: int(r.count()), Due: r.time(),
	}
	return whole(d, r, "delivery")
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
		Partition: r.count(), Offset: r.varint(), At: r.time(),
		Webhook: r.string(), Delivery: r.string(),
	}
	if e := r.string(); e != "" {
		x.Envelope = []byte(e)
	}
	return whole(x, r, "dead letter")
}

// maxError is how much of an error a dead letter keeps, in bytes: the record
// itself must still fit its topic.
const maxError = 4 << 10

// oneLine is the text of an error on one line, cut between two characters.
func oneLine(s string) string {
	s = strings.ToValidUTF8(strings.ReplaceAll(s, "\n", "; "), "\uFFFD")
	if len(s) <= maxError {
		return s
	}
	end := maxError
	for !utf8.RuneStart(s[end]) {
		end--
	}
	return s[:end]
}

// NewDeadLetter makes the record that keeps r with the reason it could not go
// on, for the given topic. x says the rest; where the record was and its own
// envelope are filled in here.
func NewDeadLetter(topic string, r *Record, x DeadLetter) Record {
	x.Topic, x.Partition, x.Offset = r.Topic, r.Partition, r.Offset
	x.Error = oneLine(x.Error)
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

func appendTime(b []byte, t time.Time) []byte { return binary.AppendVarint(b, t.UnixMilli()) }

// reader takes fields off the front; after the first error it gives zeros.
type reader struct {
	rest []byte
	err  error
}

func open(b []byte, kind byte) *reader {
	r := &reader{}
	switch {
	case len(b) < 2:
		r.err = errTruncated
	case b[0] > EnvelopeFormat:
		r.err = fmt.Errorf("format %d: %w", b[0], ErrNewerFormat)
	case b[0] < EnvelopeFormat:
		r.err = fmt.Errorf("format %d is not known", b[0])
	case b[1] != kind:
		r.err = fmt.Errorf("kind is %q, not %q", b[1], kind)
	default:
		r.rest = b[2:]
	}
	return r
}

// whole returns what was read, if all of it was as it should be and nothing is
// left.
func whole[T any](v T, r *reader, what string) (T, error) {
	if r.err == nil && len(r.rest) > 0 {
		r.err = fmt.Errorf("%d bytes too many", len(r.rest))
	}
	if r.err == nil {
		return v, nil
	}
	var none T
	err := fmt.Errorf("reading %s envelope: %w", what, r.err)
	if errors.Is(err, ErrNewerFormat) {
		return none, err
	}
	return none, Permanent(BrokenEnvelope, err)
}

func (r *reader) fail(err error) {
	if r.err == nil {
		r.err = err
	}
	r.rest = nil
}

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.rest)
	if n <= 0 {
		r.fail(errTruncated)
		return 0
	}
	r.rest = r.rest[n:]
	return v
}

// varint reads what binary.AppendVarint writes.
func (r *reader) varint() int64 {
	v := r.uvarint()
	return int64(v>>1) ^ -int64(v&1)
}

// count reads a number that is never negative, nor large.
func (r *reader) count() int32 {
	v := r.varint()
	if v < 0 || v > math.MaxInt32 {
		r.fail(errRange)
		return 0
	}
	return int32(v)
}

func (r *reader) string() string {
	n := r.uvarint()
	if n > uint64(len(r.rest)) {
		r.fail(errTruncated)
		return ""
	}
	s := string(r.rest[:n])
	r.rest = r.rest[n:]
	return s
}

// time reads a time of the years 1 to 9999: others have no form in JSON, which
// the ledger is written in.
func (r *reader) time() time.Time {
	t := time.UnixMilli(r.varint()).UTC()
	if y := t.Year(); y < 1 || y > 9999 {
		r.fail(errRange)
	}
	return t
}
