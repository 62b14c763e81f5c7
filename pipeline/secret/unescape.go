package secret

import (
	"bytes"
	"html"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// unescaped is a text without its escapes, however deep they are in each other:
// %2F, \/, \u002f, \x2f and &sol; are all the same. What they stand for together
// with what is before them is taken for an escape too. So what is left of a
// secret is the same whoever wrote it, as long as each character of it was
// written on its own; it need not be what the writer had in mind.
type unescaped struct {
	text []byte
	at   []int // where in the text with escapes each byte begins, and the end
	// certain is how much is left of the text if it was cut within an escape.
	certain int
}

// unescape returns false where there is nothing to do.
func unescape(text []byte) (unescaped, bool) {
	if bytes.IndexByte(text, '%') < 0 && bytes.IndexByte(text, '\\') < 0 && bytes.IndexByte(text, '&') < 0 {
		return unescaped{}, false
	}
	u := unescaped{make([]byte, 0, len(text)), make([]int, 0, len(text)+1), 0}
	for at, c := range text {
		if c == ';' || isHex(c) {
			u.push(c, at)
			continue
		}
		u.text, u.at = append(u.text, c), append(u.at, at)
	}
	u.dropBackslashes(len(text))
	return u, true
}

// push appends a byte with which an escape may end, and as long as one does, what
// that stands for in its place. It leaves surrogates as they are until both are there.
func (u *unescaped) push(c byte, at int) {
	for {
		u.text, u.at = append(u.text, c), append(u.at, at)
		n, r, isByte := lastEscape(u.text)
		if n == 0 {
			return
		}
		at = u.at[len(u.at)-n]
		u.cut(len(u.text) - n)
		if !isByte && r >= utf8.RuneSelf {
			u.pushRune(r, at)
			return
		}
		c = byte(r)
	}
}

func (u *unescaped) cut(n int) { u.text, u.at = u.text[:n], u.at[:n] }

func (u *unescaped) pushRune(r rune, at int) {
	if before := len(bytes.TrimRight(u.text, `\`)); before >= 3 {
		if both := utf16.DecodeRune(surrogate(u.text[before-3:before]), r); both != utf8.RuneError {
			r, at = both, u.at[before-3]
			u.cut(before - 3)
		}
	}
	size := len(u.text)
	if utf16.IsSurrogate(r) {
		u.text = append(u.text, 0xE0|byte(r>>12), 0x80|byte(r>>6)&0xBF, 0x80|byte(r)&0xBF)
	} else {
		u.text = utf8.AppendRune(u.text, r)
	}
	for range u.text[size:] {
		u.at = append(u.at, at)
	}
}

// surrogate is the one that three bytes are, or an error.
func surrogate(b []byte) rune {
	if b[0] != 0xED || b[1] < 0xA0 {
		return utf8.RuneError
	}
	return 0xD000 | rune(b[1]&0x3F)<<6 | rune(b[2]&0x3F)
}

// dropBackslashes drops those that escape nothing, or what is as good without
// them. They go with the byte behind them: of a secret that ends with one, that is
// all that may be left.
func (u *unescaped) dropBackslashes(end int) {
	certain := u.untilBegun()
	size, first := 0, -1
	for i, c := range u.text {
		if i == certain {
			u.certain = size
		}
		if c == '\\' {
			if first < 0 {
				first = u.at[i]
			}
			continue
		}
		u.text[size], u.at[size] = c, u.at[i]
		if first >= 0 {
			u.at[size], first = first, -1
		}
		size++
	}
	if certain == len(u.text) {
		u.certain = size
	}
	if first < 0 {
		first = end
	}
	u.cut(size)
	u.at = append(u.at, first)
}

// untilBegun is where an escape begins that has no end, or several in each other;
// or the end.
func (u *unescaped) untilBegun() int {
	end := len(u.text)
	for {
		from := max(0, end-longestEntity)
		i := bytes.LastIndexAny(u.text[from:end], `%\&`)
		if i < 0 || !isBegun(u.text[from+i:end]) {
			break
		}
		end = from + i
	}
	if end >= 3 && utf16.IsSurrogate(surrogate(u.text[end-3:end])) {
		end -= 3
	}
	return end
}

// isBegun says whether a text may be the beginning of an escape.
func isBegun(text []byte) bool {
	for _, c := range text[1:] {
		if c != '#' && (c < '0' || c > '9') && (c|0x20 < 'a' || c|0x20 > 'z') {
			return false
		}
	}
	switch {
	case len(text) == 1, text[0] == '&':
		return true
	case text[1] == 'u':
		return len(text) < len(`\u002f`)
	case text[0] == '%':
		return len(text) < len("%2f")
	case text[1] == 'x':
		return len(text) < len(`\x2f`)
	}
	return text[1] == 'U' && len(text) < len(`\U0000002f`)
}

// longestEntity is how long an escape of HTML may be; the longest name is
// CounterClockwiseContourIntegral.
const longestEntity = 33

// lastEscape returns how long the escape is with which a text ends, 0 if with
// none, and what it stands for: a byte, which may be one of several of a
// character, or a character.
func lastEscape(text []byte) (n int, r rune, isByte bool) {
	end := len(text)
	if text[end-1] == ';' {
		n, r = lastEntity(text)
		return n, r, false
	}
	mark := func(n int) byte { return text[max(0, end-n)] }
	digits := 0
	switch {
	case !isHex(text[end-1]):
		return 0, 0, false
	case mark(3) == '%':
		n, digits = 3, 2
	case mark(4) == '\\' && mark(3) == 'x':
		n, digits = 4, 2
	case (mark(6) == '\\' || mark(6) == '%') && mark(5) == 'u': // the % is of JavaScript's escape
		n, digits = 6, 4
	case mark(10) == '\\' && mark(9) == 'U':
		n, digits = 10, 8
	}
	if n > end {
		return 0, 0, false
	}
	for _, c := range text[end-digits:] {
		if !isHex(c) || r > utf8.MaxRune {
			return 0, 0, false
		}
		r = r<<4 | rune(hexDigits.values[c])
	}
	if r > utf8.MaxRune {
		return 0, 0, false
	}
	return n, r, digits == 2
}

func isHex(c byte) bool { return hexDigits.values[c] >= 0 }

func lastEntity(text []byte) (n int, r rune) {
	last := text[max(0, len(text)-longestEntity):]
	i := bytes.LastIndexByte(last, '&')
	if i < 0 {
		return 0, 0
	}
	last = last[i:]
	if number, ok := bytes.CutPrefix(last[:len(last)-1], []byte("&#")); ok {
		base := 10
		if hex := bytes.TrimLeft(number, "xX"); len(hex) == len(number)-1 {
			number, base = hex, 16
		}
		code, err := strconv.ParseUint(string(number), base, 32)
		if err != nil || code > utf8.MaxRune {
			return 0, 0
		}
		return len(last), rune(code)
	}
	means := html.UnescapeString(string(last))
	r, size := utf8.DecodeRuneInString(means)
	if size < len(means) { // it was none, or only a part of it was one
		return 0, 0
	}
	return len(last), r
}
