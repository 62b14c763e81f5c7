package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/millrace-io/millrace/pipeline/definition"
	"github.com/millrace-io/millrace/pipeline/expression"
	"github.com/millrace-io/millrace/pipeline/state"
	"github.com/millrace-io/millrace/pipeline/stream"
)

type destinationsCmd struct {
	List   destinationsListCmd   `cmd:"" help:"List all destinations with their states."`
	Show   destinationsShowCmd   `cmd:"" help:"Show the state of one, and what to do next."`
	Pause  destinationsPauseCmd  `cmd:"" help:"Have its deliveries wait until it is resumed."`
	Resume destinationsResumeCmd `cmd:"" help:"Call it again, after it was paused or disabled."`
}

// Help is shown by --help.
func (destinationsCmd) Help() string {
	return "A destination's state is apart from its definition: `apply` never resumes what a 401 has paused. Sinks pause a\n" +
		"destination that refuses its credentials or takes nothing, and disable one that says it is gone; its deliveries\n" +
		"wait, until it is resumed or their max_age.\n\n" +
		"Examples:\n  millrace destinations list\n  millrace destinations resume crm"
}

type destinationsListCmd struct {
	kafkaSettings
	JSON bool `help:"Print as JSON."`
}

// Help is shown by --help.
func (destinationsListCmd) Help() string {
	return "Examples:\n  millrace destinations list\n  millrace destinations list --json | jq '.[]'"
}

// Run lists destinations.
func (c *destinationsListCmd) Run(ctx context.Context, l *logSettings, std streams) error {
	cfg, err := c.connect(ctx, l, std.err)
	if err != nil {
		return err
	}
	defs, states, err := destinationStates(ctx, cfg)
	if err != nil {
		return err
	}
	rows := []standing{}
	for _, name := range destinationNames(defs) {
		rows = append(rows, standingOf(defs, states.State(name), time.Now()))
	}
	if c.JSON {
		return printJSON(std.out, rows)
	}
	w := tabwriter.NewWriter(std.out, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, "NAME\tSTATUS\tLANE\tPLATFORM\tSINCE\tBY\tWHY")
	for _, r := range rows {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", r.Name, r.Status, r.Lane, printable(r.Platform), clockDate(r.Since), printable(r.By), printable(r.Why))
	}
	return w.Flush()
}

type destinationsShowCmd struct {
	kafkaSettings
	Name string `arg:"" help:"Name of a destination."`
	JSON bool   `help:"Print as JSON."`
}

// Help is shown by --help.
func (destinationsShowCmd) Help() string {
	return "Example:\n  millrace destinations show crm"
}

// Run shows one destination.
func (c *destinationsShowCmd) Run(ctx context.Context, l *logSettings, std streams) error {
	cfg, err := c.connect(ctx, l, std.err)
	if err != nil {
		return err
	}
	defs, states, err := destinationStates(ctx, cfg)
	if err == nil {
		err = knowsDestination(defs, c.Name)
	}
	if err != nil {
		return err
	}
	r := standingOf(defs, states.State(c.Name), time.Now())
	if c.JSON {
		return printJSON(std.out, r)
	}
	w := tabwriter.NewWriter(std.out, 0, 4, 2, ' ', 0)
	for _, line := range r.lines() {
		if line[1] != "" {
			fmt.Fprintf(w, "%s\t%s\n", line[0], printable(line[1]))
		}
	}
	return w.Flush()
}

type destinationsPauseCmd struct {
	kafkaSettings
	Name string `arg:"" help:"Name of a destination."`
	Why  string `required:"" help:"Why, for whoever looks at it next." placeholder:"TEXT"`
}

// Help is shown by --help.
func (destinationsPauseCmd) Help() string {
	return "Sinks make no more calls to it within a moment; those under way end. Nothing is lost: its deliveries wait.\n\n" +
		"Example:\n  millrace destinations pause crm --why 'moves to another data centre until noon'"
}

// Run pauses a destination, unless it is paused or disabled already.
func (c *destinationsPauseCmd) Run(ctx context.Context, l *logSettings, std streams) error {
	why := strings.TrimSpace(printable(c.Why))
	if why == "" || len(why) > maxWhy {
		return &codeError{exitUsage, fmt.Errorf("pausing destination %q: --why takes a text of up to %d bytes", c.Name, maxWhy)}
	}
	now := time.Now().UTC().Truncate(time.Millisecond)
	was, asleep, err := c.change(ctx, l, std, c.Name, func(s state.State) (state.State, bool) {
		if !s.Callable() {
			return s, false
		}
		s.Destination, s.Status, s.By, s.Reason, s.Detail, s.Since = c.Name, state.Paused, author(), state.Operator, why, now
		return s, true
	})
	if err != nil {
		return err
	}
	if asleep {
		fmt.Fprintf(std.err, "note: the definition of %s says status: paused too, which only `millrace apply` changes\n", c.Name)
	}
	if !was.Callable() {
		fmt.Fprintf(std.out, "%s is %s already%s; nothing is changed\n", c.Name, was.Status, history(was))
		return nil
	}
	fmt.Fprintf(std.out, "%s is paused: its deliveries wait until `millrace destinations resume %[1]s`, or their max_age\n", c.Name)
	return nil
}

// maxWhy is how long a text an operator may give.
const maxWhy = 500

type destinationsResumeCmd struct {
	kafkaSettings
	Name string `arg:"" help:"Name of a destination."`
}

// Help is shown by --help.
func (destinationsResumeCmd) Help() string {
	return "Clears a pause or a disabling. Calls begin slowly, and get faster as long as they succeed; what has waited comes\n" +
		"back behind what is new. Mend first what `millrace destinations show` names, or it is paused again.\n\n" +
		"Example:\n  millrace destinations resume crm"
}

// Run resumes a destination.
func (c *destinationsResumeCmd) Run(ctx context.Context, l *logSettings, std streams) error {
	now := time.Now().UTC().Truncate(time.Millisecond)
	was, asleep, err := c.change(ctx, l, std, c.Name, func(s state.State) (state.State, bool) {
		if s.Callable() {
			return s, false
		}
		return state.State{Destination: c.Name, Status: state.Active, By: author(), Since: now, Back: now, Rate: s.Rate}, true
	})
	if err != nil {
		return err
	}
	const byApply = "its definition says status: paused, which only `millrace apply` changes"
	switch {
	case was.Callable() && asleep:
		fmt.Fprintf(std.out, "%s: there was nothing to resume; %s\n", c.Name, byApply)
	case was.Callable():
		fmt.Fprintf(std.out, "%s is neither paused nor disabled: there was nothing to resume%s\n", c.Name, breakerNote(was, now))
	case asleep:
		fmt.Fprintf(std.out, "%s is resumed, it was %s%s; but %s\n", c.Name, was.Status, history(was), byApply)
	default:
		fmt.Fprintf(std.out, "%s is resumed, it was %s%s; calls begin slowly\n", c.Name, was.Status, history(was))
	}
	return nil
}

// change changes the state of a destination that there is, and returns the one
// before, and whether the definition pauses it besides.
func (k *kafkaSettings) change(ctx context.Context, l *logSettings, std streams, name string, change state.Change) (was state.State, asleep bool, err error) {
	cfg, err := k.connect(ctx, l, std.err)
	if err != nil {
		return was, false, err
	}
	defs, err := current(ctx, cfg)
	if err == nil {
		err = knowsDestination(defs, name)
	}
	if err != nil {
		return was, false, err
	}
	d := defs.Destinations[name]
	asleep = d != nil && d.Status == definition.Paused
	w, err := state.OpenWriter(ctx, cfg)
	if err != nil {
		return was, asleep, err
	}
	defer w.Close()
	r := defs.Resources[definition.Key{Kind: definition.KindDestination, Name: name}]
	_, err = w.Change(ctx, map[string]state.Change{name: func(s state.State) (state.State, bool) {
		was = s.Of(r.Created)
		next, changed := change(was)
		next.Revision = r.Revision
		return next, changed
	}})
	if errors.Is(err, stream.ErrFenced) {
		err = &codeError{exitChanged, err}
	}
	return was, asleep, err
}

// knowsDestination says which destination may be meant where there is none of a
// name.
func knowsDestination(defs *definition.Snapshot, name string) error {
	known := destinationNames(defs)
	if slices.Contains(known, name) {
		return nil
	}
	return fmt.Errorf("there is no destination %q%s", name, expression.DidYouMean(name, known))
}

// destinationNames are those of all destinations in force, usable or not.
func destinationNames(defs *definition.Snapshot) (names []string) {
	for key := range maps.Keys(defs.Resources) {
		if key.Kind == definition.KindDestination {
			names = append(names, key.Name)
		}
	}
	slices.Sort(names)
	return names
}

// destinationStates reads the definitions in force and the states.
func destinationStates(ctx context.Context, cfg stream.Config) (*definition.Snapshot, *state.Snapshot, error) {
	defs, err := current(ctx, cfg)
	if err != nil {
		return nil, nil, err
	}
	live := state.NewLive(cfg)
	states, err := readOnce(ctx, live.Run, live.At)
	return defs, states, err
}
