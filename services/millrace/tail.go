package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/millrace-io/millrace/pipeline"
	"github.com/millrace-io/millrace/pipeline/definition"
	"github.com/millrace-io/millrace/pipeline/event"
	"github.com/millrace-io/millrace/pipeline/stream"
)

type tailCmd struct {
	kafkaSettings
	eventSettings
	Registry    registrySettings `embed:"" prefix:"registry-"`
	What        string           `arg:"" help:"What to watch: ${enum}." enum:"events,matches,deliveries,attempts,dead-letters" placeholder:"events|matches|deliveries|attempts|dead-letters"`
	Type        []string         `help:"Only these event types." placeholder:"GLOB"`
	User        []string         `help:"Only these users." placeholder:"GLOB"`
	Webhook     []string         `help:"Only these webhooks." placeholder:"GLOB"`
	Destination []string         `help:"Only these destinations." placeholder:"GLOB"`
	Reason      []string         `help:"Only dead letters for these reasons." placeholder:"GLOB"`
	Status      []string         `help:"Only attempts with this status (503), class (5xx) or outcome (success, retry, dead_letter, pause, disable)." placeholder:"STATUS"`
	Since       string           `help:"Begin with what was written then: 10m, 3d, or RFC 3339." placeholder:"AGO|TIME"`
	FromStart   bool             `help:"Begin with the oldest there is; otherwise with what comes from now on."`
	Count       int              `help:"End after that many." placeholder:"N"`
	JSON        bool             `help:"Print one JSON object a line."`
}

// Help is shown by --help.
func (tailCmd) Help() string {
	return "Reads beside the roles and takes nothing from them. Filters take patterns ('survey.*'); of several of one kind,\n" +
		"one has to fit. A ! stands behind a value that contradicts the catalog.\n\n" +
		"Examples:\n" +
		"  millrace tail events --type 'survey.*' --since 10m\n" +
		"  millrace tail attempts --status 4xx,5xx\n" +
		"  millrace tail dead-letters --from-start --webhook to-crm --json | jq .error\n" +
		"  millrace tail deliveries --count 1 --json"
}

// Run shows records until a signal.
func (c *tailCmd) Run(ctx context.Context, l *logSettings, std streams) error {
	filters, from, err := c.parse(time.Now())
	if err != nil {
		return &codeError{exitUsage, fmt.Errorf("tail: %w", err)}
	}
	cfg, err := c.connect(ctx, l, std.err)
	if ctx.Err() != nil {
		return nil //nolint:nilerr // a signal is the way to end it
	}
	if err != nil {
		return err
	}
	builtin, err := event.BuiltinCatalog()
	if err != nil {
		return err
	}
	t := &tail{
		cfg: cfg, live: definition.NewLive(cfg, builtin), view: views[c.What], filters: filters, from: from,
		out: newScreen(std.out), left: c.Count,
	}
	t.out.widths = slices.Clone(t.view.widths)
	if c.JSON {
		t.json = json.NewEncoder(std.out)
		t.json.SetEscapeHTML(false)
	}
	err = c.run(ctx, t)
	if errors.Is(err, errEnough) || ctx.Err() != nil {
		return nil //nolint:nilerr // likewise
	}
	return err
}

func (c *tailCmd) run(ctx context.Context, t *tail) error {
	ids, err := stream.OpenTopicIDs(ctx, t.cfg)
	if err != nil {
		return err
	}
	defer ids.Close()
	registry, err := c.Registry.open()
	if err != nil {
		return &codeError{exitUsage, err}
	}
	t.ids, t.decoder = ids, event.NewDecoder(registry, ids.Cluster())
	t.decoder.TopicID = ids.TopicID
	t.decoder.Mismatches = func(_, property string) { t.contradicts = append(t.contradicts, property) }
	t.group, ctx = errgroup.WithContext(ctx)
	t.group.Go(func() error { return t.live.Run(ctx) })
	t.group.Go(func() error { return c.read(ctx, t) })
	return t.group.Wait()
}

// read reads the topics of the view.
func (c *tailCmd) read(ctx context.Context, t *tail) error {
	names := t.cfg.Names
	topics := map[string][]string{
		"matches": {names.Matches()}, "attempts": {names.Attempts()}, "dead-letters": {names.DeadLetters()},
	}[c.What]
	var err error
	switch c.What {
	case "deliveries":
		return t.readLanes(ctx)
	case "events":
		topics, err = stream.EventTopics(ctx, t.cfg, c.Topics)
		if err == nil && len(topics) == 0 {
			err = fmt.Errorf("tail: no topic fits %s", strings.Join(c.Topics, ", "))
		}
		topics = append(topics, names.OperatorEvents())
	}
	if err != nil {
		return err
	}
	if _, err := t.live.At(ctx, 0); err != nil { // the catalog in force
		return err
	}
	return t.follow(ctx, t.from, topics)
}

// tailFilter is one kind of filter and its patterns.
type tailFilter struct {
	name     string
	patterns []string
}

// parse reads the filters and where to begin.
func (c *tailCmd) parse(now time.Time) ([]tailFilter, stream.Start, error) {
	from, err := c.start(now)
	if err != nil {
		return nil, from, err
	}
	filters := slices.DeleteFunc([]tailFilter{
		{"type", c.Type},
		{"user", c.User},
		{"webhook", c.Webhook},
		{"destination", c.Destination},
		{"reason", c.Reason},
		{"status", c.Status},
	}, func(f tailFilter) bool { return len(f.patterns) == 0 })
	for _, f := range filters {
		if err := f.check(c.What); err != nil {
			return nil, from, err
		}
	}
	return filters, from, nil
}

func (c *tailCmd) start(now time.Time) (stream.Start, error) {
	switch {
	case c.Since != "" && c.FromStart:
		return stream.Start{}, errors.New("--since and --from-start exclude each other")
	case c.FromStart:
		return stream.FromStart(), nil
	case c.Since == "":
		return stream.FromEnd(), nil
	}
	at, err := parseSince(c.Since, now)
	return stream.FromTime(at), err
}

// parseSince reads a length of time before now, or a time.
func parseSince(text string, now time.Time) (time.Time, error) {
	if d, err := definition.ParseDuration(text); err == nil && d >= 0 {
		return now.Add(-time.Duration(d)), nil
	}
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return at, fmt.Errorf("--since %q: expected how long ago (10m, 3d) or a time (2026-01-31T08:00:00Z)", text)
	}
	return at, nil
}

var statusPattern = regexp.MustCompile(`^([1-5]\d\d|[1-5]xx|success|retry|dead_letter|pause|disable)$`)

// check refuses a filter that nothing can pass.
func (f tailFilter) check(what string) error {
	if !slices.Contains(views[what].filters, f.name) {
		var with []string
		for _, name := range slices.Sorted(maps.Keys(views)) {
			if slices.Contains(views[name].filters, f.name) {
				with = append(with, name)
			}
		}
		return fmt.Errorf("--%s does not work with %s, only with %s", f.name, what, strings.Join(with, ", "))
	}
	for _, p := range f.patterns {
		if _, err := path.Match(p, ""); err != nil {
			return fmt.Errorf("--%s %q: a [ has no end", f.name, p)
		}
		if f.name == "status" && !statusPattern.MatchString(p) {
			return fmt.Errorf("--status %q: expected a status (503), a class (5xx) or an outcome (success, retry, dead_letter, pause, disable)", p)
		}
	}
	return nil
}

// passes says whether one of the values fits one of the patterns.
func (f tailFilter) passes(values []string) bool {
	return slices.ContainsFunc(f.patterns, func(p string) bool {
		return slices.ContainsFunc(values, func(v string) bool {
			ok, err := path.Match(p, v)
			return err == nil && ok
		})
	})
}

// errEnough ends reading after --count.
var errEnough = errors.New("enough")

// tail shows the records of a view.
type tail struct {
	cfg     stream.Config
	live    *definition.Live
	ids     *stream.TopicIDs
	decoder *event.Decoder
	group   *errgroup.Group
	view    view
	filters []tailFilter
	from    stream.Start

	mu          sync.Mutex // of all below: lanes are read side by side
	out         *screen
	json        *json.Encoder // nil: for people
	left        int           // how many to show until the end; 0 is no end
	headed      bool
	contradicts []string // properties of the event being read
}

// readLanes reads every lane, new ones too.
func (t *tail) readLanes(ctx context.Context) error {
	reading := map[string]bool{}
	from := t.from
	for offset := int64(0); ; {
		defs, err := t.live.At(ctx, offset)
		if err != nil {
			return err
		}
		var topics []string
		for _, lane := range defs.Lanes() {
			if !reading[lane] {
				reading[lane] = true
				topics = append(topics, t.cfg.Names.Deliveries(lane), t.cfg.Names.Redeliveries(lane))
			}
		}
		if len(topics) > 0 {
			start := from
			t.group.Go(func() error { return t.follow(ctx, start, topics) })
		}
		from, offset = stream.FromStart(), defs.Offset+1 // a lane that is new is empty
	}
}

func (t *tail) follow(ctx context.Context, from stream.Start, topics []string) error {
	return stream.Read(ctx, t.cfg, topics, from, func(r pipeline.Record) error { return t.show(ctx, &r) })
}

// show shows one record, if it passes the filters.
func (t *tail) show(ctx context.Context, r *pipeline.Record) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	s, err := t.view.read(ctx, t, r)
	if err != nil {
		return err
	}
	for _, f := range t.filters {
		if !f.passes(s.values[f.name]) {
			return nil
		}
	}
	if err := t.print(s); err != nil {
		return fmt.Errorf("writing: %w", err)
	}
	if t.left--; t.left == 0 {
		return errEnough
	}
	return nil
}

func (t *tail) print(s shown) error {
	if t.json != nil {
		return t.json.Encode(s.object)
	}
	if !t.headed && t.out.isTerminal() {
		t.headed = true
		var head []cell
		for _, h := range t.view.head {
			head = append(head, cell{h, dim})
		}
		if err := t.out.line(head, cell{t.view.rest, dim}); err != nil {
			return err
		}
	}
	return t.out.line(s.cells, s.rest...)
}

// place is where a record lies.
func place(r *pipeline.Record) string {
	return fmt.Sprintf("%s/%d@%d", r.Topic, r.Partition, r.Offset)
}

// catalog is the one in force.
func (t *tail) catalog() *event.Catalog { return t.live.Snapshot().Catalog }

// orDash stands for what is missing.
func orDash(text string) string { return cmp.Or(text, "-") }
