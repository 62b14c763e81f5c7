package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"github.com/alecthomas/kong"

	"github.com/millrace-io/millrace/pipeline"
	"github.com/millrace-io/millrace/pipeline/definition"
	"github.com/millrace-io/millrace/pipeline/stream"
)

// upPartitions is how many partitions the topics get where `up` creates them:
// enough to see what partitions do, few enough to start at once.
const upPartitions = 4

type upCmd struct {
	brokerSettings
	Brokers []string `help:"Use this Kafka instead of the embedded broker." placeholder:"HOST:PORT" group:"kafka"`
	clientSettings
	serviceSettings
	initSettings
	sinkSettings
	Registry    registrySettings `embed:"" prefix:"registry-"`
	Definitions []string         `help:"Apply these files or directories at the start." placeholder:"PATH"`
	Demo        bool             `help:"Also run examples, a receiver and a few events a second, and show each call as it arrives."`
}

// Help is shown by --help.
func (upCmd) Help() string {
	return "Calls to this machine are allowed. A signal lets calls under way end and closes the broker.\n\n" +
		"Examples:\n  millrace up --demo\n  millrace up --data /var/lib/millrace --definitions webhooks/\n  millrace up --brokers kafka:9092"
}

// Run runs everything until a signal.
func (c *upCmd) Run(ctx context.Context, line *kong.Context, l *logSettings, std streams) error {
	if len(c.Brokers) > 0 {
		if flag := ofEmbedded(line); flag != "" {
			return &codeError{exitUsage, fmt.Errorf("up: --%s is of the embedded broker, but --brokers (or MILLRACE_BROKERS) says to use the Kafka at %s; "+
				"leave out one of them", flag, strings.Join(c.Brokers, ", "))}
		}
		return c.run(ctx, c.Brokers, l, std)
	}
	b, err := c.open(l, std, pipeline.Names(c.Prefix))
	if err != nil {
		return err
	}
	return keep(ctx, b, func(ctx context.Context) error {
		if err := c.ownKeyset(); err != nil {
			return err
		}
		return c.run(ctx, b.Addrs(), l, std)
	})
}

// ofEmbedded names a flag of the embedded broker that stands on the command line;
// "" if none does.
func ofEmbedded(line *kong.Context) string {
	for _, p := range line.Path {
		if p.Flag != nil && slices.Contains([]string{"data", "kafka", "sync", "max-disk"}, p.Flag.Name) {
			return p.Flag.Name
		}
	}
	return ""
}

// ownKeyset has a keyset beside the embedded broker's data, unless one is given.
func (c *upCmd) ownKeyset() error {
	ring, err := c.keyring()
	if err == nil && ring == nil {
		c.own, err = keysetOf(c.Data)
	}
	return err
}

func (c *upCmd) run(ctx context.Context, brokers []string, l *logSettings, std streams) error {
	log, err := l.logger(std.err)
	if err != nil {
		return err
	}
	cfg, err := c.config(brokers, instanceOf(c.Instance, c.HTTP), log)
	if err != nil {
		return err
	}
	if err := cfg.Ping(ctx); err != nil {
		return quietly(ctx, err)
	}
	if err := c.prepare(ctx, cfg, std); err != nil {
		return quietly(ctx, err)
	}
	return runService(ctx, cfg, &c.serviceSettings, func(s *service) error { return c.add(s, log, std) })
}

// prepare creates the topics, publishes the keys and applies the definitions.
func (c *upCmd) prepare(ctx context.Context, cfg stream.Config, std streams) error {
	if c.Partitions == 0 {
		c.Partitions = upPartitions
	}
	report, err := initialize(ctx, cfg, &c.initSettings)
	if err != nil {
		return err
	}
	for _, p := range report.Problems {
		cfg.Log.Warn("topic does not fit", "problem", p.String())
	}
	if err := c.publishOwn(ctx, cfg); err != nil {
		return err
	}
	if len(c.Definitions) == 0 {
		return nil
	}
	files, err := readFiles(c.Definitions, std.in)
	if err != nil {
		return err
	}
	base, err := current(ctx, cfg)
	if err != nil {
		return err
	}
	plan, problems := definition.NewPlan(base, definition.Parse(files...), definition.Options{Owner: "files", Author: author()})
	printProblems(std.err, problems)
	if problems.Err() != nil {
		return errSaid
	}
	if len(plan.Changes) == 0 {
		return nil
	}
	if err := plan.Print(std.out); err != nil {
		return err
	}
	_, err = write(ctx, cfg, plan)
	return err
}

// publishOwn publishes the keys before anything else is there to apply
// definitions to: the first ones may need them.
func (c *upCmd) publishOwn(ctx context.Context, cfg stream.Config) error {
	ring, err := c.keyring()
	if err != nil || ring == nil {
		return err
	}
	keys, err := ring.Keys()
	if err != nil {
		return err
	}
	err = publishKeys(ctx, cfg, keys, false)
	if _, other := errors.AsType[*definition.OtherKeysError](err); other {
		return nil // which the sink tells
	}
	return err
}

// add starts every role, and the demo.
func (c *upCmd) add(s *service, log *slog.Logger, std streams) error {
	if err := s.filter(&c.eventSettings, &c.Registry); err != nil {
		return err
	}
	if err := s.transform(); err != nil {
		return err
	}
	local := c.sinkSettings
	here := []string{"127.0.0.0/8", "::1/128", "localhost"}
	local.EgressAllow = slices.Concat(here, local.EgressAllow)
	local.EgressNoProxy = slices.Concat(here, local.EgressNoProxy)
	if err := s.sink(&local, nil); err != nil {
		return err
	}
	fmt.Fprintf(std.out, "Kafka   %s, events to topic %s\nHTTP    http://%s/readyz and /metrics\n",
		s.cfg.Brokers[0], s.cfg.Names.Events(), c.HTTP)
	if c.Demo {
		d := &demo{cfg: s.cfg, out: std.out, log: log}
		s.group.Go(func() error { return d.run(s.ctx) })
	}
	return nil
}
