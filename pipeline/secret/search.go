package secret

import "iter"

// search looks for secrets in one text.
type search struct {
	*forms
	// reach is, by where a secret begins, where it ends; nil: none was found.
	reach []int
	// begins is, by where the text may have been cut within a secret, where that
	// begins. It is nil where only whole secrets are looked for.
	begins  []int
	size    int
	decoded []byte
}

// view is a text to look for secrets in: the one that is redacted, or what another
// view says without its escapes, or decoded.
type view struct {
	text []byte
	// end is where in the text that is redacted this one ends, and certain how much
	// is left of it if it was cut within what one byte is written as.
	end, certain int

	of *view // nil: it is the text that is redacted

	at []int // where in of the bytes begin, without escapes

	// What stands at from in of are digits. Then the text may as well be something
	// else, decoded by chance.
	digits *digits
	from   int
}

// Few bytes are found by chance in what is no text.
const (
	blind      = 4 // how long a secret must be at least to be looked for there
	blindBegun = 2 // and its beginning
)

// place says where in the text that is redacted stands what is between two bytes.
func (v *view) place(from, to int) (int, int) {
	switch {
	case v.of == nil:
		return from, to
	case v.at != nil:
		return v.of.place(v.at[from], v.at[to])
	}
	bits := v.digits.bits
	return v.of.place(v.from+8*from/bits, v.from+(8*to+bits-1)/bits)
}

// look looks for secrets in a text as it is, without its escapes, and in all that
// may be base64 or hexadecimal digits in it.
func (s *search) look(text string) {
	s.size = len(text)
	v := &view{text: []byte(text), end: len(text), certain: len(text)}
	s.scan(v)
	if without, escaped := v.unescaped(); escaped {
		v = &without
		s.scan(v)
	}
	if s.shortest == 0 {
		return
	}
	for _, d := range []*digits{&base64Digits, &hexDigits} {
		least := (8*s.shortest + d.bits - 1) / d.bits
		for from, to := range d.runs(v.text, least) {
			s.decode(v, d, from, to)
		}
		if s.begins != nil { // also what is too short for a whole one
			s.decode(v, d, d.lastRun(v.text[:v.certain]), v.certain)
		}
	}
}

// decode looks for secrets in what may be digits. Nobody knows with which of them
// a byte begins.
func (s *search) decode(v *view, d *digits, from, to int) {
	for start := from; start < min(from+d.phases, to); start++ {
		s.decoded = d.decode(s.decoded[:0], v.text[start:to])
		in := view{text: s.decoded, end: v.end, certain: len(s.decoded), of: v, digits: d, from: start}
		s.scan(&in)
		if without, escaped := in.unescaped(); escaped {
			s.scan(&without)
		}
	}
}

// unescaped is false where there is nothing to do.
func (v *view) unescaped() (view, bool) {
	u, escaped := unescape(v.text)
	return view{text: u.text, end: v.end, certain: u.certain, of: v, at: u.at}, escaped
}

func (s *search) scan(v *view) {
	least, leastBegun := int32(1), int32(1)
	if v.digits != nil || v.of != nil && v.of.digits != nil {
		least, leastBegun = blind, blindBegun
	}
	at := int32(0)
	for i, c := range v.text {
		if at == 0 {
			at = s.first[c]
		} else {
			at = s.step(at, c)
		}
		if at == 0 {
			continue
		}
		n := &s.nodes[at]
		if n.match >= least {
			s.found(v.place(i+1-int(n.match), i+1))
		}
		if s.begins != nil && n.begun >= leastBegun {
			s.begun(v, i+1-int(n.begun), i+1)
		}
	}
}

func (s *search) found(from, to int) {
	if from == to { // in the middle of a character
		return
	}
	if s.reach == nil {
		s.reach = make([]int, s.size)
	}
	s.reach[from] = max(s.reach[from], to)
}

func (s *search) begun(v *view, i, j int) {
	from, to := v.place(i, j)
	s.begins[to] = min(s.begins[to], from)
	if j >= v.certain {
		s.begins[v.end] = min(s.begins[v.end], from)
	}
}

// uncut is how much of a text is left without what may be the beginnings of secrets
// at its end.
func (s *search) uncut() int {
	end := s.size
	for s.begins[end] < end {
		end = s.begins[end]
	}
	return end
}

// masked is the beginning of the text with Mask where secrets were found; those
// that overlap are one.
func (s *search) masked(text string) string {
	if s.reach == nil {
		return text
	}
	var b []byte
	kept := 0
	for i := 0; i < len(text); {
		end := s.reach[i]
		if end == 0 {
			i++
			continue
		}
		b = append(append(b, text[kept:i]...), Mask...)
		for i++; i < min(end, len(text)); i++ {
			end = max(end, s.reach[i])
		}
		kept = min(end, len(text))
	}
	return string(append(b, text[kept:]...))
}

// digits is a way to write bytes as digits.
type digits struct {
	bits   int // of a digit
	phases int // how many digits there are until a byte begins with one again
	values [256]int8
}

var (
	base64Digits = newDigits(6, 4, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/", "-_")
	hexDigits    = newDigits(4, 2, "0123456789abcdef", "ABCDEF")
)

// newDigits takes the digits, and how else the last of them may be written.
func newDigits(bits, phases int, all, last string) digits {
	d := digits{bits: bits, phases: phases}
	for c := range d.values {
		d.values[c] = -1
	}
	for i, c := range []byte(all) {
		d.values[c] = int8(i)
	}
	for i, c := range []byte(last) {
		d.values[c] = int8(len(all) - len(last) + i)
	}
	return d
}

// decode appends the bytes that digits stand for, as far as they are whole.
func (d *digits) decode(dst, text []byte) []byte {
	var value, bits uint32
	for _, c := range text {
		value, bits = value<<d.bits|uint32(d.values[c]), bits+uint32(d.bits)
		if bits >= 8 {
			bits -= 8
			dst = append(dst, byte(value>>bits))
		}
	}
	return dst
}

// lastRun is where the digits begin with which a text ends.
func (d *digits) lastRun(text []byte) int {
	from := len(text)
	for from > 0 && d.values[text[from-1]] >= 0 {
		from--
	}
	return from
}

// runs yields where so many digits at least stand in a row. It jumps, since one
// of that many bytes is in each such row.
func (d *digits) runs(text []byte, least int) iter.Seq2[int, int] {
	return func(yield func(from, to int) bool) {
		before := 0
		for i := least - 1; i < len(text); i += least {
			if d.values[text[i]] < 0 {
				continue
			}
			from, to := i, i+1
			for from > before && d.values[text[from-1]] >= 0 {
				from--
			}
			for to < len(text) && d.values[text[to]] >= 0 {
				to++
			}
			if to-from >= least && !yield(from, to) {
				return
			}
			before, i = to, to
		}
	}
}
