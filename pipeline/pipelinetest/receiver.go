package pipelinetest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Call is one HTTP request that came in.
type Call struct {
	Method string
	Path   string
	Query  string // as it was sent
	Header http.Header
	Body   []byte
	Time   time.Time
}

// ID is the delivery id that the call has.
func (c *Call) ID() string { return c.Header.Get("webhook-id") }

// Answer is what a receiver does with a call. The zero Answer is an empty 200.
type Answer struct {
	Status int // 0 is 200
	Header http.Header
	Body   []byte
	Delay  time.Duration // before the answer; ends early when the caller hangs up
	Reset  bool          // reset the connection in place of an answer
}

// InTurn gives one answer after another, the last one for ever.
func InTurn(answers ...Answer) func(*Call) Answer {
	var n atomic.Int64
	return func(*Call) Answer {
		return answers[min(int(n.Add(1)), len(answers))-1]
	}
}

// ReceiverOption changes what a receiver does.
type ReceiverOption func(*Endpoint)

// Answering has calls answered by f, which may be called by several goroutines
// at once. The call is recorded before.
func Answering(f func(*Call) Answer) ReceiverOption {
	return func(e *Endpoint) { e.Answer(f) }
}

// CountOnly has calls counted but not kept, for benchmarks: Calls and IDs stay
// empty, and answers are not asked for.
func CountOnly() ReceiverOption { return func(e *Endpoint) { e.countOnly = true } }

// Endpoint is an HTTP server on 127.0.0.1 that records what it is sent.
type Endpoint struct {
	URL string // http://127.0.0.1:port, the same after Refuse and Accept

	addr      string
	countOnly bool
	answer    atomic.Pointer[func(*Call) Answer]
	count     atomic.Int64
	waiting   atomic.Int64 // how many goroutines wait on changed

	mu      sync.Mutex
	changed sync.Cond
	calls   []Call

	stop func() // nil while it refuses
}

// Receiver starts a receiver. It ends with the test and leaves no goroutine.
func Receiver(t testing.TB, opts ...ReceiverOption) *Endpoint {
	t.Helper()
	e := &Endpoint{}
	e.changed.L = &e.mu
	e.Answer(func(*Call) Answer { return Answer{} })
	for _, o := range opts {
		o(e)
	}
	e.Accept(t)
	t.Cleanup(e.Refuse)
	return e
}

// Answer has calls answered by f from now on; see Answering.
func (e *Endpoint) Answer(f func(*Call) Answer) { e.answer.Store(&f) }

// Refuse closes all connections and has new ones refused, until Accept.
func (e *Endpoint) Refuse() {
	if e.stop != nil {
		e.stop()
		e.stop = nil
	}
}

// Accept takes connections again, on the same port.
func (e *Endpoint) Accept(t testing.TB) {
	t.Helper()
	if e.stop != nil {
		return
	}
	l, err := e.listen(t.Context())
	if err != nil {
		t.Fatalf("starting the receiver: %v", err)
	}
	e.addr = l.Addr().String()
	e.URL = "http://" + e.addr
	e.stop = e.serve(l)
}

func (e *Endpoint) listen(ctx context.Context) (net.Listener, error) {
	if e.addr == "" {
		return listen(ctx)
	}
	var config net.ListenConfig
	return config.Listen(ctx, "tcp", e.addr)
}

// serve starts the server; what it returns stops it and waits for its
// goroutines.
func (e *Endpoint) serve(l net.Listener) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	server := &http.Server{
		Handler:           e,
		ReadHeaderTimeout: time.Minute,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ConnState: func(_ net.Conn, s http.ConnState) {
			switch s {
			case http.StateNew:
				running.Add(1)
			case http.StateClosed, http.StateHijacked:
				running.Done()
			}
		},
	}
	var served error
	listening := make(chan struct{})
	go func() {
		defer close(listening)
		served = server.Serve(l)
	}()
	return func() {
		cancel()
		_ = server.Close()
		<-listening
		if !errors.Is(served, http.ErrServerClosed) {
			panic(fmt.Sprintf("receiver stopped by itself: %v", served))
		}
		running.Wait()
	}
}

// ServeHTTP records a call and answers it.
func (e *Endpoint) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if e.countOnly {
		e.record(nil)
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler) // the caller hung up: this is no call
	}
	call := Call{r.Method, r.URL.Path, r.URL.RawQuery, r.Header, body, time.Now()}
	e.record(&call)
	give(w, r, (*e.answer.Load())(&call))
}

func (e *Endpoint) record(call *Call) {
	if call != nil {
		e.mu.Lock()
		e.calls = append(e.calls, *call)
		e.mu.Unlock()
	}
	e.count.Add(1)
	if e.waiting.Load() > 0 {
		e.mu.Lock()
		e.changed.Broadcast()
		e.mu.Unlock()
	}
}

func give(w http.ResponseWriter, r *http.Request, a Answer) {
	if a.Delay > 0 {
		timer := time.NewTimer(a.Delay)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-r.Context().Done():
			panic(http.ErrAbortHandler) // a return would be a 200
		}
	}
	if a.Reset {
		reset(w)
		return
	}
	for name, values := range a.Header {
		w.Header()[name] = values
	}
	if a.Status != 0 {
		w.WriteHeader(a.Status)
	}
	_, _ = w.Write(a.Body) // the caller may have gone
}

func reset(w http.ResponseWriter) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(err) // HTTP/1.1 over TCP can be hijacked
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // a close is then a reset
	}
	_ = conn.Close()
}

// Count is how many calls came.
func (e *Endpoint) Count() int { return int(e.count.Load()) }

// Calls returns the calls so far, in the order they came.
func (e *Endpoint) Calls() []Call {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.calls)
}

// IDs counts the calls of each delivery id: more than 1 is a repeat.
func (e *Endpoint) IDs() map[string]int {
	ids := map[string]int{}
	for _, c := range e.Calls() {
		ids[c.ID()]++
	}
	return ids
}

// patience is how long a test waits for calls before it fails.
const patience = 90 * time.Second

// Wait returns when n calls have come; the test fails if they don't.
func (e *Endpoint) Wait(t testing.TB, n int) {
	t.Helper()
	e.waiting.Add(1)
	defer e.waiting.Add(-1)
	deadline := time.Now().Add(patience)
	wake := time.AfterFunc(patience, func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.changed.Broadcast()
	})
	defer wake.Stop()
	e.mu.Lock()
	defer e.mu.Unlock()
	for e.Count() < n {
		if !time.Now().Before(deadline) {
			t.Fatalf("waiting for %d calls: %d came in %v", n, e.Count(), patience)
		}
		e.changed.Wait()
	}
}
