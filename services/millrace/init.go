package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/millrace-io/millrace/pipeline/definition"
	"github.com/millrace-io/millrace/pipeline/stream"
)

// initSettings are what init creates.
type initSettings struct {
	eventSettings
	Partitions  int    `help:"Partitions of the topics between the stages; default 24 (up: 4), or what they have." placeholder:"N"`
	Replication int16  `help:"Copies of each partition; default the brokers'." placeholder:"N"`
	Start       string `help:"Where the filter starts in event topics that were there before: ${enum}." enum:"latest,earliest" default:"latest"`
}

type initCmd struct {
	kafkaSettings
	initSettings
	JSON bool `help:"Print the report as JSON."`
}

// Help is shown by --help.
func (initCmd) Help() string {
	return "Creates what is missing and changes nothing that is there; run it before the roles, as often as you like.\n\n" +
		"Examples:\n  millrace init --brokers kafka:9092 --replication 3\n" +
		"  millrace init --events-topics 'regex:telemetry\\..*' --start earliest"
}

// Run creates the topics.
func (c *initCmd) Run(ctx context.Context, l *logSettings, std streams) error {
	cfg, err := c.connect(ctx, l, std.err)
	if err != nil {
		return err
	}
	report, err := initialize(ctx, cfg, &c.initSettings)
	if err != nil {
		return err
	}
	if c.JSON {
		return printJSON(std.out, report)
	}
	return printInit(std.out, report)
}

// initialize creates topics and lanes, and writes where the filter starts.
func initialize(ctx context.Context, cfg stream.Config, s *initSettings) (stream.InitReport, error) {
	report, err := stream.Init(ctx, cfg, stream.InitOptions{
		Partitions: s.Partitions, Replication: s.Replication, EventTopics: s.Topics, Start: s.Start,
	})
	if err != nil {
		return report, err
	}
	store, err := definition.OpenStore(ctx, cfg)
	if err != nil {
		return report, err
	}
	defer store.Close()
	starts := make([]definition.Start, 0, len(report.Starts))
	for _, t := range report.Starts {
		starts = append(starts, definition.Start{Topic: t.Topic, ID: t.ID, Partitions: t.Partitions})
	}
	return report, store.WriteStarts(ctx, starts)
}

func printInit(w io.Writer, r stream.InitReport) error {
	for _, t := range r.Created {
		fmt.Fprintf(w, "created %s\n", t)
	}
	for _, n := range r.Notes {
		fmt.Fprintf(w, "note: %s\n", n)
	}
	for _, p := range r.Problems {
		fmt.Fprintf(w, "problem: %s\n", p)
	}
	if len(r.Created) == 0 && len(r.Problems) == 0 {
		fmt.Fprintln(w, "everything is there")
	}
	if len(r.Problems) > 0 {
		return fmt.Errorf("%d settings of existing topics do not fit: %w", len(r.Problems), errors.New("see above for what to do"))
	}
	return nil
}
