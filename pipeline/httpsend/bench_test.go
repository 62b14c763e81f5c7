package httpsend_test

import (
	"bytes"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/millrace-io/millrace/pipeline/httpsend"
	"github.com/millrace-io/millrace/pipeline/pipelinetest"
)

const (
	benchBody = 485 // bytes, as in the budgets
	inFlight  = 64
)

// BenchmarkSend measures Send beside a bare net/http client that sends the same
// headers; the two take turns, so that a noisy machine is noisy for both.
// "share" is Send's requests per second over the bare client's.
func BenchmarkSend(b *testing.B) {
	e := pipelinetest.Receiver(b, pipelinetest.CountOnly())
	body := bytes.Repeat([]byte("x"), benchBody)
	send := sending(b, e.URL, body)
	bare := posting(b, e.URL, body)
	const turns = 10
	var took [2]time.Duration
	b.ReportAllocs()
	for range b.N {
		for range turns {
			for i, call := range []func(int){send, bare} {
				start := time.Now()
				load(100*inFlight, call)
				took[i] += time.Since(start)
			}
		}
	}
	calls := float64(b.N * turns * 100 * inFlight)
	b.ReportMetric(calls/took[0].Seconds(), "sends/s")
	b.ReportMetric(calls/took[1].Seconds(), "bare/s")
	b.ReportMetric(took[1].Seconds()/took[0].Seconds(), "share")
}

// BenchmarkSendOne and BenchmarkBareOne are for profiles and allocations.
func BenchmarkSendOne(b *testing.B) {
	e := pipelinetest.Receiver(b, pipelinetest.CountOnly())
	benchmarkOne(b, sending(b, e.URL, bytes.Repeat([]byte("x"), benchBody)))
}

func BenchmarkBareOne(b *testing.B) {
	e := pipelinetest.Receiver(b, pipelinetest.CountOnly())
	benchmarkOne(b, posting(b, e.URL, bytes.Repeat([]byte("x"), benchBody)))
}

func benchmarkOne(b *testing.B, call func(int)) {
	b.ReportAllocs()
	b.ResetTimer()
	load(b.N, call)
}

// load makes n calls, inFlight at once.
func load(n int, call func(int)) {
	var next atomic.Int64
	var workers sync.WaitGroup
	for range inFlight {
		workers.Go(func() {
			for i := next.Add(1); i <= int64(n); i = next.Add(1) {
				call(int(i))
			}
		})
	}
	workers.Wait()
}

func sending(b *testing.B, url string, body []byte) func(int) {
	s, err := client(b, httpsend.Options{Allow: []string{"127.0.0.1"}}).Target(httpsend.Target{URL: url})
	if err != nil {
		b.Fatal(err)
	}
	return func(int) {
		r := s.Send(b.Context(), httpsend.Call{ID: "9f2b7c1d4e5f60718293a4b5c6d7e8f9", Body: body})
		if r.Outcome != httpsend.Success {
			b.Error(r.Err)
		}
	}
}

func posting(b *testing.B, url string, body []byte) func(int) {
	c := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		MaxIdleConnsPerHost: inFlight, DisableCompression: true,
	}}
	b.Cleanup(c.CloseIdleConnections)
	return func(int) {
		req, err := http.NewRequestWithContext(b.Context(), http.MethodPost, url, bytes.NewReader(body))
		if err != nil {
			b.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("webhook-id", "9f2b7c1d4e5f60718293a4b5c6d7e8f9")
		req.Header.Set("webhook-timestamp", "1789000000")
		req.Header.Set("Idempotency-Key", "9f2b7c1d4e5f60718293a4b5c6d7e8f9")
		resp, err := c.Do(req)
		if err != nil {
			b.Error(err)
			return
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
	}
}

func client(t testing.TB, o httpsend.Options) *httpsend.Client {
	t.Helper()
	c, err := httpsend.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}
