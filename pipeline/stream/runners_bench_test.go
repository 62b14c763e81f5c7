package stream

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/millrace-io/millrace/pipeline"
	"github.com/millrace-io/millrace/pipeline/pipelinetest"
)

// loaded is a config on a broker with n records of 500 bytes on the first topic.
func loaded(b *testing.B, n int) Config {
	b.Helper()
	cfg, _ := fakeConfig(b)
	if pipelinetest.RealKafka() {
		cfg = testConfig(b)
	}
	cfg.Compression = "none"
	withTopics(b, cfg, 4)
	const part = 50_000
	for from := 0; from < n; from += part {
		rs := make([]pipeline.Record, min(part, n-from))
		for i := range rs {
			value := make([]byte, 500)
			copy(value, fmt.Append(nil, from+i))
			rs[i] = pipeline.Record{Topic: firstTopic(cfg), Key: fmt.Append(nil, i%997), Value: value}
		}
		writeRecords(b, cfg, rs...)
	}
	return cfg
}

func cpuTime() time.Duration {
	var ru syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &ru); err != nil {
		return 0
	}
	return time.Duration(ru.Utime.Nano() + ru.Stime.Nano())
}

// measure reports what it takes until so many records are through; the CPU is
// the broker's as well where it is kfake.
func measure(b *testing.B, n int, through <-chan int, run func() *running) {
	b.Helper()
	b.ReportAllocs()
	b.ResetTimer()
	cpu := cpuTime()
	r := run()
	for done := 0; done < n; done += <-through {
	}
	b.StopTimer()
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "records/s")
	b.ReportMetric(float64((cpuTime()-cpu).Nanoseconds())/float64(n)/1000, "cpu-µs/record")
	r.stop(b)
}

func BenchmarkStage(b *testing.B) {
	n := max(b.N, 20_000)
	cfg := loaded(b, n)
	through := make(chan int, n)
	sc := stageOf(cfg, forward(secondTopic(cfg)))
	sc.Observer.Transaction = func(_ string, committed bool, records int) {
		if committed {
			through <- records
		}
	}
	measure(b, n, through, func() *running { return startStage(b, sc) })
}

func BenchmarkTracked(b *testing.B) {
	n := max(b.N, 20_000)
	cfg := loaded(b, n)
	through := make(chan int, n)
	tc := trackedOf(cfg, &caller{atOnce: true, output: func(r *pipeline.Record) (out pipeline.Output) {
		out.Send(pipeline.Record{Topic: cfg.Names.Attempts(), Key: r.Key, Value: r.Value[:50]})
		return out
	}})
	tc.Observer.Transaction = func(_ string, committed bool, records int) {
		if committed {
			through <- records
		}
	}
	measure(b, n, through, func() *running { return startTracked(b, tc) })
}
