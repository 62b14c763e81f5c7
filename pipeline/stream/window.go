package stream

import "slices"

// window is how far one partition is: what was taken of it and what of that is
// still open. Offsets may have gaps (markers of transactions, aborted records);
// a gap counts as ended.
type window struct {
	next int64   // first offset not taken yet
	open []int64 // taken and not ended, ascending
	skip ended   // what a former owner has ended above its watermark
}

// maxSpan is how many offsets may lie between the oldest open record and the
// newest one taken: with that many, the bitmap in a commit's metadata fits.
const maxSpan = 23_000

// room says that the record at an offset may be taken now. If not, it has to
// wait until the oldest open record ends.
func (w *window) room(at int64) bool {
	return len(w.open) == 0 || at-w.open[0] < maxSpan
}

// take opens the next record; false if it was taken or ended before.
func (w *window) take(at int64) bool {
	if at < w.next {
		return false
	}
	w.next = at + 1
	if w.skip.has(at) {
		return false
	}
	w.open = append(w.open, at)
	return true
}

// end closes an open record.
func (w *window) end(at int64) {
	if i, ok := slices.BinarySearch(w.open, at); ok {
		w.open = slices.Delete(w.open, i, i+1)
	}
}

// reopen takes back an end.
func (w *window) reopen(at int64) {
	if i, ok := slices.BinarySearch(w.open, at); !ok {
		w.open = slices.Insert(w.open, i, at)
	}
}

// low is the watermark: the oldest offset that is open or was not taken.
func (w *window) low() int64 {
	if len(w.open) == 0 {
		return w.next
	}
	return w.open[0]
}

// ended is what has ended above the watermark: all that was taken and is not
// open, and what a former owner had ended beyond.
func (w *window) ended() ended {
	e := ended{base: w.low()}
	at := e.base
	for _, o := range w.open {
		e.add(at, o)
		at = o + 1
	}
	e.add(at, w.next)
	for _, r := range w.skip.runs {
		e.add(max(r.from, w.next), r.to)
	}
	return e
}
