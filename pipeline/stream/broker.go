package stream

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-io/millrace/pipeline"
)

// DefaultListen is where the embedded broker listens: where Kafka would, on
// this machine only, since it asks nobody for a password.
const DefaultListen = "127.0.0.1:9092"

// BrokerConfig says how the embedded broker runs.
type BrokerConfig struct {
	// Dir keeps the data; it is created if needed. Empty means in memory: all
	// is gone with the process.
	Dir string

	// Listen is host:port; port 0 takes a free one. Default DefaultListen.
	Listen string

	// Sync waits for the disk at every batch. Without it what was acknowledged
	// survives the end of this process, but not of the machine. It costs
	// about 100 ms of latency for each stage.
	Sync bool

	// MaxDiskBytes is how much the data may take. Beyond that, producing to
	// event topics is refused until there is room again; all other topics go
	// on, so that what came in gets done. 0 means no limit.
	MaxDiskBytes int64

	// Names tells Millrace's own topics from those of events.
	Names pipeline.Names

	// Log gets changes of state. Default slog.Default().
	Log *slog.Logger
}

// Broker is a Kafka within this process, for development and small
// installations. It is franz-go's kfake, with what a broker that people rely on
// needs around it: one process to a data directory, retention and compaction
// that survive a restart and a crash, transactions that readers get past after
// a kill, and an end to the disk it takes.
type Broker struct {
	cfg     BrokerConfig
	cluster *kfake.Cluster
	dir     *dataDir     // nil in memory
	notes   *commitNotes // nil in memory
	cl      *kgo.Client
	failed  atomic.Bool // kfake could not write something

	mu        sync.Mutex // of tidy
	refused   *kfake.FaultHandle
	refusing  []string         // the topics of refused
	compacted map[string]int64 // bytes of a compacted topic after its last compaction
}

// OpenBroker starts the broker. Where its data was not closed properly, it
// first ends the transactions that were open, before anybody can connect.
func OpenBroker(cfg BrokerConfig) (b *Broker, err error) {
	if cfg.Listen == "" {
		cfg.Listen = DefaultListen
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	b = &Broker{cfg: cfg, compacted: map[string]int64{}}
	if cfg.Dir != "" {
		if b.dir, err = openDataDir(cfg.Dir); err != nil {
			return nil, err
		}
		if err := b.recover(); err != nil {
			return nil, errors.Join(fmt.Errorf("recovering %s: %w", cfg.Dir, err), b.dir.release())
		}
		if b.notes, err = openNotes(b.dir, &cfg); err != nil {
			return nil, errors.Join(err, b.dir.release())
		}
	}
	if err := b.start(cfg.Listen); err != nil {
		return nil, errors.Join(err, b.notes.close(), b.dir.release())
	}
	b.notes.watch(b.cluster)
	return b, nil
}

func (c BrokerConfig) validate() error {
	var errs []error
	host, port, err := net.SplitHostPort(c.Listen)
	if n, perr := strconv.Atoi(port); err != nil || perr != nil || n < 0 || n > 65535 {
		errs = append(errs, fmt.Errorf("listen: %q is not host:port", c.Listen))
	}
	if ip := net.ParseIP(host); err == nil && (host == "" || ip != nil && ip.IsUnspecified()) {
		errs = append(errs, fmt.Errorf("listen: %q is no address that clients could be sent to; name one of this machine's", c.Listen))
	}
	if c.MaxDiskBytes < 0 {
		errs = append(errs, fmt.Errorf("disk limit: %d is negative", c.MaxDiskBytes))
	}
	return errors.Join(errs...)
}

// start opens the cluster and a client of our own to it.
func (b *Broker) start(listen string) (err error) {
	opts := []kfake.Opt{
		kfake.NumBrokers(1),
		kfake.WithLogger(brokerLog{b.cfg.Log, &b.failed}),
		kfake.ListenFn(func(network, _ string) (net.Listener, error) { return listenOn(network, listen) }),
		kfake.BrokerConfigs(map[string]string{
			// Its own compaction deletes the old files before it writes the
			// new ones, and knows nothing of open transactions: see compact.
			"log.cleaner.backoff.ms": strconv.FormatInt((10 * 365 * day).Milliseconds(), 10),
			// Space is given back by segment.
			"log.segment.bytes": strconv.Itoa(16 << 20),
		}),
	}
	if b.dir != nil {
		opts = append(opts, kfake.DataDir(b.dir.path))
	}
	if b.cfg.Sync {
		opts = append(opts, kfake.SyncWrites())
	}
	if b.cluster, err = kfake.NewCluster(opts...); err != nil {
		return fmt.Errorf("starting the broker: %w", err)
	}
	if b.cl, err = (Config{Brokers: b.Addrs(), Log: b.cfg.Log}).client(); err != nil {
		b.cluster.Close()
		return err
	}
	return nil
}

func listenOn(network, addr string) (net.Listener, error) {
	l, err := new(net.ListenConfig).Listen(context.Background(), network, addr)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("%s is taken: another Kafka runs there; use that one, or choose another address (%w)", addr, err)
	}
	return l, err
}

// Addrs are the addresses it listens on.
func (b *Broker) Addrs() []string { return b.cluster.ListenAddrs() }

// Close stops the broker and writes down what it only had in memory, so that
// the next one opens quickly. Whoever still uses it is cut off.
func (b *Broker) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.stop()
	if b.dir == nil {
		return nil
	}
	if b.failed.Load() { // its data is as after a kill
		return errors.Join(b.notes.file.Close(), b.dir.release())
	}
	return errors.Join(b.notes.close(), b.dir.close())
}

func (b *Broker) stop() {
	b.cl.Close()
	b.cluster.Close()
}

// tidyEvery is how often the broker looks after its disk. More than a cap's
// reserve is hardly written in between.
const tidyEvery = 10 * time.Second

// Run keeps the broker tidy until ctx ends: retention, compaction, the limit
// of its disk. It does not close it.
func (b *Broker) Run(ctx context.Context) error {
	tick := time.NewTicker(tidyEvery)
	defer tick.Stop()
	for {
		if err := b.tidy(ctx); err != nil && ctx.Err() == nil {
			b.cfg.Log.Warn("tidying the broker", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (b *Broker) tidy(ctx context.Context) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.cluster.ApplyRetention()
	return errors.Join(b.keepEnds(ctx), b.compact(ctx), b.limit(ctx))
}

// resume is the share of the limit below which events are taken again.
const resume = 0.95

// limit refuses events while the data takes more than it may.
func (b *Broker) limit(ctx context.Context) error {
	if b.dir == nil || b.cfg.MaxDiskBytes == 0 {
		return nil
	}
	size, err := b.dir.size()
	if err != nil {
		return fmt.Errorf("measuring %s: %w", b.dir.path, err)
	}
	allowed := float64(b.cfg.MaxDiskBytes)
	if b.refused != nil {
		allowed *= resume
	}
	if float64(size) < allowed {
		b.accept(size)
		return nil
	}
	return b.refuse(ctx, size)
}

func (b *Broker) accept(size int64) {
	if b.refused == nil {
		return
	}
	b.refused.Remove()
	b.refused, b.refusing = nil, nil
	b.cfg.Log.Info("the broker's disk has room: events are taken again", "bytes", size)
}

// errDiskFull is final for a producer: it shall know at once rather than wait.
var errDiskFull = &kerr.Error{
	Message: "the broker's data takes as much disk as it may; events are refused until there is room",
	Code:    kerr.PolicyViolation.Code,
}

func (b *Broker) refuse(ctx context.Context, size int64) error {
	found, err := kadm.NewClient(b.cl).ListTopics(ctx)
	if err != nil {
		return fmt.Errorf("looking for event topics: %w", err)
	}
	own := Config{Names: b.cfg.Names}
	topics := slices.DeleteFunc(found.Names(), own.isOwn)
	if slices.Equal(topics, b.refusing) && b.refused != nil {
		return nil
	}
	faults := make([]kfake.Fault, len(topics))
	for i, t := range topics {
		faults[i] = kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: t, Err: errDiskFull, Count: -1}
	}
	before := b.refused
	b.refused, b.refusing = b.cluster.Fault(faults...), topics
	if before != nil {
		before.Remove()
		return nil
	}
	b.cfg.Log.Error("the broker's disk is full: events are refused until there is room",
		"bytes", size, "limit", b.cfg.MaxDiskBytes, "topics", strings.Join(topics, " "))
	return nil
}

// brokerLog hands on what kfake warns about, but not that a transaction took 5 ms.
type brokerLog struct {
	to     *slog.Logger
	failed *atomic.Bool // after an error
}

func (l brokerLog) Logf(level kfake.LogLevel, format string, args ...any) {
	switch {
	case strings.HasPrefix(format, "txn: EndTxn slow"):
	case level == kfake.LogLevelError:
		l.failed.Store(true)
		l.to.Error("broker", "says", fmt.Sprintf(format, args...))
	case level == kfake.LogLevelWarn:
		l.to.Warn("broker", "says", fmt.Sprintf(format, args...))
	default: // its lines for each request are for its own developers
	}
}
