package stream

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
)

// window is what is open in one partition: the tickets taken and not yet
// committed, in the order of their offsets. Offsets may have gaps (markers of
// transactions, aborted records); a gap counts as ended.
type window struct {
	next    int64     // first offset not taken yet
	tickets []*Ticket // from the oldest that is open
	skip    ended     // what a former owner has ended above its watermark
}

// maxSpan is how many offsets may lie between the oldest open record and the
// newest one taken: with that many, the bitmap in a commit's metadata fits.
const maxSpan = 23_000

// maxMetadata is how long commit metadata may be. Kafka's own limit is 4,096
// bytes (offset.metadata.max.bytes), which kfake does not enforce.
const maxMetadata = 4_000

// full says that no more may be taken until the oldest open record ends.
func (w *window) full() bool {
	return len(w.tickets) > 0 && w.next-w.tickets[0].Record.Offset >= maxSpan
}

// take adds the next record; false if it was taken or ended before.
func (w *window) take(t *Ticket) bool {
	at := t.Record.Offset
	if at < w.next {
		return false
	}
	w.next = at + 1
	if w.skip.has(at) {
		return false
	}
	w.tickets = append(w.tickets, t)
	return true
}

// low drops what has ended from the front and returns the watermark: the oldest
// offset that is open.
func (w *window) low() int64 {
	i := 0
	for i < len(w.tickets) && w.tickets[i].ended {
		w.tickets[i] = nil
		i++
	}
	if i > 0 {
		w.tickets = w.tickets[i:]
	}
	if len(w.tickets) == 0 {
		return w.next
	}
	return w.tickets[0].Record.Offset
}

// metadata says what has ended above the watermark, as text for a commit: all
// that was taken and is not open, and what a former owner had ended beyond.
func (w *window) metadata(low int64) string {
	e := ended{base: low}
	at := low
	for _, t := range w.tickets {
		if t.ended {
			continue
		}
		if t.Record.Offset > at {
			e.runs = append(e.runs, run{at, t.Record.Offset})
		}
		at = t.Record.Offset + 1
	}
	if at < w.next {
		e.runs = append(e.runs, run{at, w.next})
	}
	e.addFrom(w.skip, w.next)
	return e.encode()
}

// ended is a set of offsets at and above base, as runs.
type ended struct {
	base int64
	runs []run // ascending, apart
}

// run is the offsets from, from+1, … to-1.
type run struct{ from, to int64 }

func (e *ended) add(offset int64) {
	if n := len(e.runs); n > 0 && e.runs[n-1].to == offset {
		e.runs[n-1].to++
		return
	}
	e.runs = append(e.runs, run{offset, offset + 1})
}

// addFrom takes over what another set holds at or above offset.
func (e *ended) addFrom(o ended, offset int64) {
	for _, r := range o.runs {
		if r.to > offset {
			e.runs = append(e.runs, run{max(r.from, offset), r.to})
		}
	}
}

func (e *ended) has(offset int64) bool {
	lo, hi := 0, len(e.runs)
	for lo < hi {
		mid := (lo + hi) / 2
		if e.runs[mid].to <= offset {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo < len(e.runs) && e.runs[lo].from <= offset
}

// The forms of commit metadata: a letter, then base64 without padding.
const (
	formRuns   = 'r' // varints: length of a gap, length of a run, …
	formBitmap = 'b' // bit i of byte j is offset base+8j+i
)

// encode returns the shorter of both forms; "" for the empty set.
func (e *ended) encode() string {
	if len(e.runs) == 0 {
		return ""
	}
	runs := e.appendRuns(nil)
	form, body := byte(formRuns), runs
	if span := e.runs[len(e.runs)-1].to - e.base; span/8+1 < int64(len(runs)) {
		form, body = formBitmap, e.appendBitmap(make([]byte, 0, span/8+1))
	}
	return string(base64.RawStdEncoding.AppendEncode([]byte{form}, body))
}

func (e *ended) appendRuns(b []byte) []byte {
	at := e.base
	for _, r := range e.runs {
		b = binary.AppendUvarint(b, uint64(r.from-at))
		b = binary.AppendUvarint(b, uint64(r.to-r.from))
		at = r.to
	}
	return b
}

func (e *ended) appendBitmap(b []byte) []byte {
	for _, r := range e.runs {
		for o := r.from - e.base; o < r.to-e.base; o++ {
			for int64(len(b)) <= o/8 {
				b = append(b, 0)
			}
			b[o/8] |= 1 << (o % 8)
		}
	}
	return b
}

var errMetadata = errors.New("commit metadata is not Millrace's")

// decodeEnded reads the metadata of a commit at base.
func decodeEnded(base int64, text string) (ended, error) {
	e := ended{base: base}
	if text == "" {
		return e, nil
	}
	body, err := base64.RawStdEncoding.DecodeString(text[1:])
	if err != nil || len(text) > maxMetadata+96 {
		return e, fmt.Errorf("%w: %q", errMetadata, clip(text))
	}
	switch text[0] {
	case formBitmap:
		e.readBitmap(body)
		return e, nil
	case formRuns:
		return e, e.readRuns(body)
	}
	return e, fmt.Errorf("%w: %q", errMetadata, clip(text))
}

func clip(s string) string { return s[:min(len(s), 40)] }

func (e *ended) readBitmap(body []byte) {
	for j, b := range body {
		for ; b != 0; b &= b - 1 {
			e.add(e.base + int64(j*8+bits.TrailingZeros8(b)))
		}
	}
}

func (e *ended) readRuns(b []byte) error {
	at := e.base
	for len(b) > 0 {
		gap, n := binary.Uvarint(b)
		if n <= 0 {
			return errMetadata
		}
		length, m := binary.Uvarint(b[n:])
		if m <= 0 || gap > maxSpan*2 || length == 0 || length > maxSpan*2 {
			return errMetadata
		}
		e.runs = append(e.runs, run{at + int64(gap), at + int64(gap+length)})
		at += int64(gap + length)
		b = b[n+m:]
	}
	return nil
}
