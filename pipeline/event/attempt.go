package event

import (
	"encoding/binary"
	"fmt"
	"sync"
	"time"

	"github.com/linkedin/goavro/v2"

	"github.com/millrace-io/millrace/schemas"
)

// MaxResponse is how much of a response an attempt keeps, in bytes.
const MaxResponse = 4 << 10

// Attempt is one HTTP request of a delivery, as kept on the attempts topic.
type Attempt struct {
	DeliveryID  string
	Webhook     string
	Destination string
	Lane        string
	EventID     string
	EventType   string
	Attempt     int           // 1 for the first
	At          time.Time     // when the request was started; kept in milliseconds
	Latency     time.Duration // to the end of the response; kept in microseconds
	Status      int           // HTTP status; 0 where there was no response
	Outcome     string        // success, retry, dead_letter, pause or disable
	ErrorClass  string        // empty where there was no error
	Error       string        // one line, no secrets
	Response    []byte        // of a status other than 2xx, no secrets
	NextAt      time.Time     // when the next attempt is due; zero if there is none
}

// attemptFormat is what encoding and decoding attempts needs: the schema's codec
// and the header of the single-object encoding, C3 01 and its fingerprint.
type attemptFormat struct {
	codec  *goavro.Codec
	header []byte
}

var loadAttemptFormat = sync.OnceValue(func() attemptFormat {
	codec, err := newCodec(schemas.AttemptAvro)
	if err != nil {
		panic(err) // the schema is ours
	}
	header := binary.LittleEndian.AppendUint64([]byte{0xc3, 0x01}, codec.Rabin)
	return attemptFormat{codec, header}
})

// AppendAttempt appends an attempt in Avro single-object encoding, by
// schemas/attempt.avsc. Of a longer response it keeps the first MaxResponse
// bytes. It is written by hand since every call makes one.
func AppendAttempt(dst []byte, a *Attempt) []byte {
	dst = append(dst, loadAttemptFormat().header...)
	for _, s := range [...]string{a.DeliveryID, a.Webhook, a.Destination, a.Lane, a.EventID, a.EventType} {
		dst = appendAvro(dst, s)
	}
	dst = binary.AppendVarint(dst, int64(a.Attempt))
	dst = binary.AppendVarint(dst, a.At.UnixMilli())
	dst = binary.AppendVarint(dst, a.Latency.Microseconds())
	dst = binary.AppendVarint(dst, int64(a.Status))
	for _, s := range [...]string{a.Outcome, a.ErrorClass, a.Error} {
		dst = appendAvro(dst, s)
	}
	dst = appendAvro(dst, a.Response[:min(len(a.Response), MaxResponse)])
	if a.NextAt.IsZero() {
		return append(dst, 0) // null is the first of the union
	}
	return binary.AppendVarint(append(dst, 2), a.NextAt.UnixMilli())
}

// appendAvro appends text or bytes: the length, zigzag as Go's varint, then they.
func appendAvro[T string | []byte](dst []byte, s T) []byte {
	return append(binary.AppendVarint(dst, int64(len(s))), s...)
}

// ParseAttempt decodes what AppendAttempt wrote.
func ParseAttempt(b []byte) (*Attempt, error) {
	datum, rest, err := loadAttemptFormat().codec.NativeFromSingle(b)
	if err != nil {
		return nil, fmt.Errorf("reading an attempt: %w", err)
	}
	if len(rest) > 0 {
		return nil, fmt.Errorf("reading an attempt: %d bytes are left over", len(rest))
	}
	m := datum.(map[string]any) // goavro gives each field the type in the schema
	a := &Attempt{
		DeliveryID:  m["delivery_id"].(string),
		Webhook:     m["webhook"].(string),
		Destination: m["destination"].(string),
		Lane:        m["lane"].(string),
		EventID:     m["event_id"].(string),
		EventType:   m["event_type"].(string),
		Attempt:     int(m["attempt"].(int32)),
		At:          m["at"].(time.Time).UTC(),
		Latency:     time.Duration(m["latency_us"].(int64)) * time.Microsecond,
		Status:      int(m["status"].(int32)),
		Outcome:     m["outcome"].(string),
		ErrorClass:  m["error_class"].(string),
		Error:       m["error"].(string),
		Response:    m["response"].([]byte),
	}
	if next, ok := unwrap(m["next_at"]).(time.Time); ok {
		a.NextAt = next.UTC()
	}
	return a, nil
}
