package stream

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"sort"
)

// ended is a set of offsets at and above base, as runs.
type ended struct {
	base int64
	runs []run // ascending, apart
}

// run is the offsets from, from+1, … to-1.
type run struct{ from, to int64 }

// add adds the offsets of a run, which must not begin before the last one's
// end. An empty one is left out.
func (e *ended) add(from, to int64) {
	if from >= to {
		return
	}
	if n := len(e.runs); n > 0 && e.runs[n-1].to == from {
		e.runs[n-1].to = to
		return
	}
	e.runs = append(e.runs, run{from, to})
}

func (e *ended) has(offset int64) bool {
	i := sort.Search(len(e.runs), func(i int) bool { return e.runs[i].to > offset })
	return i < len(e.runs) && e.runs[i].from <= offset
}

// The forms of commit metadata: a letter, then base64 without padding.
const (
	formRuns   = 'r' // varints: length of a gap, length of a run, …
	formBitmap = 'b' // bit i of byte j is offset base+8j+i
)

// maxMetadata is how long commit metadata may be. Kafka's own limit is 4,096
// bytes (offset.metadata.max.bytes), which kfake does not enforce.
const maxMetadata = 4_000

// encode returns the shorter of both forms; "" for the empty set.
func (e *ended) encode() string {
	if len(e.runs) == 0 {
		return ""
	}
	form, body := byte(formRuns), e.appendRuns(nil)
	if n := (e.runs[len(e.runs)-1].to - e.base + 7) / 8; n < int64(len(body)) {
		form, body = formBitmap, e.bitmap(n)
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

func (e *ended) bitmap(n int64) []byte {
	b := make([]byte, n)
	for _, r := range e.runs {
		for o := r.from - e.base; o < r.to-e.base; o++ {
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
	body, err := base64.RawStdEncoding.Strict().DecodeString(text[1:])
	switch {
	case err != nil || len(text) > maxMetadata:
	case text[0] == formBitmap:
		e.readBitmap(body)
		return e, nil
	case text[0] == formRuns && e.readRuns(body):
		return e, nil
	}
	return ended{base: base}, fmt.Errorf("%w: %q", errMetadata, text[:min(len(text), 40)])
}

func (e *ended) readBitmap(body []byte) {
	for j, b := range body {
		for ; b != 0; b &= b - 1 {
			o := e.base + int64(j*8+bits.TrailingZeros8(b))
			e.add(o, o+1)
		}
	}
}

// maxRun bounds what is believed of a run. A run may span a gap in the offsets,
// and so be longer than a window.
const maxRun = 1 << 40

func (e *ended) readRuns(b []byte) bool {
	at := e.base
	for len(b) > 0 {
		gap, n := binary.Uvarint(b)
		if n <= 0 || gap > maxRun {
			return false
		}
		length, m := binary.Uvarint(b[n:])
		if m <= 0 || length == 0 || length > maxRun {
			return false
		}
		at += int64(gap)
		e.add(at, at+int64(length))
		at += int64(length)
		b = b[n+m:]
	}
	return true
}
