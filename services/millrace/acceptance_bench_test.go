package main

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/millrace-io/millrace/pipeline"
	"github.com/millrace-io/millrace/pipeline/pipelinetest"
	"github.com/millrace-io/millrace/pipeline/stream"
	"github.com/millrace-io/millrace/services/filter"
	"github.com/millrace-io/millrace/services/transform"
)

// benchProperties are most of a body of 485 bytes.
var benchProperties = `"walk_thru_id":12345,"walk_thru_name":"Create your first invoice","goal_id":678,"goal_name":"Invoice sent",` +
	`"wm.language":"en-US","env.browser.name":"Chrome","env.browser.version":"141.0","env.os.name":"Windows",` +
	`"ctx.title":"Create an invoice","ctx.location.protocol":"https:","ctx.location.hostname":"app.example.com",` +
	`"ctx.location.pathname":"/invoices/new"`

func benchEvent(n int) pipeline.Record {
	user := fmt.Sprint("u-", n%1000)
	return pipeline.Record{Key: []byte(user), Value: fmt.Appendf(nil,
		`{"id":"%d","source":"bench","type":"smart_walk_thru.goal_reached","user":%q,"session":"s-1","properties":{"n":%[1]d,%[3]s}}`,
		n, user, benchProperties)}
}

// benchDefinitions send every event on, number first.
func benchDefinitions(url string) string {
	return fmt.Sprintf(`
kind: Destination
name: receiver
request:
  url: %s
---
kind: Webhook
name: bench
event: smart_walk_thru.goal_reached
condition: |
  props["walk_thru_id"] == 12345 and props["goal_name"] contains "sent"
destination: receiver
`, url)
}

// BenchmarkUp measures the whole of `millrace up`, broker, filter, transform and
// sink in one process, in deliveries per second from its start on events that
// are there already. Beside it, in the same run, a bare net/http client sends
// as many of the same bodies to the same receiver.
func BenchmarkUp(b *testing.B) {
	const n = 50_000
	var bare, whole time.Duration
	rounds := 0
	for b.Loop() {
		r := pipelinetest.Receiver(b, pipelinetest.CountOnly())
		bare += postAll(b, r, n)
		whole += deliverAll(b, n)
		rounds++
	}
	requests, deliveries := float64(n*rounds)/bare.Seconds(), float64(n*rounds)/whole.Seconds()
	b.ReportMetric(deliveries, "deliveries/s")
	b.ReportMetric(requests, "requests/s")
	b.ReportMetric(100*deliveries/requests, "%share")
	b.ReportMetric(0, "ns/op")
}

// deliverAll has a Millrace deliver n events.
func deliverAll(b *testing.B, n int) time.Duration {
	b.Helper()
	r := pipelinetest.Receiver(b, pipelinetest.CountOnly())
	m := start(b, options{asIs: true, idle: true, partitions: upPartitions})
	m.apply(benchDefinitions(r.URL))
	events := make([]pipeline.Record, 0, n)
	for i := range n {
		events = append(events, benchEvent(i))
	}
	for chunk := range slices.Chunk(events, 5000) {
		m.produce(chunk...)
	}
	runtime.GC()
	began := time.Now()
	p := m.run()
	r.Wait(b, n)
	took := time.Since(began)
	p.stop()
	if got := r.Count(); got != n {
		b.Errorf("%d calls for %d events", got, n)
	}
	return took
}

// postAll sends n bodies with a bare client.
func postAll(b *testing.B, r *pipelinetest.Endpoint, n int) time.Duration {
	b.Helper()
	const open = 64 // as many as a destination has by default
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: open}}
	defer client.CloseIdleConnections()
	body := []byte(`{"n":12345,` + benchProperties + `,"wm.euid":"u-123","sid":"s-1","created_at":1795370738750,"wm.env":0}`)
	var sent atomic.Int64
	var workers sync.WaitGroup
	runtime.GC()
	began := time.Now()
	for range open {
		workers.Go(func() {
			for sent.Add(1) <= int64(n) {
				resp, err := client.Post(r.URL, "application/json", bytes.NewReader(body))
				if err != nil {
					b.Error(err)
					return
				}
				_, _ = io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
			}
		})
	}
	workers.Wait()
	return time.Since(began)
}

// What TestLatency sends, and what of it is left out.
const (
	latencyRate   = 1000 // events per second
	latencyWarmUp = 10 * latencyRate
	latencyEvents = latencyWarmUp + 30*latencyRate
)

// TestLatency measures how long it takes from a producer's acknowledgement
// to the call at 1,000 events per second, and beside it, in the same run, how
// long two bare exactly-once hops take.
func TestLatency(t *testing.T) {
	if !long() {
		t.Skip("make latency runs it")
	}
	broker := "embedded broker"
	if pipelinetest.RealKafka() {
		broker = "Apache Kafka " + pipelinetest.KafkaVersion
	}
	var table strings.Builder
	fmt.Fprintf(&table, "%s, %d events/s\n%-24s %9s %9s %9s %9s\n", broker, latencyRate, "acknowledgement to", "p50", "p90", "p99", "max")
	for _, run := range []struct {
		name    string
		measure func(*testing.T) *latencies
	}{{"the call", latencyOfUp}, {"the end of two bare hops", latencyOfTwoHops}} {
		t.Run(run.name, func(t *testing.T) {
			sorted := run.measure(t).sorted(t)
			at := func(share float64) time.Duration {
				return sorted[int(share*float64(len(sorted)-1))].Round(10 * time.Microsecond)
			}
			fmt.Fprintf(&table, "%-24s %9v %9v %9v %9v\n", run.name, at(0.5), at(0.9), at(0.99), at(1))
		})
	}
	t.Log("\n" + table.String())
}

// latencies are when each event was acknowledged, and when it arrived.
type latencies struct {
	acknowledged, arrived [latencyEvents]atomic.Int64 // ns of a monotonic clock
	began                 time.Time
	left                  atomic.Int64
	all                   chan struct{} // closed when all have arrived
}

func newLatencies() *latencies {
	l := &latencies{began: time.Now(), all: make(chan struct{})}
	l.left.Store(latencyEvents)
	return l
}

// arrive notes the arrival of the event that a JSON object begins with.
func (l *latencies) arrive(t testing.TB, object []byte, at time.Time) {
	_, rest, _ := bytes.Cut(object, []byte(`"n":`))
	digits, _, _ := bytes.Cut(rest, []byte(","))
	n, err := strconv.Atoi(string(digits))
	if err != nil {
		t.Errorf("no number in %.100q: %v", object, err)
		return
	}
	if !l.arrived[n].CompareAndSwap(0, int64(at.Sub(l.began))) {
		t.Errorf("event %d arrived twice", n)
		return
	}
	if l.left.Add(-1) == 0 {
		close(l.all)
	}
}

// produce sends the events at their pace, and waits until all have arrived.
func (l *latencies) produce(t *testing.T, m *millrace) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	var sending sync.WaitGroup
	began := time.Now()
	for sent := 0; sent < latencyEvents; <-tick.C {
		due := min(int(time.Since(began).Seconds()*latencyRate), latencyEvents)
		for n := sent; n < due; n++ {
			sending.Go(func() {
				r := benchEvent(n)
				r.Topic = m.cfg.Names.Events()
				if err := m.producer.Produce(t.Context(), []pipeline.Record{r}); err != nil {
					t.Errorf("producing event %d: %v", n, err)
				}
				l.acknowledged[n].Store(int64(time.Since(l.began)))
			})
		}
		sent = due
	}
	sending.Wait()
	select {
	case <-l.all:
	case <-time.After(patience):
		t.Fatalf("%d of %d events have not arrived", l.left.Load(), latencyEvents)
	}
}

// sorted returns the latencies after the warm-up. An event may arrive before its
// producer hears of it.
func (l *latencies) sorted(t *testing.T) []time.Duration {
	t.Helper()
	var all []time.Duration
	for n := latencyWarmUp; n < latencyEvents; n++ {
		all = append(all, time.Duration(max(0, l.arrived[n].Load()-l.acknowledged[n].Load())))
	}
	slices.SortFunc(all, cmp.Compare[time.Duration])
	return all
}

func latencyOfUp(t *testing.T) *latencies {
	l := newLatencies()
	r := pipelinetest.Receiver(t, pipelinetest.Answering(func(c *pipelinetest.Call) pipelinetest.Answer {
		l.arrive(t, c.Body, c.Time)
		return pipelinetest.Answer{}
	}))
	m := start(t, options{asIs: true, partitions: upPartitions})
	m.apply(benchDefinitions(r.URL))
	l.produce(t, m)
	return l
}

// latencyOfTwoHops takes the way to the sink without doing anything on it.
func latencyOfTwoHops(t *testing.T) *latencies {
	l := newLatencies()
	m := start(t, options{asIs: true, idle: true, partitions: upPartitions})
	names := m.cfg.Names
	lane := names.Deliveries(pipeline.DefaultLane)
	m.hop(filter.Role, names.Events(), names.Matches())
	m.hop(transform.Role, names.Matches(), lane)
	m.background(func(ctx context.Context) error {
		return stream.Read(ctx, m.cfg, []string{lane}, stream.FromStart(), func(r pipeline.Record) error {
			l.arrive(t, r.Value, time.Now())
			return nil
		})
	})
	l.produce(t, m)
	return l
}

// hop is a stage that hands on what it gets.
func (m *millrace) hop(role, from, to string) {
	stage := func(_ context.Context, in *pipeline.Record, out *pipeline.Output) error {
		out.Send(pipeline.Record{Topic: to, Key: in.Key, Value: in.Value})
		return nil
	}
	m.background(func(ctx context.Context) error {
		return stream.RunStage(ctx, stream.StageConfig{Config: m.cfg, Role: role, Topics: []string{from}, Stage: pipeline.StageFunc(stage)})
	})
}

// background runs something until the test ends.
func (m *millrace) background(run func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := run(ctx); err != nil && ctx.Err() == nil {
			m.t.Errorf("ended by itself: %v", err)
		}
	}()
	m.t.Cleanup(func() {
		cancel()
		<-ended
	})
}
