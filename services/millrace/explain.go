package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/millrace-io/millrace/pipeline"
	"github.com/millrace-io/millrace/pipeline/definition"
	"github.com/millrace-io/millrace/pipeline/event"
	"github.com/millrace-io/millrace/pipeline/expression"
	"github.com/millrace-io/millrace/pipeline/state"
	"github.com/millrace-io/millrace/pipeline/stream"
)

type explainCmd struct {
	kafkaSettings
	eventSettings
	Registry registrySettings `embed:"" prefix:"registry-"`
	Webhook  string           `arg:"" help:"Name of a webhook."`
	EventID  string           `arg:"" name:"event-id" help:"Id of an event."`
	Source   *string          `help:"The event's source, where several have events of that id."`
	Since    string           `help:"How far back to look for the event: a length of time or a time." default:"7d" placeholder:"10m|TIME"`
	JSON     bool             `help:"Print as JSON."`
}

// Help is shown by --help.
func (explainCmd) Help() string {
	return "Finds the event in Kafka and says whether the webhook fires for it, why, clause by clause, under the definitions\n" +
		"that were in force at its match; every attempt to deliver it; and where the delivery stands: delivered, waiting,\n" +
		"a dead letter. It joins no consumer group and takes nothing from the roles. Without an id of its own, an event\n" +
		"has the one that `millrace tail events --json` shows. Exit code 1 if there is no such event or webhook.\n\n" +
		"Examples:\n" +
		"  millrace explain walk-thru-goal-to-heap e-4\n" +
		"  millrace explain to-crm e-4 --since 1h --source /shop --json"
}

// Run explains.
func (c *explainCmd) Run(ctx context.Context, l *logSettings, std streams) error {
	since, err := parseSince(c.Since, time.Now())
	if err != nil {
		return &codeError{exitUsage, fmt.Errorf("explain: %w", err)}
	}
	cfg, err := c.connect(ctx, l, std.err)
	if err != nil {
		return err
	}
	q := &inquiry{explainCmd: c, cfg: cfg, std: std}
	if err := q.open(ctx); err != nil {
		return err
	}
	defer q.ids.Close()
	if err := q.find(ctx, since); err != nil {
		return err
	}
	if err := q.inquire(ctx, since); err != nil {
		return err
	}
	if c.JSON {
		return q.printJSON()
	}
	return q.print()
}

// inquiry is what was found out about one event and one webhook.
type inquiry struct {
	*explainCmd
	cfg     stream.Config
	std     streams
	builtin *event.Catalog
	defs    *definition.Snapshot // the newest
	states  *state.Snapshot
	history *definition.History
	ids     *stream.TopicIDs
	decoder *event.Decoder

	event  *pipeline.Event
	record pipeline.Record // that it lies in
	id     string          // of the delivery
	trail
	progress *stream.Progress // of what is read of the trail

	then *definition.Snapshot // the definitions that it is explained under
	why  *definition.Explanation
}

// open reads the definitions and their history, and prepares for reading events.
// Without an error, ids have to be closed.
func (q *inquiry) open(ctx context.Context) (err error) {
	registry, err := q.Registry.open()
	if err != nil {
		return &codeError{exitUsage, err}
	}
	if q.builtin, err = event.BuiltinCatalog(); err != nil {
		return err
	}
	if q.defs, q.states, err = destinationStates(ctx, q.cfg); err != nil {
		return err
	}
	if q.history, err = definition.ReadHistory(ctx, q.cfg); err != nil {
		return err
	}
	if k := (definition.Key{Kind: definition.KindWebhook, Name: q.Webhook}); !q.history.Has(k) {
		known := slices.Collect(maps.Keys(q.defs.Webhooks))
		return fmt.Errorf("there is no webhook %q, nor was there ever one%s", q.Webhook, expression.DidYouMean(q.Webhook, known))
	}
	if q.ids, err = stream.OpenTopicIDs(ctx, q.cfg); err != nil {
		return err
	}
	q.decoder = event.NewDecoder(registry, q.ids.Cluster())
	q.decoder.TopicID = q.ids.TopicID
	return nil
}

// errFound ends a search.
var errFound = errors.New("found")

// find looks for the event in the topics of producers, and among the operator
// events. Where no source is asked for, it goes through all of them: several may
// have an event of that id.
func (q *inquiry) find(ctx context.Context, since time.Time) error {
	topics, err := stream.EventTopics(ctx, q.cfg, q.Topics)
	if err != nil {
		return err
	}
	topics = append(topics, q.cfg.Names.OperatorEvents())
	var sources []string
	err = q.scan(ctx, topics, since, "looking for the event", func(r *pipeline.Record) error {
		e, err := q.decode(ctx, r, q.defs.Catalog)
		if _, undecodable := pipeline.IsPermanent(err); undecodable {
			return nil
		}
		if err != nil || e.ID != q.EventID || q.Source != nil && e.Source != *q.Source || slices.Contains(sources, e.Source) {
			return err
		}
		if sources = append(sources, e.Source); len(sources) == 1 {
			q.event, q.record, q.id = e, *r, pipeline.DeliveryID(e, q.Webhook)
		}
		if q.Source != nil {
			return errFound
		}
		return nil
	})
	switch {
	case err != nil && !errors.Is(err, errFound):
		return err
	case len(sources) > 1:
		return fmt.Errorf("several sources have an event with the id %q; say which one with --source: %q", q.EventID, sources)
	case len(sources) == 0:
		return fmt.Errorf("no event with the id %q%s since %s in %s; --since looks further back, --events-topics elsewhere",
			q.EventID, q.ofSource(), since.UTC().Format(time.RFC3339), strings.Join(topics, ", "))
	}
	return nil
}

func (q *inquiry) ofSource() string {
	if q.Source == nil {
		return ""
	}
	return fmt.Sprintf(" of the source %q", *q.Source)
}

// decode reads an event as the filter does.
func (q *inquiry) decode(ctx context.Context, r *pipeline.Record, catalog *event.Catalog) (*pipeline.Event, error) {
	if err := q.ids.Learn(ctx, r.Topic); err != nil { // stands in ids that are made
		return nil, err
	}
	return q.decoder.Decode(ctx, r, catalog)
}

// scan reads what is there of some topics, with progress on a terminal.
func (q *inquiry) scan(ctx context.Context, topics []string, since time.Time, what string, each func(*pipeline.Record) error) error {
	var shown *progress
	defer func() {
		if shown != nil {
			shown.end()
		}
	}()
	return stream.Scan(ctx, q.cfg, topics, since, func(done, total int64) {
		if shown == nil {
			shown = newProgress(q.std.err, int(total))
			shown.what = "records, " + what
		}
		shown.show(int(done))
	}, func(r pipeline.Record) error { return each(&r) })
}

// inquire finds what became of the event. A producer's clock may be ahead, so
// what is not found since the record's time may still be there. And what ended
// without a trace may have gone on while we looked, so we look again.
func (q *inquiry) inquire(ctx context.Context, since time.Time) error {
	from := q.record.Time.Add(-clockMargin)
	for try := 0; ; try++ {
		if err := q.answer(ctx, from); err != nil {
			return err
		}
		switch is := q.where().state; {
		case is == stateUnmatched && since.Before(from):
			from = since
		case is != stateEnded || try == 2:
			return nil
		}
	}
}

// answer finds what became of the event in what was written since then, and
// explains that.
func (q *inquiry) answer(ctx context.Context, since time.Time) error {
	q.trail = trail{}
	if err := q.follow(ctx, since); err != nil {
		return err
	}
	return q.explain(ctx)
}

// explain explains under the definitions of then, if they are known: with their
// catalog too, by which values were converted.
func (q *inquiry) explain(ctx context.Context) (err error) {
	q.then, q.why = q.defs, nil
	if !q.matchedAt.IsZero() {
		if q.then, err = q.history.At(q.builtin, q.definitions); err != nil {
			return err
		}
	}
	if q.event, err = q.decode(ctx, &q.record, q.then.Catalog); err != nil {
		return err
	}
	c := q.then.Webhooks[q.Webhook]
	if c == nil {
		return nil
	}
	if q.why, err = c.Explain(q.event, q.then.Catalog); err != nil {
		return err
	}
	if q.why.Condition != nil {
		hideSensitive(q.why.Condition, q.then.Catalog, q.event.Type)
	}
	return nil
}
