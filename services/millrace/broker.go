package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/millrace-io/millrace/pipeline"
	"github.com/millrace-io/millrace/pipeline/stream"
)

// brokerSettings are how the embedded broker runs.
type brokerSettings struct {
	Data    string `help:"Directory that keeps the embedded broker's data; empty for memory alone. Default ${default}." default:"data" type:"path" placeholder:"DIR" group:"service"`
	Kafka   string `help:"Address that the embedded broker listens on. Default ${default}." default:"127.0.0.1:9092" placeholder:"HOST:PORT" group:"service"`
	Sync    bool   `help:"Wait for the disk at every batch: safe against a power cut, at about 100 ms a stage." group:"service"`
	MaxDisk int64  `help:"Bytes that the data may take; beyond, events are refused. 0: no limit." default:"0" placeholder:"BYTES" group:"service"`
}

func (b *brokerSettings) open(l *logSettings, std streams, names pipeline.Names) (*stream.Broker, error) {
	log, err := l.logger(std.err)
	if err != nil {
		return nil, err
	}
	return stream.OpenBroker(stream.BrokerConfig{
		Dir: b.Data, Listen: b.Kafka, Sync: b.Sync, MaxDiskBytes: b.MaxDisk, Names: names, Log: log,
	})
}

// keep runs the broker while use does, and closes it afterwards.
func keep(ctx context.Context, b *stream.Broker, use func(context.Context) error) error {
	tidy, stop := context.WithCancel(context.WithoutCancel(ctx))
	tidied := make(chan error, 1)
	go func() { tidied <- b.Run(tidy) }()
	err := use(ctx)
	stop()
	return errors.Join(err, <-tidied, b.Close())
}

type brokerCmd struct {
	brokerSettings
	Prefix string `help:"Prefix that tells Millrace's own topics from those of events." default:"millrace."`
}

// Help is shown by --help.
func (brokerCmd) Help() string {
	return "A Kafka for development and small installations; production takes an Apache Kafka.\n\n" +
		"Example:\n  millrace broker --data /var/lib/millrace --kafka 127.0.0.1:9092"
}

// Run runs the broker until a signal.
func (c *brokerCmd) Run(ctx context.Context, l *logSettings, std streams) error {
	b, err := c.open(l, std, pipeline.Names(c.Prefix))
	if err != nil {
		return err
	}
	return keep(ctx, b, func(ctx context.Context) error {
		fmt.Fprintf(std.out, "Kafka on %s\n", b.Addrs()[0])
		<-ctx.Done()
		return nil
	})
}
