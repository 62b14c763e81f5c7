package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/millrace-io/millrace/pipeline/definition"
)

// receiver is an HTTP server that answers as it is told and shows each call.
type receiver struct {
	answer     func(n int) int // status of the n-th call, from 0
	delay      time.Duration
	retryAfter time.Duration
	limit      int             // calls after which it ends; 0 is never
	show       func(*received) // is not called concurrently

	enough   context.CancelFunc
	mu       sync.Mutex
	calls    int
	repeated int
	seen     recently
}

// received is one call.
type received struct {
	time   time.Time
	method string
	target string // path and query
	header http.Header
	body   []byte
	status int // that it was answered with
	id     string
	times  int // how often this id came, this call counted
}

// maxReceived is how much of a body is read.
const maxReceived = 16 << 20

// ServeHTTP answers one call and shows it.
func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, req.Body, maxReceived))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	status, ok := r.take(&received{
		time: time.Now(), method: req.Method, target: req.URL.RequestURI(),
		header: req.Header, body: body, id: req.Header.Get("webhook-id"),
	})
	if !ok { // it ends: whoever called tries again
		status = http.StatusServiceUnavailable
	}
	if !wait(req.Context(), r.delay) {
		panic(http.ErrAbortHandler) // the caller has hung up
	}
	if r.retryAfter > 0 && (status == http.StatusTooManyRequests || status == http.StatusServiceUnavailable) {
		w.Header().Set("Retry-After", strconv.Itoa(int(max(r.retryAfter.Round(time.Second), time.Second).Seconds())))
	}
	w.WriteHeader(status)
}

// take counts and shows a call and returns what to answer; false after the limit.
func (r *receiver) take(call *received) (status int, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.limit > 0 && r.calls >= r.limit {
		return 0, false
	}
	call.status = r.answer(r.calls)
	r.calls++
	if call.id != "" {
		call.times = r.seen.add(call.id)
	}
	if call.times > 1 {
		r.repeated++
	}
	r.show(call)
	if r.calls == r.limit {
		r.enough()
	}
	return call.status, true
}

// wait waits for d; false if ctx ended before.
func wait(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return true
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// recently counts ids, and forgets those that came long ago: a receiver may run
// for days.
type recently struct {
	now, before map[string]int
	least       int // how many ids are remembered at least; 0 is maxRecent
}

// maxRecent takes about 100 MB.
const maxRecent = 500_000

func (s *recently) add(id string) int {
	if s.now == nil || len(s.now) >= cmp.Or(s.least, maxRecent) {
		s.now, s.before = map[string]int{}, s.now
	}
	n := max(s.now[id], s.before[id]) + 1
	s.now[id] = n
	return n
}

// parseAnswers reads --status: a list in turn, or shares by chance.
func parseAnswers(text string) (func(n int) int, error) {
	var turn []int
	var shares []share
	left := 1.0
	for _, item := range strings.Split(text, ",") {
		code, part, random := strings.Cut(strings.TrimSpace(item), ":")
		status, err := strconv.Atoi(code)
		if err != nil || status < 200 || status > 599 {
			return nil, fmt.Errorf("%q is no status from 200 to 599", code)
		}
		if !random {
			turn = append(turn, status)
			continue
		}
		p, err := definition.ParseShare(part)
		if err != nil {
			return nil, err
		}
		shares = append(shares, share{status, float64(p)})
		left -= float64(p)
	}
	switch {
	case len(turn) > 0 && len(shares) > 0:
		return nil, fmt.Errorf("%q mixes a list and shares; give each status a share, the rest is answered with 200", text)
	case left < -1e-9:
		return nil, fmt.Errorf("the shares in %q are more than 100%%", text)
	case len(shares) > 0:
		return func(int) int { return pick(shares, rand.Float64()) }, nil
	}
	return func(n int) int { return turn[min(n, len(turn)-1)] }, nil
}

// share is how often a status is answered, from 0 to 1.
type share struct {
	status int
	part   float64
}

// pick returns the status whose share x, from 0 to 1, falls into.
func pick(shares []share, x float64) int {
	for _, s := range shares {
		if x < s.part {
			return s.status
		}
		x -= s.part
	}
	return http.StatusOK
}

// cells are what is shown of a call in one line, but for the body.
func (c *received) cells() []cell {
	answered := cell{strconv.Itoa(c.status), green}
	if c.status >= 300 {
		answered.color = red
	}
	return []cell{{clock(c.time), dim}, plain(c.method), plain(c.target), answered, c.idCell()}
}

func (c *received) idCell() cell {
	if c.times > 1 {
		return cell{fmt.Sprintf("%s repeat (%d)", c.id, c.times), yellow}
	}
	return cell{cmp.Or(c.id, "no webhook-id"), dim}
}

// oneLine is the body without line breaks.
func (c *received) oneLine() string {
	var b bytes.Buffer
	if json.Compact(&b, c.body) == nil {
		return b.String()
	}
	return preview(c.body)
}

// writeBody writes the body below the call, indented where it is JSON.
func (c *received) writeBody(s *screen) error {
	var b bytes.Buffer
	if json.Indent(&b, c.body, "", "  ") != nil {
		b.Reset()
		b.WriteString(preview(c.body))
	}
	for text := range strings.Lines(b.String()) {
		if _, err := io.WriteString(s.w, "    "+printable(strings.TrimRight(text, "\r\n"))+"\n"); err != nil {
			return err
		}
	}
	return nil
}

// object is the call as JSON.
func (c *received) object() any {
	return struct {
		Time    time.Time       `json:"time"`
		Method  string          `json:"method"`
		Target  string          `json:"target"`
		Status  int             `json:"status"`
		ID      string          `json:"webhook_id,omitempty"`
		Times   int             `json:"times,omitempty"`
		Headers http.Header     `json:"headers"`
		Body    json.RawMessage `json:"body,omitempty"`
	}{c.time, c.method, c.target, c.status, c.id, c.times, masked(c.header), asJSON(c.body)}
}

// masked returns the headers without what may be a secret.
func masked(h http.Header) http.Header {
	out := h.Clone()
	for _, name := range []string{"Authorization", "Proxy-Authorization", "Cookie"} {
		for i, v := range out[name] {
			scheme, _, ok := strings.Cut(v, " ")
			if !ok || name == "Cookie" {
				scheme = ""
			}
			out[name][i] = strings.TrimSpace(scheme + " ***")
		}
	}
	return out
}

// asJSON returns bytes as JSON: as they are if they are JSON, else as text; nil
// where there are none.
func asJSON(b []byte) json.RawMessage {
	if len(b) == 0 {
		return nil
	}
	if json.Valid(b) {
		return b
	}
	text, err := marshal(preview(b))
	if err != nil { // text can be written
		panic(err)
	}
	return text
}

// previewBytes is how much is shown of what is not text.
const previewBytes = 64

// preview returns bytes as text, or what they are if they are none.
func preview(b []byte) string {
	if utf8.Valid(b) && !slices.ContainsFunc(b, isControl) {
		return string(b)
	}
	more := ""
	if len(b) > previewBytes {
		more = "…"
	}
	return fmt.Sprintf("%d bytes: % x%s", len(b), b[:min(len(b), previewBytes)], more)
}

// isControl says that a byte stands in no text.
func isControl(b byte) bool {
	return b == 0x7f || b < ' ' && b != '\t' && b != '\n' && b != '\r'
}
