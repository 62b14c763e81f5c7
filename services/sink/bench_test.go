package sink

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/millrace-io/millrace/pipeline"
	"github.com/millrace-io/millrace/pipeline/pipelinetest"
)

const (
	benchBody = 485
	benchOpen = 256 // calls at once
)

// counter is a ticket that counts down.
type counter struct{ *sync.WaitGroup }

func (counter) AwaitCommits(context.Context) (bool, error) { return false, nil }
func (c counter) End(pipeline.Output)                      { c.Done() }
func (c counter) Release()                                 { c.Done() }

// BenchmarkDelivery has deliveries go from the record to their end, with calls
// to a receiver, beside a bare net/http client that makes the same calls. The
// receiver is in both.
func BenchmarkDelivery(b *testing.B) {
	body := []byte(`{"a":"` + strings.Repeat("x", benchBody-8) + `"}`)
	b.Run("sink", func(b *testing.B) {
		r := pipelinetest.Receiver(b, pipelinetest.CountOnly())
		text := hooked("crm", fmt.Sprintf("limits: {concurrency: %d}\nlane: own", benchOpen))
		h := build(b, strings.Replace(text, "https://crm.example", r.URL, 1))
		h.overHTTP()
		s := h.slipOf(h.delivery("crm"))
		s.record.Value = body
		var open sync.WaitGroup
		b.ReportAllocs()
		for b.Loop() {
			open.Add(1)
			if err := h.take(b.Context(), &s.record, counter{&open}); err != nil {
				b.Fatal(err)
			}
		}
		open.Wait()
	})
	b.Run("net/http", func(b *testing.B) {
		r := pipelinetest.Receiver(b, pipelinetest.CountOnly())
		transport := &http.Transport{MaxIdleConns: benchOpen, MaxIdleConnsPerHost: benchOpen, DisableCompression: true}
		defer transport.CloseIdleConnections()
		var open sync.WaitGroup
		calls := make(chan struct{}, benchOpen)
		for range benchOpen {
			open.Go(func() {
				for range calls {
					bare(b, transport, r.URL, body)
				}
			})
		}
		b.ReportAllocs()
		for b.Loop() {
			calls <- struct{}{}
		}
		close(calls)
		open.Wait()
	})
}

func bare(b *testing.B, transport *http.Transport, url string, body []byte) {
	req, err := http.NewRequestWithContext(b.Context(), http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		b.Error(err)
		return
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := transport.RoundTrip(req)
	if err != nil {
		b.Error(err)
		return
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	_ = resp.Body.Close()
}

// BenchmarkWithoutCall is what the sink adds to a call.
func BenchmarkWithoutCall(b *testing.B) {
	h := build(b, hooked("crm", "lane: own"))
	s := h.slipOf(h.delivery("crm"))
	var open sync.WaitGroup
	b.ReportAllocs()
	for b.Loop() {
		open.Add(1)
		if err := h.take(b.Context(), &s.record, counter{&open}); err != nil {
			b.Fatal(err)
		}
	}
	open.Wait()
}

// TestManyDestinations has what a destination takes while it has nothing to do: of
// 10,000, a sink of the lane default may serve all.
func TestManyDestinations(t *testing.T) {
	const n = 1_000
	text := strings.Builder{}
	for i := range n {
		text.WriteString(aDestination(fmt.Sprint("d", i), "limits: {rate: 10}"))
	}
	h := build(t, text.String())
	h.overHTTP()
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	h.checkSecrets(map[string]string{})
	runtime.GC()
	runtime.ReadMemStats(&after)
	if got := len(h.all()); got != n {
		t.Fatalf("there are %d destinations", got)
	}
	each := (after.HeapAlloc - before.HeapAlloc) / n
	t.Logf("each destination takes %d bytes", each)
	if each > 8<<10 {
		t.Error("that is too much")
	}
	runtime.KeepAlive(h)
}
