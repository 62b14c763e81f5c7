package stream

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestWindow(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		do   func(w *window)
		low  int64
		text string // what has ended above it, as runs
	}{
		{"nothing taken", func(*window) {}, 10, ""},
		{"all open", func(w *window) { w.take(10); w.take(11) }, 10, ""},
		{"all ended", func(w *window) { w.take(10); w.take(11); w.end(11); w.end(10) }, 12, ""},
		{"the oldest is open", func(w *window) { w.take(10); w.take(11); w.take(12); w.end(11) }, 10, "11-12"},
		{"in the middle", func(w *window) { w.take(10); w.take(11); w.take(12); w.end(10); w.end(12) }, 11, "12-13"},
		{"a gap counts as ended", func(w *window) { w.take(10); w.take(15); w.take(20) }, 10, "11-15 16-20"},
		{"a gap before the first", func(w *window) { w.take(14); w.take(15); w.end(15) }, 14, "15-16"},
		{"ended twice", func(w *window) { w.take(10); w.end(10); w.end(10) }, 11, ""},
		{"open again", func(w *window) {
			w.take(10)
			w.take(11)
			w.end(10)
			w.end(11)
			w.reopen(10)
			w.reopen(10)
		}, 10, "11-12"},
		{"never taken", func(w *window) { w.take(10); w.end(12) }, 10, ""},
		{"a former owner's", func(w *window) { w.skip.add(12, 14); w.take(10); w.end(10) }, 11, "12-14"},
		{"a former owner's, reached", func(w *window) {
			w.skip.add(11, 13)
			for at := range int64(4) {
				w.take(10 + at)
			}
		}, 10, "11-13"},
		{"a former owner's, half reached", func(w *window) { w.skip.add(11, 14); w.take(10); w.take(11) }, 10, "11-14"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := window{next: 10, skip: ended{base: 10}}
			tt.do(&w)
			e := w.ended()
			if w.low() != tt.low || e.base != tt.low || text(e) != tt.text {
				t.Errorf("low %d, ended %q above %d; want %d, %q", w.low(), text(e), e.base, tt.low, tt.text)
			}
		})
	}
}

func text(e ended) string {
	var b strings.Builder
	for _, r := range e.runs {
		if b.Len() > 0 {
			b.WriteByte(' ')
		}
		fmt.Fprint(&b, r.from, "-", r.to)
	}
	return b.String()
}

func TestWindowTakesNothingTwice(t *testing.T) {
	t.Parallel()
	w := window{next: 10}
	w.skip.add(12, 13)
	for _, tt := range []struct {
		at   int64
		want bool
	}{{9, false}, {10, true}, {10, false}, {11, true}, {12, false}, {13, true}, {12, false}} {
		if got := w.take(tt.at); got != tt.want {
			t.Errorf("take(%d) = %v", tt.at, got)
		}
	}
}

func TestWindowHasRoomForASpan(t *testing.T) {
	t.Parallel()
	w := window{next: 100}
	if !w.room(100 + 5*maxSpan) {
		t.Error("no room where nothing is open")
	}
	w.take(100)
	if !w.room(100+maxSpan-1) || w.room(100+maxSpan) || w.room(100+5*maxSpan) {
		t.Error("room is not one span from the oldest open record")
	}
	w.take(100 + maxSpan - 1)
	w.end(100)
	if !w.room(100 + maxSpan) {
		t.Error("no room once the oldest has ended")
	}
}

// TestWindowAgainstAModel lets owners come and go: each takes, ends and hands
// over by its commit, as a runner does. Every record is to be handed out until
// it has ended, and never again.
func TestWindowAgainstAModel(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		offsets := gappy(t)
		done := map[int64]bool{}
		w := window{next: offsets[0]}
		at, open := 0, map[int64]bool{}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			switch rapid.IntRange(0, 4).Draw(t, "step") {
			case 0, 1: // take
				if at == len(offsets) || !w.room(offsets[at]) {
					continue
				}
				if got := w.take(offsets[at]); got == done[offsets[at]] {
					t.Fatalf("take(%d) = %v", offsets[at], got)
				} else if got {
					open[offsets[at]] = true
				}
				at++
			case 2, 3: // end
				if len(w.open) == 0 {
					continue
				}
				o := rapid.SampledFrom(w.open).Draw(t, "ends")
				w.end(o)
				delete(open, o)
				done[o] = true
			case 4: // a new owner
				e := w.ended()
				checkCommit(t, e, offsets[:at], open, done)
				skip, err := decodeEnded(e.base, e.encode())
				if err != nil {
					t.Fatal(err)
				}
				w, open = window{next: e.base, skip: skip}, map[int64]bool{}
				for at > 0 && offsets[at-1] >= e.base {
					at--
				}
			}
		}
	})
}

// gappy draws ascending offsets, mostly close together, with some wide gaps.
func gappy(t *rapid.T) (offsets []int64) {
	at := rapid.Int64Range(0, 1<<40).Draw(t, "first")
	for range rapid.IntRange(1, 200).Draw(t, "records") {
		offsets = append(offsets, at)
		at += rapid.OneOf(rapid.Just(int64(1)), rapid.Int64Range(1, 5), rapid.Int64Range(1, 2*maxSpan)).Draw(t, "gap")
	}
	return offsets
}

func checkCommit(t *rapid.T, e ended, taken []int64, open, done map[int64]bool) {
	if n := len(e.encode()); n > maxMetadata {
		t.Fatalf("metadata of %d bytes", n)
	}
	for _, o := range taken {
		if o < e.base && !done[o] {
			t.Fatalf("%d is below the watermark %d and has not ended", o, e.base)
		}
		if o >= e.base && e.has(o) != done[o] {
			t.Fatalf("ended(%d) = %v, open %v", o, e.has(o), open[o])
		}
	}
}

func TestMetadataFits(t *testing.T) {
	t.Parallel()
	longest := 0
	for name, ends := range map[string]func(int64) bool{
		"every other": func(o int64) bool { return o%2 == 1 },
		"none":        func(int64) bool { return false },
		"all":         func(o int64) bool { return o > 0 },
		"thirds":      func(o int64) bool { return o%3 > 0 },
		"every 130th": func(o int64) bool { return o%130 > 0 },
		"scattered":   func(o int64) bool { return o*2654435761%7 < 3 && o > 0 },
	} {
		w := window{}
		for o := int64(0); w.room(o); o++ {
			w.take(o)
		}
		for o := range int64(maxSpan) {
			if ends(o) {
				w.end(o)
			}
		}
		e := w.ended()
		text := e.encode()
		longest = max(longest, len(text))
		if len(text) > maxMetadata {
			t.Errorf("%s: %d bytes", name, len(text))
		}
		back, err := decodeEnded(e.base, text)
		if err != nil {
			t.Fatal(err)
		}
		for o := e.base; o < maxSpan; o++ {
			if back.has(o) != ends(o) {
				t.Fatalf("%s: %d ended: %v", name, o, back.has(o))
			}
		}
	}
	if longest < 3_000 {
		t.Errorf("longest metadata is %d bytes: nothing was tried", longest)
	}
}

func TestEndedRoundTrip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		e := ended{base: rapid.Int64Range(0, 1<<50).Draw(t, "base")}
		at := e.base
		for range rapid.IntRange(0, 400).Draw(t, "runs") {
			at += rapid.Int64Range(1, 40).Draw(t, "gap")
			to := at + rapid.Int64Range(1, 40).Draw(t, "length")
			e.add(at, to)
			at = to
		}
		text := e.encode()
		if len(text) > maxMetadata {
			t.Fatalf("%d bytes for a span of %d", len(text), at-e.base)
		}
		back, err := decodeEnded(e.base, text)
		if err != nil {
			t.Fatal(err)
		}
		if text := back.encode(); text != e.encode() || len(back.runs) != len(e.runs) {
			t.Fatalf("%v came back as %v", e.runs, back.runs)
		}
	})
}

func TestDecodeEndedRefusesNonsense(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"millrace-member-1", "x", "rA", "r!", "rAA", "b====", "rgICAgICAgICAgIAB", strings.Repeat("b", maxMetadata+1),
	} {
		e, err := decodeEnded(5, text)
		if !errors.Is(err, errMetadata) || len(e.runs) > 0 || e.base != 5 {
			t.Errorf("%.20q: %v, %v", text, e, err)
		}
	}
}

func FuzzDecodeEnded(f *testing.F) {
	for _, s := range []string{"", "r", "b", "rAQE", "bgA", "bVVVV", "r/////w8B"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		e, err := decodeEnded(7, text)
		if err != nil {
			return
		}
		last := int64(7)
		for _, r := range e.runs {
			if r.from < last || r.to <= r.from {
				t.Fatalf("%q: runs out of order: %v", text, e.runs)
			}
			last = r.to
		}
		if len(e.runs) == 0 || last-7 > maxSpan {
			return
		}
		back, err := decodeEnded(7, e.encode())
		if err != nil || len(back.runs) != len(e.runs) {
			t.Fatalf("%q: %v came back as %v, %v", text, e.runs, back.runs, err)
		}
	})
}
