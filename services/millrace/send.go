package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/millrace-io/millrace/pipeline"
	"github.com/millrace-io/millrace/pipeline/event"
	"github.com/millrace-io/millrace/pipeline/expression"
	"github.com/millrace-io/millrace/pipeline/stream"
)

type sendCmd struct {
	kafkaSettings
	File        string   `arg:"" optional:"" help:"Events as JSON Lines, each an event in JSON; - for standard input." placeholder:"FILE"`
	Type        string   `help:"Event type."`
	User        string   `help:"The end user's id."`
	ID          string   `name:"id" help:"Id of the event; without one, it is made of where the record lies."`
	Source      string   `help:"Who produced it."`
	Time        string   `help:"When it happened, as RFC 3339 or epoch milliseconds; default now."`
	System      string   `help:"The application it comes from."`
	Environment string   `help:"production (the default) or qa."`
	Session     string   `help:"The session's id."`
	Prop        []string `help:"A property. What is a number, true, false, null or a text in double quotes in JSON is that; anything else is text. Repeat it for more." placeholder:"NAME=VALUE" sep:"none"`
	Example     string   `help:"Send a generated event of this type; other flags change what it holds." placeholder:"TYPE"`
	Count       int      `help:"How many of them; examples differ in user, session, browser and the like." default:"1" placeholder:"N"`
	Format      string   `help:"How events are written: json (Event JSON), cloudevents (binary mode) or structured (CloudEvents in one JSON object)." enum:"json,cloudevents,structured" default:"json"`
	Topic       string   `help:"Topic to write to; default <prefix>events."`
	JSON        bool     `help:"Print the result as JSON."`
}

// Help is shown by --help.
func (sendCmd) Help() string {
	return "Every event is decoded first, as the filter does it; if one of them can't be, none is sent. A record's key is\n" +
		"the user's id, so that a user's events stay in order.\n\n" +
		"Examples:\n" +
		"  millrace send --type survey.submitted --user u-17 --prop nps_score=3 --prop comment='Too slow'\n" +
		"  millrace send --example smart_walk_thru.goal_reached --count 10 --prop walk_thru_id=12345\n" +
		"  millrace send events.jsonl --format cloudevents\n" +
		"  jq -c .event export.json | millrace send -"
}

// sendChunk is how many events are under way at a time.
const sendChunk = 1000

// Run sends what the arguments say.
func (c *sendCmd) Run(ctx context.Context, l *logSettings, std streams) error {
	if err := c.check(); err != nil {
		return &codeError{exitUsage, err}
	}
	cfg, err := c.connect(ctx, l, std.err)
	if err != nil {
		return err
	}
	catalog, err := catalogInForce(ctx, cfg)
	if err != nil {
		return err
	}
	lines, err := c.lines(catalog, std.in)
	if err != nil {
		return err
	}
	defer lines.close()
	if c.Topic == "" {
		c.Topic = cfg.Names.Events()
	}
	check := &checker{catalog: catalog, decoder: event.NewDecoder(nil, ""), format: c.Format, topic: c.Topic, out: std.err}
	n, err := check.all(ctx, lines)
	if err != nil {
		return err
	}
	sent, err := c.send(ctx, cfg, check, lines, n, std)
	if err != nil {
		return sendFailure(err, sent, n)
	}
	return c.report(std.out, sent)
}

// check refuses flags that don't go together.
func (c *sendCmd) check() error {
	own := c.Type + c.User + c.ID + c.Source + c.Time + c.System + c.Environment + c.Session + strings.Join(c.Prop, "")
	switch {
	case c.File != "" && (own != "" || c.Example != "" || c.Count != 1):
		return errors.New("send: events come either from a file or from flags, not from both")
	case c.File == "" && c.Type == "" && c.Example == "":
		return errors.New("send: nothing to send; give --type, --example or a file (- for standard input)")
	case c.Type != "" && c.Example != "":
		return errors.New("send: --example has a type already; leave out --type")
	case c.Count < 1:
		return fmt.Errorf("send: --count is %d; it has to be at least 1", c.Count)
	case c.Count > 1 && c.ID != "":
		return errors.New("send: several events with one --id would count as the same; leave out --count or --id")
	}
	return nil
}

// lines returns the events to send.
func (c *sendCmd) lines(catalog *event.Catalog, stdin io.Reader) (*eventLines, error) {
	if c.File != "" {
		return openLines(c.File, stdin)
	}
	props, err := parseProps(c.Prop)
	if err != nil {
		return nil, &codeError{exitUsage, err}
	}
	given := eventLine{
		ID: c.ID, Source: c.Source, Type: c.Type, Time: c.Time, System: c.System,
		Environment: c.Environment, User: c.User, Session: c.Session, Properties: props,
	}
	if c.Example == "" {
		return repeatLine(given, c.Count)
	}
	if _, ok := catalog.EventType(c.Example); !ok {
		return nil, &codeError{exitUsage, fmt.Errorf("send: there is no example of %s, since it is not in the catalog%s",
			c.Example, expression.DidYouMean(c.Example, typeNames(catalog)))}
	}
	return exampleLines(catalog, c.Example, given, c.Count)
}

// send writes the events and returns how many were acknowledged.
func (c *sendCmd) send(ctx context.Context, cfg stream.Config, check *checker, lines *eventLines, n int, std streams) (int, error) {
	if err := lines.rewind(); err != nil {
		return 0, err
	}
	producer, err := stream.NewProducer(cfg)
	if err != nil {
		return 0, err
	}
	defer producer.Close()
	progress := newProgress(std.err, n)
	defer progress.end()
	sent := 0
	for chunk := make([]pipeline.Record, 0, min(n, sendChunk)); ; chunk = chunk[:0] {
		for len(chunk) < sendChunk && lines.next() {
			r, _, err := check.record(ctx, lines.text)
			if err != nil {
				return sent, fmt.Errorf("%s has changed: %w", lines.at(), err)
			}
			chunk = append(chunk, r)
		}
		if len(chunk) == 0 || lines.err != nil {
			return sent, lines.err
		}
		if err := producer.Produce(ctx, chunk); err != nil {
			return sent, err
		}
		sent += len(chunk)
		progress.show(sent)
	}
}

// sendFailure says how far it came.
func sendFailure(err error, sent, n int) error {
	err = fmt.Errorf("sending: %w; %d of %d events were acknowledged, some of the next %d may be there too",
		err, sent, n, min(sendChunk, n-sent))
	if errors.Is(err, context.Canceled) {
		return &codeError{exitSignal, err}
	}
	return err
}

func (c *sendCmd) report(w io.Writer, sent int) error {
	if c.JSON {
		return printJSON(w, map[string]any{"topic": c.Topic, "acknowledged": sent})
	}
	_, err := fmt.Fprintf(w, "%d %s acknowledged by %s\n", sent, plural(sent, "event", "events"), c.Topic)
	return err
}

func plural(n int, one, many string) string {
	if n == 1 {
		return one
	}
	return many
}

// catalogInForce returns the catalog with the event types of users; the
// built-in one where `millrace init` has not run.
func catalogInForce(ctx context.Context, cfg stream.Config) (*event.Catalog, error) {
	topics, err := stream.DescribeTopics(ctx, cfg, cfg.Names.Definitions())
	if err != nil {
		return nil, err
	}
	if len(topics) == 0 {
		return event.BuiltinCatalog()
	}
	snapshot, err := current(ctx, cfg)
	if err != nil {
		return nil, err
	}
	return snapshot.Catalog, nil
}

// progress shows how far a long job is, on a terminal.
type progress struct {
	w     io.Writer // nil where nobody looks
	what  string
	total int
	next  time.Time
	shown bool
}

func newProgress(w io.Writer, total int) *progress {
	p := &progress{total: total, what: "events"}
	if s := newScreen(w); s.isTerminal() && total > sendChunk {
		p.w = w
	}
	return p
}

func (p *progress) show(done int) {
	if p.w == nil || time.Now().Before(p.next) {
		return
	}
	p.next, p.shown = time.Now().Add(200*time.Millisecond), true
	fmt.Fprintf(p.w, "\r%d of %d %s", done, p.total, p.what)
}

// end clears the line.
func (p *progress) end() {
	if p.shown {
		fmt.Fprint(p.w, "\r\x1b[K")
	}
}
